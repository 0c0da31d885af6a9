"""How a check says that a plugin does not keep its contract: an exception of its own, which no flag of Python skips."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from grun_bench.core.errors import PluginError

#: a check, of the plugin of a name
Check = Callable[[str], None]


class ContractBroken(PluginError):
    """A plugin does not keep the contract of its kind, in this way."""


def require(holds: bool, problem: str) -> None:
    """Raises ContractBroken with the problem where something does not hold."""
    if not holds:
        raise ContractBroken(problem)


def require_plain(settings: Mapping[str, Any]) -> None:
    """Raises ContractBroken for settings that a result file cannot hold."""
    try:
        json.dumps(settings)
    except TypeError as error:
        raise ContractBroken(f"a setting cannot be written into a result: {error}") from None
