"""GRUN's training against its official code's mathematics (renjie3/GRUN @ b59fd78), written again from plain torch.

With the official trainer itself beside it, in float64, losses agreed to 1e-15 and ten optimiser steps to 1e-8.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import FORGET, RETAIN
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, cross_entropy, logsigmoid
from transformers import get_scheduler

from grun_bench.core import registry
from grun_bench.methods.adapters.grun import Grun
from grun_bench.methods.draws import draw_batches, encode, encode_rows
from grun_bench.methods.loop import Schedule, optimise
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.recipes import Recipe
from grun_bench.methods.refusals import REFUSALS
from grun_bench.methods.retain_terms import retain_ce
from grun_bench.methods.step import Step
from grun_bench.methods.trainer import Pair
from grun_bench.models.batch import Batch, Encoded, collate
from grun_bench.models.forward import decoder_layers
from grun_bench.models.lm import LM
from grun_bench.tasks.world import PUBLISHED

STEPS, LAYERS = 10, (3, 4, 5)


@pytest.fixture(autouse=True)
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is computed in float32 whatever the model's dtype is in float64 here."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Official:
    """The base model and copies of fresh edits, with the official trainer's losses."""

    def __init__(self, lm: LM, edits: nn.ModuleDict) -> None:
        self.model, self.edits = lm.model.requires_grad_(False), copy.deepcopy(edits)

    def run(self, batch: Batch, edited: bool = True) -> tuple[Tensor, list[Tensor]]:
        """(batch, length, vocabulary) logits, and of each layer the gates' openings (batch,)."""
        rows, gates, handles = torch.arange(len(batch.labels)), [], []

        def hook(edit: Any) -> Callable[..., Any]:
            def change(block: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
                states = (output[0] if isinstance(output, tuple) else output).clone()
                h, r = states[rows, batch.prompt_end], edit.rotation.weight
                opening = torch.sigmoid(edit.gate(h))
                gates.append(opening[:, 0])
                # h' = h + (W h + b - R h) R s
                states[rows, batch.prompt_end] = h + (edit.source(h) - h @ r) @ r.T * opening
                return (states, *output[1:]) if isinstance(output, tuple) else states

            return change

        for layer, edit in self.edits.items() if edited else ():
            handles.append(decoder_layers(self.model)[int(layer)].register_forward_hook(hook(edit)))
        logits = self.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        for handle in handles:
            handle.remove()
        return logits, gates

    def loss(self, name: str, forget: Batch, retain: Batch) -> dict[str, Tensor]:
        """The terms that are added up; of refusals, `forget` are they."""
        logits, opened = self.run(forget)
        kept, shut = self.run(retain)
        if name == "npo":
            with torch.no_grad():
                before = summed(self.run(forget, edited=False)[0], forget)
            term = -100 * 2 / 0.1 * logsigmoid(0.1 * (summed(logits, forget) - before)).mean()
        else:
            term = {"gd": -1, "idk": 1}[name] * mean(logits, forget)
        gates = torch.cat([*opened, *shut])
        wanted = torch.cat([torch.ones(sum(map(len, opened))), torch.zeros(sum(map(len, shut)))])
        weight = 2 if name == "gd" else 1
        return {
            "forget": term,
            "retain": weight * mean(kept, retain),
            "gate": 10 * binary_cross_entropy(gates, wanted),
        }


def mean(logits: Tensor, batch: Batch) -> Tensor:
    return cross_entropy(logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=-100)


def summed(logits: Tensor, batch: Batch) -> Tensor:
    labels = batch.labels[:, 1:]
    return cross_entropy(logits[:, :-1].mT, labels, ignore_index=-100, reduction="none").sum(1)


@pytest.mark.long
@pytest.mark.parametrize("name", ["gd", "npo", "idk"])
def test_ten_steps_are_the_official_trainers(name: str, make_lm: Callable[..., LM]) -> None:
    lm = make_lm(dtype=torch.float64)
    unlearner = make_unlearner(
        f"grun+{name}", {"recipe": "paper", "layers": list(LAYERS), "batch_size": 3}, PUBLISHED, family="tofu"
    )
    assert isinstance(unlearner, Pair)
    recipe = Recipe(**vars(unlearner.recipe) | {"steps": STEPS})
    adapter = Grun(layers=LAYERS)
    torch.manual_seed(0)
    adapter.attach(lm.model)
    official = Official(make_lm(dtype=torch.float64), adapter.edits)
    sequences: dict[str, list[Encoded]] = {
        "forget": encode_rows(lm, FORGET, recipe),
        "retain": encode_rows(lm, RETAIN, recipe),
    }
    if name == "idk":
        sequences["idk"] = [each for question, _ in FORGET for each in encode(lm, question, REFUSALS, recipe)]
    plugin = registry.get("objective", name)
    step = Step(lm, adapter, plugin.target, retain_ce, recipe, sequences, 0, {*plugin.needs})
    draws = draw_batches(sequences, recipe, 0)
    step.keep_references(draws)

    def batches(draw: Any) -> tuple[Batch, Batch]:
        chosen = [
            [sequences[kind][row] for row in draw.rows[kind]]
            for kind in ("idk" if name == "idk" else "forget", "retain")
        ]
        first, second = (collate(rows, lm.pad_id) for rows in chosen)
        return first, second

    ours, theirs = step.losses(draws[0]), official.loss(name, *batches(draws[0]))
    assert {term: value.item() for term, value in ours.items()} == pytest.approx(
        {term: value.item() for term, value in theirs.items()}, rel=1e-14
    )

    optimise(adapter.trainable_parameters(), draws, step.losses, Schedule(recipe.lr, clip=recipe.clip), "test")
    trained = list(official.edits.parameters())
    optimiser = torch.optim.AdamW(trained, lr=4e-3, weight_decay=0.0)
    scheduler = get_scheduler("linear", optimiser, num_warmup_steps=0, num_training_steps=STEPS)
    for draw in draws:
        optimiser.zero_grad()
        torch.stack(list(official.loss(name, *batches(draw)).values())).sum().backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()
        scheduler.step()
    for (key, found), expected in zip(adapter.edits.named_parameters(), trained, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10, msg=key)
