"""Tables for papers and programs: LaTeX that others' readers understand, CSV with the same numbers, names that help."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Said
from hypothesis import given, settings
from hypothesis import strategies as st
from pylatexenc.latex2text import LatexNodes2Text
from pylatexenc.latexwalker import LatexEnvironmentNode, LatexWalker
from synthetic import references, result, store, unpacked, with_gates

from grun_bench.core.errors import UsageError
from grun_bench.core.escaping import clean, latex
from grun_bench.core.registry import including
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.exports import FORMATS, export
from grun_bench.leaderboard.pages import render
from grun_bench.leaderboard.tables import NAMES
from grun_bench.leaderboard.tree import read_models
from grun_bench.results.result import Curve, Point

Command = Callable[..., Said]
unhurried = settings(deadline=None)  # a busy machine is no failure
READER = LatexNodes2Text(math_mode="text", keep_comments=True, strict_latex_spaces=True)
#: it looks its commands up when it is first used
READER.latex_to_text("x")
#: a name that does harm where it is not escaped
NASTY = r"a_b+50% {x} \input{/etc/passwd} & $y$ #1 ~^ [z] `é` -- 'q' \\"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Rows with ranks, without one, below the floor, over seeds, under attack, with gates, and with an ill name."""
    prefix = {"prefix": ("user", {"a": 0.3})}
    seeds = [result("lora+npo", seed=seed, es=0.1 + seed / 10, utility=0.75, attacks=prefix) for seed in (0, 1)]
    near = result("lora+gd", es=0.9, utility=0.79, attacks={"relearn": ("weights", {"8": 0.97})})
    places = [{"forget_es": 0.9, "utility": 0.8}, {"forget_es": 0.2, "utility": 0.7}]
    points = [Point(at=at, values=values) for at, values in zip((0, 100), places, strict=True)]
    curves = {"strengths": Curve(unit="percent", points=points)}
    gated = result("grun+npo", es=0.2, utility=0.79, curves=curves)
    gated = with_gates(gated, 0.8, none={"forget": 0.125, "retain": 0.25})
    low = result("lora+ga", es=0.0, utility=0.1)
    ill = result(NASTY.replace("/", ""), es=0.5, utility=0.78, settings={"note": "100% & more"})
    other = [*references(task="words"), result("undial", task="words", es=0.00004, utility=0.75)]
    store([*references(), *seeds, near, gated, low, ill, *other], tmp_path / "results")
    return tmp_path / "results"


# --- LaTeX ------------------------------------------------------------------------------------------------------------

#: characters that have a sign of their own in every font, and what LaTeX would make commands of
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.sampled_from("éüñç↑↓±·–“”"), max_size=40)


@unhurried
@given(printable)
def test_text_in_latex_is_read_back_as_it_was(text: str) -> None:
    """By a reader that is not ours, for which a circumflex alone is another character."""
    read = READER.latex_to_text(latex(text)).replace("\N{MODIFIER LETTER CIRCUMFLEX ACCENT}", "^")
    assert re.sub(r"\s+", " ", read).strip() == re.sub(r"\s+", " ", clean(text)).strip()


@unhurried
@given(st.text())
def test_latex_of_any_text_is_balanced_ascii_on_one_line(text: str) -> None:
    made = latex(text)
    assert made.isascii() and "\n" not in made
    LatexWalker(made, tolerant_parsing=False).get_latex_nodes()


def cells(text: str) -> list[list[str]]:
    """The lines of a table's rows as plain text, by the reader."""
    inside = text.partition(r"\toprule")[2].partition(r"\bottomrule")[0]
    reader = LatexNodes2Text(math_mode="text")
    rows = [row for row in inside.replace(r"\midrule", "").split(r" \\") if row.strip()]
    return [[reader.latex_to_text(cell).strip() for cell in re.split(r"(?<!\\)&", row)] for row in rows]


def test_the_ranking_in_latex_has_marks_intervals_bold_and_papers(tree: Path) -> None:
    text = export(tree, "latex", "letters")
    LatexWalker(text, tolerant_parsing=False).get_latex_nodes()
    head, *rows = cells(text)
    assert head[:2] == ["rank", "unlearner"] and len({len(row) for row in [head, *rows]}) == 1
    by_name = {row[1].split("^")[0].split("~")[0].split("<cit")[0].strip(): row for row in rows}
    names = ("lora+npo", "grun+npo", "lora+gd")
    line = {name: next(each for each in text.splitlines() if f"& {name}" in each) for name in names}
    # of the ranked the best utility is in bold; the target's, and what is not ranked, never
    assert r"\textbf{0.790}" in line["grun+npo"] and r"\textbf" not in line["lora+gd"]
    assert r"\textbf" not in next(each for each in text.splitlines() if "target model}" in each)
    assert r"^{\ddagger" in line["lora+gd"] and r"$^{\ddagger}$ not distinguishable from the target" in text
    assert r"\cite{hu2021lora,zhang2024negative}" in line["lora+npo"]
    assert "% BibTeX: grun-bench cite grun+npo" in text and "below the floor" in text
    assert any("0.300" in cell and "prefix" in cell for cell in by_name["lora+npo"])
    assert any("±" in cell for cell in by_name["lora+npo"])
    # below the head, the references, the ranked, those below the floor, and the rest
    assert text.count(r"\midrule") == 5
    assert sum(NASTY.replace("/", "")[:12] in cell for row in rows for cell in row) == 1


def test_every_table_in_latex_is_understood_by_a_strict_reader(tree: Path) -> None:
    text = export(tree, "latex", table="all")
    nodes = LatexWalker(text, tolerant_parsing=False).get_latex_nodes()[0]
    found = [node for node in nodes if isinstance(node, LatexEnvironmentNode)]
    labels = re.findall(r"\\label\{tab:(letters|words)-[0-9a-f]{8}-([a-z-]+)\}", text)
    assert len(found) == len(labels) == len(set(labels)) and {node.environmentname for node in found} == {"table"}
    assert {name for _, name in labels} <= set(NAMES)
    assert r"4.0$\cdot10^{-5}$" in text


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="needs pdflatex (apt-get install texlive-latex-recommended)"
)
def test_latex_compiles(tree: Path, tmp_path: Path) -> None:
    packages = r"\usepackage[T1]{fontenc}\usepackage{booktabs}\usepackage{graphicx}"
    text = export(tree, "latex", table="all")
    (tmp_path / "x.tex").write_text(rf"\documentclass{{article}}{packages}\begin{{document}}{text}\end{{document}}")
    done = subprocess.run(
        ["pdflatex", "-draftmode", "-interaction=nonstopmode", "-halt-on-error", "x"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]


# --- CSV --------------------------------------------------------------------------------------------------------------


def test_pandas_reads_the_same_numbers(tree: Path) -> None:
    """Every value of the boards is there once, exactly, with its interval; nothing else is."""
    frame = pd.read_csv(io.StringIO(export(tree, "csv", table="all")), float_precision="round_trip")
    expected: dict[tuple[Any, ...], Any] = {}
    for board in build(chain.from_iterable(read_models(tree)), {}):
        for row in board.rows:
            settings = json.dumps(row.settings, sort_keys=True)
            for column, cell in row.cells.items():
                expected[board.id, row.name.lstrip(), settings, "clean", "", column.metric] = cell
            for name, under in row.attacks.items():
                for metric, cell in under.items():
                    expected[board.id, row.name, settings, "attack", name, metric] = cell
            assert board.lead
            expected[board.id, row.name, settings, "worst", row.worst_attack, board.lead.metric] = row.worst
    # a metric of gates is left out for rows without any
    said = frame[(frame.case != "cost") & ~frame.metric.str.contains(": ")].fillna({"attack": ""})
    found = {
        (line.board, line.unlearner, line.settings, line.case, line.attack, line.metric): line
        for line in said.itertuples()
    }
    assert len(found) == len(said)
    left = {key: cell for key, cell in expected.items() if key not in found}
    assert all(key[-1] == "forget_gate" and cell.value is None for key, cell in left.items())
    assert not found.keys() - expected.keys()
    for key, line in found.items():
        cell = expected[key]
        for number, there in ((cell.value, line.value), (cell.low, line.low), (cell.high, line.high)):
            assert (number is None and pd.isna(there)) or number == there
        assert line.n == cell.n and (pd.isna(line.reason) or line.reason == cell.reason)


def test_csv_says_rank_marks_costs_and_what_is_not_told_from_the_target(tree: Path) -> None:
    frame = pd.read_csv(io.StringIO(export(tree, "csv", "letters", table="all")))
    one = frame[frame.unlearner == "lora+gd"].iloc[0]
    assert one.not_forgotten == 1 and pd.isna(one["rank"]) and "not distinguishable" in one.marks
    first = frame[frame["rank"] == 1]
    assert set(first.unlearner) == {"grun+npo"} and set(first.not_forgotten) == {0}
    cost = frame[(frame.case == "cost") & (frame.unlearner == "lora+npo")].set_index("metric")
    assert cost.value["trainable_parameters"] == 1234567 and set(cost.seeds) == {"0 1"} and set(cost.n) == {2}
    audit = frame[frame.metric.str.startswith("gate-audit: false-shut")]
    assert list(audit.value) == [0.125, 0.125] and set(audit.unlearner) == {"grun+npo"}
    # 0.76 of utility lies two fifths of the way from 0.8 to 0.7
    equal = frame[frame.metric.str.match("equal-utility: with 95")]
    assert list(equal.value) == pytest.approx([0.9 - 0.4 * 0.7])


# --- what is chosen ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
def test_a_board_is_chosen_by_task_and_model(tree: Path, form: str) -> None:
    every, one = export(tree, form), export(tree, form, "words", "small")
    assert "letters" in every and "words" in every and "letters" not in one and "undial" in one
    assert "undial" not in export(tree, form, "letters")


def test_nothing_is_read_of_boards_that_are_not_chosen(tree: Path, tmp_path: Path) -> None:
    own = shutil.copytree(tree, tmp_path / "own")
    next((own / "letters").rglob("*.json")).write_text("{}")
    assert export(own, "csv", "words") == export(tree, "csv", "words")
    with pytest.raises(UsageError, match="letters"):
        export(own, "csv")


def test_markdown_has_the_rule_and_other_tables_alone_do_not(tree: Path) -> None:
    ranking = export(tree, "markdown", "letters")
    assert "## Notes" not in ranking and "interval of the worst case lies below" in ranking
    cost = export(tree, "markdown", "letters", table="cost")
    assert "### Runs and cost" in cost and "lies below" not in cost


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"form": "latx"}, ["--format 'latx'", "did you mean latex"]),
        ({"task": "leters"}, ["--task 'leters'", "did you mean letters"]),
        ({"model": "smal"}, ["--model 'smal'", "org/small"]),
        ({"table": "rankin"}, ["--table 'rankin'", "did you mean ranking"]),
        ({"table": "membership"}, ["have no such table; they have ranking, cost"]),
    ],
)
def test_a_wrong_name_is_met_with_the_near_ones(tree: Path, options: dict[str, str], says: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        export(tree, **{"form": "csv", **options})
    assert all(part in str(error.value) for part in says)


def test_a_tree_with_nothing_says_where_there_is_something(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and tables alike, from Python too."""
    made: tuple[Callable[[Path], object], ...] = (lambda at: export(at, "csv"), lambda at: render(at, at))
    (tree.parent / "beside").mkdir()
    for place, says in (
        (tree.parent / "beside", r"^no results in empty; `grun-bench run` writes them there"),
        (tree.parent, rf"^no results in empty, but in {tree.name}: --results {tree.name}\.$"),
    ):
        monkeypatch.chdir(place)
        for make in made:
            with pytest.raises(UsageError, match=says):
                make(Path("empty"))


def test_the_command_prints_or_writes(command: Command, tree: Path, tmp_path: Path) -> None:
    asked = ["leaderboard", "--results", str(tree), "--format", "csv", "--task", "words"]
    printed = command(*asked)
    assert printed.code == 0 and printed.out == export(tree, "csv", "words")
    written = command(*asked, "--out", str(tmp_path / "x.csv"))
    assert written.code == 0 and (tmp_path / "x.csv").read_text() == printed.out and "x.csv" in written.out
    for wrong, says in (
        (["leaderboard", "--task", "words"], "--format is missing"),
        ([*asked, "--check"], "ask for one of them"),
        ([*asked, "--out", str(tmp_path)], "name the file"),
    ):
        said = command(*wrong)
        assert said.code == 2 and says in said.err


def test_a_method_of_a_plugin_is_cited_with_its_file(tmp_path: Path, command: Command) -> None:
    """The command in the comment is one that a shell runs as it stands."""
    tree = tmp_path / "results of mine"
    store([*references(), result("grun+margin", es=0.2), result("lora+npo", es=0.3)], tree)
    line = "% BibTeX: grun-bench cite "

    def asked() -> list[str]:
        (found,) = (each for each in export(tree, "latex").splitlines() if each.startswith(line))
        return shlex.split(found.removeprefix(line))

    assert asked() == ["grun+margin", "lora+npo", "--include-path", "PLUGIN.py"]
    plugin = tree / "submissions" / "my-method" / "plugin.py"
    submitted = plugin.parent / "results"
    store([*references(), result("grun+margin", es=0.2, seed=1)], submitted)
    plugin.write_text(
        "from grun_bench.core.registry import objective\n\n\n"
        '@objective("margin")\ndef margin(batch):\n    """Of arXiv 2310.10683."""\n    return batch.forget.nll.mean()\n'
    )
    assert asked()[2:] == ["--include-path", str(plugin)]
    said = command("cite", *asked())
    assert said.code == 0 and "2310.10683" in said.out and "hu2021lora" in said.out
    with including([plugin]):
        assert asked()[2:] == ["--include-path", str(plugin)]


def test_methods_of_the_package_are_cited_without_a_file(tree: Path) -> None:
    assert "--include-path" not in export(tree, "latex", "words", table="all")


def test_a_number_that_lacks_rows_says_so_wherever_it_stands(tmp_path: Path) -> None:
    said = "2 of 40 rows have no paraphrase and are left out."
    one = result(attacks={"prefix": ("user", {"a": 0.3})})
    one.reasons |= {"utility,none": said, "forget_es,prefix": f"{said} And 1 is empty."}
    store([*references(), one], tree := tmp_path / "results")
    rendered = render(tree, tmp_path)
    page = rendered.pages["pages/letters/org__small.md"]
    notes = dict(re.findall(r"^(\d+)\. (.*)$", page, re.MULTILINE))
    assert f"0.600<sup>{next(number for number, text in notes.items() if text == said)}</sup>" in page
    assert any(text == f"{said} And 1 is empty." for text in notes.values())
    assert f'0.600<sup title="{said}">*</sup>' in rendered.site and f"utility \\u2191: {said}" in unpacked(
        rendered.site
    )
    assert said in export(tree, "latex") and re.search(r"0\.600\}?\$\^\{[a-z]\}\$", export(tree, "latex"))
    frame = pd.read_csv(io.StringIO(export(tree, "csv")))
    assert set(frame[frame.unlearner.eq("grun+npo") & frame.metric.eq("utility")].reason) == {said}
