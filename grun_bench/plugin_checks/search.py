"""What is asked of the ranges that a plugin is tuned over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grun_bench.core.ranges import Choice, Searched
from grun_bench.plugin_checks.contract import require, require_plain


def check_ranges(searched: Searched, count: int, settings: Mapping[str, Any]) -> None:
    """Raises ContractBroken unless there are so many, each of a setting that there is, with its default in it."""
    require(len(searched) == count, f"searched names {', '.join(searched)}, and every plugin of this kind has {count}")
    for name, each in searched.items():
        require(name in settings, f"searched has {name}, which is no setting: those are {', '.join(settings)}")
        default, found = settings[name], each.around(settings[name])
        require(found.holds(default), f"{name} is searched in {each}, and its default {default} is not among that")
        if isinstance(found, Choice):
            require_plain({name: list(found.values)})
        else:
            require(found.low < found.high, f"{name} is searched from {found.low:g} to {found.high:g}")
            require(
                not found.log or found.low > 0,
                f"{name} is searched by factors from {found.low:g}, which is not above 0",
            )
