"""Scored sets by name, role and kind; task files that name them; rows under names of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TASK

from grun_bench.core.errors import DataError
from grun_bench.tasks.dataset import Source
from grun_bench.tasks.roles import KNOWING_IS_GOOD, ROLES
from grun_bench.tasks.sets import USUAL, USUAL_SETS, ScoredSets
from grun_bench.tasks.task import Task, load_task
from grun_bench.tasks.world import PUBLISHED, TOY
from grun_bench.tasks.yaml_files import task_files

#: every way to describe a set
SCORE = {
    "kin": {"source": "data/kin.jsonl", "role": "neighbour"},
    "forget": "org/data:forget",
    "leavers": {"source": "org/data[2:4]", "role": "forget", "columns": {"answer": "reply"}},
    "holdout": "org/data:holdout",
}
MEASURES = {"quiz": {"role": "utility", "task": "mmlu"}, "secrets": {"role": "forget"}}


@pytest.fixture
def task(tmp_path: Path) -> Task:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(TASK | {"score": SCORE, "measures": MEASURES}, sort_keys=False))
    return load_task(str(path))


def test_sets_come_role_by_role_and_then_as_written(task: Task) -> None:
    assert task.sets.of("forget") == ["forget", "leavers"]
    assert task.sets.of(*ROLES) == ["forget", "leavers", "holdout", "kin"]
    assert task.sets.of("forget", "utility", kind="questions") == ["secrets", "quiz"]
    assert [task.sets.role(name) for name in ("leavers", "quiz", "nobody")] == ["forget", "utility", None]


def test_a_result_says_the_same_of_its_sets_as_its_task(task: Task) -> None:
    config = json.loads(json.dumps(task.model_dump(mode="json")))
    assert ScoredSets.of_config(config) == task.sets
    assert config["score"]["forget"] == "org/data:forget"  # what was short stays short


def test_what_describes_no_set_is_passed_over() -> None:
    odd: dict[str, Any] = {"score": {"a": 3, "b": {"role": "king"}, "c": "x", "forget": "x"}, "measures": ["quiz"]}
    assert ScoredSets.of_config(odd).of(*ROLES) == ["forget"]
    assert not ScoredSets.of_config({"score": None}).sets
    assert ScoredSets.of_config({}) == USUAL_SETS


def test_columns_that_are_needed(task: Task) -> None:
    assert task.needed("forget") == USUAL["forget"][1] and len(task.needed("forget")) == 5
    assert task.needed("leavers") == task.needed("holdout") == ("question", "answer")
    assert task.scored["leavers"] == Source("org/data", None, 2, 4, {"answer": "reply"})


@pytest.mark.parametrize("name", task_files())
def test_the_harness_tasks_are_in_tofus_order(name: str) -> None:
    """The order of records and of the parts of model utility."""
    for world in (PUBLISHED, TOY):
        task = world.task(load_task(name))
        usual = [each for each in task.sets.of(*ROLES) if each in USUAL]
        assert usual == [each for each in USUAL if each in task.score]


def test_every_role_says_whether_knowing_is_good() -> None:
    assert tuple(KNOWING_IS_GOOD) == ROLES
    assert [role for role, good in KNOWING_IS_GOOD.items() if good is False] == ["forget"]


# --- rows -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Rows with names of their own, a wrong answer that is no list, and another that is missing."""
    path = tmp_path / "rows.jsonl"
    rows = [
        {"ask": "Who?", "reply": "Ada.", "wrong": "Bo.", "answer": "not this one", "text": "nor this"},
        {"ask": "Where?", "reply": "Here.", "wrong": ["There.", "Nowhere."], "answer": "", "text": ""},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_mapped_columns(file: Path) -> None:
    source = Source(str(file), columns={"question": "ask", "answer": "reply", "perturbed_answer": "wrong"})
    for needed in (("question", "answer"), None):  # scored and trained on
        rows = PUBLISHED.rows(source, needed).rows
        assert rows[0] == {"question": "Who?", "answer": "Ada.", "perturbed_answer": ["Bo."]}
        assert rows[1]["perturbed_answer"] == ["There.", "Nowhere."]


def test_plain_texts_under_another_name(file: Path) -> None:
    assert PUBLISHED.rows(Source(str(file), stop=1, columns={"text": "ask"})).rows[0]["text"] == "Who?"


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({"question": "ask"}, "row 1, column 'answer': expected text, found an empty one"),
        ({"question": "asks", "answer": "reply"}, "row 0: column 'asks' is missing; the columns are ask, reply"),
        ({"question": "ask", "answer": "reply", "paraphrased_answer": "also"}, "column 'also' is missing"),
        ({}, "column 'question' is missing"),
    ],
)
def test_a_wrong_column_is_named_as_the_data_names_it(file: Path, columns: dict[str, str], part: str) -> None:
    with pytest.raises(DataError, match=part):
        PUBLISHED.rows(Source(str(file), columns=columns), ("question", "answer"))


# --- what scored sets need not have -----------------------------------------------------------------------------------


def test_a_usual_set_needs_no_column_that_none_of_its_rows_has(tmp_path: Path) -> None:
    """TOFU's own files have all of them in every row, so one that lacks it is broken; own rows have none at all."""
    path, pair = tmp_path / "rows.jsonl", {"question": "Who?", "answer": "Ada."}
    path.write_text(json.dumps(pair) + "\n" + json.dumps(pair))
    needed = USUAL["forget"][1]
    assert PUBLISHED.rows(Source(str(path)), needed).rows == [pair, pair]
    path.write_text(json.dumps(pair | {"paraphrased_answer": "Ada!"}) + "\n" + json.dumps(pair))
    with pytest.raises(DataError, match="row 1: column 'paraphrased_answer' is missing"):
        PUBLISHED.rows(Source(str(path)), needed)


def test_a_scored_row_may_be_a_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "Once upon a time."}\n{"question": "Who?", "answer": "Ada."}\n')
    assert [row["text"] for row in PUBLISHED.rows(Source(str(path)), ("question", "answer")).rows] == [
        "Once upon a time.",
        None,
    ]
