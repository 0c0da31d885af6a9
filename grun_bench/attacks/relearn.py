"""Relearning: a short fine-tuning brings back what was hidden and not forgotten.

Three kinds, kept apart: on a few of the forget rows, on as many retain rows, on unrelated text. Knowledge that comes
back with rows that do not contain it was there all along (Hu et al. 2024, arXiv 2406.13356; Lynch et al. 2024, arXiv
2402.16835). What a model relearns that never knew, the retain model's control shows.

Two ways: low-rank updates of the linear layers of the decoder blocks, or all weights of the base. An adapter of the
unlearned model stays attached and frozen: the attacker has the files as they are given out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from random import Random
from typing import Annotated

import torch
from torch import Tensor, nn

from grun_bench.attacks.base import Subject
from grun_bench.attacks.tuning import halves, strength
from grun_bench.attacks.weights import KEPT, adapter_parameters, base_linears, base_parameters, restored
from grun_bench.core.errors import Inapplicable
from grun_bench.core.registry import attack
from grun_bench.core.settings import Count, Positive, Share, above, each, one_of, whole
from grun_bench.methods.finetune import train_on_answers
from grun_bench.methods.loop import Schedule
from grun_bench.methods.order import shuffled, split
from grun_bench.models.batch import Encoded
from grun_bench.models.devices import device_of, unchangeable
from grun_bench.models.forward import evaluating
from grun_bench.models.gradients import only
from grun_bench.models.lm import LM
from grun_bench.models.scoring import Example
from grun_bench.tasks.neutral import SENTENCES

KINDS, WAYS = ("forget", "retain", "unrelated"), ("lora", "full")

#: question and answer, or "" and a text
Row = tuple[str, str]


@attack("relearn", access="weights", version=2, utility=KEPT)
def relearn(
    subject: Subject,
    *,
    kinds: Annotated[Sequence[str], each(one_of(*KINDS))] = KINDS,
    ways: Annotated[Sequence[str], each(one_of(*WAYS))] = WAYS,
    steps: Annotated[Sequence[int], each(whole(1))] = (5, 20, 80),
    share: Share = 0.2,
    batch_size: Count = 8,
    lora_lr: Positive = 2e-4,
    full_lr: Positive = 2e-5,
    rank: Count = 16,
    alpha: Positive = 32.0,
    factors: Annotated[Sequence[float], each(above(0))] = (1.0,),
) -> Iterator[tuple[str, Subject]]:
    """Short fine-tuning on a few forget rows (scored on the others), on retain rows, on unrelated text.

    `share` of the forget rows are trained on, or as many retain rows or sentences of our own, the same for every model.
    Questions that were trained on are not asked; multiple-choice questions all are. Each kind and way is one
    fine-tuning, whose learning rate falls to zero at the last of `steps`; the model is scored as it was after each.
    With several `factors` of the learning rate each is tried, and the one that brings back most of one half of the
    other forget rows is scored on the other half.
    """
    if "retain" in kinds and not subject.retain:
        raise Inapplicable("there is no retain set to fine-tune on; leave `retain` out of relearn.kinds.")
    if "full" in ways and (reason := unchangeable(subject.lm.model)):
        raise Inapplicable(f"{reason}; leave `full` out of relearn.ways.")
    changed = {
        "lora": partial(low_rank, subject, rank=rank, alpha=alpha),
        "full": partial(all_weights, subject),
    }
    rates = {"lora": lora_lr, "full": full_lr}
    for kind in kinds:
        rows = trained_rows(subject, kind, share)
        others = replace(subject, examples=[row for row in subject.examples if not _among(row, rows)])
        tried, asked = halves(others) if len(factors) > 1 else ([], others)
        for way in ways:
            points = {count: f"{kind}-{way}@{count}" for count in sorted({*steps})}
            if all(name in subject.answered for name in points.values()):
                yield from ((name, asked) for name in points.values())
                continue
            batches = _batches(subject.lm, rows, max(steps), batch_size, subject.seed)
            best, curve = -1.0, dict[int, list[Tensor]]()
            for rate in [factor * rates[way] for factor in factors]:
                with changed[way]() as parameters:
                    kept = fine_tune(subject, parameters, batches, rate, f"relearning {kind}-{way}", steps)
                    found = strength(subject, tried) if tried else 0.0
                if found > best:
                    best, curve = found, kept
            for count, values in curve.items():
                with changed[way]() as parameters:
                    for parameter, value in zip(parameters, values, strict=True):
                        parameter.data = value.to(parameter.device)
                    yield points[count], asked


def trained_rows(subject: Subject, kind: str, share: float) -> list[Row]:
    """The rows that an attacker has: drawn by the subject's seed, `share` of the forget rows or as many others."""
    count = min(max(1, round(share * len(subject.forget))), max(1, len(subject.forget) - 1))
    pool = {"forget": subject.forget, "retain": subject.retain, "unrelated": [("", text) for text in SENTENCES]}[kind]
    return Random(subject.seed).sample(list(pool), min(count, len(pool)))


def _among(example: Example, rows: Sequence[Row]) -> bool:
    """Whether an example, or the text that it is the beginning of, is one of the rows."""
    if example.join is None:
        return any(example.question == question for question, _ in rows)
    text = f"{example.question}{example.join}{example.answer}"
    return any(not question and answer.strip().startswith(text) for question, answer in rows)


def _batches(lm: LM, rows: Sequence[Row], steps: int, size: int, seed: int) -> list[Sequence[Encoded]]:
    """Batches of as many steps: each row once in random order, then again in another."""
    sequences = lm.encoded(rows)
    return list(split(list(islice(shuffled(sequences, Random(seed)), steps * size)), size))


@contextmanager
def low_rank(subject: Subject, rank: int, alpha: float) -> Iterator[list[nn.Parameter]]:
    """Within this block W x of the base's linear layers is W x + alpha / rank B A x (LoRA, Hu et al. 2021, arXiv
    2106.09685, sec. 4.1); yields A (rank, in) and B (out, rank) of each, in fp32, B zero."""
    generator = torch.Generator().manual_seed(subject.seed)
    parameters: list[nn.Parameter] = []
    handles = []
    for linear in base_linears(subject):
        down = torch.empty(rank, linear.in_features)
        nn.init.kaiming_uniform_(down, a=5**0.5, generator=generator)
        place = device_of(linear)
        pair = [nn.Parameter(matrix.to(place)) for matrix in (down, torch.zeros(linear.out_features, rank))]
        parameters += pair
        handles.append(linear.register_forward_hook(partial(_add_update, pair, alpha / rank)))
    try:
        yield parameters
    finally:
        for handle in handles:
            handle.remove()


def _add_update(
    pair: Sequence[Tensor], scale: float, linear: nn.Module, args: tuple[Tensor, ...], output: Tensor
) -> Tensor:
    down, up = pair
    return output + (scale * (args[0].to(down.dtype) @ down.T @ up.T)).to(output.dtype)


@contextmanager
def all_weights(subject: Subject) -> Iterator[list[nn.Parameter]]:
    """All weights of the base, to be changed within this block and as they were after it."""
    parameters = base_parameters(subject)
    with restored(parameters):
        yield parameters


def fine_tune(
    subject: Subject,
    parameters: Sequence[nn.Parameter],
    batches: Sequence[Sequence[Encoded]],
    lr: float,
    label: str,
    at: Collection[int] = (),
) -> dict[int, list[Tensor]]:
    """AdamW on the answers' mean cross-entropy, linear decay, in place, without dropout.

    Returns what the parameters were after each of the steps `at`, in order, on the CPU.
    """
    lm, kept = subject.lm, {}

    def keep(step: int, total: int) -> None:
        if step in at:
            kept[step] = [parameter.detach().to("cpu", copy=True) for parameter in parameters]

    with evaluating(lm.model), only(parameters, [*lm.model.parameters(), *adapter_parameters(subject)]):
        train_on_answers(lm, parameters, batches, Schedule(lr), label, after_step=keep)
    return kept
