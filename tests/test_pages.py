"""README and docs: what they tell to type is understood, what they name is there, the site builds without a warning."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from conftest import Command

from grun_bench.cli import ParserError, app
from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.core.plugins import Kind
from grun_bench.tasks.yaml_files import task_files

ROOT = Path(__file__).parent.parent
PAGES = [
    *("README.md", "CONTRIBUTING.md", "RECIPES.md", "CHANGELOG.md", "SECURITY.md"),
    *("tasks/README.md", "leaderboards/SUBMITTING.md"),
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))),
]
#: names that pages give to what a reader writes
OWN_NAMES = {"unlikelihood", "margin", "npo-mean", "shout", "shrink-head"}
COMMANDS: Any = typer.main.get_command(app)


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The fenced blocks of a page: language and text."""
    text = (ROOT / page).read_text()
    yield from re.findall(r"^```([^\n]*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def typed(script: str) -> Iterator[list[str]]:
    """The calls of grun-bench in shell lines, as lists of their words; what the shell puts in is a 0."""
    script = re.sub(r"\$\w+|\$\{[^}]*\}", "0", script.replace("\\\n", " "))
    while script != (inner := re.sub(r"\$\([^()]*\)", "0", script)):
        script = inner
    for line in script.splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        words.whitespace_split, words.commenters = True, "#"
        call: list[str] = []
        for word in [*words, ";"]:
            if set(word) <= set("();<>|&") and word:
                if "grun-bench" in call:
                    yield call[call.index("grun-bench") + 1 :]
                call = []
            else:
                call.append(word)


def understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The parameters that the command line reads from a call, which is not made. Raises its errors."""
    monkeypatch.setattr(registry, "including", lambda paths: nullcontext())
    command = COMMANDS.commands[words[0]]
    with command.make_context(words[0], words[1:]) as context:
        return dict(context.params)


CALLS = [
    pytest.param(words, id=f"{page}: {' '.join(words)[:70]}")
    for page in PAGES
    for language, text in blocks(page)
    if language == "sh"
    for words in typed(text)
]


CALLS += [
    pytest.param(words, id=f"{path.name}: {' '.join(words)[:70]}")
    for path in sorted((ROOT / "examples").glob("*.sh"))
    for words in typed(path.read_text().partition("python - <<")[0])
]


@pytest.mark.parametrize("words", CALLS)
def test_what_pages_tell_to_type_is_understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands and options are there, values are of their types, and methods, tasks and attacks have these names."""
    given = understood(words, monkeypatch)
    unlearners = given.get("unlearner") or []
    for name in [unlearners] if isinstance(unlearners, str) else unlearners:
        if not OWN_NAMES & set(name.split("+")):
            registry.parse_unlearner(name)
    tasks = given.get("task") or []
    for task in [tasks] if isinstance(tasks, str) else tasks:
        assert task in task_files(()) or task.endswith(".yaml")
    attacks = given.get("attacks") or "none"
    if attacks != "none" and attacks not in OWN_NAMES:
        registry.attack_names(attacks, ())


def test_the_sweep_among_the_examples_is_its_runs(command: Command, tmp_path: Path) -> None:
    """Three seeds of one method as it is and of one with two rates, none of them made yet."""
    said = command("sweep", ROOT / "examples" / "sweep.yaml", "--output", tmp_path, "--status")
    rows = [line for line in said.out.splitlines() if "waiting" in line]
    assert said.code == 0 and [sum(name in row for row in rows) for name in ("grun-held+npo", "lora+npo")] == [3, 6]


def test_the_real_boards_sweep_is_every_attack_of_a_user(command: Command, tmp_path: Path) -> None:
    """Thirteen methods of three seeds and their controls; only `alias` has no rows of real data."""
    file = ROOT / "leaderboards" / "smollm2.yaml"
    said = command("sweep", file, "--output", tmp_path, "--status")
    assert said.code == 0 and "42 runs: 42 waiting" in said.out + said.err
    users = {name for name in registry.names("attack") if registry.get("attack", name).access == "user"}
    assert set(yaml.safe_load(file.read_text())["attacks"]) == users - {"alias"}


def test_a_call_that_is_wrong_is_not_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above sees options that are not there and words of the wrong type, behind what the shell has."""
    (call,) = typed(
        'for seed in 1 2; do FOO=1 grun-bench run --unlearner npo --seed $seed --set "a=[1, 2]" | jq . # and more\n'
    )
    assert call == ["run", "--unlearner", "npo", "--seed", "0", "--set", "a=[1, 2]"]
    assert understood(call, monkeypatch)["seed"] == 0
    for wrong in (["ls", "--sede", "1"], ["run", "--unlearner", "npo", "--seed", "one"]):
        with pytest.raises((ParserError, UsageError)):
            understood(wrong, monkeypatch)


READ: dict[str, Callable[[str], Any]] = {
    "python": ast.parse,
    "yaml": yaml.safe_load,
    "json": json.loads,
    "toml": tomllib.loads,
    "text": str,
    "sh": lambda text: subprocess.run(["bash", "-n"], input=text, text=True, check=True),
}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_of_its_language(page: str) -> None:
    for language, text in blocks(page):
        READ[language](text)


def _names(option: Any) -> list[str]:
    return [*option.opts, *option.secondary_opts]


@pytest.mark.parametrize("page", PAGES)
def test_options_that_a_page_names_are_there(page: str) -> None:
    """`--option` in running text is one of some command; other programs' are named with their program."""
    options = {each for command in COMMANDS.commands.values() for one in command.params for each in _names(one)}
    options |= {"--help", "--version", "--quiet", "--install-completion", "--show-completion"}
    prose = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose):
        if not re.match(
            r"(pip|mkdocs|lm_eval|git|python|pytest|torchrun|accelerate|grun-bench lm-eval)\b", span.strip()
        ):
            for option in re.findall(r"(?:^|\s)(--[a-z][a-z-]*)", span):
                assert option in options, f"{page}: {span}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_what_is_there(page: str) -> None:
    """Files, and headings of Markdown files, as its slugs name them: in a clone too, without pages that are made."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target, anchor in re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)", text):
        if "://" in target:
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor and path.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", path.read_text(), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings}


def test_the_readme_is_a_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


SHOWN = re.findall(
    r"^```text\n\$ grun-bench (.*)\n(error: .*)\n^```$", (ROOT / "docs" / "faq.md").read_text(), re.MULTILINE
)


@pytest.mark.parametrize(("call", "error"), SHOWN)
def test_errors_come_as_the_page_of_errors_says(
    call: str, error: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the files that it speaks of: columns of other names, and a row without an answer."""
    (tmp_path / "odd.jsonl").write_text('{"q": "Who?", "a": "Ada."}\n')
    (tmp_path / "hole.jsonl").write_text('{"question": "Who?", "answer": "Ada."}\n{"question": "Where?"}\n')
    monkeypatch.chdir(tmp_path)
    said = command(*shlex.split(call))
    assert said.code == 2 and said.err.startswith(error)


# --- the site ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as CI does."""
    if importlib.util.find_spec("material") is None or importlib.util.find_spec("mkdocs") is None:
        pytest.skip("no mkdocs-material to build the site with: pip install 'grun-bench[docs]'")
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-3000:]
    return out


@pytest.mark.whole
def test_every_plugin_has_its_place_on_the_site(site: Path) -> None:
    kinds: tuple[Kind, ...] = ("adapter", "objective", "unlearner")
    for name in (name for kind in kinds for name in registry.names(kind)):
        assert f'<h1 id="{name}">' in (site / "methods" / f"{name}.html").read_text()
    for name in registry.names("attack"):
        assert (site / "attacks" / f"{name}.html").exists()
    metrics = (site / "all-metrics.html").read_text()
    assert all(f"<code>{name}</code>" in metrics for name in registry.names("metric"))


@pytest.mark.whole
def test_what_a_clone_has_as_source_the_site_has_as_a_page(site: Path) -> None:
    """Links of docs/ to the source that a page is made from lead to that page there; all others to what there is."""
    made = {"grun_bench/methods": "methods/index.html", "grun_bench/metrics": "all-metrics.html"}
    seen = set()
    for page in (ROOT / "docs").glob("*.md"):
        places = re.findall(r'<a [^>]*href="([^"]+)"', (site / f"{page.stem}.html").read_text())
        for target in re.findall(r"\]\(\.\./([^)\s#]+)\)", page.read_text()):
            if target in made:
                seen.add(target)
                assert made[target] in places, f"{page.name}: {target}"
        for place in places:
            if not re.match(r"\w+:|#", place):
                assert (site / place.partition("#")[0]).exists(), f"{page.name}: {place}"
    assert seen == made.keys()


@pytest.mark.whole
def test_a_browser_asks_for_nothing_from_outside(site: Path) -> None:
    """Links apart, which only a reader follows; and no page asks for a file that is not there."""
    for page in site.rglob("*.html"):
        text = page.read_text()
        for tag in re.findall(r"<(?:script|link|img|iframe|source|object)\b[^>]*>", text):
            for place in re.findall(r'(?:src|href|data)="([^"]+)"', tag):
                if 'rel="canonical"' in tag:
                    continue
                assert not re.match(r"(https?:)?//", place), f"{page}: {tag}"
                if not place.startswith(("data:", "/")):  # the page for 404 is served from the root
                    assert (page.parent / place.partition("?")[0].partition("#")[0]).exists(), f"{page}: {tag}"
    assert not [sheet for sheet in site.rglob("*.css") if re.search(r"url\(['\"]?https?:", sheet.read_text())]
