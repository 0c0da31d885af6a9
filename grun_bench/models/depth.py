"""How deep forgetting goes: activations of the unlearned model, patched into the target layer by layer.

If the target with the unlearned model's hidden states still knows an entity, the knowledge is in those states, whatever
the unlearned model says. Source: the unlearning depth score (arXiv 2605.24614; gnueaj/unlearning-depth-score, commit
fc31639).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from grun_bench.core.errors import UsageError
from grun_bench.core.progress import bar
from grun_bench.models.batch import Batch, collate
from grun_bench.models.forward import decoder_layers, evaluating, forward
from grun_bench.models.lm import LM

#: the drop of an entity's log probability, in nats a token, from which a layer counts as one that knows it
KNOWS = 0.05


@dataclass(frozen=True)
class Entity:
    """What an answer must say to be right, as a part of its text."""

    question: str
    answer: str
    entity: str


@dataclass(frozen=True)
class Depth:
    """An entity's drops of log probability by layer, nats a token: with the retain model's states in the target, and
    with the unlearned model's."""

    retain: Sequence[float]
    unlearned: Sequence[float]

    @property
    def value(self) -> float | None:
        """sum d_r clip(d_u / d_r, 0, 1) / sum d_r over the layers with d_r above `KNOWS`; None where there is none.

        0 for the target itself, 1 for the retain model, both by construction.
        """
        pairs = [(own, other) for own, other in zip(self.retain, self.unlearned, strict=True) if own > KNOWS]
        whole = sum(own for own, _ in pairs)
        return sum(min(max(other, 0.0), own) for own, other in pairs) / whole if pairs else None


@torch.no_grad()
def depths(unlearned: LM, target: LM, retain: LM, entities: Sequence[Entity]) -> list[Depth | None]:
    """The depth of each entity; None where its answer's tokens do not have it.

    The states of all decoder blocks at the positions that predict the entity's tokens are taken from the other two
    models and put into the target, a block at a time. Raises UsageError for models whose blocks or tokens differ.
    """
    count = len(decoder_layers(target.model))
    for other in (unlearned, retain):
        if len(decoder_layers(other.model)) != count:
            raise UsageError(f"depth: the models have {count} and {len(decoder_layers(other.model))} decoder blocks.")
    found: list[Depth | None] = []
    models = (unlearned, target, retain)
    with (
        evaluating(unlearned.model),
        evaluating(target.model),
        evaluating(retain.model),
        bar("depth", len(entities)) as advance,
    ):
        for entity in entities:
            found.append(_depth(models, entity, range(count)))
            advance()
    return found


def _depth(models: tuple[LM, LM, LM], entity: Entity, layers: Iterable[int]) -> Depth | None:
    unlearned, target, retain = models
    sequence = target.prompts.encode(entity.question, entity.answer)
    if any(other.prompts.encode(entity.question, entity.answer) != sequence for other in (unlearned, retain)):
        raise UsageError("depth: the models' tokenizers or prompts differ.")
    span = token_span(target, sequence.answer, entity.entity)
    if span is None:
        return None
    batch = collate([sequence], target.pad_id)
    # the token before predicts a token
    places = slice(len(sequence.prompt) + span.start - 1, len(sequence.prompt) + span.stop - 1)
    whole = _logprob(target, batch, span)

    def drops(other: LM) -> list[float]:
        states = forward(other.model, batch.to(other.device), list(layers), head=False).hidden
        found = []
        for layer in layers:
            with _patched(decoder_layers(target.model)[layer], states[layer][:, places], places):
                found.append(whole - _logprob(target, batch, span))
        return found

    return Depth(drops(retain), drops(unlearned))


def token_span(lm: LM, answer: Sequence[int], entity: str) -> slice | None:
    """Which of an answer's tokens are of the entity's first place in its text; None where it is not there."""
    ends = [len(lm.tokenizer.decode(answer[: count + 1])) for count in range(len(answer))]
    start = lm.tokenizer.decode(answer).find(entity)
    if start < 0 or not entity:
        return None
    first = next(place for place, end in enumerate(ends) if end > start)
    last = next(place for place, end in enumerate(ends) if end >= start + len(entity))
    return slice(first, last + 1)


def _logprob(lm: LM, batch: Batch, span: slice) -> float:
    """The mean log probability of the answer's tokens in a span."""
    batch = batch.to(lm.device)
    logprobs = forward(lm.model, batch).logits.float().log_softmax(-1)
    return logprobs.reshape(-1, logprobs.shape[-1]).gather(-1, batch.targets[:, None])[span].mean().item()


@contextmanager
def _patched(block: nn.Module, states: Tensor, places: slice) -> Iterator[None]:
    """Within this block of code a decoder block puts out these states at these positions."""

    def put(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[:, places] = states.to(hidden)
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = block.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()
