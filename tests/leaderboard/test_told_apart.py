"""Boards mark the rows that no paired test tells from the first, and say what their numbers can show."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from synthetic import references, result, store

from grun_bench.leaderboard import told_apart
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.markdown import page
from grun_bench.leaderboard.pages import render
from grun_bench.leaderboard.tree import read_models
from grun_bench.results.filed import save_records
from grun_bench.results.record import Continuation, Record, Records
from grun_bench.results.result import Result
from grun_bench.results.store import read_result

KEY, ROWS = "forget_extraction_strength", 40


def answered(matching: list[int]) -> Records:
    """Rows whose answers of ten tokens end in so many that match."""
    return Records(
        Record(
            "forget", index, "q",
            Continuation("a", logprobs=[-1.0] * 11, matches=[*[0] * (10 - count), *[1] * count, 1]),
        )
        for index, count in enumerate(matching)
    )  # fmt: skip


def row(name: str, matching: list[int], attacked: list[int] | None = None) -> tuple[Result, Records, Records | None]:
    attacks = {"prefill": ("user", {"1": float(np.mean(attacked)) / 10})} if attacked else {}
    first = result(name, attacks=attacks)
    strength = float(np.mean(matching)) / 10
    values = {f"{KEY},none": strength, "utility,none": 0.7}
    if attacked:
        values |= dict.fromkeys((f"{KEY},prefill", f"{KEY},prefill:1"), float(np.mean(attacked)) / 10)
    spread = float(np.std(matching, ddof=1)) / 10 / ROWS**0.5 * 1.96
    changed = first.model_copy(
        update={
            "results": {first.task: values},
            "headline": ["utility", KEY],
            "n_samples": {first.task: {KEY: ROWS, "utility": ROWS}},
            "higher_is_better": {first.task: {KEY: False, "utility": True}},
            "versions": {first.task: 1, KEY: 1, "utility": 1},
            "intervals": {f"{KEY},none": (strength - spread, strength + spread)},
            "reasons": {},
        }
    )
    return changed, answered(matching), answered(attacked) if attacked else None


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    low = generator.integers(0, 3, ROWS).tolist()
    high = [each + 5 for each in low]
    rows = [
        row("grun+npo", low),
        row("lora+npo", low[::-1]),  # the same values on other rows
        row("full+ga", high),
        # equal without attack; what ranks it is what is left under its worst
        row("full+rmu", low, attacked=high),
    ]
    for one, records, attacked in rows:
        (path,) = store([one], tmp_path / "results")
        saved = save_records(path, records)
        changes = {"records": saved}
        if attacked:
            info = one.attacks["prefill"]
            variants = {"1": save_records(path, attacked, "prefill", "1")}
            changes["attacks"] = {"prefill": info.model_copy(update={"variants": variants})}
        path.write_text(one.model_copy(update=changes).dumps())
    return tmp_path / "results"


def test_rows_that_no_test_tells_from_the_first_are_marked(tree: Path) -> None:
    (board,) = build(chain.from_iterable(read_models(tree)), {})
    assert [each.name for each in board.rows][:2] == ["grun+npo", "lora+npo"]
    marks = {each.name: [mark for mark in each.marks if "told" in mark] for each in board.rows}
    told = {"grun+npo": [], "full+ga": [], "full+rmu": []}
    assert marks == told | {"lora+npo": ["not told from rank 1, q 1.00"]}


def test_rows_without_records_are_not_tested(tree: Path) -> None:
    for path in tree.glob("*/*/lora+npo/*.bz2"):
        path.unlink()
    (board,) = build(chain.from_iterable(read_models(tree)), {})
    assert not any("told" in mark for each in board.rows for mark in each.marks)


def test_what_records_give_is_kept_until_they_are_others(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def marks() -> list[str]:
        (board,) = build(chain.from_iterable(read_models(tree)), {})
        return [mark for each in board.rows for mark in each.marks if "told" in mark]

    first = marks()
    with monkeypatch.context() as patch:  # a second time no record is parsed
        patch.setattr(told_apart, "load_records", lambda path: pytest.fail(f"{path} was read again"))
        assert marks() == first != []
    (path,) = tree.glob("*/*/lora+npo/*.json")
    other = save_records(path, answered([10] * ROWS))
    path.write_text(read_result(path).model_copy(update={"records": other}).dumps())
    assert marks() == []


def test_a_page_says_what_its_numbers_can_show(tree: Path) -> None:
    (board,) = build(chain.from_iterable(read_models(tree)), {})
    text = page([board], {board.id: "file"}, "README.md")
    (line,) = [line for line in text.splitlines() if "least difference seen</sub>" in line]
    # by hand, of the row with the median spread: 2.80 standard errors of a difference of two
    widths = [one.result.interval(KEY) for each in board.rows for one in each.runs]
    width = np.median([high - low for low, high in widths])
    assert f"<sub>{2.8016 * 2**0.5 * width / 3.9199:.3f}, n {ROWS}</sub>" in line
    assert "not told from rank 1" in text
    site = render(tree, tree.parent).site
    assert "<tfoot><tr>" in site and site.count("least difference seen</td>") == 1


def test_boards_without_means_say_nothing_of_them(tmp_path: Path) -> None:
    plain = {"intervals": {}, "headline": ["utility", "forget_es"]}
    store([*references(**plain), result(**plain)], tmp_path / "results")
    assert "<tfoot>" not in render(tmp_path / "results", tmp_path).site
