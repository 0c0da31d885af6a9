"""The worlds that a run can be in: published data, or the toy world that is made here; own rows are in `own`. No torch.

A world says where data sets and lm-eval's questions come from and which settings are in force. Which one a run is in is
decided once, by its model; whatever depends on it asks the world.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from grun_bench.core.errors import DataError
from grun_bench.tasks import published
from grun_bench.tasks.dataset import Row, Rows, Source, checked
from grun_bench.tasks.task import Task, load_task


class World(ABC):
    """`name` is what a result's `dataset` says; `sections` are those of recipes.yaml in force, a later one wins.

    `notes` are what the user must know of the data; `no_retain` says why there is no retain model, where there never is
    one unless it is given.
    """

    name: ClassVar[Literal["published", "embedded", "own"]]
    sections: ClassVar[tuple[str, ...]]
    notes: Sequence[str] = ()
    no_retain: str = ""

    def load(self, name: str, include: Sequence[Path] = ()) -> Task:
        """The task of a name, or of a file, as it runs in this world. Raises UsageError as `load_task` does."""
        return self.task(load_task(name, include))

    @abstractmethod
    def task(self, task: Task) -> Task:
        """The task as it runs in this world."""

    @abstractmethod
    def read(self, source: Source) -> tuple[list[Row], str]:
        """All rows of a source's data set, and where they were found. Raises DataError when there is none."""

    @property
    @abstractmethod
    def question_tasks(self) -> Collection[str] | None:
        """The tasks of lm-eval that this world has questions of its own for; None where they are lm-eval's own."""

    @abstractmethod
    def questions(self, name: str) -> list[Row] | None:
        """The questions that stand for a task of `question_tasks`: `question`, `choices` and `answer`, the index of the
        right one; None where they are lm-eval's own."""

    def rows(self, source: Source, needed: tuple[str, ...] | None = None, limit: int | None = None) -> Rows:
        """The first `limit` rows of a source, with the columns that are `needed`: None for those of a training set.

        Raises DataError with every place that was looked at, or with the row and column that is wrong.
        """
        table, origin = self.read(source)
        return checked(table, origin, source, needed, limit)


class Published(World):
    """Data sets from files, mirrors and the Hub, questions from lm-eval, settings for models of usual size."""

    name = "published"
    sections = ("default",)
    question_tasks = None

    def task(self, task: Task) -> Task:
        return task

    def read(self, source: Source) -> tuple[list[Row], str]:
        return published.read(source)

    def questions(self, name: str) -> None:
        return None


class Toy(World):
    """Every data set by the name of its configuration from the tables of `toy_world`; settings for a tiny model."""

    name = "embedded"
    sections = ("default", "embedded")

    def task(self, task: Task) -> Task:
        return task.in_toy_world()

    def read(self, source: Source) -> tuple[list[Row], str]:
        from grun_bench.tasks import toy_world

        if source.config not in toy_world.configs():
            raise DataError(f"the embedded world has no counterpart of {source}; give a real model with --model.")
        return toy_world.rows(source.config), f"embedded:{source.config}"

    @property
    def question_tasks(self) -> Collection[str]:
        from grun_bench.tasks import toy_world

        return toy_world.QUESTIONS

    def questions(self, name: str) -> list[Row]:
        from grun_bench.tasks import toy_world

        return toy_world.rows(toy_world.QUESTIONS[name])


PUBLISHED, TOY = Published(), Toy()
#: by the name that results give
WORLDS: dict[str, World] = {world.name: world for world in (PUBLISHED, TOY)}
