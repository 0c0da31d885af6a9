"""The contract of an objective."""

from __future__ import annotations

import math

import torch

from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.core.ranges import OF_PART
from grun_bench.methods.make import make_unlearner
from grun_bench.plugin_checks.contract import Check, require, require_plain
from grun_bench.plugin_checks.search import check_ranges
from grun_bench.plugin_checks.small_model import fit, logits, pair
from grun_bench.tasks.world import PUBLISHED


def works_with_every_adapter(name: str) -> None:
    """with each adapter it trains with finite losses, or is refused with a reason; one of them at least works"""
    refused = []
    for adapter in registry.names("adapter"):
        try:
            fitted = fit(pair(adapter, name))
        except UsageError as error:
            refused.append(f"{adapter}: {error}")
            continue
        finite = all(math.isfinite(value) for step in fitted.history for value in step.values())
        require(finite, f"{adapter}: a loss is not finite")
    require(len(refused) < len(registry.names("adapter")), f"refused by every adapter: {'; '.join(refused)}")


def the_seed_decides(name: str) -> None:
    """two trainings with one seed give the same weights"""
    first, second = (fit(pair("full", name)) for _ in range(2))
    require(torch.equal(logits(first.lm), logits(second.lm)), "the same seed gave other weights")


def records_its_settings(name: str) -> None:
    """every setting can be written into a result file"""
    require_plain(pair("full", name).settings)


def is_searched_like_the_others(name: str) -> None:
    """tune searches two settings of it, its own or of training, and none that an adapter has already"""
    searched = registry.get("objective", name).searched
    check_ranges(searched, OF_PART, make_unlearner(f"full+{name}", {}, PUBLISHED).settings)
    for adapter in registry.names("adapter"):
        both = searched.keys() & registry.get("adapter", adapter).searched.keys()
        require(not both, f"searched: {', '.join(both)} is among those of the adapter {adapter} already")


#: all checks
CONTRACT: tuple[Check, ...] = (
    works_with_every_adapter,
    the_seed_decides,
    records_its_settings,
    is_searched_like_the_others,
)
