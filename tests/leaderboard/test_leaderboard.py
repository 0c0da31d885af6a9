"""Leaderboards: which rows meet, what they show, how they are ranked, and the files that are written."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import math
import re
import shutil
import weakref
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from scipy import stats
from synthetic import references, result, store, unpacked, with_gates

from grun_bench.core.errors import UsageError
from grun_bench.leaderboard import words
from grun_bench.leaderboard.boards import Board
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.cells import average, worst_ends
from grun_bench.leaderboard.filings import Column
from grun_bench.leaderboard.pages import SITE, outdated, render, render_filed, write
from grun_bench.leaderboard.ranking import ABOVE_TARGET, LIKE_TARGET, UTILITY_FLOOR
from grun_bench.leaderboard.tree import collection_paused, read_flags, read_models
from grun_bench.results.filed import Filed, Tier
from grun_bench.results.result import Result

Change = Callable[[Path], None]
unhurried = settings(deadline=None)  # a busy machine is no failure


def boards(
    results: list[Result], tiers: dict[int, Tier] | None = None, flags: dict[str, str] | None = None
) -> list[Board]:
    """Boards of results in memory; `tiers`: position -> how far it was verified."""
    filed = [
        Filed(one, Path(), f"t/m/u/{number}.json", "0" * 64, (tiers or {}).get(number, "self-reported"))
        for number, one in enumerate(results)
    ]
    return build(filed, flags or {})


def board(results: list[Result], **options: Any) -> Board:
    (only,) = boards(results, **options)
    return only


def ranking(of: Board) -> list[str]:
    return [row.name for row in sorted((row for row in of.rows if row.rank), key=lambda row: row.rank or 0)]


def tables(page: str) -> list[list[list[str]]]:
    """The tables of a Markdown page as a parser that is not ours reads them: rows of cells."""
    found: list[list[list[str]]] = []
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(page):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type == "inline" and found and token.level >= 4:
            found[-1][-1].append(token.content)
    return found


# --- which rows meet --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"dataset_hash": "e" * 64},
        {"dataset": "embedded"},
        {"protocol": "open-unlearning"},
        {"limit": 8},
        {"model": "org/other"},
        {"task": "words"},
        {"versions": {"letters": 2}},
        {"versions": {"letters": 1, "forget_es": 2, "utility": 1, "forget_quality": 1}},
        {"versions": {"letters": 1, "forget_es": 1, "utility": 1, "forget_quality": 1, "lm_eval:quiz": "2"}},
        {"headline": ["utility", "forget_es"]},
        {"data": {"quiz": {"sources": ["quiz"], "rows": 3, "sha256": ["f" * 64]}}},
        {"reference": {"tiny": "0" * 64}},
        {"reference": {"names": ["another target model"]}},
        {"reference": {"retain_log": "0" * 64}},
        {"hardware": {"device": "cpu", "dtype": "bfloat16"}},
        {"hardware": {"device": "cpu", "dtype": "float32", "quantised": "nf4"}},
    ],
)
def test_rows_that_do_not_compare_never_meet(change: dict[str, Any]) -> None:
    found = boards([result(), result("lora+npo"), result("lora+ga", **change)])
    assert sorted(sorted(row.name for row in one.rows) for one in found) == [["grun+npo", "lora+npo"], ["lora+ga"]]


def test_two_versions_of_another_metric_are_two_columns() -> None:
    versions = {"letters": 1, "forget_quality": 1, "forget_es": 1, "utility": 1, "retain_rouge": 2, "forget_gate": 1}
    found = board([result(), result("lora+npo", versions=versions)])
    names = [(column.metric, column.version) for column in found.others]
    assert ("retain_rouge", "1") in names and ("retain_rouge", "2") in names
    shown = {
        row.name: {c.version: row.cells[c].value for c in found.others if c.metric == "retain_rouge"}
        for row in found.rows
    }
    assert shown == {"grun+npo": {"1": 0.9, "2": None}, "lora+npo": {"1": None, "2": 0.9}}


def test_settings_make_rows_and_seeds_do_not() -> None:
    found = board([result(seed=seed, settings={"lr": lr, "epochs": 5}) for lr in (0.1, 0.01) for seed in range(3)])
    assert sorted((row.shown, len(row.runs)) for row in found.rows) == [("lr=0.01", 3), ("lr=0.1", 3)]


def test_one_seed_made_again_is_one_run_and_the_newest_counts() -> None:
    """Two versions of a harness may give one command two run ids; their numbers are no sample of what seeds do."""
    old, new = result("lora+npo", es=0.3), result("lora+npo", es=0.1, date="2026-02-03T00:00:00+00:00")
    old.run_id = "0" * 12 + "-seed0"
    (row,) = board([new, old]).rows
    assert [run.result.run_id for run in row.runs] == [new.run_id]
    assert (row.worst.value, row.worst.over) == (0.1, "") and "1 older of the same seed left out" in row.marks
    target = [result("none", es=es, seed=None, settings={}, date=f"2026-01-0{day}") for day, es in ((1, 0.9), (2, 0.8))]
    target[0].run_id = "1" * 12
    assert board(target).known == (0.8, 0.8)


# --- numbers ----------------------------------------------------------------------------------------------------------


@unhurried
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=8))
def test_the_interval_over_seeds_is_students(values: list[float]) -> None:
    cell = average(values, (0.0, 1.0))
    mean, error = sum(values) / len(values), stats.sem(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=mean, scale=error) if error > 1e-12 else (mean, mean)
    assert (cell.value, cell.low, cell.high) == pytest.approx((mean, low, high), abs=1e-6)
    assert cell.over == "seeds" and cell.n == len(values)


@given(st.floats(-10, 10), st.integers(2, 8))
def test_equal_numbers_have_no_spread_whatever_sums_round(value: float, count: int) -> None:
    cell = average([value] * count, None)
    assert cell.low == cell.value == cell.high == value


def test_a_page_whose_intervals_reach_beyond_the_metric_says_what_they_take_for_granted(tmp_path: Path) -> None:
    store(
        [*references(), *(result(seed=seed, es=es) for seed, es in enumerate((0.01, 0.02, 0.2)))], tmp_path / "results"
    )
    low = stats.t.interval(0.95, 2, stats.tmean([0.01, 0.02, 0.2]), stats.sem([0.01, 0.02, 0.2]))[0]
    rendered = render(tmp_path / "results", tmp_path)
    (page,) = (text for path, text in rendered.pages.items() if path.endswith(".md") and "/" in path)
    assert low < 0 and f"± {0.23 / 3 - low:.3f}" in page
    for text in (page, rendered.site):
        assert "normal distribution" in text and "beyond what the metric can be" in text


def test_an_interval_over_seeds_hangs_on_no_version_of_scipy() -> None:
    """The quantiles in closed form for two and three runs: equal to the last digit, whatever computes them."""
    two, three = math.tan(0.475 * math.pi), 0.95 * math.sqrt(2 / (1 - 0.95**2))
    for values, quantile in (([1.0, 2.0], two), ([1.0, 2.0, 3.0], three)):
        half = round(quantile, 7) * (0.5**0.5 if len(values) == 2 else 1.0) / math.sqrt(len(values))
        cell = average(values, None)
        assert cell.high == cell.value + half and cell.low == cell.value - half


@pytest.mark.parametrize("degrees", [*range(1, 12), 29, 30, 99, 100])
def test_the_quantile_of_students_t_is_that_of_scipy(degrees: int) -> None:
    ends = average([1.0, *[0.0] * degrees], None)
    runs = degrees + 1
    quantile = stats.t.ppf(0.975, degrees)
    assert ends.high is not None and ends.high - 1 / runs == pytest.approx(quantile / runs, abs=1e-7)


def test_one_run_has_its_own_interval_and_no_other() -> None:
    assert average([0.5], (0.4, 0.7))[:5] == (0.5, 1, 0.4, 0.7, "examples")
    assert average([0.5], None)[:5] == (0.5, 1, None, None, "")


def test_a_mean_with_a_missing_number_is_missing_with_the_reason() -> None:
    found = board([result(seed=0), result(seed=1, es=None)])
    (row,) = found.rows
    assert found.lead and row.cells[found.lead].value is None
    assert row.cells[found.lead].reason == "there is no gate"
    assert row.rank is None


# --- ranks ------------------------------------------------------------------------------------------------------------


def test_the_worst_attack_of_a_user_decides_and_an_owners_does_not() -> None:
    strong = {
        "prefix": ("user", {"a": 0.2, "b": 0.5}),
        "relearn": ("weights", {"8": 0.9}),
        "suffix": ("user", {"a": 0.3}),
    }
    found = board([*references(), result("lora+npo", es=0.3), result("grun+npo", es=0.1, attacks=strong)])
    grun = next(row for row in found.rows if row.name == "grun+npo")
    assert (grun.worst.value, grun.worst_attack) == (0.5, "prefix")
    assert ranking(found) == ["lora+npo", "grun+npo"]
    assert "no attack" not in grun.marks
    assert "no attack" in next(row for row in found.rows if row.name == "lora+npo").marks


def test_a_row_of_fewer_attacks_than_another_says_so() -> None:
    """An attack that was not made can only lower a row; one of an owner of the weights is no attack that counts."""
    more = {"prefix": ("user", {"a": 0.2}), "suffix": ("user", {"a": 0.3})}
    fewer = {"prefix": ("user", {"a": 0.2}), "relearn": ("weights", {"8": 0.9})}
    found = board([*references(), result("lora+npo", attacks=fewer), result("grun+npo", attacks=more)])
    marks = {row.name: row.marks for row in found.rows}
    assert "1 of 2 attacks" in marks["lora+npo"]
    assert not any("attacks" in mark for mark in marks["grun+npo"])


PREFILL = {"prefill": ("user", {"words": 0.7})}


def prefilled(*values: float | None, unlearner: str = "grun+npo") -> list[Result]:
    """Runs of seed 0, 1, ... with these numbers under an attack; None: it was made, and there is no number."""
    found = [result(unlearner, seed=seed, attacks=PREFILL) for seed in range(len(values))]
    for one, value in zip(found, values, strict=True):
        one.results[one.task] |= {"forget_es,prefill": value, "forget_es,prefill:words": value}
    return found


def test_runs_without_a_number_under_an_attack_take_nothing_from_the_worst_case() -> None:
    """Neither where the attack left none, nor where it was not made."""
    bare = [result(seed=2)]
    for runs in (prefilled(0.7, 0.9, None), prefilled(0.7, 0.9) + bare):
        found = board([*references(attacks=PREFILL), *runs])
        row = next(row for row in found.rows if not row.pinned)
        assert (row.worst_attack, row.worst.value) == ("prefill", pytest.approx(0.8))
        assert "prefill in 2 of 3 runs" in row.marks and row.cells[row_lead(found)].n == 3
    (alone,) = (row for row in board(prefilled(None, None)).rows)
    assert alone.worst_attack == "" and "in 0 of" not in " ".join(alone.marks)


def row_lead(of: Board) -> Column:
    assert of.lead is not None
    return of.lead


def test_several_attacks_on_the_same_runs_alone_are_said_at_once() -> None:
    both = PREFILL | {"suffix": ("user", {"please": 0.2})}
    found = board([result(attacks=both), result(seed=1), result(seed=2)])
    assert [mark for mark in found.rows[0].marks if "runs" in mark] == ["2 attacks in 1 of 3 runs"]


def test_an_attack_that_was_not_made_as_the_targets_is_another() -> None:
    """A weak one neither stands in the column of the usual one nor counts as it."""
    weak = result("lora+npo", attacks={"prefill": ("user", {"words": 0.2})})
    weak.attacks["prefill"].settings = {"words": 8}
    long = result("lora+idk", attacks={"prefill": ("user", {"words": 0.2})})
    long.attacks["prefill"].settings = {"words": 3, "phrase": "a" * 99}
    found = board([weak, long, *references(attacks=PREFILL), *prefilled(0.3)])
    by_name = {row.name: row for row in found.rows}
    assert list(by_name["grun+npo"].attacks) == list(by_name["none"].attacks) == ["prefill"]
    assert list(by_name["lora+npo"].attacks) == ["prefill (words=8)"]
    (hashed,) = by_name["lora+idk"].attacks
    assert re.fullmatch(r"prefill \(settings [0-9a-f]{6}\)", hashed)
    assert "no attack" in by_name["lora+npo"].marks and "no attack" not in by_name["grun+npo"].marks
    # what is leaked under it is leaked
    assert by_name["lora+npo"].worst_attack == "prefill (words=8)"
    # without a target the retain model says what is usual, and where there is neither the tree's own rows
    _, retain = references(attacks=PREFILL)
    assert {name for row in board([weak, retain]).rows for name in row.attacks} == {"prefill", "prefill (words=8)"}
    assert [list(row.attacks) for row in board([weak]).rows] == [["prefill"]]


def test_what_so_many_zeros_do_not_show_is_of_the_rows_that_an_attack_asked() -> None:
    """The rule of three: none of n may still be 3 / n; the attack asked 8 of 40 rows."""
    (one,) = prefilled(1.0)
    one.n_samples["letters"]["forget_es"] = 40
    one.intervals["forget_es,prefill"] = (1.0, 1.0)
    for rows, asked in ({}, 40), ({"forget": 8, "retain": 2}, 8):
        one.attacks["prefill"].rows = rows
        assert worst_ends(one, "forget_es") == (1 - 3 / asked, 1.0)
        assert board([result("none", es=1.0, seed=None), one]).rows[-1].not_forgotten


def test_an_attack_that_helps_does_not_count() -> None:
    found = board([result(es=0.4, attacks={"prefix": ("user", {"a": 0.1})})])
    assert (found.rows[0].worst.value, found.rows[0].worst_attack) == (0.4, "")


def test_references_are_on_top_and_without_rank() -> None:
    found = board([result("aaa", es=0.0), *references()])
    assert [(row.label, row.rank) for row in found.rows] == [("target model", None), ("retain model", None), ("aaa", 1)]


def test_garbage_ranks_below_what_kept_its_utility() -> None:
    found = board([*references(), result("lora+ga", es=0.0, utility=0.1), result("lora+npo", es=0.7, utility=0.75)])
    assert ranking(found) == ["lora+npo", "lora+ga"]
    assert found.floor == pytest.approx(0.9 * 0.78)


def test_nobody_must_keep_more_than_the_retain_model_has() -> None:
    """And the retain model says where it would stand itself."""
    target, retain = result("none", es=0.9, utility=0.8), result("retain", es=0.05, utility=0.6)
    points = {"a+b": (0.3, 0.55), "c+d": (0.04, 0.53), "e+f": (0.0, 0.65)}
    rows = [result(name, es=es, utility=utility) for name, (es, utility) in points.items()]
    found = board([target, retain, *rows])
    assert found.floor == pytest.approx(0.9 * 0.6)
    assert ranking(found) == ["e+f", "a+b", "c+d"]
    # equal in forgetting to the first, which kept more; the other two forgot less or lost more
    assert [row.marks for row in found.rows if row.pinned] == [(), ("would rank 2",)]


def test_forgetting_beyond_the_retain_model_earns_nothing() -> None:
    found = board([*references(), result("a+b", es=0.0, utility=0.74), result("c+d", es=0.04, utility=0.79)])
    assert ranking(found) == ["c+d", "a+b"]


rows = st.lists(
    st.tuples(st.sampled_from([0.0, 0.02, 0.05, 0.2, 0.4]), st.sampled_from([0.3, 0.7, 0.72, 0.75])), max_size=7
)


@unhurried
@given(rows, st.booleans(), st.booleans())
def test_ranks_and_front_are_those_of_the_written_rule(
    points: list[tuple[float, float]], target: bool, retain: bool
) -> None:
    """By brute force: who comes before whom, pair by pair."""
    pins = [one for one, there in zip(references(), (target, retain), strict=True) if there]
    results = [result(f"u{number}", es=es, utility=utility) for number, (es, utility) in enumerate(points)]
    if not results:
        return
    found = board([*pins, *results])
    at = {f"u{number}": point for number, point in enumerate(points)}

    def before(one: tuple[float, float], other: tuple[float, float]) -> bool:
        lower = 0.78 if retain else 0.8
        floor, beyond = UTILITY_FLOOR * lower if target else 0.0, 0.05 if retain else 0.0
        kept = [point[1] >= floor for point in (one, other)]
        if kept[0] != kept[1]:
            return kept[0]
        if not kept[0]:
            return (-one[1], one[0]) < (-other[1], other[0])
        return (max(one[0], beyond), -one[1]) < (max(other[0], beyond), -other[1])

    order = ranking(found)
    assert sorted(order) == sorted(at)
    for place, name in enumerate(order):
        assert not any(before(at[later], at[name]) for later in order[place + 1 :])
    for row in found.rows:
        if row.rank:
            es, utility = at[row.name]
            beaten = any(e <= es and u >= utility and (e, u) != (es, utility) for e, u in at.values())
            assert row.pareto == (not beaten)


def test_diverged_and_flagged_rows_have_no_rank_and_say_why() -> None:
    broken = result("lora+ga", es=None, utility=None, status="diverged", error="loss is nan")
    flagged = result("lora+gd", es=0.0)
    found = board([*references(), result(), broken, flagged], flags={flagged.run_id: "saw the test"})
    by_name = {row.name: row for row in found.rows}
    assert ranking(found) == ["grun+npo"]
    assert by_name["lora+ga"].marks == ("diverged",) and by_name["lora+gd"].marks == ("unreliable",)
    assert found.lead and by_name["lora+ga"].cells[found.lead].reason == "training diverged: loss is nan"


# --- what is not told from the target ---------------------------------------------------------------------------------


def spread(one: Result, low: float, high: float, key: str = "forget_es,none") -> Result:
    """The result with this interval of its extraction strength."""
    one.intervals[key] = (low, high)
    return one


def marks_of(found: Board) -> dict[str, list[str]]:
    return {row.name: [mark for mark in row.marks if "target" in mark or "would" in mark] for row in found.rows}


def test_a_row_whose_interval_meets_the_targets_has_no_rank() -> None:
    """The example that asked for the rule: .935 [.859, .974] beside a target of .978 [.917, 1]."""
    target = spread(result("none", es=0.978, utility=0.8, seed=None, settings={}), 0.917, 1.0)
    near = spread(result("grun+npo", es=0.935, utility=0.79), 0.859, 0.974)
    far = spread(result("lora+npo", es=0.8, utility=0.79), 0.7, 0.916)
    found = board([target, references()[1], near, far])
    assert ranking(found) == ["lora+npo"] and found.best and found.best.name == "lora+npo"
    marks = marks_of(found)
    assert marks["grun+npo"] == ["not distinguishable from the target"] and marks["lora+npo"] == []
    assert marks["retain"] == ["would rank 1"] and marks["none"] == []
    (row,) = [row for row in found.rows if row.name == "grun+npo"]
    assert row.not_forgotten and not row.pareto and row.placed and found.rows[-1] is row
    assert found.known == (0.917, 1.0)


def test_on_a_small_board_that_forgot_nothing_is_no_best_row(tmp_path: Path) -> None:
    same = result("lora+npo", es=0.9, utility=0.8)
    found = board([*references(), same])
    assert found.best is None and ranking(found) == []
    assert marks_of(found) == {
        "none": [],
        "retain": ["would rank 1"],
        "lora+npo": ["not distinguishable from the target"],
    }
    store([*references(), same], tmp_path / "results")
    pages = render(tmp_path / "results", tmp_path).pages
    ((head, line),) = tables(pages["README.md"])
    assert dict(zip(head, line, strict=True))["best row"] == "-"
    assert "not distinguishable from the target" in tables(pages["pages/letters/org__small.md"])[0][-2][1]


def test_a_row_above_the_target_leaks_more_and_one_without_interval_is_its_number() -> None:
    worse = spread(result("full+ga", es=0.99), 0.97, 1.0)
    target = spread(result("none", es=0.9, utility=0.8, seed=None, settings={}), 0.85, 0.95)
    found = board([target, worse, result("lora+npo", es=0.849), result("lora+ga", es=0.85)])
    assert ranking(found) == ["lora+npo"]
    marks = marks_of(found)
    assert marks["full+ga"] == ["leaks more than the target"]
    assert marks["lora+ga"] == ["not distinguishable from the target"]


def test_examples_that_are_all_alike_have_an_interval_by_the_rule_of_three() -> None:
    """Of 4 examples that all leak, less than 3/4 may be otherwise, and of 4 that do not as many may leak."""
    target = spread(result("none", es=1.0, utility=0.8, seed=None, settings={}), 1.0, 1.0)
    assert ranking(board([target, result("lora+npo", es=0.25), result("lora+ga", es=0.2)])) == ["lora+ga"]
    half = spread(result("none", es=0.8, utility=0.8, seed=None, settings={}), 0.75, 0.9)
    none = spread(result("lora+npo", es=0.0), 0.0, 0.0)
    assert ranking(board([half, none])) == []
    # the bound is less than 5 % likely to be passed: (1 - 3 / n)^n
    assert all((1 - 3 / count) ** count < 0.05 for count in range(3, 1000))


def test_what_an_attack_brings_back_is_what_is_compared() -> None:
    attacked = spread(
        result("grun+npo", es=0.1, attacks={"prefix": ("user", {"a": 0.85})}), 0.8, 0.91, "forget_es,prefix"
    )
    found = board([*references(), attacked])
    assert ranking(found) == [] and "not distinguishable from the target" in marks_of(found)["grun+npo"]
    owner = result("lora+npo", es=0.1, attacks={"relearn": ("weights", {"8": 0.9})})
    assert ranking(board([*references(), owner])) == ["lora+npo"]


def test_a_row_of_more_seeds_is_no_worse_off_than_its_worst_seed() -> None:
    """Student's interval of two seeds, 0.05 and 0.2, goes beyond 1; neither seed is near the target."""
    runs = [spread(result(seed=seed, es=es), es - 0.02, es + 0.1) for seed, es in enumerate((0.05, 0.2))]
    found = board([*references(), *runs])
    row = found.rows[-1]
    assert row.worst.high and row.worst.high > 1 and row.rank == 1
    assert ranking(board([*references(), runs[0], spread(result(seed=1, es=0.6), 0.5, 0.9)])) == []


def test_without_a_target_nothing_is_asked_and_the_page_says_so() -> None:
    found = board([result("lora+npo", es=0.99), result("grun+npo", es=0.98)])
    assert ranking(found) == ["grun+npo", "lora+npo"] and found.known is None
    assert any("no target row here, so it cannot be said" in line for line in words.rules(found))


def test_a_retain_model_that_meets_the_target_is_marked_and_has_no_place() -> None:
    target = spread(result("none", es=0.1, utility=0.8, seed=None, settings={}), 0.02, 0.2)
    found = board([target, references()[1], result("lora+npo", es=0.01)])
    assert marks_of(found)["retain"] == ["not distinguishable from the target"]
    assert ranking(found) == ["lora+npo"]
    assert any("cannot show that anything was forgotten" in line for line in words.rules(found))


def test_a_row_below_the_floor_is_no_best_row() -> None:
    found = board([*references(), result("lora+ga", es=0.0, utility=0.1)])
    assert ranking(found) == ["lora+ga"] and found.best is None


values = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
#: low, value and high; all 0 or all 1 is a case of its own
ends = st.tuples(values, values, values).map(sorted).filter(lambda each: sum(each) not in (0, 3))


@unhurried
@given(st.lists(ends, min_size=1, max_size=6), st.one_of(st.none(), ends))
def test_ranked_is_just_what_lies_below_the_target(rows: list[list[float]], target: list[float] | None) -> None:
    """By the written rule, and ranks have no gap; what is ranked does not hang on what is not."""
    results = [spread(result(f"u{at}", es=es), low, high) for at, (low, es, high) in enumerate(rows)]
    pins = []
    if target:
        pins = [spread(result("none", es=target[1], utility=0.6, seed=None, settings={}), target[0], target[2])]
    found = board([*pins, *results])
    below = [f"u{at}" for at, (_, _, high) in enumerate(rows) if target is None or high < target[0]]
    assert sorted(ranking(found)) == below
    assert sorted(row.rank for row in found.rows if row.rank) == list(range(1, len(below) + 1))
    for row in found.rows:
        marked = [mark for mark in row.marks if mark in (LIKE_TARGET, ABOVE_TARGET)]
        assert bool(marked) == row.not_forgotten == (row.name not in [*below, "none"])
    alone = [one for one in results if one.unlearner.name in below]
    if alone:
        assert ranking(board([*pins, *alone])) == ranking(found)


def test_a_limited_board_is_not_ranked() -> None:
    found = board([*references(limit=4), result(limit=4)])
    assert ranking(found) == [] and not any(row.pareto for row in found.rows)


# --- several filings of one run ---------------------------------------------------------------------------------------


def test_the_best_tier_gives_the_numbers_and_the_worst_attack_counts() -> None:
    mine = result(es=0.1, attacks={"prefix": ("user", {"a": 0.2})})
    same = result(es=0.3, attacks={"prefix": ("user", {"a": 0.6}), "suffix": ("user", {"x": 0.4})})
    found = board([mine, same], tiers={1: "recomputed"})
    (row,) = found.rows
    assert found.lead and row.cells[found.lead].value == 0.3 and row.tier == "recomputed"
    assert len(row.runs) == 1 and len(row.runs[0].filings) == 2
    assert sorted(row.attacks) == ["prefix", "suffix"]
    assert (row.worst.value, row.worst_attack) == (0.6, "prefix")
    # whoever files it, in whatever order
    (row,) = board([same, mine], tiers={1: "recomputed"}).rows
    assert (row.cells[found.lead].value, row.worst.value) == (0.1, 0.6)


def test_a_row_is_trusted_as_its_least_trusted_run() -> None:
    (row,) = board([result(seed=0), result(seed=1)], tiers={0: "re-run"}).rows
    assert row.tier == "self-reported"


def test_another_version_of_an_attack_is_another_attack() -> None:
    new = result(seed=1, attacks={"prefix": ("user", {"a": 0.7})})
    new.attacks["prefix"].version = 2
    (row,) = board([result(seed=0, attacks={"prefix": ("user", {"a": 0.2})}), new]).rows
    assert sorted(row.attacks) == ["prefix", "prefix v2"] and row.worst_attack == "prefix v2"


# --- the tree of files ------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two seeds with an attack, the references, a row of toy data and a submission."""
    folder = tmp_path / "results"
    attacked = [result(seed=seed, es=0.1 + seed / 10, attacks={"prefix": ("user", {"a": 0.3})}) for seed in (0, 1)]
    store([*references(), *attacked, result("lora+npo", seed=0), result("lora+ga", dataset="embedded")], folder)
    bundle = folder / "submissions" / "theirs"
    store([result("mine+npo", es=0.02, utility=0.75)], bundle / "results")
    (bundle / "card.json").write_text(
        json.dumps({"name": "Mine", "paper": "https://arxiv.org/abs/1", "code": "javascript:x"})
    )
    return folder


def mark(path: Path, tier: str) -> dict[str, str]:
    """As `verify` writes it."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"sha256": sha256, "tier": tier, "date": "2026-01-02", "harness": "0.1.0"}


def rendered(tree: Path) -> dict[str, str]:
    """The text of every page, that of all boards too."""
    made = render(tree, tree.parent)
    return made.pages | {SITE: made.site}


def test_tiers_come_from_the_verification_of_unchanged_files(tree: Path) -> None:
    (first, second) = sorted((tree / "letters" / "org__small" / "grun+npo").glob("*.json"))
    (theirs,) = (tree / "submissions").glob("theirs/results/*/*/*/*.json")
    marks = {
        path.relative_to(tree).as_posix(): mark(path, tier)
        for path, tier in ((first, "re-run"), (second, "recomputed"), (theirs, "recomputed"))
    }
    (tree / "verified.json").write_text(json.dumps(marks))
    base = tree / "submissions" / "theirs"
    own = {theirs.relative_to(base).as_posix(): mark(theirs, "re-run")}
    (base / "verified.json").write_text(json.dumps(own))  # which is nothing that a submission says of itself
    second.write_text(second.read_text() + " ")
    tiers = {Path(one.path).name: (one.tier, one.submission) for one in chain.from_iterable(read_models(tree))}
    assert tiers[first.name] == ("re-run", "") and tiers[second.name] == ("self-reported", "")
    assert tiers[theirs.name] == ("recomputed", "theirs")


def test_an_imported_row_is_called_so_whatever_was_verified(tree: Path) -> None:
    one = result("full+gd", seed=None, imported={"tool": "Other", "file": "x.json", "sha256": "0" * 64})
    (path,) = store([one], tree)
    (tree / "verified.json").write_text(json.dumps({path.relative_to(tree).as_posix(): mark(path, "re-run")}))
    assert {filed.tier for filed in chain.from_iterable(read_models(tree)) if filed.result.imported} == {"imported"}
    assert any(line[-1] == "imported (Other)" for line in tables(rendered(tree)["pages/letters/org__small.md"])[1])


def move(to: str) -> Change:
    def change(tree: Path) -> None:
        path = next((tree / "letters" / "org__small" / "lora+npo").glob("*.json"))
        (tree / to).mkdir(parents=True, exist_ok=True)
        path.rename(tree / to / path.name)

    return change


def edit(**fields: Any) -> Change:
    def change(tree: Path) -> None:
        path = next((tree / "letters" / "org__small" / "lora+npo").glob("*.json"))
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (move("letters/org__small/lora+ga"), r"lora\+ga/.*\.json: .* belongs in letters/org__small/lora\+npo"),
        (
            edit(task="../../up", **{key: {"../../up": {}} for key in ("results", "n-samples", "higher_is_better")}),
            r"belongs in \.\./\.\./up/",
        ),
        (edit(results={}), "results: must hold the task letters"),
        (edit(records={"file": "../../../x", "sha256": "0", "count": 1}), "are no file beside it"),
        (edit(seed="one"), "seed: "),
        (lambda tree: (tree / "flags.json").write_text('[{"run_id": "x"}]'), r"flags\.json: \$\[0\]\.reason: "),
        (lambda tree: (tree / "flags.json").write_text("{"), r"flags\.json: "),
        (
            lambda tree: (tree / "verified.json").write_text('{"a": {"tier": "best", "sha256": "0"}}'),
            r"verified\.json: \$\.a\.",
        ),
        (lambda tree: (tree / "submissions" / "theirs" / "card.json").write_text("[]"), r"card\.json: \$: "),
    ],
)
def test_a_broken_tree_is_refused_with_the_place(tree: Path, change: Change, says: str) -> None:
    change(tree)
    with pytest.raises(UsageError, match=says):
        rendered(tree)


def test_no_results_is_an_error_with_the_next_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="grun-bench run"):
        render(tmp_path / "nowhere", tmp_path)


# --- pages ------------------------------------------------------------------------------------------------------------


def test_the_same_files_give_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    first = rendered(tree)
    again = tmp_path / "copy" / "results"
    for path in sorted(tree.rglob("*.json"), reverse=True):  # made in another order
        (again / path.relative_to(tree)).parent.mkdir(parents=True, exist_ok=True)
        (again / path.relative_to(tree)).write_bytes(path.read_bytes())
    assert rendered(again) == first


def test_rows_of_own_files_change_no_page(tree: Path) -> None:
    """Adapters have colours in the order of their names, and one that only own rows have takes none."""
    first = rendered(tree)
    store([result("aaa+npo", dataset="own"), result("grun+npo", dataset="own", task="mine")], tree)
    assert rendered(tree) == first


def test_of_the_results_those_of_one_task_and_model_are_held_at_once(tmp_path: Path) -> None:
    several = [[*references(model=model), result(model=model)] for model in ("org/one", "org/two", "org/three")]
    store([one for of_model in several for one in of_model], tmp_path / "results")
    held: list[weakref.ref[Result]] = []

    def read() -> Iterator[Iterator[Filed]]:
        for of_model in read_models(tmp_path / "results"):
            assert not any(one() for one in held)
            yield (held.append(weakref.ref(filed.result)) or filed for filed in of_model)

    with collection_paused():
        pages = render_filed(read(), ["none", "retain", "grun+npo"], tmp_path / "results", tmp_path).pages
    assert len(held) == 9 and not any(one() for one in held)
    assert pages == render(tmp_path / "results", tmp_path).pages


@pytest.mark.long
def test_the_projects_own_pages_are_those_of_its_rows_in_every_environment() -> None:
    out = Path(__file__).parents[2] / "leaderboards"
    assert outdated(render(out / "results", out).pages, out) == {}


def test_pages_are_written_once_and_removed_with_their_results(tree: Path) -> None:
    out = tree.parent
    pages = rendered(tree)
    write(render(tree, out), out)
    assert not outdated(pages, out) and {"README.md", SITE} < set(pages)
    kept = out / "toy" / "letters" / "notes.txt"
    kept.write_text("of the user")
    before = {path: (out / path).stat().st_mtime_ns for path in pages}
    for path in (tree / "letters" / "org__small" / "lora+ga").glob("*.json"):
        path.unlink()
    after = rendered(tree)
    write(render(tree, out), out)
    gone = set(pages) - set(after)
    assert gone and all(path.startswith("toy/") for path in gone) and not any((out / path).exists() for path in gone)
    assert kept.read_text() == "of the user"
    same = [path for path in after if after[path] == pages[path]]
    assert same and all((out / path).stat().st_mtime_ns == before[path] for path in same)


def test_a_page_of_another_origin_is_not_overwritten(tree: Path) -> None:
    for name in ("README.md", SITE):
        (tree.parent / name).write_text("# My project")
        with pytest.raises(UsageError, match="--out"):
            write(render(tree, tree.parent), tree.parent)
        assert (tree.parent / name).read_text() == "# My project"
        (tree.parent / name).unlink()


@pytest.fixture
def out(tree: Path, tmp_path: Path) -> Path:
    """A folder of pages that holds more than the tree does now, beside what is somebody else's."""
    folder = tmp_path / "out"
    write(render(tree, folder), folder)
    for path in (tree / "letters" / "org__small" / "lora+ga").glob("*.json"):
        path.unlink()
    return folder


def test_what_was_not_written_is_not_removed(tree: Path, out: Path) -> None:
    (page,) = (out / "toy" / "letters").glob("*.md")
    (sheet,) = (out / "toy" / "letters").glob("*.csv")
    sheet.write_text("my own numbers")
    others = [out / "pages" / "notes" / name for name in ("a.md", "b.csv", "c.svg")]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    write(render(tree, out), out)
    assert not page.exists()
    assert sheet.read_text() == "my own numbers" and all(path.read_text() == "mine" for path in others)
    # an honest tree does not hold them, which is told
    told = outdated(render(tree, out).pages, out)
    assert set(told) == {path.relative_to(out).as_posix() for path in (sheet, *others)}


@pytest.mark.parametrize("planted", ["letters", "folder", "page", "site", "manifest"])
def test_no_link_among_the_pages_is_followed(tree: Path, out: Path, planted: str) -> None:
    """Whatever it leads to, inside a folder with the name of a task or in a page's own place, stays as it is."""
    away = out.parent / "away"
    shutil.copytree(out, away)  # content that the manifest names, so that nothing but the link tells them apart
    before = {path: path.read_bytes() for path in away.rglob("*") if path.is_file()}
    link = {
        "letters": Path("toy/letters"),
        "folder": Path("pages"),
        "page": Path("pages/letters/org__small.md"),
        "site": Path(SITE),
        "manifest": Path("pages.json"),
    }[planted]
    place = out / link
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    place.symlink_to(away / link)
    if planted == "letters":  # no page has its place there any more: nothing to write, and nothing is removed
        write(render(tree, out), out)
    else:
        with pytest.raises(UsageError, match="link"):
            write(render(tree, out), out)
    assert {path: path.read_bytes() for path in away.rglob("*") if path.is_file()} == before
    assert place.is_symlink()


def test_a_manifest_that_git_could_not_merge_names_nothing(tree: Path, out: Path) -> None:
    (page,) = (out / "toy" / "letters").glob("*.md")
    (out / "pages.json").write_text("<<<<<<< ours\n{}\n=======\n{}\n>>>>>>> theirs\n")
    write(render(tree, out), out)
    assert page.exists() and json.loads((out / "pages.json").read_text())


def test_toy_rows_have_pages_of_their_own_under_a_toy_heading(tree: Path) -> None:
    pages = rendered(tree)
    real, toy = pages["README.md"].split("## Toy results")
    assert "lora+ga" not in real and "lora+ga" in toy
    assert "lora+ga" not in pages["pages/letters/org__small.md"]
    assert "(toy)" in pages["toy/letters/org__small.md"].splitlines()[0]
    assert "say nothing of real models" in pages["toy/letters/org__small.md"]


def test_the_overview_names_the_best_row_and_links_to_the_page(tree: Path) -> None:
    pages = rendered(tree)
    (head, line), (_, toy) = tables(pages["README.md"])
    cells = dict(zip(head, line, strict=True))
    # 0.02 is beyond the retain model's 0.05, and its utility is above the floor of 0.70; the others' 0.6 is not
    # nobody attacked it, and others of the board were: the overview says so
    assert cells["best row"] == "mine+npo <sub>(no attack)</sub>" and cells["forgetting, worst case ↓"] == "0.020"
    assert (cells["rows"], cells["runs"]) == ("5", "6")
    assert toy[2].startswith("lora+ga")
    for cell in (cells["task"], toy[0]):
        assert re.search(r"\((.*)\)", cell)[1] in pages  # type: ignore[index]


def test_wide_tables_are_parted_by_theme_and_layers_of_gates_fold(tmp_path: Path) -> None:
    names = ["forget_gate", "forget_gate_layer_3", "retain_probability", "forget_ngram_entropy", "mia_loss", "forget_x"]
    one, other = result("grun+npo"), result("lora+npo")
    for each in (one, other):
        each.higher_is_better[each.task].update(dict.fromkeys(names))
        each.results[each.task].update({f"{name},none": 0.5 for name in names})
    other.results[other.task].update({"forget_gate,none": None, "forget_gate_layer_3,none": None})
    store([*references(), one, other], tmp_path / "results")
    page = render(tmp_path / "results", tmp_path).pages["pages/letters/org__small.md"]
    heads = {tuple(table[0][1:]): len(table) - 1 for table in tables(page)[2:]}
    assert heads == {
        ("forget x",): 4,
        ("retain rouge ↑", "retain probability"): 4,
        ("mia loss",): 4,
        ("forget ngram entropy",): 4,
        ("forget gate",): 1,
        ("forget gate layer 3",): 1,
        ("false-shut, as usual", "false-shut, worst", "false-open, as usual", "false-open, worst", "AUC, as usual",
         "picture"): 1,
    }  # fmt: skip
    folded = page.partition("<details")[2].partition("</details>")[0]
    assert "gate layer 3" in folded and "gate layer 3" not in page.replace(folded, "")


def test_boards_without_a_method_fold_away_behind_the_others(tmp_path: Path) -> None:
    results = [*references(task="aaa"), *references(task="bbb"), result(task="bbb"), *references(dataset="embedded")]
    store(results, tmp_path / "results")
    pages = render(tmp_path / "results", tmp_path).pages
    assert [board.first.task for board in boards(results)] == ["bbb", "aaa", "letters"]
    real, toy = pages["README.md"].split("## Toy results")
    shown, folded = real.split("<details")
    assert "[bbb]" in shown and "[aaa]" not in shown and "[aaa]" in folded
    assert "[letters]" in toy.split("<details")[1]
    assert [line[0].partition("]")[0] for table in tables(real) for line in table[1:]] == ["[bbb", "[aaa"]


def test_the_page_shows_means_intervals_and_notes(tree: Path) -> None:
    store([result("lora+gd", es=None, seed=0)], tree)
    page = rendered(tree)["pages/letters/org__small.md"]
    headline, costs, attacks, kept = tables(page)
    row = dict(zip(headline[0], next(line for line in headline if line[1].startswith("grun+npo")), strict=True))
    assert row["forget es ↓"].startswith("0.150")
    half = stats.t.interval(0.95, 1, loc=0, scale=stats.sem([0.1, 0.2]))[1]
    assert f"± {half:.3f}" in row["forget es ↓"]
    assert row["forget es ↓ worst case"].startswith("0.300") and "prefix" in row["forget es ↓ worst case"]
    assert "(below the floor)" in row["unlearner"]
    single = dict(zip(headline[0], next(line for line in headline if line[1].startswith("lora+npo")), strict=True))
    assert "[0.500, 0.700]" in single["utility ↑"] and "no attack" in single["unlearner"]
    assert [line[0] for line in headline[1:3]] == ["", ""] and headline[1][1] == "**target model**"
    took = dict(zip(costs[0], next(line for line in costs if line[0] == "grun+npo"), strict=True))
    assert [took[name] for name in ("n", "trainable", "train s", "peak GiB")] == ["2", "1,234,567", "61", "3.0"]
    assert attacks[0] == ["unlearner", "no attack", "prefix"] and "under attacks of a user" in page
    assert kept[0] == ["unlearner", "retain rouge ↑"] and "### What was to be kept" in page
    # whatever has no number says why
    missing = dict(zip(headline[0], next(line for line in headline if line[1].startswith("lora+gd")), strict=True))
    assert missing["forget es ↓"] == "-<sup>1</sup>"
    assert re.search(r"^1\. there is no gate$", page, re.MULTILINE)
    # the rule is on the page, with this board's own numbers
    assert "0.702" in page and "retain model's worst case (here 0.050)" in page


def test_a_text_of_a_result_stays_text(tree: Path) -> None:
    name = "<img src=x onerror=alert(1)>|[a](javascript:alert(1))"
    store([result(name.replace("/", ""), es=0.01)], tree)
    pages = rendered(tree)
    page = pages["pages/letters/org__small.md"]
    assert len({len(line) for table in tables(page)[:1] for line in table}) == 1
    assert "<img src" not in MarkdownIt("commonmark").enable("table").render(page).replace(
        f'<img src="{re.search(r"!.*?][(](.*svg)", page)[1]}"',
        "",  # type: ignore[index]
    )
    assert "<img src" not in unpacked(pages[SITE]) and "<img" not in "".join(
        text for path, text in pages.items() if path.endswith(".svg")
    )


def test_pictures_are_xml_with_a_point_for_each_ranked_row(tree: Path) -> None:
    pages = rendered(tree)
    (path,) = (path for path in pages if path.startswith("pages/") and path.endswith(".svg"))
    root = ElementTree.fromstring(pages[path])
    points = [part for part in root.iter() if "pt" in part.get("class", "").split()]
    assert len(points) == 5
    where = {part.find("{*}title").text: part for part in points}  # type: ignore[union-attr]
    assert set(where) == {"target model", "retain model", "grun+npo", "lora+npo", "mine+npo"}
    # more forgetting is further left, more utility further up
    at = {name: part.find("{*}circle") for name, part in where.items() if part.find("{*}circle") is not None}
    assert float(at["mine+npo"].get("cx")) < float(at["grun+npo"].get("cx"))  # type: ignore[union-attr, arg-type]
    assert float(at["mine+npo"].get("cy")) < float(at["grun+npo"].get("cy"))  # type: ignore[union-attr, arg-type]
    assert "http" not in pages[path].replace("http://www.w3.org/2000/svg", "")


def test_gated_rows_show_where_their_gates_open(tmp_path: Path) -> None:
    """As far as they were audited; the pages have one picture of each audit, the page of all boards the same."""
    usual, attacked = {"forget": 0.125, "retain": 0.25, "nearest retain": 0.5}, {"forget": 0.75}
    rows = [
        with_gates(result("grun+npo"), 0.9, none=usual, suffix_role=attacked),
        with_gates(result("grun+idk", es=0.2), 0.8),
        result("lora+npo"),
    ]
    store([*references(), *rows], tmp_path / "results")
    rendered = render(tmp_path / "results", tmp_path)
    means, shown = tables(rendered.pages["pages/letters/org__small.md"])[-2:]
    (picture,) = [path for path in rendered.pages if "gates" in path]
    audited, older = (dict(zip(shown[0], row, strict=True)) for row in shown[1:])
    assert (audited["unlearner"], older["unlearner"]) == ("grun+npo", "grun+idk")
    assert means == [["unlearner", "forget gate"], ["grun+npo", "0.900"], ["grun+idk", "0.800"]]
    wrong = {name: cell.split(" <sub>") for name, cell in audited.items() if name.startswith("false")}
    assert wrong == {
        "false-shut, as usual": ["0.125", "forget</sub>"],
        "false-shut, worst": ["0.750", "forget, suffix: role</sub>"],
        "false-open, as usual": ["0.500", "nearest retain</sub>"],
        "false-open, worst": ["0.500", "nearest retain</sub>"],
    }
    assert audited["AUC, as usual"] == "0.875"
    assert audited["picture"] == f"[seen]({picture.rpartition('/')[2]})"
    assert re.fullmatch(r"-<sup>\d+</sup>", older["false-shut, as usual"]) and not older["picture"]
    assert "grun-bench attack RUN --attacks" in rendered.pages["pages/letters/org__small.md"]
    ElementTree.fromstring(rendered.pages[picture])
    assert base64.b64encode(rendered.pages[picture].encode()).decode() in unpacked(rendered.site)


def test_the_sheet_has_every_number(tree: Path) -> None:
    pages = rendered(tree)
    (path,) = (path for path in pages if path.startswith("pages/") and path.endswith(".csv"))
    lines = {line["unlearner"]: line for line in csv.DictReader(io.StringIO(pages[path]))}
    row = lines["grun+npo"]
    assert float(row["forget_es"]) == pytest.approx(0.15) and float(row["worst case"]) == 0.3
    assert row["seeds"] == "0 1" and json.loads(row["settings"]) == {"lr": 0.001}
    assert float(row["forget_es,prefix"]) == 0.3 and row["forget_gate"] == ""
    assert lines["mine+npo"]["pareto"] == "1" and lines["none"]["rank"] == ""


def test_flags_are_read_by_run(tree: Path) -> None:
    (tree / "flags.json").write_text('[{"run_id": "abc", "reason": "why"}]')
    assert read_flags(tree) == {"abc": "why"}
