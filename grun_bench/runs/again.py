"""The command that makes a filed row again, as far as its result says how it was made. No torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from grun_bench.core.sources import file_of_plugin
from grun_bench.models.names import folder_of
from grun_bench.results.result import Result
from grun_bench.runs.config import RunConfig, config_of, in_folder
from grun_bench.runs.folders import FOLDER, folders_of, is_lost
from grun_bench.runs.next_command import typed
from grun_bench.runs.own import NO_ATTACKS, files_there, own_task


@dataclass(frozen=True)
class Again:
    """`command` as a shell takes it; `notes` say what in it somebody must see to first."""

    command: str
    notes: tuple[str, ...] = ()


def command_of(row: Result, output: Path, save: str) -> Again:
    """The `run` that makes a row again and keeps its model in the folder `save`.

    Attacks are left out: those that the row has stay where the new model answers the same. Raises UsageError for a
    result that does not say what was to be forgotten, as a stranger's may.
    """
    found = folders_of(row)
    made = config_of(row) if FOLDER in found.values() else config_of(row, **found)
    own, notes = _own_options(row) if row.own else ({"--task": row.task}, [])
    options: dict[str, Any] = {
        "--unlearner": made.unlearner,
        **own,
        "--model": made.model,
        "--target": made.target_model,
        "--retain-model": made.retain_model,
        "--seed": made.seed,
        "--limit": made.limit,
        "--protocol": made.protocol,
        "--dtype": made.dtype,
    }
    given = [
        *typed(options),
        *(f"--set {shlex.quote(f'{key}={_said(value)}')}" for key, value in made.overrides.items()),
    ]
    command = f"grun-bench run {' '.join(given)} --save {shlex.quote(save)}{in_folder('--output', output)}"
    return Again(command, (*notes, *_of_models(row, made), *_of_plugin(row)))


def _own_options(row: Result) -> tuple[dict[str, Any], list[str]]:
    """The options of a row of own files, and which of these are not where they were."""
    task, places = own_task(row), files_there(row)
    files = {f"--{role}": places.get(role) or file.file for role, file in task.own.items()}
    columns = {ours: theirs for file in task.own.values() for ours, theirs in file.columns.items()}
    writer = next((file.made.by for file in task.own.values() if file.made), None)
    options = {
        **files,
        "--columns": ",".join(f"{ours}={theirs}" for ours, theirs in columns.items()),
        "--utility": ",".join(task.measures),
        "--no-private": not task.private,
        "--augment": writer is not None,
        "--writer": writer,
        "--attacks": NO_ATTACKS,
    }
    gone = [file for role, file in task.own.items() if role not in places]
    notes = [
        f"{file.file} (sha256 {file.sha256[:12]}) is not where it was, or has changed: the command needs it as it was."
        for file in gone
    ]
    return options, notes


def _said(value: Any) -> str:
    """A setting as `--set` reads it back."""
    if isinstance(value, str) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value)


def _of_plugin(row: Result) -> Iterator[str]:
    """What the result does not say of a method that is not the package's own."""
    if file := file_of_plugin(row.unlearner.name):
        yield f"{row.unlearner.name} is of a plugin: add --include-path {shlex.quote(str(file))}."


def _of_models(row: Result, made: RunConfig) -> Iterator[str]:
    """What the result does not say of the models: where folders lie, and which log stood for a retain model."""
    name = str(made.model or made.target_model).partition("@")[0]
    if is_lost(row) and folder_of(name) is None:
        yield f"{name} was a folder, and is not found from here: name it by its path."
    if row.reference.get("retain_log"):
        yield "It was compared with a published retain log: give it again with --retain-log."
