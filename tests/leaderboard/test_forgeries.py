"""Forged copies of real results: each is refused, in a line with its file and the reason."""

from __future__ import annotations

import bz2
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from forging import Data, edit, records_of, refile, replace_records, restate

from grun_bench.core.errors import UsageError
from grun_bench.leaderboard import allowed, words
from grun_bench.leaderboard.boards import Board
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.check import check
from grun_bench.leaderboard.marks import read_marks
from grun_bench.leaderboard.pages import render, write
from grun_bench.leaderboard.tree import read_models
from grun_bench.results.record import Continuation, Generation, Record


@pytest.fixture
def tree(results: Path, tmp_path: Path) -> Path:
    """A copy of a real run with its target and retain rows."""
    return Path(shutil.copytree(results, tmp_path / "results"))


def of(tree: Path, unlearner: str = "grun+npo") -> Path:
    (path,) = (tree / "small" / "org__small" / unlearner).glob("*.json")
    return path


def found(tree: Path) -> list[str]:
    """The problems of a tree whose pages are up to date."""
    out = tree.parent / "pages of it"
    write(render(tree, out), out)
    return list(check(tree, out).problems)


def test_an_honest_tree_is_none(tree: Path) -> None:
    assert found(tree) == []


# --- what a result says of itself -------------------------------------------------------------------------------------


def headline(data: Data) -> None:
    data["headline"] = ["forget_gate", *data["headline"]]


def intervals(data: Data) -> None:
    data["intervals"]["forget_probability,none"] = [-0.5, 0.5]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (headline, r"$.headline: ['forget_gate', "),
        (lambda data: data["unlearner"]["settings"].update(lr=1e-9), "$.run_id: not the one that its task, settings"),
        (lambda data: data["reference"].update(names=["org/other"]), "$.run_id: not the one that"),
        (lambda data: data["configs"]["small"].update(max_new_tokens=3), "$.run_id: not the one that"),
        (lambda data: data["configs"].clear(), "$.run_id: not the one that"),
        (lambda data: data["results"]["small"].update({"retain_probability,none": 1.5}), "1.5, and it is from 0 to 1"),
        (lambda data: data["results"]["small"].update({"forget_gate_x,none": -1.0}), "-1.0, and it is from 0 to 1"),
        (intervals, "$.intervals[0].forget_probability,none: -0.5, and it is from 0 to 1"),
    ],
)
def test_what_cannot_be_said_of_itself_is_found(tree: Path, change: Callable[[Data], Any], says: str) -> None:
    edit(of(tree), change)
    assert any(line.startswith(f"{of(tree)}: ") and says in line for line in found(tree)), found(tree)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda data: data.update(date="0001-01-01T00:00:00+00:00"),
            "$.date: a result is made between ",
        ),
        (
            lambda data: data.update(date="9998-01-01T00:00:00+00:00"),
            "$.date: a result is made between ",
        ),
        (lambda data: data.update(date="yesterday"), "$.date: Invalid isoformat"),
        (lambda data: data.update(limit=-3), "$.limit: should be at least 1"),
        (lambda data: data.update(limit=0), "$.limit: "),
        (lambda data: data.update(limit=2.5), "$.limit: should be a whole number"),
        (lambda data: data.update(limit=True), "$.limit: should be a whole number"),
        (lambda data: data.update(limits=3), "$.limits: is no field here"),
        (lambda data: data.pop("seed"), "$.seed: is missing"),
        (lambda data: data.update(seed=-1), "$.seed: "),
        (lambda data: data["cost"].update(training_seconds=-1.0), "$.cost.training_seconds: "),
        (
            lambda data: data["n-samples"]["small"].update(x=-4),
            "$.n-samples.small.x: ",
        ),
    ],
)
def test_what_no_run_leaves_makes_no_board(tree: Path, change: Callable[[Data], Any], says: str) -> None:
    edit(of(tree), change)
    with pytest.raises(UsageError) as refused:
        render(tree, tree.parent)
    assert str(refused.value).startswith(f"{of(tree)}: {says}")


def test_a_point_of_a_training_curve_has_no_records_and_has_bounds(tree: Path) -> None:
    point = {"at": 1, "values": {"forget_probability": 2.0}}
    edit(of(tree), lambda data: data["curves"].update(training={"unit": "steps", "points": [point]}))
    says = f"{of(tree)}: $.curves.training.points[0].forget_probability: 2.0, and it is from 0 to 1."
    assert says in found(tree)


def test_a_task_of_the_harness_is_what_it_is_here(tree: Path) -> None:
    """Under its name nobody files another: the headline above all, by which rows are ranked."""
    from grun_bench.leaderboard.consistency import inconsistencies
    from grun_bench.results.store import read_result

    (honest,) = (Path(__file__).parents[2] / "leaderboards/results/tofu_lite").glob("*/lora+npo/*.json")
    result = read_result(honest)
    assert list(inconsistencies(result)) == []
    result.headline = result.configs["tofu_lite"]["headline"] = ["model_utility"]
    assert list(inconsistencies(result)) == ["$.configs.tofu_lite.headline is not that of the task here; run it again"]


# --- what a record says -----------------------------------------------------------------------------------------------


def answer(**changes: Any) -> Callable[[Record], Record]:
    return lambda record: replace(record, answer=replace(record.answer, **changes))


def likely_and_not_first(record: Record) -> Record:
    """Extraction strength made 0: no token is the most probable one, whatever its probability."""
    count = len(record.answer.logprobs or ())
    return replace(record, answer=Continuation(record.answer.text, [-0.1] * count, [0] * count))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (answer(loss=3.0), "answer.loss: 3.0, and minus the mean of its log probabilities is "),
        (answer(logprobs=[0.5], matches=[1], loss=-0.5, means=None, deviations=None), "a log probability above 0"),
        (answer(probability=0.123), "answer.probability: 0.123, and exp(-loss) is "),
        (likely_and_not_first, "answer.matches: a token of more than half of the probability that is not the most"),
        (lambda row: replace(row, gates={"1": 1.5}), "gates: not from 0 to 1"),
        (lambda row: replace(row, perturbed=[Continuation("x", loss=-2.0, tokens=1)]), "perturbed.0.loss: -2.0, below"),
    ],
)
def test_records_that_no_model_leaves_are_found(tree: Path, change: Callable[[Record], Record], says: str) -> None:
    replace_records(of(tree), change)
    lines = [line for line in found(tree) if says in line]
    assert lines and all("grun+npo" in line and ", line 1: row 0 of 'forget': " in line for line in lines), found(tree)


def test_run_ids_name_a_dtype_and_a_protocol_as_runs_do() -> None:
    """What is named otherwise from some version on, so that its older rows are no rows any more, is listed by hand."""
    from grun_bench.methods.trained_weights import training_dtype
    from grun_bench.models.protocols import PROTOCOLS, identity
    from grun_bench.results.run_id import NAMES

    for name, called in [(name, training_dtype(name)) for name in ("float32", "bfloat16", "float16")] + [
        (name, identity(name)) for name in PROTOCOLS
    ]:
        assert called == NAMES.get(name, (name,))[-1]


def test_other_settings_under_their_own_run_id_are_consistent(tree: Path) -> None:
    """The run id alone proves nothing: such a row is found by making it again."""
    refile(of(tree), lambda data: data["unlearner"]["settings"].update(lr=1e-9))
    assert found(tree) == []


# --- beside the target and the retain model ---------------------------------------------------------------------------


def other_question(record: Record) -> Record:
    return replace(record, question="What is 1 + 1?") if (record.set, record.index) == ("forget", 2) else record


def test_other_questions_than_the_target_model_had_are_found(tree: Path) -> None:
    replace_records(of(tree), other_question, of(tree, "retain"))
    (line,) = found(tree)
    assert line.startswith(f"{of(tree)}: $.records: not the questions and answers of ") and "row 2 of 'forget'" in line


def test_rows_that_are_left_out_are_found(tree: Path) -> None:
    """Those that were not forgotten, say."""
    from grun_bench.results.filed import save_records
    from grun_bench.results.record import Records
    from grun_bench.results.store import read_result

    result = read_result(of(tree))
    result.records = save_records(of(tree), Records(list(records_of(of(tree)))[:-1]))
    of(tree).write_text(result.dumps())
    restate(of(tree), of(tree, "retain"))
    (line,) = found(tree)
    assert line.startswith(f"{of(tree)}: $.records: not the questions and answers of ") and "13 rows, and 14" in line


def test_a_retain_model_that_is_filed_as_a_method_is_noticed(tree: Path) -> None:
    """Its records under another name, with the noise of another device: every number follows from them."""
    noise = iter(range(10_000))
    retain = {(row.set, row.index): row for row in records_of(of(tree, "retain"))}

    def clone(record: Record) -> Record:
        row = retain[record.set, record.index]
        said = [value - 1e-4 * (next(noise) % 3) for value in row.answer.logprobs or ()]
        return replace(row, answer=replace(row.answer, logprobs=said, loss=-math.fsum(said) / len(said), matches=None))

    honest = found(tree)
    replace_records(of(tree), clone, of(tree, "retain"))
    (line,) = found(tree)
    assert honest == [] and line.startswith(
        f"{of(tree)}: $.records: those of the retain model of small/org__small/retain"
    )


# --- submissions ------------------------------------------------------------------------------------------------------


def submitted(tree: Path, name: str, change: Callable[[Path], Any] = lambda folder: None) -> Path:
    """A submission to the tree: a copy of its own run with controls, changed."""
    folder = tree / "submissions" / name / "results"
    # a bundle has no pictures, as `grun-bench submit` makes it
    shutil.copytree(tree / "small", folder / "small", ignore=shutil.ignore_patterns("*.svg"))
    change(folder)
    card = {"name": name, "authors": ["Ada"], "paper": None, "code": None, "licence": "MIT", "tuning": "none"}
    (folder.parent / "card.json").write_text(json.dumps(card))
    return folder


def boards_of(tree: Path) -> list[Board]:
    return build(chain.from_iterable(read_models(tree)), {})


def test_a_forged_retain_row_neither_replaces_the_trees_own_nor_ranks_its_method_first(tree: Path) -> None:
    """The method forgot nothing: its records are the target model's, and so are those of "its" retain model."""
    target = {(row.set, row.index): row for row in records_of(of(tree, "none"))}

    def forge(folder: Path) -> None:
        for name in ("retain", "grun+npo"):
            replace_records(of(folder, name), lambda row: target[row.set, row.index], of(folder, "retain"))
        refile(of(folder), lambda data: data["unlearner"]["settings"].update(lr=0.5))

    before = boards_of(tree)
    submitted(tree, "forged", forge)
    own, forged = boards_of(tree)
    assert [row.worst for row in own.rows] == [row.worst for row in before[0].rows]
    assert [row.rank for row in own.rows] == [row.rank for row in before[0].rows] and own.beyond == before[0].beyond
    assert forged.apart and [row.rank for row in forged.rows] == [None, None, None]
    marks = next(row.marks for row in forged.rows if not row.pinned)
    assert marks == ("own controls", "not distinguishable from the target")
    # as the page says, whose overview names no best row of it
    pages = render(tree, tree.parent).pages
    assert words.APART in pages["pages/small/org__small.md"] and found(tree) == []


def test_a_submission_with_the_trees_own_controls_is_ranked_with_its_rows(tree: Path) -> None:
    submitted(tree, "same", lambda folder: refile(of(folder), lambda data: data.update(seed=1)))

    def other_device(record: Record) -> Record:
        said = [value - 1e-5 for value in record.answer.logprobs or ()]
        return replace(record, answer=replace(record.answer, logprobs=said, loss=-math.fsum(said) / len(said)))

    def made_elsewhere(folder: Path) -> None:
        refile(of(folder), lambda data: data.update(seed=2))
        for name in ("retain", "none"):
            replace_records(of(folder, name), other_device, of(folder, "retain"))
        restate(of(folder), of(folder, "retain"))

    submitted(tree, "near", made_elsewhere)
    submitted(
        tree,
        "without",
        lambda folder: [shutil.rmtree(folder / f"small/org__small/{name}") for name in ("none", "retain")],
    )
    (board,) = boards_of(tree)
    assert not board.apart and [len(row.runs) for row in board.rows] == [1, 1, 3]
    # the numbers of a run that several filed are the tree's own, and so are the controls
    assert all(row.runs[0].filings[0].submission == "" for row in board.rows)
    assert found(tree) == []


def test_a_submission_without_controls_that_was_compared_with_others_stands_apart(tree: Path) -> None:
    def other_models(folder: Path) -> None:
        for name in ("none", "retain"):
            shutil.rmtree(folder / f"small/org__small/{name}")
        refile(of(folder), lambda data: data["reference"].update(names=["org/easy"]))

    submitted(tree, "easy", other_models)
    assert [board.apart for board in boards_of(tree)] == [False, True]


@pytest.mark.long
def test_what_a_submission_says_of_its_own_verification_is_refused_until_the_tree_signs_it_off(
    command: Any, tree: Path, hub: Path
) -> None:
    options = ["--results", tree, "--include-path", hub]
    assert command("verify", tree, *options).code == 0
    own = read_marks(tree)
    base = submitted(tree, "mine", lambda folder: refile(of(folder), lambda data: data.update(seed=1))).parent
    alone = Path(shutil.copytree(base, tree.parent / "mine"))
    assert command("verify", alone, *options).code == 0
    shutil.copy(alone / "verified.json", base)

    def tiers() -> dict[str, set[str]]:
        filed = list(chain.from_iterable(read_models(tree)))
        return {name: {each.tier for each in filed if each.submission == name} for name in ("", "mine")}

    (line,) = found(tree)
    assert line.startswith(f"{base}/verified.json: not signed off by {tree}/verified.json")
    assert tiers() == {"": {"recomputed"}, "mine": {"self-reported"}}
    (base / "verified.json").write_text('{"results/x.json": 1}')
    assert any(f"{base}/verified.json: $.results/x.json" in line for line in found(tree))
    shutil.copy(alone / "verified.json", base)
    assert command("verify", base, *options).code == 0 and found(tree) == []
    assert tiers() == {"": {"recomputed"}, "mine": {"recomputed"}}
    assert own.items() <= read_marks(tree).items() and len(read_marks(tree)) == 2 * len(own)
    # the tree's own is verified without them, and what fails loses its mark and no other's
    assert command("verify", tree, *options).code == 0 and len(read_marks(tree)) == 2 * len(own)
    edit(of(base / "results"), lambda data: data["results"]["small"].update({"retain_probability,none": 0.5}))
    assert command("verify", base, *options).code == 1
    assert read_marks(tree) == own


# --- records that take too much ---------------------------------------------------------------------------------------


@pytest.mark.long
def test_records_that_take_too_long_are_stopped(
    command: Any, tree: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two texts of 4,000 words each take eight seconds to compare; there may be thousands."""
    text = " ".join(f"{chr(97 + number % 26)}{number % 7}" for number in range(3900))

    def long(record: Record) -> Record:
        return replace(record, answer=replace(record.answer, text=text), generation=Generation(text[::-1]))

    replace_records(of(tree), long)
    for name, value in (("SECONDS", 0.5), ("SECONDS_PER_ROW", 0.0)):
        monkeypatch.setattr(allowed, name, value)
    assert any(line.startswith(f"{of(tree)}: stopped after ") for line in found(tree))
    said = command("verify", tree, "--results", tree, "--include-path", hub)
    assert said.code == 1 and "stopped after" in said.out


@pytest.mark.long
def test_records_that_take_too_much_memory_are_not_read(tree: Path) -> None:
    """Of a few kilobytes on the disk: fifty million zeros would be gigabytes of numbers."""
    records = of(tree).with_suffix(".records.jsonl.bz2")
    # a file of several streams, one of them fifty times: zeros take bzip2 half a minute
    records.write_bytes(bz2.compress(b'{"logprobs":[0,') + bz2.compress(b"0," * 10**6) * 50)
    assert any("grun+npo" in line and "50,000,000 values" in line for line in found(tree))


# --- what readers of JSON refuse, in words that are safe to print -----------------------------------------------------

ODD = [
    ('{"\\u001b[2Ja": 1, "\\u001b[2Ja": 2}', "twice"),
    ('[{"run_id": "x", "reason": NaN}]', "NaN"),
    ("[" * 50 + "]" * 50, "deeper"),
    ('"\\ud800"', "surrogate"),
]


@pytest.mark.parametrize(("text", "says"), ODD)
def test_every_reader_is_strict(command: Any, tree: Path, text: str, says: str) -> None:
    log = tree.parent / "log\x1b[31m.json"
    log.write_text(text)
    (tree / "flags.json").write_text(text)
    shown = of(tree, "none")
    shown.write_text(text)
    options = ["--format", "tofu", "--task", "tofu_forget10", "--model", "a/b", "--unlearner", "none"]
    for arguments in (
        ["leaderboard", "--results", tree, "--out", tree.parent / "out", "--check"],
        ["show", shown],
        ["import", log, *options, "--output", tree.parent / "other"],
    ):
        said = command(*arguments)
        assert said.code in (1, 2) and says in said.out + said.err
        assert not {char for char in said.out + said.err if not char.isprintable()} - {"\n"}


def test_no_error_prints_a_control_sequence(command: Any, tmp_path: Path) -> None:
    odd = "\x1b[2J"
    for arguments in (
        ["show", odd, "--output", tmp_path],
        ["ls", odd],
        ["run", "--unlearner", odd, "--task", "x"],
        [odd],
    ):
        said = command(*arguments)
        assert said.code == 2 and "[2J" in said.err and "\x1b" not in said.out + said.err
