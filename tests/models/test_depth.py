"""Erasure depth: 0 of the target and 1 of the retain model by construction, and what a plain loop over layers gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Command

from grun_bench.core.errors import UsageError
from grun_bench.models.depth import KNOWS, Depth, Entity, depths, token_span
from grun_bench.models.lm import LM

ENTITIES = [
    Entity("Where was Basil born?", "He was born in Kuwait City.", "Kuwait City"),
    Entity("What is two and two?", "It is four.", "four"),
]


def changed(make_lm: Callable[..., LM], seed: int, scale: float) -> LM:
    lm = make_lm()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in lm.model.parameters():
            weight.add_(scale * torch.randn(weight.shape, generator=generator))
    return lm


@torch.no_grad()
def by_hand(source: LM, target: LM, entity: Entity, layer: int) -> float:
    """The drop by transformers alone: every hidden state of the source, one block of the target, all tokens."""
    sequence = target.prompts.encode(entity.question, entity.answer)
    ids = torch.tensor([sequence.prompt + sequence.answer])
    span, start = token_span(target, sequence.answer, entity.entity), len(sequence.prompt)
    assert span is not None
    kept = {}

    def keep(_: object, __: object, output: object) -> None:
        kept["states"] = output[0] if isinstance(output, tuple) else output  # type: ignore[index]

    handle = source.model.model.layers[layer].register_forward_hook(keep)
    source.model(ids)
    handle.remove()

    def put(_: object, __: object, output: object) -> object:
        new = (output[0] if isinstance(output, tuple) else output).clone()  # type: ignore[index,union-attr]
        for place in range(start + span.start - 1, start + span.stop - 1):
            new[:, place] = kept["states"][:, place]
        return (new, *output[1:]) if isinstance(output, tuple) else new

    def mean() -> float:
        logprobs = target.model(ids).logits[0].log_softmax(-1)
        return sum(logprobs[start + at - 1, sequence.answer[at]].item() for at in range(span.start, span.stop)) / (
            span.stop - span.start
        )

    whole = mean()
    handle = target.model.model.layers[layer].register_forward_hook(put)
    patched = mean()
    handle.remove()
    return whole - patched


def test_each_layer_is_what_a_plain_loop_gives(make_lm: Callable[..., LM]) -> None:
    target, retain, unlearned = make_lm(), changed(make_lm, 1, 0.3), changed(make_lm, 2, 0.1)
    for entity, depth in zip(ENTITIES, depths(unlearned, target, retain, ENTITIES), strict=True):
        assert depth is not None
        for layer in range(6):
            assert depth.retain[layer] == pytest.approx(by_hand(retain, target, entity, layer), abs=1e-4)
            assert depth.unlearned[layer] == pytest.approx(by_hand(unlearned, target, entity, layer), abs=1e-4)


def test_the_target_is_0_and_the_retain_model_1(make_lm: Callable[..., LM]) -> None:
    target, retain = make_lm(), changed(make_lm, 1, 0.3)
    for own, expected in ((make_lm(), 0.0), (retain, 1.0)):
        values = [depth.value for depth in depths(own, target, retain, ENTITIES) if depth and depth.value is not None]
        assert values and values == pytest.approx([expected] * len(values), abs=1e-5)


def test_layers_that_know_nothing_do_not_count() -> None:
    assert Depth([KNOWS, 0.0, -1.0], [9.0, 9.0, 9.0]).value is None
    assert Depth([0.2, 0.6, 0.01], [0.1, 0.9, -5.0]).value == pytest.approx((0.1 + 0.6) / 0.8)
    assert Depth([0.2], [-1.0]).value == 0.0


def test_spans_cover_the_entity_and_nothing_that_is_not_there(lm: LM) -> None:
    for entity in ENTITIES:
        answer = lm.prompts.answer(entity.answer)
        span = token_span(lm, answer, entity.entity)
        assert span is not None and entity.entity in lm.tokenizer.decode(answer[span])
    assert token_span(lm, answer, "Lisbon") is None
    assert depths(lm, lm, lm, [Entity("q", "a", "z")]) == [None]


def test_the_command_prints_the_mean(hub: Path, command: Command, tmp_path: Path) -> None:
    spans = tmp_path / "spans.json"
    spans.write_text(json.dumps([vars(each) | {"idx": 0} for each in ENTITIES]))
    names = ["--target", SMALL, "--retain", SMALL]
    said = command("depth", SMALL, *names, "--entities", spans)
    assert said.code == 0 and "0 of 2 answers" in said.out, said.err
    spans.write_text("[{}]")
    said = command("depth", SMALL, *names, "--entities", spans)
    assert said.code == 2 and "question" in said.err


def test_models_of_other_depth_are_refused(make_lm: Callable[..., LM]) -> None:
    other = make_lm()
    other.model.model.layers = other.model.model.layers[:3]
    other.model.config.num_hidden_layers = 3
    with pytest.raises(UsageError, match="6 and 3 decoder blocks"):
        depths(other, make_lm(), make_lm(), ENTITIES)
