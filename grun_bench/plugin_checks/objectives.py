"""The contract of an objective."""

from __future__ import annotations

import math

import torch

from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.plugin_checks.contract import Check, require, require_plain
from grun_bench.plugin_checks.small_model import fit, logits, pair


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


#: all checks
CONTRACT: tuple[Check, ...] = (works_with_every_adapter, the_seed_decides, records_its_settings)
