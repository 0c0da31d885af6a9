"""Models of a row that were folders: a result has hashes of their files, and the cache of this machine says where they
lay. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from grun_bench.core.errors import ModelError, UsageError
from grun_bench.models.bases import note, noted
from grun_bench.models.names import folder_of
from grun_bench.runs.config import RunConfig, named_models, was_folder

if TYPE_CHECKING:
    from grun_bench.results.result import Result

#: what stands for a folder that is not known here
FOLDER = "FOLDER"
#: fields of RunConfig -> the options of `attack`
_OPTIONS = {"model": "--model", "target_model": "--target", "retain_model": "--retain"}


def remember(folders: Mapping[str, Path]) -> None:
    """Keep on this machine where models lie that are folders, by their content, for who makes a row's model again."""
    for content, folder in folders.items():
        note(content, folder)


def is_lost(row: Result) -> bool:
    """Whether the model of a row was a folder, which what the row calls it does not lead to from here."""
    return was_folder(_names(row)[0]) and folder_of(row.model) is None


def folders_of(row: Result) -> dict[str, str | None]:
    """The fields of RunConfig that name models of a row which were folders; none that its names lead to.

    `FOLDER` stands for one that is not known here, and None for a field that is to be empty.
    """
    model, target, retain = _names(row)
    found: dict[str, str | None] = {}
    for field, name in (("target_model", target), ("retain_model", retain)):
        if was_folder(name) and (place := noted(str(name))):
            found[field] = str(place)
    if is_lost(row) and target == model:
        found |= {"model": None, "target_model": found.get("target_model", FOLDER)}
    elif is_lost(row):
        found["model"] = str(noted(str(model)) or FOLDER)
    elif "target_model" in found:
        found["model"] = model if model and "@" in model else row.model
    return found


def options(row: Result) -> dict[str, str]:
    """The same as options of `attack`."""
    return {_OPTIONS[field]: place for field, place in sorted(folders_of(row).items()) if place}


def check_found(config: RunConfig, row: Result) -> None:
    """Raises ModelError where the model of a row was a folder and is to be found by what the row calls it, in vain."""
    if config.model == row.model and is_lost(row):
        asked = " ".join(f"{option} {shlex.quote(place)}" for option, place in options(row).items())
        raise ModelError(f"{lost(row)} Add {asked}, or {mirror(row)}")


def lost(row: Result) -> str:
    """In words, what is not found."""
    return f"{row.run_id}: its model {row.model} was a folder, and is not found from here by that name."


def mirror(row: Result) -> str:
    """In words, where a folder would be found by its name."""
    return f"put it at <folder>/{row.model} and set GRUN_BENCH_HUB=<folder>."


def _names(row: Result) -> tuple[str | None, str | None, str | None]:
    """As `named_models`; nothing of a reference that says it in no known way."""
    try:
        return named_models(row)
    except UsageError:
        return None, None, None
