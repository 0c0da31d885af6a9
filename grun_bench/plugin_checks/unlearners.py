"""The contract of an unlearner of its own."""

from __future__ import annotations

import torch

from grun_bench.methods.make import make_unlearner
from grun_bench.plugin_checks.contract import Check, require, require_plain
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


#: all checks
CONTRACT: tuple[Check, ...] = (fits, says_whether_seeds_matter)
