"""Expected errors: a message a user can act on, and the exit code of the process.

Anything that is not one of these is a bug and shows its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class GrunBenchError(Exception):
    """A run that could not be done: what happened and what to do. Exit code 1."""

    exit_code = 1


class UsageError(GrunBenchError):
    """A bad name, option, file or folder given by the user. Exit code 2."""

    exit_code = 2


class PluginError(GrunBenchError):
    """A plugin does what the contract of its kind does not allow: which, and what. Exit code 1."""


class Refused(UsageError):
    """A method that makes no sense on what it was asked for, or with these settings. Exit code 2."""


class DataError(UsageError):
    """A data set that cannot be had or a row that breaks its schema. Exit code 2."""


class ModelError(UsageError):
    """A model that cannot be had or loaded. Exit code 2."""


class Diverged(GrunBenchError):
    """A loss, or what a model says, is not finite; the row is kept with status `diverged`."""


class MissingReference(GrunBenchError):
    """A metric's input is not there; the metric is null with this message as its reason."""


class Inapplicable(GrunBenchError):
    """An attack has nothing to work on in a task; its values are null with this message as their reason."""


def first_line(error: Exception) -> str:
    """What an error of a foreign library says first, or its name where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def wrong(error: ErrorDetails) -> str:
    """What pydantic found of a value, in words for the person whose file it is."""
    kind, given = error["type"], error["input"]
    if kind in _LISTS and isinstance(given, str | int | float):
        from grun_bench.core.escaping import clean  # takes a moment, and nothing else here needs it

        return f"should be a list, as in [{clean(str(given), 60)}]"
    said = _SAID.get(kind)
    return said or in_plain_words(error["msg"]).removeprefix("Value error, ").replace("Input should", "should")


#: kinds of errors of pydantic in which a list is wanted
_LISTS = ("list_type", "tuple_type", "set_type", "frozen_set_type")
#: kinds of its errors -> what is said of them; whoever writes a file does not know the types of Python
_SAID = {
    "missing": "is missing",
    "extra_forbidden": "is no field here",
    **dict.fromkeys(_LISTS, "should be a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type", "dataclass_type"), "should be a mapping"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "should be true or false"),
    "path_type": "should be a path",
    "too_short": "has too few entries",
}

#: what pydantic and typer say -> the same for people who do not write programs
_PLAIN = {
    ", unable to parse string as an integer": "",
    ", unable to parse string as a number": "",
    ", got a number with a fractional part": "",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a text",
    "less than or equal to": "at most",
    "greater than or equal to": "at least",
}


def in_plain_words(said: str) -> str:
    """What a library says of a value, without its jargon."""
    for theirs, ours in _PLAIN.items():
        said = said.replace(theirs, ours)
    return said


def unknown(
    what: str,
    name: str,
    choices: Iterable[str],
    hint: str = "",
    listed: bool = True,
    meant: str = "",
    place: str = "",
) -> UsageError:
    """The error for a name that is not among `choices`: the near names, else all of them, and the next command.

    Names of which there may be any number are not `listed`: where none is near, their count is said. `meant` is what
    others call by this name: near, where it is among the choices. `place` says what the name is a part of.
    """
    names = sorted(choices)
    near = [meant] if meant in names else _near(str(name), names)
    all_of = (
        f"choose from: {', '.join(names) or '(none)'}." if listed else f"none of the {len(names)} there is near it."
    )
    tail = f"did you mean {either(near)}?" if near else all_of
    where = f" {place}" if place else ""
    return UsageError(f"unknown {what} '{name}'{where}: {tail}" + (f" {hint}" if hint else ""))


def either(names: Sequence[str]) -> str:
    """Names as a choice in a sentence: `a, b or c`."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _near(text: str, names: Sequence[str]) -> list[str]:
    """Up to three names that are nearly a text, whether it is written in capitals or not; the same one alone."""
    small: dict[str, str] = {}
    for name in names:
        small.setdefault(name.lower(), name)
    text = text.lower()
    if text in small:
        return [small[text]]
    near = difflib.get_close_matches(text, small, n=3, cutoff=0.5)
    if not near and text:  # a beginning of a long name, as of a run id
        near = [each for each in small if difflib.SequenceMatcher(None, text, each[: len(text)]).ratio() >= 0.7][:3]
    return [small[each] for each in near]
