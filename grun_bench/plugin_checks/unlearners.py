"""The contract of an unlearner of its own."""

from __future__ import annotations

import torch

from grun_bench.core import registry
from grun_bench.core.ranges import FREE
from grun_bench.methods.make import make_unlearner
from grun_bench.plugin_checks.contract import Check, require, require_plain
from grun_bench.plugin_checks.search import check_ranges
from grun_bench.plugin_checks.small_model import fit, logits
from grun_bench.tasks.world import PUBLISHED


def fits(name: str) -> None:
    """fit() gives a model whose logits are finite, in evaluation mode, and settings that a result file can hold"""
    unlearner = make_unlearner(name, {}, PUBLISHED)
    fitted = fit(unlearner)
    require(not fitted.lm.model.training, "the model is left in training mode")
    require(bool(torch.isfinite(logits(fitted.lm)).all()), "the model's logits are not finite")
    require_plain(unlearner.settings)


def says_whether_seeds_matter(name: str) -> None:
    """two fits with one seed give the same model"""
    first, second = (fit(make_unlearner(name, {}, PUBLISHED)) for _ in range(2))
    require(torch.equal(logits(first.lm), logits(second.lm)), "the same seed gave another model")


def is_searched_like_the_others(name: str) -> None:
    """tune searches four settings of it, or none where it declares none"""
    if searched := registry.get("unlearner", name).searched:
        check_ranges(searched, FREE, make_unlearner(name, {}, PUBLISHED).settings)


#: all checks
CONTRACT: tuple[Check, ...] = (fits, says_whether_seeds_matter, is_searched_like_the_others)
