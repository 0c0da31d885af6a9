"""What a sweep is of: tasks x models x unlearners x settings x seeds, written out as one run each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import product
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from grun_bench.core import registry
from grun_bench.runs.config import MAX_SEED, RunConfig

#: every unlearner there is: the two controls, the others that are no pair, every adapter with every objective
ALL = "all"


class Choice(BaseModel):
    """An unlearner with settings of its own, over those of the whole sweep."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    settings: dict[str, Any] = Field(default={}, alias="set")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """A name alone is one without settings of its own."""
        if isinstance(given, str):
            return {"name": given}
        if not isinstance(given, dict):
            raise ValueError("should be a name, or a mapping with name and set")
        return given


class Grid(BaseModel):
    """The axes of a sweep, as a file or the options of the command have them.

    A setting whose value is a list is tried with each of its values; a value that is itself a list stands in a list.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    unlearners: tuple[Choice, ...] = Field(min_length=1)
    tasks: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    seeds: tuple[Annotated[int, Field(ge=0, le=MAX_SEED)], ...] = Field(default=(0,), min_length=1)
    settings: dict[str, Any] = Field(default={}, alias="set")

    def configs(self, shared: RunConfig) -> list[RunConfig]:
        """A run each, in the order of the axes; `shared` says all that they have in common.

        Raises UsageError for an unknown unlearner.
        """
        chosen = [each for choice in self.unlearners for each in self._chosen(choice, shared.overrides)]
        # of a model that others are compared with nothing was unlearned that could be weaker
        plain = replace(shared, strengths=())
        return [
            replace(
                plain if registry.role_of(name) else shared,
                task=task,
                model=model,
                unlearner=name,
                overrides=settings,
                seed=seed,
            )
            for task, model in product(self.tasks or [shared.task], self.models or [shared.model])
            for name, settings in chosen
            for seed in self.seeds
        ]

    def _chosen(self, choice: Choice, common: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The unlearners that an entry means, each with every combination of its settings."""
        tried = combinations(self.settings | choice.settings)
        settings = [{**common, **each} for each in tried]
        for name in expand([choice.name]):
            of_name = [of_attacks(each) for each in settings] if registry.role_of(name) else settings
            yield from ((name, each) for each in of_name)


def of_attacks(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a control has: those of attacks, which are written <attack>.<setting>."""
    return {key: value for key, value in settings.items() if "." in key}


def combinations(settings: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the values of settings, the last changing fastest; what is no list is its only value."""
    values = [value if isinstance(value, list) else [value] for value in settings.values()]
    return (dict(zip(settings, each, strict=True)) for each in product(*values))


def expand(names: Iterable[str]) -> list[str]:
    """The unlearners meant, each once, `all` written out. Raises UsageError for an unknown name."""
    meant: list[str] = []
    for name in names:
        if name == ALL:
            pairs = [f"{each}+{what}" for each in registry.names("adapter") for what in registry.names("objective")]
            meant += [*registry.names("unlearner"), *pairs]
        else:
            registry.parse_unlearner(name)
            meant.append(name)
    return list(dict.fromkeys(meant))
