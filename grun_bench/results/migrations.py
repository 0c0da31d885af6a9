"""Result files of older schema versions -> today's: one function a step, on the plain data. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from grun_bench.core.errors import UsageError

Data = dict[str, Any]


def _attacks_and_curves(data: Data) -> Data:
    """1 -> 2: places for attacks and curves."""
    return data | {"attacks": {}, "curves": {}}


def _rows_of_attacks(data: Data) -> Data:
    """2 -> 3: attacks may leave sets out; until then all asked every set."""
    return data


def _gates(data: Data) -> Data:
    """3 -> 4: a place for what gates do."""
    return data | {"gates": {}}


def _tuned(data: Data) -> Data:
    """4 -> 5: settings may be tuned; until then none were."""
    return data


def _strengths(data: Data) -> Data:
    """5 -> 6: curves may be over strengths; until then none was."""
    return data


def _adjusted(data: Data) -> Data:
    """6 -> 7: a result says which settings its training had otherwise; until then none did."""
    return data


#: schema version -> the step to the next one
STEPS: dict[int, Callable[[Data], Data]] = {
    1: _attacks_and_curves,
    2: _rows_of_attacks,
    3: _gates,
    4: _tuned,
    5: _strengths,
    6: _adjusted,
}
#: the version that results are written in
CURRENT = max(STEPS) + 1
#: results of this version and later ones differ from today's in nothing but what they may lack: no step changes them
ALIKE = 4


def migrate(data: Any) -> Any:
    """The content of a result file as one of the current version; what is no object is handed on as it is.

    Raises UsageError for a version that is not known: newer than the newest, or none at all.
    """
    if not isinstance(data, dict):
        return data
    version = data.get("schema_version")
    if type(version) is not int or version < 1:
        raise UsageError(f"$.schema_version: must be a whole number from 1 to {CURRENT}.")
    if version > CURRENT:
        raise UsageError(
            f"written in version {version} of the schema, and this grun-bench knows up to {CURRENT}: upgrade it with "
            "`pip install -U grun-bench`."
        )
    for step in range(version, CURRENT):
        data = STEPS[step](data) | {"schema_version": step + 1}
    return data
