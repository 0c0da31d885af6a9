"""Models that are there already, in the place of the training that would make them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.methods.base import FitContext, Fitted, Unlearner
from grun_bench.methods.saving import load_fitted, read_card
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, ready
from grun_bench.models.places import other_content
from grun_bench.results.result import Result


class Kept(Unlearner):
    """The model that a row was made from, out of the folder that it was saved in, under the row's own settings."""

    sequential = False

    def __init__(self, folder: Path, result: Result, placement: Placement) -> None:
        self.folder, self.result, self.placement = folder, result, placement
        self.seeded = result.seed is not None
        self.card = read_card(folder)
        if self.card.unlearner != result.unlearner.name:
            raise UsageError(
                f"--saved {folder} is a model of {self.card.unlearner}, the row is of {result.unlearner.name}."
            )

    @property
    def settings(self) -> dict[str, Any]:
        return self.result.unlearner.settings

    def fit(self, context: FitContext) -> Fitted:
        """The model, its adapter put on the target model. Raises GrunBenchError where that is another one."""
        if self.card.adapter is None:
            return load_fitted(self.folder, self.placement)
        base = context.load_target()
        if other := other_content(base.origin, self.card.base):
            run = self.result.run_id
            raise GrunBenchError(
                f"the target model here is not the one that the adapter of {run} was trained on: {other}."
            )
        return load_fitted(self.folder, self.placement, base)


class InMemory(Unlearner):
    """A model that somebody else unlearned, as it is in memory; its weights are what tells its row from others."""

    seeded = sequential = False

    def __init__(self, lm: LM) -> None:
        self.lm = lm
        self._settings = {"weights": _weights_sha256(lm.model)}

    @property
    def settings(self) -> dict[str, Any]:
        return self._settings

    def fit(self, context: FitContext) -> Fitted:
        return Fitted(self.lm)


def in_memory(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> LM:
    """A model with its tokenizer, and prompts as a loaded one has them. Raises ModelError where it cannot be scored."""
    return ready(model, tokenizer, {"name": model.config.name_or_path})


def _weights_sha256(model: torch.nn.Module) -> str:
    """SHA-256 over the names and the bytes of all weights."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode() + value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
