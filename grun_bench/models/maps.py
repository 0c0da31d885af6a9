"""Device maps: which part of a model goes where, as accelerate takes it, as a user writes it and as results say it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from grun_bench.core.errors import ModelError, UsageError
from grun_bench.models.devices import absent

#: `auto`, or name of a part ("" is all) -> device, `cpu` or `disk`
DeviceMap = str | Mapping[str, str | int]
#: places of a map that are no torch devices, or none that a part computes on where there is another
_BEHIND = ("cpu", "disk")


def read_map(given: DeviceMap) -> DeviceMap:
    """The map that a user means: `auto`, the map itself, or the path of a JSON file that holds one.

    Raises UsageError for what is none, ModelError for a device that is not here.
    """
    if isinstance(given, str) and given != "auto":
        try:
            given = json.loads(Path(given).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"--device-map {given}: auto, or a JSON file of part -> device ({error}).") from None
    if given == "auto":
        return given
    if not isinstance(given, Mapping) or not given or not all(isinstance(part, str) for part in given):
        raise UsageError('--device-map: a map is {"part of the model": device}, as {"": "cuda:0"} for all of it.')
    for part, place in given.items():
        _check(part, place)
    return dict(given)


def _check(part: str, place: object) -> None:
    if place == "disk":
        return
    if isinstance(place, bool) or not isinstance(place, str | int):
        raise UsageError(f"--device-map: {part or 'the model'} goes to {place!r}: write a device, cpu or disk.")
    if said := absent(place):
        raise ModelError(f"--device-map: {part or 'the model'} goes to {place}, which is not here ({said}).")


def first_device(device_map: DeviceMap) -> str:
    """The device that parts in host memory and in files are brought to: the first one named that is neither."""
    places = device_map.values() if isinstance(device_map, Mapping) else ()
    first = next((place for place in places if place not in _BEHIND), "cpu")
    return f"cuda:{first}" if isinstance(first, int) else first


def placed(model: nn.Module) -> dict[str, list[str]] | None:
    """Where the parts of a spread model are, device -> parts, layers in a row as `layers.0-11`; None of a whole one."""
    found: dict[str, list[str]] = {}
    for part, place in (getattr(model, "hf_device_map", None) or {}).items():
        name = f"cuda:{place}" if isinstance(place, int) else str(place)
        parts = found.setdefault(name, [])
        here = re.fullmatch(r"(.*\.)(\d+)", part)
        last = re.fullmatch(r"(.*\.)(?:(\d+)-)?(\d+)", parts[-1]) if parts else None
        if here and last and here[1] == last[1] and int(here[2]) == int(last[3]) + 1:
            parts[-1] = f"{here[1]}{last[2] or last[3]}-{here[2]}"
        else:
            parts.append(part)
    return found or None
