"""Settings of plugins: their keyword-only parameters with defaults, and the user's values in place of these."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from grun_bench.core.errors import UsageError, unknown

#: a setting of this name is a depth: a whole number is a block, a float a share of the blocks
DEPTH = "layer"


def options_of(target: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only parameters of a plugin with their defaults: what `--set` can override."""
    parameters = inspect.signature(target).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def override(defaults: Mapping[str, Any], overrides: Mapping[str, Any], plugin: str) -> dict[str, Any]:
    """Settings with the user's in place of the defaults. Raises UsageError for an unknown one or a wrong type."""
    settings = dict(defaults)
    for key, value in overrides.items():
        if key not in settings:
            raise unknown(f"setting of {plugin}", key, settings)
        settings[key] = _coerce(key, value, settings[key])
    return settings


def _coerce(key: str, value: Any, default: Any) -> Any:
    if isinstance(default, float) and isinstance(value, int) and key == DEPTH:
        return value
    if isinstance(default, float) and isinstance(value, (int, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    if isinstance(default, tuple | list) and isinstance(value, list):
        return value
    if default is None or (type(value) is type(default)):
        return value
    raise UsageError(f"--set {key}={value}: expected {type(default).__name__}, as in {key}={default}.")
