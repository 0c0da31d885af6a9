"""Own rows as a task: what is trained on, held out and scored, and what is refused before anything is loaded."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from grun_bench.core.errors import DataError, UsageError
from grun_bench.metrics.evaluate import evaluate
from grun_bench.results.record import Records
from grun_bench.runs.data import read_data
from grun_bench.tasks.neutral import QUESTIONS, SENTENCES
from grun_bench.tasks.own import LEAST, MOST, Own, OwnData
from grun_bench.tasks.roles import ROLES


@pytest.fixture
def own(tmp_path: Path):
    """The world of files whose rows are numbers: question and answer of each."""

    def written(name: str, numbers: range) -> Path:
        path = tmp_path / f"{name}.jsonl"
        rows = [{"question": f"What is {number}?", "answer": f"It is {number}."} for number in numbers]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    def of(forget: range, retain: range | None = None, neighbours: range | None = None, **more: Any) -> Own:
        kept = {"retain": retain, "neighbours": neighbours}
        files = {name: written(name, numbers) for name, numbers in kept.items() if numbers is not None}
        return Own(OwnData(written("leavers", forget), **files, **more))

    return of


def numbers(rows: list[tuple[str, str]]) -> set[str]:
    return {answer for _, answer in rows}


def test_a_part_of_the_retain_file_is_held_out_and_not_trained_on(own) -> None:
    world = own(range(20), range(100, 200), range(300, 303))
    data = read_data(world.load(""), world, None)
    assert data.sets.of(*ROLES) == ["forget", "retain", "neutral_texts", "neutral_questions", "holdout", "neighbours"]
    assert len(data.pairs("forget")) == 20 and len(data.pairs("retain")) == 80
    held = {row.answer for row in data.examples() if row.set == "holdout"}
    assert len(held) == 20 and not held & numbers(data.pairs("retain"))
    assert held | numbers(data.pairs("retain")) == {f"It is {number}." for number in range(100, 200)}
    assert held == {row.answer for row in read_data(world.load(""), world, None).examples() if row.set == "holdout"}
    assert any("20 rows of retain.jsonl, always the same, are held out" in note for note in world.notes)


def test_an_index_is_the_rows_place_in_its_file(own) -> None:
    world = own(range(6), range(100, 150))
    for row in read_data(world.load(""), world, None).examples():
        if row.set in ("retain", "holdout"):
            assert row.answer == f"It is {100 + row.index}."


def test_without_a_retain_file_neutral_rows_are_kept_and_others_scored(own) -> None:
    world = own(range(4))
    task = world.load("")
    data = read_data(task, world, None)
    known = {*SENTENCES, *(answer for answer, _ in QUESTIONS.values())}
    assert numbers(data.pairs("retain")) < known
    whole = {row.question + (row.join or "") + row.answer for row in data.examples() if row.set == "neutral_texts"}
    assert whole < set(SENTENCES) and not whole & numbers(data.pairs("retain"))
    assert any(note.startswith("no --retain: 40 sentences and questions") for note in world.notes)
    assert "--retain file of 25 rows" in task.sets.absent["holdout"]


@pytest.mark.parametrize(("forget", "rows", "held"), [(9, 24, 0), (9, 25, LEAST), (9, 1000, 9), (2, 1000, LEAST)])
def test_a_holdout_is_as_large_as_the_forget_set_and_not_too_small(own, forget: int, rows: int, held: int) -> None:
    world = own(range(forget), range(100, 100 + rows))
    found = [row for row in read_data(world.load(""), world, None).examples() if row.set == "holdout"]
    assert len(found) == held


def test_of_many_rows_some_are_scored_and_all_trained_on(own) -> None:
    world = own(range(1000))
    data = read_data(world.load(""), world, None)
    asked = [row.index for row in data.examples() if row.set == "forget"]
    assert len(data.pairs("forget")) == 1000 and len(asked) == MOST
    assert max(later - one for one, later in pairwise(asked)) <= 3
    assert any("400 of the 1000 rows of leavers.jsonl are scored" in note for note in world.notes)


@pytest.mark.parametrize(("characters", "tokens"), [(3, 32), (60, 60), (900, 128)])
def test_as_much_is_answered_as_answers_are_long_and_nothing_to_neutral_texts(
    tmp_path: Path, characters: int, tokens: int
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "Who?", "answer": "a" * characters}) + "\n")
    world = Own(OwnData(path))
    task = world.load("")
    assert task.max_new_tokens == tokens
    asked = {row.set: row.max_new_tokens for row in read_data(task, world, None).examples()}
    assert asked["forget"] is asked["neutral_questions"] is None and asked["neutral_texts"] == 0


def test_the_task_is_named_after_the_file_and_its_content(own) -> None:
    task = own(range(3)).load("")
    assert task.name == f"leavers-{task.own['forget'].sha256[:8]}"
    assert task.name != own(range(4)).load("").name
    assert own(range(3), utility=("mmlu",)).load("").headline[-1] == "mmlu_accuracy"


def test_rouge_is_of_any_script_where_answers_are_not_of_latin_letters(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "Кто?", "answer": "Ада Берг."}))
    task = Own(OwnData(path)).load("")
    assert "forget_rougeL_recall_unicode" in task.headline and "rougeL_recall" not in task.metrics


def test_a_row_to_forget_that_is_to_be_kept_too_is_refused_with_both_places(own) -> None:
    with pytest.raises(
        DataError, match=r"row 3 of .*leavers\.jsonl .* row 0 of .*retain\.jsonl too, and so are 1 more"
    ):
        own(range(5), range(3, 50))
    with pytest.raises(DataError, match=r"row 0 of .*leavers\.jsonl .* row 0 of .*neighbours\.jsonl too: take"):
        own(range(1), neighbours=range(3))


def test_a_column_that_is_none_of_ours_is_refused(own) -> None:
    with pytest.raises(UsageError, match="unknown column in --columns 'quest': did you mean question"):
        own(range(3), columns={"quest": "question"})


def test_what_brings_a_missing_set_is_said_whatever_metrics_are_asked_for(own) -> None:
    sets = own(range(3)).load("").sets
    value = evaluate(Records([]), None, ["mia_loss"], sets)["mia_loss"]
    assert value.value is None and "a --retain file of 25 rows brings one" in str(value.reason)
