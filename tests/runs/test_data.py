"""The rows of a run: what is to be forgotten is not what is to be kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TASK

from grun_bench.core.errors import DataError
from grun_bench.runs.data import read_data
from grun_bench.tasks.task import load_task
from grun_bench.tasks.world import PUBLISHED


@pytest.fixture
def read(tmp_path: Path):
    """Reads a task over sets whose rows are numbers: the question of a row and its answer."""

    def source(name: str, numbers: list[int]) -> str:
        rows = [{"question": f"What is {number}?", "answer": f"{number}."} for number in numbers]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    def of(forget: list[int], retain: list[list[int]], scored: dict[str, tuple[str, list[int]]]) -> Any:
        score = {name: {"source": source(name, numbers), "role": role} for name, (role, numbers) in scored.items()}
        training = {
            "forget": [source("to-forget", forget)],
            "retain": [source(f"to-keep{place}", numbers) for place, numbers in enumerate(retain)],
        }
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(TASK | training | {"score": score}))
        return read_data(load_task(str(path)), PUBLISHED, None)

    return of


def test_sets_that_share_no_row_are_read(read) -> None:
    scored = {"forget": ("forget", [1, 2]), "retain": ("retain", [3, 4]), "unseen": ("holdout", [9])}
    data = read([1, 2, 2], [[3, 4], [5]], scored)
    assert [len(data.pairs(name)) for name in ("forget", "retain")] == [3, 3]


@pytest.mark.parametrize(
    ("retain", "scored", "message"),
    [
        (
            [[3, 4], [7, 2, 1]],
            {"kin": ("neighbour", [8])},
            r"row 1 of the set train:forget .* row 1 of the set train:retain .*to-keep1.* 1 more",
        ),
        ([[3, 4]], {"kin": ("neighbour", [8, 1])}, "row 0 of the set train:forget .* is also row 1 of the set kin"),
        ([[3, 4]], {"secret": ("forget", [5]), "unseen": ("holdout", [5])}, "row 0 of the set secret .* set unseen"),
        ([[3, 4]], {"secret": ("forget", [6, 3])}, "row 1 of the set secret .* is also row 0 of the set train:retain"),
    ],
)
def test_a_row_to_forget_among_those_to_keep_is_refused_with_both_places(read, retain, scored, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read([1, 2], retain, scored)
