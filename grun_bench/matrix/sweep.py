"""Many runs at a time: which there are, what became of each, and in which order they are made.

The folder of results is the only state: the same command goes on with what is not done, on any executor, and commands
that run at the same time share the work.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from grun_bench.core import registry
from grun_bench.matrix.cell import Cell, Status
from grun_bench.matrix.executors import EVERY, Executor
from grun_bench.matrix.grid import Grid, of_attacks
from grun_bench.models.names import TINY
from grun_bench.runs.config import RunConfig
from grun_bench.runs.front import check
from grun_bench.tasks.task import load_task

#: shows what became of the cells by now
Show = Callable[[Mapping[Cell, Status]], None]


def new_owner() -> str:
    """What the runs of one command are known by."""
    return secrets.token_hex(8)


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep, in its order, and those that are made before them: `controls`, by the cells that need one.

    A control makes the rows of the target and the retain model, which every other run reads.
    """

    cells: Sequence[Cell]
    controls: Mapping[str, Cell]

    @classmethod
    def of(cls, grid: Grid, shared: RunConfig, writes: bool = True) -> Plan:
        """Raises UsageError for whatever can be refused before anything is loaded; makes folders where it `writes`."""
        with registry.including(shared.include):
            configs = grid.configs(shared)
            for one in {(each.task, each.model): each for each in configs}.values():
                check(one, writes)
            cells = {cell.key: cell for cell in map(Cell.of, configs)}
            return cls(list(cells.values()), {key: Cell.of(control_of(cell.config)) for key, cell in cells.items()})

    @property
    def first(self) -> list[Cell]:
        """The controls, each once."""
        return list({cell.key: cell for cell in self.controls.values()}.values())

    @property
    def all(self) -> list[Cell]:
        """Every cell once, controls first."""
        return list({cell.key: cell for cell in (*self.first, *self.cells)}.values())


def control_of(config: RunConfig) -> RunConfig:
    """The run that makes the rows which this one is compared with, and needs no other."""
    seed = config.seed if _tuned_here(config) else 0
    control, overrides = registry.control("target"), of_attacks(config.overrides)
    return replace(config, unlearner=control, overrides=overrides, strengths=(), seed=seed, save=None)


def _tuned_here(config: RunConfig) -> bool:
    """Whether target and retain model are fine-tuned for the run, so that they have its seed."""
    name = (config.model or TINY).partition("@")[0]
    if config.forget or config.target_model or name == TINY:
        return False
    task = _task(config.task, config.include)
    return task.finetune is not None and all(name not in (pair.base, pair.target) for pair in task.models)


#: a task's file takes a moment, and many runs are on one task
_task = cache(load_task)


def sweep(plan: Plan, executor: Executor, owner: str, show: Show) -> dict[Cell, Status]:
    """Make the rows of all cells that are not done: the controls, then the rest. What failed before is tried again.

    A run that fails stops no other but those that need it. Returns what became of every cell, controls first.
    """
    watched = _Watched(plan, owner, show)
    with executor:
        watched.make(executor, plan.first)
        for cell in plan.cells:
            if problem := watched.problem(plan.controls[cell.key], cell):
                cell.write(Status(state="failed", reason=problem, owner=owner))
        watched.make(executor, plan.cells)
    return watched.look()


def shortfall(plan: Plan, found: Mapping[Cell, Status]) -> str:
    """What a sweep that did not succeed came to; nothing where none failed, and not all were refused."""
    states = [found[cell].state for cell in plan.cells]
    failed, refused = states.count("failed"), states.count("refused")
    if not failed and "done" in states:
        return ""
    return f"of {len(states)} runs {failed} failed or diverged, and {refused} were refused."


@dataclass
class _Watched:
    """What became of the cells of a plan; what is over, as far as this command is concerned, is not read again."""

    plan: Plan
    owner: str
    show: Show
    _over: dict[str, Status] = field(default_factory=dict)

    def make(self, executor: Executor, cells: Sequence[Cell]) -> None:
        """Have them made, and wait for those that another command is at."""
        while left := [cell for cell in cells if not self._is_over(cell)]:
            free = [cell for cell in left if cell.status().state != "running"]
            if free:
                executor.run(free, self._tick)
            else:
                time.sleep(EVERY)
            self._tick()

    def problem(self, control: Cell, cell: Cell) -> str:
        """Why a cell cannot be made for want of its control; nothing where it can."""
        status = self._over[control.key]
        if cell.key == control.key or status.state != "failed" or self._is_over(cell):
            return ""
        log = f" (see {control.log})" if control.log.is_file() else ""
        return f"the target and the retain model could not be made: {status.reason}{log}"

    def look(self) -> dict[Cell, Status]:
        """What became of each by now."""
        return {cell: self._over[cell.key] if self._is_over(cell) else cell.status() for cell in self.plan.all}

    def _tick(self) -> None:
        self.show(self.look())

    def _is_over(self, cell: Cell) -> bool:
        """Whether it is done, or this command tried it and no more is to come."""
        if cell.key not in self._over:
            status = cell.status()
            if status.settled(self.owner):
                self._over[cell.key] = status
        return cell.key in self._over
