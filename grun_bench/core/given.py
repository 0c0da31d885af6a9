"""What callers give as options, by kind: another type is refused in words; texts with commas between. No torch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple

from grun_bench.core.errors import ModelError, UsageError, unknown
from grun_bench.core.escaping import shown

#: arithmetics that a model can run in
DTYPES = ("auto", "float32", "bfloat16", "float16")


class Given(NamedTuple):
    """A kind of option: whether a value is such, and what it must be in words."""

    fits: Callable[[Any], bool]
    words: str

    def check(self, name: str, value: Any) -> None:
        """Raises UsageError for a value that is not of this kind."""
        if not self.fits(value):
            raise UsageError(f"{name}={shown(value, repr)}: must be {self.words}.")


def whole(least: int, most: float, words: str) -> Given:
    """Whole numbers between two bounds."""
    return Given(lambda value: _is_whole(value) and least <= value <= most, words)


def instance(kind: type, words: str) -> Given:
    """What is of a class, or of one below it."""
    return Given(lambda value: isinstance(value, kind), words)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_path(value: Any) -> bool:
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    return isinstance(text, str) and bool(text) and "\0" not in text


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping)


def _are_names(value: Any) -> bool:
    return _is_text(value) or (_is_list(value) and all(map(_is_text, value)))


def _are_numbers(value: Any) -> bool:
    numbers = _is_list(value) and all(isinstance(each, Real) and not isinstance(each, bool) for each in value)
    return numbers and all(map(math.isfinite, value))


def _are_paths(value: Any) -> bool:
    return _is_list(value) and all(map(_is_path, value))


def _are_settings(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, value))


TEXT = instance(str, "a text")
PATH = Given(_is_path, "a path")
WHOLE = Given(_is_whole, "a whole number")
FLAG = instance(bool, "True or False")
NAMES = Given(_are_names, "names with commas between, or a list of them")
NUMBERS = Given(_are_numbers, "a list of numbers, as [0.5, 1.5]")
PATHS = Given(_are_paths, "a list of paths")
COLUMNS = Given(_are_settings, "a mapping, as {'question': 'Q'}")
SETTINGS = Given(_are_settings, "a mapping, as {'lr': 1e-4}")
DEVICES = Given(lambda value: _is_text(value) or _are_settings(value), "auto, or a mapping, as {'lm_head': 'cpu'}")
MODEL = Given(_is_path, "a Hub id or the path of a folder")


def check_dtype(name: Any) -> None:
    """Raises UsageError for what names no arithmetic that a model can run in."""
    if name not in DTYPES:
        raise unknown("--dtype", name, DTYPES)


#: the kinds of device that torch knows by name, most of which no build has
_DEVICES = (
    "auto", "cpu", "cuda", "mps", "xpu", "hpu", "mtia", "xla", "hip", "ve", "fpga", "maia", "ipu", "mkldnn", "opengl",
    "opencl", "ideep", "lazy", "vulkan", "meta", "privateuseone",
)  # fmt: skip


def check_device(name: str) -> None:
    """Raises ModelError for what names no device by its form; whether torch has it here is seen later."""
    kind, colon, number = name.partition(":")
    if kind not in _DEVICES or (colon and not number.isdecimal()):
        raise no_device(name)


def no_device(name: str) -> ModelError:
    """The error for what names no device."""
    return ModelError(f"--device {name}: write auto, cpu, cuda (cuda:1 is the second GPU) or mps.")


def listed(option: str, text: str) -> list[str]:
    """What stands between the commas of an option's text, without blanks around it; nothing in an empty one.

    Raises UsageError where nothing stands beside a comma.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if not all(parts):
        raise UsageError(f"{option} {text}: nothing stands beside one of its commas; leave that comma out.")
    return parts
