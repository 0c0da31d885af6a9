"""In which order the runs of a sweep are made, which of them are, and that it ends whatever becomes of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from synthetic import result, store

from grun_bench.matrix.cell import Cell, Status
from grun_bench.matrix.executors.processes import Processes
from grun_bench.matrix.grid import Grid
from grun_bench.matrix.sweep import Plan, shortfall, sweep
from grun_bench.runs.config import RunConfig
from grun_bench.terminal.sweep import print_sweep, watching


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
            cell.log.touch()
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
    assert not any(".log" in each.reason for each in found.values())


def test_what_never_began_is_told_once_with_one_total(plan: Plan, capfd: pytest.CaptureFixture[str]) -> None:
    """No log is named that is not there, and no next command for rows that are not there."""
    reason, executor = "failed of none, seed 0 on tofu_forget10", Noting(states={"none": "failed"})
    with watching(plan) as show:
        found = sweep(plan, executor, executor.owner, show)
    problem = shortfall(plan, found)
    print_sweep(plan, found, plan.cells[0].config.output, problem)
    said = capfd.readouterr()
    (control,) = plan.first
    about = [line for line in said.out.splitlines() if reason in line]
    assert len(about) == 2 and f"{plan.cells[0]} and 3 more: failed: the target and" in about[1]
    assert said.err.count(reason) == 1
    assert set(re.findall(r"\S+\.log", said.err + said.out)) == {str(control.log)} and control.log.is_file()
    assert problem.startswith("of 4 runs 4 failed") and "runs:" not in said.out and "next:" not in said.out


def test_rows_that_are_there_have_a_next_command(plan: Plan, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place,) = store([result()], tmp_path)
    done, failed = Status(state="done", result=place.relative_to(tmp_path).as_posix()), Status(state="failed")
    found = dict.fromkeys(plan.all, failed) | {plan.cells[0]: done}
    print_sweep(plan, found, tmp_path, shortfall(plan, found))
    assert f"next: grun-bench leaderboard --results {tmp_path}" in capfd.readouterr().out
    assert shortfall(plan, found).startswith("of 4 runs 3 failed")
