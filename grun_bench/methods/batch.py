"""What objectives see of a batch: answers run through the model, once and only when something of them is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from grun_bench.methods.adapters.base import Adapter, layer_index
from grun_bench.methods.frozen import Trunk
from grun_bench.models.batch import IGNORED, Batch
from grun_bench.models.forward import Forward, Frozen, evaluating, forward
from grun_bench.models.head import token_losses
from grun_bench.models.rows import of_all, own_rows


@dataclass
class Side:
    """One batch run through the model, lazily: token-level values are flat over the answer tokens of the batch.

    Of several processes each runs rows of its own, and all have the values of all (see `grun_bench.models.rows`).
    """

    model: PreTrainedModel
    batch: Batch
    #: (batch,) negative log-likelihood of each answer under the target model, in nats, summed over tokens
    reference: Tensor | None = None
    #: what makes `model` the target model again; None where the objective does not ask for that
    adapter: Adapter | None = None
    #: decoder blocks whose outputs `hidden` can give
    layers: Sequence[int] = ()
    #: what is frozen, which then need not run
    trunk: Trunk | None = None
    #: the vocabulary head where it is frozen and all that comes after the last block, which then can be put off
    head: nn.Linear | None = None
    #: what `cross_entropy` divides the sum over all tokens by, where that is not their number
    divisor: int | None = None

    @cached_property
    def _own(self) -> Batch:
        return own_rows(self.batch)

    @cached_property
    def _frozen(self) -> Frozen | None:
        return None if self.trunk is None else self.trunk.frozen(self._own)

    @cached_property
    def _forward(self) -> Forward:
        return forward(self.model, self._own, self.layers, self._frozen, head=self.head is None)

    @property
    def ran(self) -> bool:
        """Whether anything of it was read yet."""
        return "_forward" in self.__dict__

    @cached_property
    def _own_logits(self) -> Tensor:
        logits = self._forward.logits if self.head is None else self.head(self._forward.states)
        return logits.float().to(self.batch.labels.device)

    @cached_property
    def logits(self) -> Tensor:
        """(tokens, vocabulary) of the answers' positions, in fp32."""
        return of_all(self._own_logits, self.lengths)

    @property
    def gates(self) -> dict[int, Tensor]:
        """Layer -> gate logits (batch,)."""
        each = torch.ones_like(self.lengths)
        return {layer: of_all(logits, each) for layer, logits in self._forward.gates.items()}

    @cached_property
    def token_nll(self) -> Tensor:
        """(tokens,) negative log-likelihood of each answer token, in nats."""
        if self.head is not None:
            losses = token_losses(self._forward.states, self._own.targets, self.head)
        else:
            losses = nn.functional.cross_entropy(self._own_logits, self._own.targets, reduction="none")
        return of_all(losses, self.lengths)

    @property
    def cross_entropy(self) -> Tensor:
        """Scalar: mean of `token_nll` over the tokens of the batch, or over what the recipe says in their place."""
        return self.token_nll.mean() if self.divisor is None else self.token_nll.sum() / self.divisor

    @cached_property
    def nll(self) -> Tensor:
        """(batch,) `token_nll` summed over each answer's tokens."""
        rows = self.batch.scored.nonzero()[:, 0]
        return self.token_nll.new_zeros(len(self.batch.labels)).index_add(0, rows, self.token_nll)

    @property
    def lengths(self) -> Tensor:
        """(batch,) answer tokens, the end of sequence included."""
        return self.batch.scored.sum(1)

    @property
    def places(self) -> Tensor:
        """(tokens,) place of each answer token in its answer, from 0."""
        return (self.batch.scored.cumsum(1) - 1)[self.batch.scored]

    def hidden(self, layer: float, positions: str) -> Tensor:
        """(tokens, hidden) outputs of the decoder block at a depth, in fp32.

        `positions`: `predicting` an answer token (the last prompt token is the first) or of the `answer` tokens.
        Raises KeyError for a block whose output was not asked for.
        """
        index = layer_index(layer, self.model.config.get_text_config().num_hidden_layers)
        batch = self._forward.batch
        mask = batch.scored if positions == "predicting" else batch.labels != IGNORED
        states = self._forward.hidden[index]
        return of_all(states[mask.to(states.device)].float().to(mask.device), self.lengths)

    @cached_property
    def target(self) -> Side:
        """The same batch under the target model, without gradients or dropout. Raises TypeError where undeclared."""
        if self.adapter is None:
            raise TypeError("this objective must declare needs=('target',) to read what the target model says")
        target = Side(self.model, self.batch, layers=self.layers, head=self.head)
        target._frozen = self._frozen
        with torch.no_grad(), evaluating(self.model), self.adapter.disabled():
            _ = target._forward
        return target

    @property
    def reference_nll(self) -> Tensor:
        """(batch,) `nll` under the target model: computed before training where `reference` was declared.

        Raises TypeError where neither that nor `target` was.
        """
        if self.reference is None and self.adapter is None:
            raise TypeError("this objective must declare needs=('reference',) to read reference_nll")
        return self.target.nll if self.reference is None else self.reference


@dataclass
class UnlearningBatch:
    """What an objective sees: forget answers, and beside them what was drawn for the same step; run when read.

    `beside` has `retain`, and other answers to the forget questions by the name that an objective declares them by.
    """

    forget: Side
    beside: Mapping[str, Side] = field(default_factory=dict)
    #: a text as the answer's tokens, without the end of sequence
    tokens: Callable[[str], list[int]] = field(default=lambda text: [])
    seed: int = 0

    @property
    def retain(self) -> Side:
        """Retain answers, as many as forget answers. Raises TypeError where there is no retain set."""
        return self._drawn("retain")

    @property
    def idk(self) -> Side:
        """Refusals to the forget questions. Raises TypeError where undeclared."""
        return self._drawn("idk")

    @property
    def alternate(self) -> Side:
        """Other answers that the target model gave to the forget questions. Raises TypeError where undeclared."""
        return self._drawn("alternate")

    def _drawn(self, name: str) -> Side:
        if name not in self.beside:
            raise TypeError(f"this objective must declare needs=('{name}',) to read batch.{name}")
        return self.beside[name]

    @property
    def forget_gates(self) -> dict[int, Tensor]:
        """Gate logits on the forget prompts, from a pass that was run anyway (all answers have the same prompt)."""
        answers = [self.forget, *(side for name, side in self.beside.items() if name != "retain")]
        return next((side for side in answers if side.ran), self.forget).gates
