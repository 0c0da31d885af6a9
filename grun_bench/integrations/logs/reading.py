"""Log files by their format, and retain logs that can be references. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from grun_bench.core.errors import UsageError, unknown
from grun_bench.core.progress import say
from grun_bench.core.strict_json import parse_json
from grun_bench.core.untrusted import read
from grun_bench.integrations.logs.log import ImportedLog, LogFile
from grun_bench.integrations.logs.open_unlearning import read_open_unlearning
from grun_bench.integrations.logs.tofu import read_tofu
from grun_bench.results.record import Records
from grun_bench.tasks.task import Task

#: bytes of a log; published ones have some 2 MB
LOG_BYTES = 256 * 2**20
#: format -> (a part by which a log of it is known, its reader)
FORMATS: dict[str, tuple[str, Callable[[LogFile], ImportedLog]]] = {
    "open-unlearning": ("forget_Q_A_Prob", read_open_unlearning),
    "tofu": ("eval_log.json", read_tofu),
}


def read_log(path: Path, format: str | None = None) -> ImportedLog:
    """Read a published log of a format, None for the one that it looks like.

    Raises UsageError, naming the file and the place, for a file that cannot be read, is not JSON, is of another format
    or lacks a part.
    """
    if format is not None and format not in FORMATS:
        raise unknown("log format", format, FORMATS)
    content = read(path, LOG_BYTES)
    data = parse_json(content, path)
    asked = f"of the format '{format}'" if format else f"of {' or '.join(FORMATS)}"
    if not isinstance(data, dict):
        raise UsageError(f"{path}: not a log {asked}: it holds a {type(data).__name__}, not an object.")
    fits = [name for name, (mark, _) in FORMATS.items() if mark in data]
    if not fits or (format and format not in fits):
        marks = "' or '".join(FORMATS[name][0] for name in ([format] if format else FORMATS))
        hint = f"; it looks like --format {fits[0]}" if fits else ""
        raise UsageError(f"{path}: not a log {asked}: no '{marks}'{hint}.")
    reader = FORMATS[format or fits[0]][1]
    return reader(LogFile(path, data, hashlib.sha256(content).hexdigest()))


def read_reference(path: Path, protocol: str) -> ImportedLog:
    """A published retain log in any known format. Raises UsageError when it was scored under another protocol."""
    try:
        log = read_log(path)
    except UsageError as error:
        raise UsageError(f"--retain-log {error}") from None
    if log.protocol != protocol:
        raise UsageError(
            f"--retain-log {path} was scored under the protocol {log.protocol}, this run under {protocol}: "
            f"their numbers do not compare. Add --protocol {log.protocol}, or give a retain model with --retain-model."
        )
    return log


def check_rows(log: ImportedLog, task: Task, source: str) -> None:
    """Hold a log against the rows that the sets of its task were published with, where the task says how many.

    One with fewer is told, for tools may score the first rows alone. Raises UsageError for one with others.
    """
    for name, count in task.rows.items():
        rows = log.records.of(name)
        if beyond := [row.index for row in rows if row.index >= count]:
            raise UsageError(
                f"{source}: it is no log of {task.name}: its set '{name}' has a row {beyond[-1]}, and that task's has "
                f"{count} rows, from 0 on. Give the task that it is of with --task."
            )
        if 0 < len(rows) < count:
            say(
                f"{source}: its set '{name}' has {len(rows)} rows, and {task.name}'s has {count}: if it is of another "
                "task, name that with --task."
            )


def check_reference(records: Records, reference: Records, source: str) -> None:
    """Refuse a retain log whose forget rows are not those of `records`, for one of another split compares nothing.

    Rows of the same number must have the same answer (letters and digits compared, since tools decode differently). A
    log may have fewer rows, as TOFU's published ones have, or more, which are left out of what compares the two. Raises
    UsageError with the first pair that differs, and where there is none.
    """
    known = {row.index: row.answer.text for row in reference.of("forget")}
    asked = records.of("forget")
    if asked and known and not any(row.index in known for row in asked):
        raise UsageError(
            f"{source}: none of its {len(known)} forget rows is one of this task's {len(asked)} (by their numbers): "
            "forget quality compares the same rows of both. Give the log of this task's retain model."
        )
    for row in asked:
        ours, theirs = row.answer.text, known.get(row.index)
        if ours and theirs and _letters(ours) != _letters(theirs):
            raise UsageError(
                f"{source}: its forget rows are not this task's: row {row.index} answers '{_short(theirs)}' there and "
                f"'{_short(ours)}' here. Give the log of this task's retain model."
            )


def _letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _short(text: str, limit: int = 50) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."
