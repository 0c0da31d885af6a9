"""The options of a run from Python, by the fields of RunConfig: refused in words before anything is looked up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from grun_bench.core.given import COLUMNS, DEVICES, FLAG, MODEL, NAMES, NUMBERS, PATH, PATHS, TEXT, WHOLE, Given, whole
from grun_bench.runs.config import MAX_SEED, RunConfig

_COUNT = whole(1, math.inf, "a whole number above 0")
#: the fields that their type alone does not say
_BY_NAME = {
    **dict.fromkeys(("attacks", "attack_sets", "utility", "track"), NAMES),
    **dict.fromkeys(("model", "target_model", "retain_model", "writer"), MODEL),
    **dict.fromkeys(("limit", "eval_every", "scoring_batch_size"), _COUNT),
    "device_map": DEVICES,
    "seed": whole(0, MAX_SEED, f"a whole number from 0 to {MAX_SEED}"),
}
#: what a field of RunConfig is said to be, without its None
_BY_TYPE: dict[str, Given] = {
    "Path": PATH,
    "str": TEXT,
    "int": WHOLE,
    "bool": FLAG,
    "tuple[float, ...]": NUMBERS,
    "tuple[Path, ...]": PATHS,
    "Mapping[str, str]": COLUMNS,
}


def check_given(options: Mapping[str, Any]) -> None:
    """Raises UsageError for the first of these fields of RunConfig that is not of its kind."""
    for field in fields(RunConfig):
        kind = _BY_NAME.get(field.name) or _BY_TYPE.get(str(field.type).removesuffix(" | None"))
        if field.name not in options or kind is None:
            continue
        value = options[field.name]
        if value is not None or field.default is not None:
            kind.check(field.name, value)
