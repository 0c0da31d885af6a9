"""Runs on own rows: what goes with them, what is in force unless it is said, and the world that they are in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grun_bench.core import processes, registry
from grun_bench.core.environment import OWN_RESULTS, cache_folder
from grun_bench.core.errors import DataError, GrunBenchError, UsageError
from grun_bench.core.files import near_files, noted_path, write_whole
from grun_bench.core.given import listed
from grun_bench.models.names import TINY
from grun_bench.runs.config import RESULTS, RunConfig
from grun_bench.tasks.yaml_files import task_files

if TYPE_CHECKING:
    from grun_bench.results.result import Result
    from grun_bench.tasks.own import Own
    from grun_bench.tasks.task import Made, OwnFile, OwnRole, Task

#: where the cache says in which place a file lay, by the hash of its content
_PLACES = "own"
#: the word for no attack, where some are made unless it is said
NO_ATTACKS = "none"


def own_world(config: RunConfig) -> Own:
    """The world of the files that a run names. Raises DataError or UsageError for what is not as it must be."""
    from grun_bench.tasks.own import Own, OwnData  # what reads a task takes a moment

    if config.forget is None:
        raise UsageError("own rows begin with what is to be forgotten: --forget FILE.")
    utility = tuple(listed("--utility", config.utility))
    files, columns = (config.forget, config.keep, config.neighbours), dict(config.columns)
    return Own(OwnData(*files, columns, utility, config.private, writer_name(config)))


def writer_of(config: RunConfig) -> str:
    """The model that writes paraphrases and wrong answers, as it was asked for."""
    return config.writer or config.target_model or str(config.model)


def writer_name(config: RunConfig) -> str:
    """What files and results call it; "" where nothing is to be written."""
    if not config.augment:
        return ""
    name = writer_of(config)
    return Path(name).resolve().name if Path(name).is_dir() else name.partition("@")[0]


def remember(world: Own) -> None:
    """Keep on this machine where the files lie, so that a row of theirs can be attacked later."""
    for own in world.files.values() if processes.writes() else ():
        with suppress(GrunBenchError):  # whoever has no cache names the files again
            write_whole(cache_folder() / _PLACES / own.sha256, f"{own.path.resolve()}\n")


def own_task(row: Result) -> Task:
    """The task of a row of own rows. Raises UsageError where a result, which may be a stranger's, has it not whole."""
    from grun_bench.core.strict_json import checked
    from grun_bench.core.untrusted import refuse
    from grun_bench.tasks.task import Task

    task = checked(Task, row.configs.get(row.task), f"{row.run_id}: the task in $.configs")
    if "forget" not in task.own:
        refuse(row.run_id, "it says that it is of own rows, and names no file that was to be forgotten")
    return task


def files_of(row: Result) -> dict[str, Any]:
    """The fields of RunConfig that a row of own rows was made with; nothing for any other row.

    Raises DataError where a file is not on this machine any more, or has changed, and UsageError for a result that is
    not whole.
    """
    if row.dataset != "own":
        return {}
    task = own_task(row)
    found: dict[str, Any] = {"task": "", "private": task.private, "utility": ",".join(task.measures)}
    for name, file in task.own.items():
        place = found["keep" if name == "retain" else name] = _place(name, file)
        found["columns"] = found.get("columns") or file.columns
        if file.made:
            found |= {"augment": True, "writer": file.made.by}
            _check_made(place, file.made)
    return found


def files_there(row: Result) -> dict[OwnRole, Path]:
    """The files of a row of own rows that are on this machine as they were, by what they are to unlearning."""
    places = {role: _noted(file) for role, file in own_task(row).own.items()}
    return {role: place for role, place in places.items() if place}


def _place(name: str, file: OwnFile) -> Path:
    if (path := _noted(file)) is not None:
        return path
    was = noted_path(_note(file))
    where = f"was {was}, and is not there or has changed" if was else "was on another machine, or the cache is gone"
    raise DataError(
        f"{file.file} (sha256 {file.sha256[:12]}) {where}: `grun-bench run` with --{name} FILE and all else as "
        "the row was made, and with --attacks, attacks it."
    )


def _note(file: OwnFile) -> Path:
    """The file of the cache that says where one's own file lay; no hash names another file than one of the cache."""
    return cache_folder() / _PLACES / Path(file.sha256).name


def _noted(file: OwnFile) -> Path | None:
    """Where a file lies, if it is there and holds what it did."""
    from grun_bench.tasks.own_rows import content_sha256

    path = noted_path(_note(file))
    return path if path and path.exists() and content_sha256(path) == file.sha256 else None


def _check_made(own: Path, made: Made) -> None:
    """Raises DataError where what a model wrote for the rows of a file is not there any more."""
    from grun_bench.tasks.made import made_rows

    there = made_rows(own, made.by)
    if not there.rows:
        raise DataError(f"{there.path} is not there, which the row was made with: what {made.by} wrote for {own.name}.")


def own_defaults(config: RunConfig) -> RunConfig:
    """What is in force for own rows unless it is said: every attack of a user, and a folder of no boards."""
    if config.forget is None:
        return config
    users = [name for name, each in registry.entries("attack").items() if each.declared.get("access") == "user"]
    attacks = {"": ",".join(users), NO_ATTACKS: ""}.get(config.attacks, config.attacks)
    output = OWN_RESULTS if config.output == RESULTS else config.output
    return replace(config, attacks=attacks, output=output)


def check_own(config: RunConfig) -> None:
    """Raises UsageError for options of own rows that do not go with each other, or with what else was asked for."""
    if config.forget is None:
        given = {
            "--retain": config.keep,
            "--neighbours": config.neighbours,
            "--columns": config.columns,
            "--utility": config.utility,
            "--augment": config.augment,
            "--writer": config.writer,
        }
        odd = [name for name, value in given.items() if value]
        if odd:
            raise UsageError(f"{odd[0]}: it goes with --forget FILE, which names own rows.")
        if not config.task:
            raise UsageError(
                "--task says what is to be forgotten, or --forget FILE does, with own rows: `grun-bench run --help`."
            )
        if _is_rows(config.task, config.include):
            raise UsageError(f"--task {config.task}: rows and no task's file; --forget {config.task} takes them.")
        return
    if wrong := list(_wrong(config)):
        raise UsageError(" Besides: ".join(wrong))


def _wrong(config: RunConfig) -> Iterator[str]:
    """All that does not go with own rows, files first, so that somebody mends it at once."""
    for option, path in (("forget", config.forget), ("retain", config.keep), ("neighbours", config.neighbours)):
        if path is not None and not path.exists():
            yield f"--{option} {path}: no such file or folder{near_files(path)}."
        elif path is not None and path.suffix in (".yaml", ".yml"):
            yield f"--{option} {path}: by its name a task's file and not rows; --task {path} takes it."
    if config.task:
        yield f"--forget {config.forget}: own rows are a task of their own; leave --task {config.task} out."
    if config.model in (None, TINY) and config.target_model is None:
        asked = "--model says which model is to forget it. " if config.model is None else ""
        toy = f"{TINY}, the toy model" + (" and the default," if config.model is None else ",")
        yield (
            f"--forget {config.forget}: {asked}{toy} lives in a world of made-up authors: it knows none of your rows, "
            "and has not the words for them. examples/customers.py makes a small model that does, on a CPU."
        )
    if config.writer and not config.augment:
        yield f"--writer {config.writer}: it goes with --augment, which has it write."
    if config.retain_log:
        yield f"--retain-log {config.retain_log}: published logs are of published data, not of own rows."


def _is_rows(task: str, include: Sequence[Path]) -> bool:
    """Whether what was given as a task is a file of rows or a folder of texts, and not the name of a task."""
    path = Path(task)
    if task in task_files(include):  # as results in this folder are called
        return False
    return path.is_dir() or (path.is_file() and path.suffix not in (".yaml", ".yml"))
