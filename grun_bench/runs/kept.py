"""A model that was saved, in the place of the training that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.methods.saving import load_fitted, read_card
from grun_bench.methods.trainer import FitContext, Fitted, Unlearner
from grun_bench.models.loading import Placement
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
        for key in ("sha256", "revision"):
            if base.origin.get(key) != self.card.base.get(key):
                raise GrunBenchError(
                    f"the target model here is not the one that the adapter of {self.result.run_id} was trained on: "
                    f"its {key} is {str(base.origin.get(key))[:12]}, that one's {str(self.card.base.get(key))[:12]}."
                )
        return load_fitted(self.folder, self.placement, base)
