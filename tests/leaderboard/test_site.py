"""The HTML page in headless Chromium, by clicking."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from synthetic import references, result, store, with_gates

from grun_bench.core import registry
from grun_bench.leaderboard import site
from grun_bench.leaderboard.pages import render, write
from grun_bench.results.filed import save_records
from grun_bench.results.record import Continuation, Generation, Record, Records
from grun_bench.results.result import RecordsFile, Result, TunedBy, UnlearnerInfo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no chromium with chromedriver (apt-get install chromium-driver)"
    ),
]
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
)
NASTY = "<img src=x onerror=document.title='hacked'>&lt;b&gt;"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four boards: of ranked rows with attacks and answers, of another task, toy ones, and one without a method."""
    out = tmp_path_factory.mktemp("leaderboards")
    tree = out / "results"
    attacks: dict[str, Any] = {"prefix": ("user", {"please": 0.4, "role": 0.2}), "relearn": ("weights", {"8": 0.8})}
    rows = [result("grun+npo", es=0.1 + seed / 10, utility=0.75, seed=seed, attacks=attacks) for seed in (0, 1)]
    rows += [
        result("lora+npo", es=0.3, utility=0.74),
        result("lora+ga", es=0.0, utility=0.2),
        result("full+idk", es=0.5, utility=0.79, settings={"lr": 0.5}),
        result("full+idk", es=0.6, utility=0.7, settings={"lr": 0.25}),
    ]
    rows = [answering(one, tree) for one in (*references(), *rows)]
    store(
        [*references(task="bare"), *rows, *references(dataset="embedded"), result("reft+npo", dataset="embedded")], tree
    )
    gated = with_gates(result("grun+gd", task="words"), 0.9, none={"forget": 0.1, "retain": 0.2})
    tuned = TunedBy(trials=20, on="validation of words", seed=1000)
    chosen = UnlearnerInfo(name="grun+gd", settings={"lr": 0.5}, tuned=tuned)
    other = result("grun+gd", task="words", settings={"lr": 0.5}).model_copy(update={"unlearner": chosen})
    store([*references(task="words"), gated, other], tree)
    bundle = tree / "submissions" / "nasty"
    store([result(NASTY.replace("/", ""), es=0.2, utility=0.77)], bundle / "results")
    card = {"name": NASTY, "paper": "https://arxiv.org/abs/2502.17823", "code": "javascript:document.title='hacked'"}
    (bundle / "card.json").write_text(json.dumps(card))
    write(render(tree, out), out)
    return out


def answering(one: Result, tree: Path) -> Result:
    """The result with records in the tree: each model says its name, and under attack how it was asked."""
    name = one.unlearner.name
    path = tree / one.task / one.model.replace("/", "__") / name / f"{one.run_id}.json"

    def save(said: str, *parts: str) -> RecordsFile:
        rows = [
            Record("forget", n, f"question {n}?", Continuation(f"right {n}"), generation=Generation(said))
            for n in range(4)
        ]
        return save_records(path, Records(rows), *parts)

    attacks = {
        attack: info.model_copy(
            update={"variants": {way: save(f"{name} asked by {way}", attack, way) for way in info.variants}}
        )
        for attack, info in one.attacks.items()
    }
    return one.model_copy(update={"records": save(f"{name} asked"), "attacks": attacks})


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, folder: Path) -> Any:
    visit(browser, folder)
    return browser


def visit(browser: Any, folder: Path, address: str = "") -> None:
    """Load the page, anew, with this behind the #, and wait until it is ready."""
    browser.get("about:blank")
    browser.get(f"{(folder / 'index.html').as_uri()}{'#' if address else ''}{address}")
    until(lambda: browser.execute_script("return document.documentElement.dataset.ready"))


def until(true: Callable[[], Any]) -> Any:
    """What comes when it is true, within five seconds."""
    for _ in range(100):
        if found := true():
            return found
        time.sleep(0.05)
    raise AssertionError("did not come true")


def opened(find: Callable[..., list[Any]], within: Any) -> Any:
    """The one opened row of a board, once it is filled."""
    until(lambda: find(".blocks > *", within))
    (more,) = find("tr.more", within)
    return more


@pytest.fixture
def find(page: Any) -> Callable[..., list[Any]]:
    """The shown elements of a CSS selector."""

    def found(selector: str, within: Any = None) -> list[Any]:
        return [one for one in (within or page).find_elements("css selector", selector) if one.is_displayed()]

    return found


Find = Callable[..., list[Any]]


def board(find: Find, task: str = "letters", part: str = "real") -> Any:
    (found,) = find(f'.board[data-task="{task}"][data-part="{part}"]')
    return found


def names(find: Find, within: Any) -> list[str]:
    return [label.text for label in find("tr.row .label", within)]


def row(find: Find, within: Any, name: str) -> Any:
    return next(one for one in find("tr.row", within) if find(".label", one)[0].text == name)


def choose(page: Any, field: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    Select(page.find_element("id", field)).select_by_visible_text(value)


#: how addresses of the browser's own pages begin
_OWN = ("chrome:", "chrome-untrusted:")


def test_the_page_asks_for_nothing_and_nothing_goes_wrong(page: Any, folder: Path) -> None:
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    sent = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    requests = [message["params"] for message in sent if message["method"] == "Network.requestWillBeSent"]
    # the browser's own start page asks too
    asked = {each["request"]["url"] for each in requests if not each["documentURL"].startswith(_OWN)}
    assert (folder / "index.html").as_uri() in asked and asked <= {
        (folder / "index.html").as_uri(),
        "data:,",
        "about:blank",
    }
    assert not [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert page.title == "Unlearning leaderboards"
    assert (
        page.execute_script("return document.querySelectorAll('[src], link:not([rel=icon]), object, iframe').length")
        == 0
    )
    # even a script that got into the page would not run
    page.execute_script(
        "const s = document.createElement('script'); s.textContent = 'document.title = 1'; document.body.append(s)"
    )
    assert page.title == "Unlearning leaderboards"


def test_rows_are_in_the_order_of_their_ranks(find: Find) -> None:
    shown = names(find, board(find))
    # 0.0 of lora+ga is below the floor of utility; 0.4 is grun+npo under attack
    nasty = NASTY.replace("/", "")
    assert shown == ["target model", "retain model", nasty, "lora+npo", "grun+npo", "full+idk", "full+idk", "lora+ga"]


@pytest.mark.long
def test_a_click_on_a_heading_sorts_and_keeps_the_references_on_top(page: Any, find: Find) -> None:
    of = board(find)
    button = next(one for one in find("th button", of) if one.text.startswith("utility"))
    button.click()
    numbers = [float(one.text.split()[0]) for one in find("tr.row td:nth-child(5)", of)]
    assert numbers[:2] == [0.8, 0.78] and numbers[2:] == sorted(numbers[2:], reverse=True)
    button.click()
    numbers = [float(one.text.split()[0]) for one in find("tr.row td:nth-child(5)", of)]
    assert numbers[2:] == sorted(numbers[2:])
    assert button.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    next(one for one in find("th button", of) if one.text == "unlearner").click()
    assert names(find, of)[2:] == sorted(names(find, of)[2:], key=str.lower)


@pytest.mark.long
def test_filters_leave_what_fits(page: Any, find: Find) -> None:
    assert len(find(".board")) == 3 and page.find_element("id", "count").text == "17 rows"
    choose(page, "adapter", "lora")
    assert names(find, board(find)) == ["target model", "retain model", "lora+npo", "lora+ga"]
    points = {one.get_attribute("data-row") for one in find("g.pt", board(find))}
    assert points == {one.get_attribute("data-row") for one in find("tr.row", board(find))}
    assert len(find(".board")) == 1 and page.find_element("id", "count").text == "2 rows"
    page.find_element("id", "search").send_keys("npo")
    assert names(find, board(find)) == ["target model", "retain model", "lora+npo"]
    choose(page, "task", "words")
    assert not find(".board") and not find(".part") and find("#empty")
    find("#reset")[0].click()
    assert len(find(".board")) == 3
    choose(page, "part", "toy")
    assert names(find, board(find, part="toy"))[2:] == ["reft+npo"] and len(find(".board")) == 1
    assert find(".part")[0].text.startswith("Toy results")
    choose(page, "part", "all")
    choose(page, "settings", "tuned")
    assert names(find, board(find, task="words")) == ["target model", "retain model", "grun+gd"]
    assert len(find(".board")) == 1
    choose(page, "settings", "all")
    choose(page, "model", "org/small")
    assert len(find(".board")) == 4


@pytest.mark.long
def test_a_row_opens_its_runs_attacks_settings_and_records(page: Any, find: Find, folder: Path) -> None:
    of = board(find)
    grun = row(find, of, "grun+npo")
    find(".open", grun)[0].click()
    more = opened(find, of)
    titles = [one.text for one in find("h4, summary", more)]
    assert titles[0].startswith("What is said to questions of the forget set")
    assert titles[1:5] == ["Attacks", "Other metrics", "Method and settings", "Runs"]
    assert titles[5:] == ["Not measured", "Attacks, each way of asking", "Settings of attacks"]
    for fold in find("summary", more):
        fold.click()
    runs = [
        [cell.text for cell in line.find_elements("css selector", "td")]
        for line in more.find_elements("xpath", ".//h4[text()='Runs']/..//tbody/tr")
    ]
    assert [line[0] for line in runs] == ["0", "1"] and runs[1][2] == "0.200"
    for wanted in ("prefix", "please", "relearn", "weights", "words=3", "lr", "0.001"):
        assert wanted in more.text
    links = [one.get_attribute("href") for one in find("a", more)]
    stored = [link for link in links if link.endswith(".json")]
    assert len(stored) == 2 and all(
        (folder / Path(link.removeprefix(folder.as_uri() + "/"))).is_file() for link in stored
    )
    # of two runs, and of the three variants of attacks
    assert sum(link.endswith(".records.jsonl.bz2") for link in links) == 5
    find(".open", grun)[0].send_keys("\n")
    assert not find("tr.more", of)


@pytest.mark.long
def test_a_gated_row_shows_where_its_gates_open(page: Any, find: Find) -> None:
    words = board(find, "words")
    find(".open", row(find, words, "grun+gd"))[0].click()
    more = opened(find, words)
    for fold in find("summary", more):
        fold.click()
    (picture,) = find("img", more)
    assert picture.get_property("complete") and picture.get_property("naturalWidth") == 760
    lines = [line.text.split() for line in find("tbody tr", more)]
    assert ["forget", "8", "0.90", "0.90", "0.90", "0.10", "0.875"] in lines
    assert ["retain", "8", "0.90", "0.90", "0.90", "0.20", "0.875"] in lines


def test_a_point_shows_its_row_and_opens_it(page: Any, find: Find) -> None:
    from selenium.webdriver import ActionChains

    of = board(find)
    lora = row(find, of, "lora+npo")
    (point,) = find(f'g.pt[data-row="{lora.get_attribute("data-row")}"]', of)
    ActionChains(page).move_to_element(point).perform()
    (tip,) = find("#tip")
    assert tip.text.startswith("lora+npo\n") and "0.300" in tip.text and "0.740" in tip.text
    assert "on" in lora.get_attribute("class").split()
    point.click()
    more = opened(find, of)
    assert more.find_element("xpath", "preceding-sibling::tr[1]").get_attribute("data-row") == lora.get_attribute(
        "data-row"
    )


def test_a_submission_shows_its_card_as_text(page: Any, find: Find) -> None:
    of = board(find)
    find(".open", row(find, of, NASTY.replace("/", "")))[0].click()
    more = opened(find, of)
    assert "Submission nasty" in more.text and NASTY in more.text
    links = {one.text: one.get_attribute("href") for one in find("a", more)}
    assert links["https://arxiv.org/abs/2502.17823"] == "https://arxiv.org/abs/2502.17823"
    assert not any(link.startswith("javascript") for link in links.values())
    assert page.title == "Unlearning leaderboards"


def test_answers_stand_side_by_side(find: Find) -> None:
    """Of the first seed: target model, the row, the row under its worst attack, retain model."""
    of = board(find)
    find(".open", row(find, of, "grun+npo"))[0].click()
    table = find(".texts", opened(find, of))[0]
    told = dict(
        zip(
            (one.text for one in find("th", table)),
            (one.text for one in find("tbody tr:first-child td", table)),
            strict=True,
        )
    )
    assert told == {
        "question": "question 0?",
        "right answer": "right 0",
        "target model": "none asked",
        "grun+npo": "grun+npo asked",
        "grun+npo under prefix": "grun+npo asked by please",
        "retain model": "retain asked",
    }


def test_a_board_without_a_method_is_folded_away(page: Any, find: Find) -> None:
    (fold,) = find(".bare > summary")
    assert "bare" in fold.text and not find('.board[data-task="bare"]')
    first = find(".board")[0]
    assert first.get_attribute("data-task") == "letters" and first.get_attribute("data-part") == "real"
    choose(page, "task", "bare")
    assert names(find, board(find, "bare")) == ["target model", "retain model"] and len(find(".board")) == 1


@pytest.mark.long
def test_the_address_keeps_what_is_shown(page: Any, find: Find, folder: Path) -> None:
    """Filters, order, opened rows: typed, read from the address, and again on another page of the same address."""
    of = board(find)
    page.find_element("id", "search").send_keys("npo")
    next(one for one in find("th button", of) if one.text.startswith("utility")).click()
    find(".open", row(find, of, "lora+npo"))[0].click()
    opened(find, of)
    shown, address = names(find, of), page.current_url.partition("#")[2]
    assert "search=npo" in address and ".utility.descending" in address and "open=" in address
    visit(page, folder, address)
    of = board(find)
    assert names(find, of) == shown and page.find_element("id", "search").get_attribute("value") == "npo"
    before = opened(find, of).find_element("xpath", "preceding-sibling::tr[1]")
    assert find(".label", before)[0].text == "lora+npo" and before.get_attribute("class").startswith("row")
    # going on to another address of the page, as back and forward do
    page.execute_script("location.hash = 'adapter=grun'")
    until(lambda: names(find, board(find)) == ["target model", "retain model", "grun+npo"])
    assert not find("tr.more") and not find('th[aria-sort="descending"]')
    visit(page, folder, "about=g-metric-gate")
    assert page.switch_to.active_element.get_attribute("id") == "g-metric-gate"


def test_an_address_that_names_nothing_shows_the_page(page: Any, folder: Path, find: Find) -> None:
    page.get_log("browser")  # what earlier tests left
    visit(page, folder, "sort=x.y.z,&open=%3Cb%3E&about=g-nothing&task=none&search=%27%22%3E%3Cimg%20src=x")
    assert find("#empty") and not [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]


def test_settings_are_found(page: Any, find: Find) -> None:
    page.find_element("id", "search").send_keys("lr=0.25")
    assert names(find, board(find)) == ["target model", "retain model", "full+idk"]


@pytest.mark.long
def test_the_keyboard_alone_is_enough(page: Any, find: Find, folder: Path) -> None:
    """Tab to a heading, whose meaning shows, sort by it, open a row, reach a link in it and close it again."""
    from selenium.webdriver import ActionChains, Keys

    def press(*keys: str) -> Any:
        ActionChains(page).send_keys(*keys).perform()
        return page.switch_to.active_element

    def reach(true: Callable[[Any], bool]) -> Any:
        for _ in range(60):
            if true(one := press(Keys.TAB)):
                return one
        raise AssertionError("not reached")

    heading = reach(lambda one: one.get_attribute("data-key") == "n")
    (tip,) = find("#tip")
    described = page.find_element("id", heading.get_attribute("aria-describedby"))
    assert tip.text == described.get_property("textContent") and "seeds" in tip.text
    press(Keys.ESCAPE)
    assert not find("#tip")
    press(Keys.ENTER)
    assert heading.find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    button = reach(lambda one: one.get_attribute("class") == "open")
    press(Keys.ENTER)
    more = opened(find, board(find))
    assert button.get_attribute("aria-expanded") == "true"
    reach(lambda one: one.tag_name == "a" and one in find("a", more))
    button.send_keys(Keys.ENTER)
    assert not find("tr.more")
    point = reach(lambda one: one.tag_name == "g") if not find("g.pt:focus") else find("g.pt:focus")[0]
    assert point.get_attribute("role") == "button"


def test_every_heading_says_what_it_is(page: Any, find: Find) -> None:
    """Of metrics as their docstrings say, which the glossary has whole."""
    told = page.execute_script(
        """
        return [...document.querySelectorAll('th button')].map((button) => {
          const entry = document.getElementById(button.getAttribute('aria-describedby'));
          return [button.dataset.key, entry && entry.textContent];
        })
        """
    )
    unknown = {key for key, text in told if not text}
    assert unknown == {"forget_es", "utility"}  # no metrics of the package
    assert dict(told)["forget_quality"] == registry.entries("metric")["forget_quality"].summary
    whole = page.find_element("id", "g-metric-gate").get_property("textContent")
    assert "sigmoid(g(h))" in whole and "forget gate" in whole


@contextmanager
def seen(page: Any, width: int, scheme: str) -> Iterator[None]:
    """The page at a width, in light or dark."""
    emulate = page.execute_cdp_cmd
    emulate("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    emulate(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        yield
    finally:
        emulate("Emulation.clearDeviceMetricsOverride", {})
        emulate("Emulation.setEmulatedMedia", {"features": []})


@pytest.mark.long
@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_legible(page: Any, find: Find, folder: Path, scheme: str, width: int) -> None:
    """Nothing sticks out sideways, no number is broken, and every text stands out from its ground by 4.5 to 1 (WCAG
    2.1, 1.4.3), with rows of three kinds opened, all folds too, and a tip shown."""
    with seen(page, width, scheme):
        ids = [one.get_attribute("data-row") for one in page.find_elements("css selector", "tr.row")]
        visit(page, folder, f"open={','.join(ids)}")
        until(lambda: len(page.find_elements("css selector", "tr.more .blocks > *")) > len(ids))
        page.execute_script("for (const fold of document.querySelectorAll('details')) fold.open = true")
        page.execute_script("document.querySelector('th button').focus()")
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        broken, colours = page.execute_script(
            r"""
            const clear = (e) => /rgba\(0, 0, 0, 0\)|transparent/.test(getComputedStyle(e).backgroundColor);
            const ground = (e) => (e.parentElement && clear(e) ? ground(e.parentElement) : e);
            const broken = [], colours = new Set();
            const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            for (let text = walk.nextNode(); text; text = walk.nextNode()) {
              const e = text.parentElement;
              if (!text.data.trim() || !e.checkVisibility() || /SCRIPT|STYLE|OPTION/.test(e.tagName)) continue;
              const svg = e.closest('svg');
              const own = getComputedStyle(e);
              colours.add([e.className.baseVal ?? (e.className || e.tagName), svg ? own.fill : own.color,
                getComputedStyle(ground(svg || e)).backgroundColor].join('|'));
              for (const found of text.data.matchAll(/[-\d.,e]*\d( \/ |, )?[\d.e-]*/g)) {
                const range = document.createRange();
                range.setStart(text, found.index);
                range.setEnd(text, found.index + found[0].length);
                const lines = new Set([...range.getClientRects()].map((box) => Math.round(box.bottom)));
                if (lines.size > 1 && e.closest('table:not(.texts)')) broken.push(text.data);
              }
            }
            return [broken, [...colours]];
            """
        )
        assert not broken
        assert len(colours) > 20
        low = {each for each in colours if contrast(*each.split("|")[1:]) < 4.5}
        assert not low


@pytest.mark.long
def test_on_a_phone_filters_are_folded(page: Any, find: Find, folder: Path) -> None:
    with seen(page, 390, "light"):
        visit(page, folder)
        assert not find("#search")
        (fold,) = find(".filters summary")
        fold.click()
        assert find("#search") and find("#task")
        visit(page, folder, "adapter=lora")  # what is filtered is not hidden
        assert find("#adapter")
    visit(page, folder)
    assert find("#search") and not find(".filters summary")


@pytest.mark.long
def test_many_tables_are_packed_and_work_as_few_do(
    browser: Any, folder: Path, find: Find, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "PLAIN", 0)
    (tmp_path / "index.html").write_text(render(folder / "results", tmp_path).site)
    visit(browser, tmp_path, "adapter=lora")
    of = board(find)
    assert names(find, of) == ["target model", "retain model", "lora+npo", "lora+ga"]
    find(".open", row(find, of, "lora+npo"))[0].click()
    assert (
        "lr" in opened(find, of).text
        and "lora+npo" not in (tmp_path / "index.html").read_text().partition("<main>")[2].partition("glossary")[0]
    )


def contrast(one: str, other: str) -> float:
    """WCAG 2.1's contrast ratio of two CSS colours, `rgb(0-255 ...)` or `color(srgb 0-1 ...)`."""
    lights = sorted(map(luminance, (one, other)), reverse=True)
    return (lights[0] + 0.05) / (lights[1] + 0.05)


def luminance(colour: str) -> float:
    import re

    parts = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    parts = parts if colour.startswith("color(") else [part / 255 for part in parts]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
