"""What settings are tuned on: parts of the training rows, and no scored set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from grun_bench.core.errors import Refused
from grun_bench.tasks.dataset import Row, Source
from grun_bench.tasks.own import Own, OwnData
from grun_bench.tasks.task import Task, load_task
from grun_bench.tasks.world import PUBLISHED, TOY
from grun_bench.tuning.split import ASKED, validation

#: tasks with authors
TOFU = ("tofu_forget01", "tofu_forget05", "tofu_forget10", "tofu_lite", "tofu_lite_holdout", "tofu_sequential")


def contents(rows: list[Row]) -> set[tuple[str, str]]:
    return {(row.get("question") or "", row.get("answer") or row["text"]) for row in rows}


def task_of(folder: Path, forget: int, tuning: dict[str, object], **row: str) -> Task:
    """A task of persons with four rows each, ten of them to be kept; its scored files are named and not there."""
    for name, count in (("forget", forget), ("keep", 10), ("others", 2)):
        rows = [
            {"question": f"{name} {person} {at}?", "answer": f"{person}.", "person": f"{name}{person}"} | row
            for at in range(4)
            for person in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    scored = {name: {"role": name, "source": str(folder / f"{name}-scored.jsonl")} for name in ("forget", "retain")}
    said = {
        "version": 1,
        "description": "Persons.",
        "forget": [str(folder / "forget.jsonl")],
        "retain": [str(folder / "keep.jsonl")],
        "score": scored,
        "metrics": ["probability"],
        "headline": ["forget_probability"],
        "tuning": tuning,
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(said))
    return load_task(str(folder / "task.yaml"))


@pytest.mark.parametrize("name", TOFU)
def test_in_the_toy_world_nothing_that_is_scored_or_to_be_forgotten_is_in_it(name: str) -> None:
    task = TOY.load(name)
    found = validation(task, TOY)
    forget = [row for source in task.whole_forget for row in TOY.rows(source).rows]
    scored = [row for set_, source in task.scored.items() for row in TOY.rows(source, task.needed(set_)).rows]
    for rows in ("train-forget", "forget", "retain"):
        assert not contents(found.tables[rows]) & contents([*forget, *scored])
    # as many other authors as the task forgets, which the model knows
    assert len(found.tables["train-forget"]) == len(forget) and found.on == f"sibling of {name}"
    assert contents(found.tables["train-forget"]) <= contents(TOY.rows(Source.parse("locuslab/TOFU:full")).rows)


@pytest.mark.parametrize("name", TOFU)
def test_no_row_is_in_two_parts(name: str) -> None:
    tables = validation(TOY.load(name), TOY).tables
    forgotten, kept, held = (contents(tables[each]) for each in ("train-forget", "train-retain", "retain"))
    assert not forgotten & kept and not forgotten & held and not kept & held


def test_published_siblings_are_two_other_authors_of_as_many_rows() -> None:
    for name in ("tofu_forget01", "tofu_lite"):
        task = load_task(name)
        (sibling,) = task.sibling
        assert (sibling.stop or 0) - sibling.start == 40 and task.tuning.entity == 20


@pytest.mark.parametrize(("entity", "together"), [("person", True), (None, False)])
def test_the_last_fifth_of_the_entities_is_for_validation(tmp_path: Path, entity: object, together: bool) -> None:
    found = validation(task_of(tmp_path, 5, {"entity": entity}), PUBLISHED)
    # rows of one person lie five, or ten, apart in the files
    forgotten = {row["person"] for row in found.tables["train-forget"]}
    held = [row["question"].split()[1] for row in found.tables["retain"]]
    assert (forgotten == {"forget4"}) == together and (set(held) == {"8", "9"}) == together
    assert len(found.tables["train-forget"]) == 4 and len(held) == 8 and len(found.tables["train-retain"]) == 32
    assert found.on == "validation of task"


def test_rows_one_after_another_are_of_one_entity(tmp_path: Path) -> None:
    found = validation(task_of(tmp_path, 5, {"entity": 4}), PUBLISHED)  # five groups of four rows
    assert [row["question"] for row in found.tables["train-forget"]] == [
        f"forget {person} 3?" for person in range(1, 5)
    ]


def test_a_forget_set_that_is_too_small_needs_a_sibling(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"fewer than 5 entities.*sibling"):
        validation(task_of(tmp_path, 4, {"entity": "person"}), PUBLISHED)
    found = validation(
        task_of(tmp_path, 2, {"entity": "person", "sibling": [str(tmp_path / "others.jsonl")]}), PUBLISHED
    )
    assert {row["person"] for row in found.tables["train-forget"]} == {"others0", "others1"}
    # the model must know what it is to forget, so it is made on that and on what is kept
    assert contents(found.tables["learnt"]) == contents(found.tables["train-forget"]) | {
        (f"keep {person} {at}?", f"{person}.") for person in range(10) for at in range(4)
    }


def test_the_target_model_is_the_one_of_the_task_where_it_knows_the_rows(tmp_path: Path) -> None:
    task = task_of(tmp_path, 5, {"entity": "person"})
    rows = [row for source in (*task.whole_forget, *task.sources["retain"]) for row in PUBLISHED.rows(source).rows]
    assert validation(task, PUBLISHED).tables["learnt"] != []
    assert contents(validation(task, PUBLISHED).tables["learnt"]) == contents(rows)


def test_rows_are_asked_in_their_other_wording_too(tmp_path: Path) -> None:
    task = task_of(tmp_path, 5, {"entity": "person"}, paraphrased_question="In other words?")
    asked = validation(task, PUBLISHED).tables["forget"]
    assert [row["question"] for row in asked[4:]] == ["In other words?"] * 4
    assert [row["answer"] for row in asked[4:]] == [row["answer"] for row in asked[:4]]


def test_no_more_rows_are_asked_than_trials_have_time_for(tmp_path: Path) -> None:
    task = task_of(tmp_path, 400, {"entity": "person"})
    found = validation(task, PUBLISHED)
    assert len(found.tables["train-forget"]) == 320 and len(found.tables["forget"]) == ASKED
    assert contents(found.tables["forget"]) <= contents(found.tables["train-forget"])


def test_without_rows_to_hold_out_the_divergence_stands_for_utility(tmp_path: Path) -> None:
    task = task_of(tmp_path, 5, {"entity": "person"})
    (tmp_path / "keep.jsonl").write_text('{"question": "a?", "answer": "b.", "person": "c"}\n')
    found = validation(task, PUBLISHED)
    assert not found.keeps_rows and found.task.headline[1:] == ["neutral_texts_kl_to_target"]
    assert "retain" not in found.tables


def test_own_rows_are_parted_row_by_row_and_stay_private(tmp_path: Path) -> None:
    for name, count in (("leave", 10), ("stay", 50)):
        rows = [{"question": f"Who is {name} {at}?", "answer": f"Number {at} of {name}."} for at in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    world = Own(OwnData(tmp_path / "leave.jsonl", tmp_path / "stay.jsonl"))
    task = world.load("")
    found = validation(task, world)
    assert [row["question"] for row in found.tables["train-forget"]] == ["Who is leave 8?", "Who is leave 9?"]
    assert found.task.private and found.on == f"validation of {task.name}"
    holdout = world.rows(task.scored["holdout"], task.needed("holdout")).rows
    assert not contents(holdout) & contents([*found.tables["train-retain"], *found.tables["retain"]])
