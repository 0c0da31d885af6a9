"""What one optimiser step of adapter x objective computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from grun_bench.core.errors import PluginError
from grun_bench.core.progress import bar
from grun_bench.methods.adapters.base import Adapter
from grun_bench.methods.batch import Side, UnlearningBatch
from grun_bench.methods.draws import REFERRED, Draw, Sequences
from grun_bench.methods.frozen import Trunk
from grun_bench.methods.order import split
from grun_bench.methods.recipes import Recipe
from grun_bench.models.batch import Encoded, collate
from grun_bench.models.lm import LM


@dataclass
class Step:
    """The loss terms of a batch: the objective's, the retain term's and the adapter's own, weighted by the recipe."""

    lm: LM
    adapter: Adapter
    objective: Callable[[UnlearningBatch], Tensor]
    retain_loss: Callable[[Side], Tensor] | None
    recipe: Recipe
    sequences: Sequences
    seed: int
    #: what objective and retain term declare to need
    needs: Set[str] = frozenset()
    #: decoder blocks whose outputs are read
    layers: Sequence[int] = ()
    #: what is frozen of the model: its first blocks, and its vocabulary head
    trunk: Trunk | None = None
    head: nn.Linear | None = None
    #: (rows,) summed negative log-likelihoods under the target model, in nats, by name of the sequences
    references: dict[str, Tensor] = field(default_factory=dict)
    #: what errors call the objective
    name: str = "the objective"

    def keep_references(self, draws: Sequence[Draw]) -> None:
        """Compute what objectives compare with, if they do, for the sequences that are drawn; NaN for the others.

        The model must be the target, but for the adapter.
        """
        if "reference" not in self.needs:
            return
        with self.adapter.disabled():
            for name in (name for name in REFERRED if name in self.sequences):
                drawn = sorted({row for draw in draws for row in draw.rows.get(name, ())})
                sequences = [self.sequences[name][row] for row in drawn]
                known = reference_nll(self.lm, sequences, self.recipe.batch_size, self.trunk)
                self.references[name] = known.new_full((len(self.sequences[name]),), torch.nan)
                self.references[name][drawn] = known

    def losses(self, draw: Draw) -> dict[str, Tensor]:
        """Name -> scalar term, weighted, of one batch.

        Raises PluginError where the objective or the adapter gives no such term; an objective that later has nothing
        more to forget may be constant then, where something else is trained.
        """
        batch = self.batch(draw)
        forget = _scalar(self.objective(batch), self.name)
        terms = {"forget": self.recipe.forget_weight * forget}
        if self.retain_loss is not None:
            weigh = getattr(self.objective, "weigh_retain", _constant)
            terms["retain"] = weigh(self.retain_loss(batch.retain), self.recipe.retain_weight, draw.progress)
        if self.adapter.needs_retain:
            own = self.adapter.aux_loss(batch.forget_gates, batch.retain.gates)
            terms |= {key: _scalar(value, f"{self.adapter.__class__.__name__}.aux_loss") for key, value in own.items()}
        if not (forget.requires_grad or draw.progress) or not any(each.requires_grad for each in terms.values()):
            raise _broken(self.name, "a constant")
        return terms

    def batch(self, draw: Draw) -> UnlearningBatch:
        """The sequences of a draw, to be run when something of them is read."""
        sides = {name: self.side(name, list(rows)) for name, rows in draw.rows.items() if rows}
        if self.recipe.mean_over != "tokens":
            self._divide(sides)
        return UnlearningBatch(
            sides.pop("forget"), sides, tokens=lambda text: self.lm.prompts.answer(text)[:-1], seed=self.seed
        )

    def _divide(self, sides: Mapping[str, Side]) -> None:
        """Cross-entropies are means over sequences, or over the tokens of the retain set and the answers beside it."""
        trained = next((name for name in ("idk", "alternate") if name in sides), "forget")
        pool = [side for name, side in sides.items() if name in (trained, "retain")]
        pooled = sum(len(side.batch.targets) for side in pool)
        for side in sides.values():
            side.divisor = len(side.batch.labels) if self.recipe.mean_over == "sequences" else pooled

    def side(self, name: str, rows: list[int]) -> Side:
        """Some of the sequences of a name, as a batch with what is known of them under the target model."""
        batch = collate([self.sequences[name][row] for row in rows], self.lm.pad_id).to(self.lm.device)
        reference = self.references[name][rows].to(self.lm.device) if name in self.references else None
        target = self.adapter if "target" in self.needs else None
        return Side(self.lm.model, batch, reference, target, self.layers, self.trunk, self.head)


def _scalar(value: Any, whose: str) -> Tensor:
    """What a plugin gave, a real number to minimise. Raises PluginError for anything else."""
    if not isinstance(value, Tensor):
        raise _broken(whose, "None" if value is None else f"a {type(value).__name__}")
    if value.numel() != 1 or not value.is_floating_point():
        raise _broken(whose, f"a tensor of shape {tuple(value.shape)} and {value.dtype}")
    return value


def _broken(whose: str, given: str) -> PluginError:
    return PluginError(
        f"{whose} gave {given}; it is to give a scalar tensor of a float dtype that depends on the model's outputs "
        "(`grun-bench test NAME` checks a plugin)."
    )


def _constant(loss: Tensor, weight: float, progress: float) -> Tensor:
    return weight * loss


@torch.no_grad()
def reference_nll(lm: LM, sequences: Sequence[Encoded], batch_size: int, trunk: Trunk | None = None) -> Tensor:
    """(sequences,) summed negative log-likelihood of each answer under the model as it is now, in nats, on the CPU."""
    lm.model.eval()
    found = []
    with bar("likelihoods under the target", len(sequences)) as advance:
        for part in split(sequences, batch_size):
            found.append(Side(lm.model, collate(part, lm.pad_id).to(lm.device), trunk=trunk).nll.cpu())
            advance(len(part))
    return torch.cat(found)
