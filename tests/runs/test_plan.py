"""`run --dry-run` says what the run then does, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Said

from grun_bench.results.result import Result

pytestmark = pytest.mark.whole


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


@pytest.mark.parametrize("unlearner", ["grun+npo", "lora+idk", "full+dpo"])
def test_a_plan_is_what_the_run_then_does(
    command: Callable[..., Said], small_run: list[str], environment: Path, tmp_path: Path, unlearner: str
) -> None:
    output = tmp_path / "results"
    asked = [*small_run, "--unlearner", unlearner, "--output", output, "--attacks", "prefill", "--json"]
    before = files(environment, tmp_path)
    said = command(*asked, "--dry-run")
    assert said.code == 0, said.err
    plan = json.loads(said.out)
    assert files(environment, tmp_path) == before
    assert plan["seconds"]["training"]["value"] is None
    result = Result.model_validate_json(command(*asked).out)
    assert plan["training"]["steps"] == len(next(iter(result.history.values())))
    assert plan["training"]["parameters"] == result.cost.trainable_parameters
    assert plan["sets"] == {name: part["rows"] for name, part in result.data.items()}
    assert plan["scored_rows"] == result.records.count
    assert [each["run_id"] for each in plan["rows"]][-1] == result.run_id
    assert plan["memory"]["device"]["frozen parts"] == result.cost.trunk_bytes
    # of a row that is there, the plan knows that, and what it took
    again = json.loads(command(*asked, "--dry-run").out)
    assert all(each["filed"] and not each["attacks"] for each in again["rows"])
    assert again["models"]["target model"]["there"]
    assert again["seconds"]["training"]["value"] == pytest.approx(result.cost.training_seconds, abs=0.06)


def test_a_plan_is_refused_as_the_run_is(command: Callable[..., Said], small_run: list[str], tmp_path: Path) -> None:
    asked = [*small_run, "--output", tmp_path / "results", "--dry-run", "--unlearner"]
    wrong = command(*asked, "grun+npoo")
    assert wrong.code == 2 and "grun+npo" in wrong.err and "Traceback" not in wrong.err
    assert command(*asked, "grun+npo", "--set", "layers=[0.0]").code == 2
    shown = command(*asked, "grun+npo")
    assert shown.code == 0 and "optimiser steps" in shown.out and "nothing is written" in shown.out
    assert not (tmp_path / "results").exists()
