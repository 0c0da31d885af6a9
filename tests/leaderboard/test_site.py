"""The HTML page in headless Chromium, by clicking."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from synthetic import references, result, store, with_gates

from grun_bench.leaderboard.pages import render, write
from grun_bench.results.result import TunedBy, UnlearnerInfo

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
    """Three boards: five ranked rows with attacks, a toy one, and one of another task."""
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
    store([*references(), *rows, *references(dataset="embedded"), result("reft+npo", dataset="embedded")], tree)
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
    browser.get((folder / "index.html").as_uri())
    return browser


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


def test_the_page_asks_for_nothing_and_nothing_goes_wrong(page: Any, folder: Path) -> None:
    assert page.execute_script("return performance.getEntriesByType('resource').length") == 0
    sent = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    requests = [message["params"] for message in sent if message["method"] == "Network.requestWillBeSent"]
    # the browser's own start page asks too
    asked = {each["request"]["url"] for each in requests if not each["documentURL"].startswith("chrome:")}
    assert (folder / "index.html").as_uri() in asked and asked <= {(folder / "index.html").as_uri(), "data:,"}
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


def test_a_click_on_a_heading_sorts_and_keeps_the_references_on_top(page: Any, find: Find) -> None:
    of = board(find)
    button = next(one for one in find("th button", of) if one.text.startswith("utility"))
    button.click()
    numbers = [float(one.get_attribute("data-v")) for one in find("tr.row td:nth-child(5)", of)]
    assert numbers[:2] == [0.8, 0.78] and numbers[2:] == sorted(numbers[2:], reverse=True)
    button.click()
    numbers = [float(one.get_attribute("data-v")) for one in find("tr.row td:nth-child(5)", of)]
    assert numbers[2:] == sorted(numbers[2:])
    assert button.find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    next(one for one in find("th button", of) if one.text == "unlearner").click()
    assert names(find, of)[2:] == sorted(names(find, of)[2:], key=str.lower)


def test_filters_leave_what_fits(page: Any, find: Find) -> None:
    assert len(find(".board")) == 3 and page.find_element("id", "count").text == "15 rows"
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
    assert len(find(".board")) == 3


def test_a_row_opens_its_runs_attacks_settings_and_records(page: Any, find: Find, folder: Path) -> None:
    of = board(find)
    grun = row(find, of, "grun+npo")
    find(".open", grun)[0].click()
    (more,) = find("tr.more", of)
    assert [one.text for one in find("h4", more)] == ["Runs", "Attacks", "Settings", "Other metrics"]
    runs = [
        [cell.text for cell in line.find_elements("css selector", "td")]
        for line in find(".blocks > div:first-child tbody tr", more)
    ]
    assert [line[0] for line in runs] == ["0", "1"] and runs[1][2] == "0.200"
    for wanted in ("prefix", "· please", "relearn", "weights", "words=3", "lr", "0.001"):
        assert wanted in more.text
    links = [one.get_attribute("href") for one in find("a", more)]
    stored = [link for link in links if link.endswith(".json")]
    assert len(stored) == 2 and all(
        (folder / Path(link.removeprefix(folder.as_uri() + "/"))).is_file() for link in stored
    )
    # of two runs, and of the three variants of attacks
    assert sum(link.endswith(".records.jsonl.gz") for link in links) == 5
    find(".open", grun)[0].click()
    assert not find("tr.more", of)


def test_a_gated_row_shows_where_its_gates_open(page: Any, find: Find) -> None:
    words = board(find, "words")
    find(".open", row(find, words, "grun+gd"))[0].click()
    (more,) = find("tr.more", words)
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
    (more,) = find("tr.more", of)
    assert more.find_element("xpath", "preceding-sibling::tr[1]").get_attribute("data-row") == lora.get_attribute(
        "data-row"
    )


def test_a_submission_shows_its_card_as_text(page: Any, find: Find) -> None:
    of = board(find)
    find(".open", row(find, of, NASTY.replace("/", "")))[0].click()
    (more,) = find("tr.more", of)
    assert "Submission nasty" in more.text and NASTY in more.text
    links = {one.text: one.get_attribute("href") for one in find("a", more)}
    assert links["https://arxiv.org/abs/2502.17823"] == "https://arxiv.org/abs/2502.17823"
    assert not any(link.startswith("javascript") for link in links.values())
    assert page.title == "Unlearning leaderboards"


@pytest.mark.parametrize("width", [360, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_legible(page: Any, find: Find, scheme: str, width: int) -> None:
    """Nothing sticks out sideways, and text stands out from its ground by 4.5 to 1 (WCAG 2.1, 1.4.3)."""
    emulate = page.execute_cdp_cmd
    emulate("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    emulate(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        colours = page.execute_script(
            """
            const clear = (e) => /rgba\\(0, 0, 0, 0\\)|transparent/.test(getComputedStyle(e).backgroundColor);
            const ground = (e) => (e.parentElement && clear(e) ? ground(e.parentElement) : e);
            const texts = 'h1, h3, .meta, .label, .ci, .shown, .mark, .tag, th button, td, .part p, li';
            return [...document.querySelectorAll(texts)].filter((e) => e.offsetParent).map((e) => [
              e.className || e.tagName, getComputedStyle(e).color, getComputedStyle(ground(e)).backgroundColor]);
            """
        )
        assert len(colours) > 50
        low = {(what, text, ground) for what, text, ground in colours if contrast(text, ground) < 4.5}
        assert not low
    finally:
        emulate("Emulation.clearDeviceMetricsOverride", {})
        emulate("Emulation.setEmulatedMedia", {"features": []})


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
