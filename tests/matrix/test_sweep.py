"""In which order the runs of a sweep are made, which of them are, and that it ends whatever becomes of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from grun_bench.matrix.cell import Cell, Status
from grun_bench.matrix.executors.processes import Processes
from grun_bench.matrix.grid import Grid
from grun_bench.matrix.sweep import Plan, sweep
from grun_bench.runs.config import RunConfig


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two unlearners and two seeds on one task, with their control."""
    axes = {"unlearners": ["npo", "grun+npo"], "tasks": ["tofu_forget10"], "seeds": [0, 1]}
    return Plan.of(Grid.model_validate(axes), RunConfig("", output=tmp_path))


@dataclass
class Noting:
    """An executor for which every run becomes what `states` says, else done; `made` are they, in the order."""

    owner: str = "me"
    states: dict[str, str] = field(default_factory=dict)
    made: list[Cell] = field(default_factory=list)

    def __enter__(self) -> Noting:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def run(self, cells: Sequence[Cell], tick: Callable[[], None]) -> None:
        for cell in cells:
            self.made.append(cell)
            (cell.config.output / "result.json").touch()
            state = self.states.get(cell.config.unlearner, "done")
            said = {"state": state, "result": "result.json" if state == "done" else "", "reason": f"{state} of {cell}"}
            cell.write(Status.model_validate(said | {"owner": self.owner}))
        tick()


def swept(plan: Plan, executor: Noting) -> list[str]:
    found = sweep(plan, executor, executor.owner, lambda found: None)
    assert list(found) == plan.all
    return [each.state for each in found.values()]


def test_controls_first_and_everything_once(plan: Plan) -> None:
    executor = Noting()
    assert swept(plan, executor) == ["done"] * 5
    assert executor.made == [*plan.first, *plan.cells]
    again = Noting("another command")
    assert swept(plan, again) == ["done"] * 5 and not again.made


def test_what_failed_is_tried_again_by_the_next_command(plan: Plan) -> None:
    assert swept(plan, Noting(states={"npo": "failed"})) == ["done", "failed", "failed", "done", "done"]
    again = Noting("another command")
    assert swept(plan, again) == ["done"] * 5
    assert [cell.config.unlearner for cell in again.made] == ["npo", "npo"]


def test_runs_whose_control_failed_are_not_begun(plan: Plan) -> None:
    executor = Noting(states={"none": "failed"})
    assert swept(plan, executor) == ["failed"] * 5
    assert executor.made == plan.first
    (control,) = plan.first
    assert all(str(control.log) in cell.status().reason for cell in plan.cells)


def test_a_refused_control_is_in_nobodys_way(plan: Plan) -> None:
    assert swept(plan, Noting(states={"none": "refused"})) == ["refused", *["done"] * 4]


def test_what_another_command_is_at_is_left_to_it(plan: Plan) -> None:
    """Until it is done there."""
    cell, executor = plan.cells[0], Noting()
    with cell.running("another command"):
        shown: list[str] = []

        def show(found: Any) -> None:
            shown.append(found[cell].state)
            if len(shown) == 4:
                cell.write(Status(state="done", result="result.json", owner="another command"))

        found = sweep(plan, executor, executor.owner, show)
    assert found[cell].state == "done" and cell not in executor.made


@pytest.mark.parametrize("before", [None, Status(state="failed", owner="an earlier command")])
def test_processes_that_end_at_once_are_failures(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, before: Status | None
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    if before:
        for cell in plan.all:
            cell.write(before)
    found = sweep(plan, Processes(2, "me"), "me", lambda found: None)
    assert {each.state for each in found.values()} == {"failed"}
    assert "exit code 1" in found[plan.first[0]].reason
