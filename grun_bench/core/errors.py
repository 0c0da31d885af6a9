"""Expected errors: a message a user can act on, and the exit code of the process.

Anything that is not one of these is a bug and shows its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class GrunBenchError(Exception):
    """A run that could not be done: what happened and what to do. Exit code 1."""

    exit_code = 1


class UsageError(GrunBenchError):
    """A bad name, option, file or folder given by the user. Exit code 2."""

    exit_code = 2


class Refused(UsageError):
    """A method that makes no sense on what it was asked for, or with these settings. Exit code 2."""


class DataError(UsageError):
    """A data set that cannot be had or a row that breaks its schema. Exit code 2."""


class ModelError(UsageError):
    """A model that cannot be had or loaded. Exit code 2."""


class Diverged(GrunBenchError):
    """Training reached a loss that is not finite; the row is kept with status `diverged`."""


class MissingReference(GrunBenchError):
    """A metric's input is not there; the metric is null with this message as its reason."""


class Inapplicable(GrunBenchError):
    """An attack has nothing to work on in a task; its values are null with this message as their reason."""


def first_line(error: Exception) -> str:
    """What an error of a foreign library says first, or its name where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def wrong(error: ErrorDetails) -> str:
    """What pydantic found of a value, in words for the person whose file it is."""
    said = {"missing": "is missing", "extra_forbidden": "is no field here"}.get(error["type"])
    return said or error["msg"].removeprefix("Value error, ").replace("Input should", "should")


def unknown(
    what: str, name: str, choices: Iterable[str], hint: str = "", listed: bool = True, meant: str = ""
) -> UsageError:
    """The error for a name that is not among `choices`: the near names, else all of them, and the next command.

    Names of which there may be any number are not `listed`: where none is near, their count is said. `meant` is what
    others call by this name: near, where it is among the choices.
    """
    names = sorted(choices)
    text = str(name)
    near = [meant] if meant in names else difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    if not near and text:  # a beginning of a long name, as of a run id
        near = [each for each in names if difflib.SequenceMatcher(None, text, each[: len(text)]).ratio() >= 0.7][:3]
    all_of = (
        f"choose from: {', '.join(names) or '(none)'}." if listed else f"none of the {len(names)} there is near it."
    )
    tail = f"did you mean {' or '.join(near)}?" if near else all_of
    return UsageError(f"unknown {what} '{name}': {tail}" + (f" {hint}" if hint else ""))
