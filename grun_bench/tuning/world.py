"""A world in which nothing can be read but the rows of one problem."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from grun_bench.tasks.dataset import Row, Source
from grun_bench.tasks.task import Task
from grun_bench.tasks.world import World
from grun_bench.tuning.split import Problem


class Trials(World):
    """The world of a run, with the rows and the task of a problem in the place of its own.

    Settings, models and device are the run's. Whatever asks for another row gets a KeyError: a scored set cannot be
    read in it.
    """

    question_tasks: Collection[str] | None = None

    def __init__(self, world: World, problem: Problem) -> None:
        self.name, self.sections = world.name, world.sections  # type: ignore[misc]
        self.problem = problem

    def load(self, name: str, include: Sequence[Path] = ()) -> Task:
        return self.problem.task

    def task(self, task: Task) -> Task:
        return self.problem.task

    def read(self, source: Source) -> tuple[list[Row], str]:
        return self.problem.tables[source.data], f"{self.problem.on}: {source.data}"

    def questions(self, name: str) -> None:
        return None
