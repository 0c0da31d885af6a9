"""What callers from Python give as options, by kind: refused in words before anything is looked up. No torch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import Any

from grun_bench.core.errors import UsageError
from grun_bench.runs.config import MAX_SEED, RunConfig

#: names with commas between, or in a list
_NAMES = ("attacks", "attack_sets", "utility", "track")
#: names of models, which may be paths
_MODELS = ("model", "target_model", "retain_model", "writer")
_COUNTS = ("limit", "eval_every", "scoring_batch_size")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike) and bool(os.fspath(value))


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _are_names(value: Any) -> bool:
    return _is_text(value) or (_is_list(value) and all(map(_is_text, value)))


def _are_numbers(value: Any) -> bool:
    numbers = _is_list(value) and all(isinstance(each, Real) and not isinstance(each, bool) for each in value)
    return numbers and all(map(math.isfinite, value))


def _are_paths(value: Any) -> bool:
    return _is_list(value) and all(map(_is_path, value))


def _is_list(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)


#: what a field of RunConfig is said to be, without its None -> whether a value is such, and what it must be in words
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "Path": (_is_path, "a path"),
    "str": (_is_text, "a text"),
    "int": (_is_whole, "a whole number"),
    "bool": (lambda value: isinstance(value, bool), "True or False"),
    "tuple[float, ...]": (_are_numbers, "a list of numbers, as [0.5, 1.5]"),
    "tuple[Path, ...]": (_are_paths, "a list of paths"),
    "Mapping[str, str]": (lambda value: isinstance(value, Mapping), "a mapping, as {'question': 'Q'}"),
}


def _kind(name: str, said: str) -> tuple[Callable[[Any], bool], str] | None:
    if name in _NAMES:
        return _are_names, "names with commas between, or a list of them"
    if name in _MODELS:
        return _is_path, "a Hub id or the path of a folder"
    if name in _COUNTS:
        return lambda value: _is_whole(value) and value >= 1, "a whole number above 0"
    if name == "seed":
        return lambda value: _is_whole(value) and 0 <= value <= MAX_SEED, f"a whole number from 0 to {MAX_SEED}"
    return _KINDS.get(said.removesuffix(" | None"))


def check_given(options: Mapping[str, Any]) -> None:
    """Raises UsageError for the first of these fields of RunConfig that is not of its kind."""
    for field in fields(RunConfig):
        kind = _kind(field.name, str(field.type))
        if field.name not in options or kind is None:
            continue
        value = options[field.name]
        if not (kind[0](value) or (value is None and field.default is None)):
            raise UsageError(f"{field.name}={value!r}: must be {kind[1]}.")
