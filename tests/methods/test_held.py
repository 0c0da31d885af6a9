"""Held gates against a loop over positions: in one pass, piece by piece, in the engine, under padding and beams."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import attached, chat_tokenizer
from conftest import FORGET, RETAIN
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import Cache, DynamicCache

from grun_bench.core.errors import ModelError, Refused, UsageError
from grun_bench.methods.adapters.base import Adapter
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.make import make_unlearner
from grun_bench.models.batch import collate
from grun_bench.models.engine import Engine
from grun_bench.models.forward import decoder_layers, forward
from grun_bench.models.kv_cache import cache_argument
from grun_bench.models.lm import LM, Prompts
from grun_bench.models.work import Work
from grun_bench.plugin_checks.small_model import small_lm, two_sets
from grun_bench.tasks.world import PUBLISHED

LAYERS = (0.4, 0.7, 1.0)
NAMES = ("grun-held", "reft-held")


def held_model(name: str = "grun-held", requests: int = 1, **options: Any) -> tuple[LM, Adapter]:
    lm = small_lm()
    adapter = attached(lm, name, layers=LAYERS, **options)
    for _ in range(requests if requests > 1 else 0):
        adapter.next_stage()
    torch.manual_seed(1)
    with torch.no_grad():
        for key, parameter in adapter.stages.named_parameters():
            if "rotation" not in key:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    return lm, adapter


def in_double(lm: LM, adapter: Any) -> None:
    """In float64 (gates stay in float32): edits after one another make thousandths of what sums in float32 round."""
    lm.model.double()
    adapter.stages.double()


#: a short beginning of turns, which overlaps with itself, in tokens
MARKER = [40, 41, 40]


def resetting(requests: int = 1, marker: Sequence[int] = MARKER) -> tuple[LM, Any]:
    lm, adapter = held_model(requests=requests, reset=True)
    adapter._turns_begin_with(torch.tensor(marker))
    return lm, adapter


def beginnings(adapter: Any, ids: Sequence[int]) -> set[int]:
    """The places of one row at which a turn begins: where the last token of the marker is."""
    if not getattr(adapter, "reset", False):
        return set()
    marker = adapter._turn_start.tolist()
    return {end for end in range(len(ids)) if list(ids[: end + 1])[-len(marker) :] == marker}


@contextmanager
def edited_by_hand(lm: LM, adapter: Any, ids: Sequence[int]) -> Iterator[None]:
    """The plain model with its edits made by a loop over the positions of one row, from the equations."""
    begins = beginnings(adapter, ids)

    def edit(index: int, states: Tensor) -> Tensor:
        changed = states.clone()
        for edits in adapter.stages:
            module, largest = edits[str(index)], -torch.inf
            rotation = module.rotation.weight
            for place, state in enumerate(states[0]):
                gate = 1.0
                if module.gate is not None:
                    largest = max(-torch.inf if place in begins else largest, module.gate(state).item())
                    gate = 1 / (1 + math.exp(-largest))
                shift = rotation @ (module.source.weight @ state + module.source.bias - rotation.T @ state)
                changed[0, place] += getattr(adapter, "factor", 1.0) * gate * shift
        return changed

    def hook(index: int) -> Callable[..., Any]:
        def replace(block: Any, args: Any, output: Any) -> Any:
            states = output[0] if isinstance(output, tuple) else output
            return (edit(index, states), *output[1:]) if isinstance(output, tuple) else edit(index, states)

        return replace

    blocks = decoder_layers(lm.model)
    with adapter.disabled():
        handles = [blocks[index].register_forward_hook(hook(index)) for index in adapter._indices]
        yield
        for handle in handles:
            handle.remove()


@torch.no_grad()
def by_hand(lm: LM, adapter: Any, ids: Sequence[int]) -> Tensor:
    """(length, vocabulary) logits."""
    with edited_by_hand(lm, adapter, ids):
        return lm.model(torch.tensor([list(ids)]), use_cache=False).logits[0]


@pytest.mark.parametrize(
    ("name", "options", "requests"),
    [("grun-held", {"gate": "mlp"}, 1), ("grun-held", {"gate": "linear"}, 3), ("reft-held", {}, 1)],
)
def test_a_pass_is_that_of_a_loop_over_positions(name: str, options: dict[str, Any], requests: int) -> None:
    lm, adapter = held_model(name, requests, **options)
    ids = [0, *range(40, 60)]
    with torch.no_grad():
        whole = lm.model(torch.tensor([ids]), prompt_lengths=[7]).logits[0]
        with adapter.disabled():
            plain = lm.model(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(whole, by_hand(lm, adapter, ids), rtol=1e-4, atol=1e-4)
    assert (whole - plain).abs().max() > 0.1


@torch.no_grad()
def in_pieces(lm: LM, ids: Sequence[int], cuts: Sequence[int], padding: int) -> Tensor:
    """(length, vocabulary) logits of a row with padding before it, called piece by piece on a cache."""
    padded = torch.tensor([[2] * padding + list(ids)])
    visible = torch.tensor([[0] * padding + [1] * len(ids)])
    past, pieces, start = DynamicCache(), [], 0
    for end in [*sorted(cut + padding for cut in cuts), padded.shape[1]]:
        output = lm.model(
            padded[:, start:end],
            attention_mask=visible[:, :end],
            position_ids=(visible.cumsum(1) - 1).clamp(min=0)[:, start:end],
            use_cache=True,
            **cache_argument(lm.model, past),
        )
        past = next(value for value in output.values() if isinstance(value, Cache))
        pieces.append(output.logits[0])
        start = end
    return torch.cat(pieces)[padding:]


@pytest.mark.long
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 19), max_size=5, unique=True), padding=st.integers(0, 3))
def test_the_gates_are_the_same_in_one_pass_and_piece_by_piece(cuts: list[int], padding: int) -> None:
    lm, adapter = held_model()
    in_double(lm, adapter)
    ids = [0, *range(40, 59)]
    with torch.no_grad():
        whole = lm.model(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(in_pieces(lm, ids, cuts, padding), whole, rtol=1e-5, atol=1e-5)


@pytest.mark.long
@settings(max_examples=6, deadline=None)
@given(
    tail=st.lists(st.sampled_from([40, 41, 42]), min_size=12, max_size=12),
    cuts=st.lists(st.integers(1, 15), max_size=6, unique=True),
    padding=st.integers(0, 3),
    requests=st.sampled_from([1, 2]),
)
def test_turns_begin_anew_in_one_pass_and_piece_by_piece(
    tail: list[int], cuts: list[int], padding: int, requests: int
) -> None:
    lm, adapter = resetting(requests)
    in_double(lm, adapter)
    ids = [0, *MARKER, *tail]
    expected = by_hand(lm, adapter, ids)
    with torch.no_grad():
        whole = lm.model(torch.tensor([ids])).logits[0]
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(in_pieces(lm, ids, cuts, padding), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(in_pieces(lm, ids, range(1, 16), padding), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize(("name", "reset"), [(NAMES[0], False), (NAMES[0], True), (NAMES[1], False)])
def test_the_engine_scores_and_generates_as_the_loop(name: str, reset: bool) -> None:
    lm, adapter = held_model(name, **({"reset": True} if reset else {}))
    adapter.know(lm)
    context = (FORGET[0], RETAIN[0])[: 2 * reset]
    # answers with a turn inside them, of which trees and drafts have parts
    more = [f"No.\n\nQuestion: {each}" for each in ("Hm?", "Hmm?")] if reset else []
    works = [
        Work(lm.prompts.prompt(row.question, context), list(map(lm.prompts.answer, [*row.candidates, *more])), True)
        for row in two_sets()[: 2 if reset else 5]
    ]
    assert all(len(beginnings(adapter, work.prompt)) == len(context) for work in works)
    for number, scored in Engine(lm.model, stops=[1], max_new_tokens=12).run(works):
        work = works[number]
        for answer, scores in zip(work.continuations, scored.continuations, strict=True):
            logprobs = by_hand(lm, adapter, [*work.prompt, *answer]).log_softmax(-1)[len(work.prompt) - 1 : -1]
            expected = logprobs.gather(-1, torch.tensor(answer)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(scores.logprobs), expected, rtol=1e-3, atol=1e-3)
        text: list[int] = []
        while len(text) < 12 and text[-1:] != [1]:
            text.append(int(by_hand(lm, adapter, [*work.prompt, *text])[-1].argmax()))
        assert scored.generated == text


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"use_cache": False}, {"num_beams": 3}, {"cache_implementation": "static"}], ids=str
)
def test_plain_generation_of_padded_prompts_is_that_of_each_alone(options: dict[str, Any], reset: bool) -> None:
    import transformers

    if "cache_implementation" in options and transformers.__version__.startswith("4."):
        pytest.skip("refused there: no place beside keys and values")
    lm, adapter = held_model(reset=reset)
    adapter.know(lm)
    prompts = [lm.prompts.prompt(question, (FORGET[0],) * reset) for question, _ in FORGET]
    width = max(map(len, prompts))
    ids = torch.tensor([[2] * (width - len(each)) + each for each in prompts])
    mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts])
    given = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 2, "eos_token_id": 1, **options}
    together = lm.model.generate(ids, attention_mask=mask, **given)[:, width:]
    beams = {"num_beams": options["num_beams"]} if "num_beams" in options else {}
    for prompt, row in zip(prompts, together, strict=True):
        alone = lm.model.generate(torch.tensor([prompt]), **given | {"use_cache": False} | beams)[0, len(prompt) :]
        kept = row[: len(alone)]
        assert kept.tolist() == alone.tolist()


@torch.no_grad()
def test_arguments_count_by_their_place_too() -> None:
    lm, _ = held_model()
    ids, mask = torch.tensor([[2, 2, 0, 40, 41, 42]]), torch.tensor([[0, 0, 1, 1, 1, 1]])
    expected = lm.model(input_ids=ids, attention_mask=mask).logits[:, 2:]
    assert torch.equal(lm.model(ids, mask).logits[:, 2:], expected)
    embeddings = lm.model.get_input_embeddings()(ids)
    found = lm.model(input_ids=None, attention_mask=mask, inputs_embeds=embeddings).logits[:, 2:]
    assert torch.equal(found, expected)


@torch.no_grad()
def test_a_pass_that_fails_leaves_no_call_behind() -> None:
    lm, _ = held_model()
    other, ids = small_lm(), torch.tensor([[0, 40, 41]])
    attached(other, "grun", layers=LAYERS)
    failing: list[tuple[type[BaseException], dict[str, Any]]] = [
        (UsageError, {"attention_mask": torch.ones(1, 1, 3)}),
        (IndexError, {"input_ids": torch.tensor([[10**6]])}),
        (KeyboardInterrupt, {}),
    ]
    for error, options in failing:
        with pytest.raises(error), interrupted(lm) if error is KeyboardInterrupt else nullcontext():
            lm.model(**{"input_ids": ids} | options)
        with pytest.raises(UsageError, match="where the prompt ends is not known"):
            other.model(ids)


@contextmanager
def interrupted(lm: LM) -> Iterator[None]:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    handle = decoder_layers(lm.model)[-1].register_forward_hook(interrupt)
    try:
        yield
    finally:
        handle.remove()


def test_training_reads_both_ends_and_is_the_same_with_what_is_frozen_kept() -> None:
    histories = []
    for kept in (True, False):
        unlearner = make_unlearner("grun-held+npo", {"epochs": 2, "batch_size": 4, "layers": [0.5, 1.0]}, PUBLISHED)
        context = FitContext(FORGET, RETAIN, small_lm, lambda: small_lm(1), seed=0, trunk_cache=kept)
        fitted: Fitted = unlearner.fit(context)
        assert bool(fitted.trunk_bytes) == kept
        histories.append(fitted.history)
    for first, second in zip(*histories, strict=True):
        assert first == pytest.approx(second, rel=1e-3)


def _note(seen: dict[int, Any], index: int, block: Any, args: Any, output: Any) -> None:
    seen[index] = output


@pytest.mark.parametrize("known", [False, True])
def test_the_loss_of_the_gates_is_1_at_the_prompts_end_and_0_at_the_last_token(known: bool) -> None:
    lm, adapter = held_model()
    begins = 0
    if known:
        adapter.know(lm)
        together = zip(*(lm.prompts.prompt(question) for question in ("a", "1?", "Zu?")), strict=False)
        begins = next(place for place, tokens in enumerate(together) if len(set(tokens)) > 1)
        assert begins
    batch = collate([lm.prompts.encode(*each) for each in FORGET], lm.pad_id)
    told = forward(lm.model, batch).gates
    with torch.no_grad():
        assert all(gates.ndim == 1 for gates in forward(lm.model, batch).gates.values())
    loss = adapter.aux_loss(told, told)["gate"] / adapter.gate_weight
    expected = []
    for row, (question, answer) in enumerate(FORGET):
        prompt, whole = lm.prompts.prompt(question), [*lm.prompts.prompt(question), *lm.prompts.answer(answer)]
        seen: dict[int, Any] = {}
        handles = [
            decoder_layers(lm.model)[index].register_forward_hook(partial(_note, seen, index), prepend=True)
            for index in adapter._indices
        ]
        with torch.no_grad():
            lm.model(torch.tensor([whole]))
        for handle in handles:
            handle.remove()
        for index, output in seen.items():
            states = output[0] if isinstance(output, tuple) else output
            logits = adapter.edits[str(index)].gate(states)[0, :, 0]
            asked = logits[begins : len(prompt)].max()
            assert told[index][row, 0].item() == pytest.approx(asked.item(), abs=1e-4)
            assert told[index][row, 1].item() == pytest.approx(logits.max().item(), abs=1e-4)
            expected += [-logsigmoid(asked), -logsigmoid(-logits.max())]
    assert loss.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-4)


@pytest.mark.parametrize("reset", [False, True])
def test_a_saved_model_answers_as_it_did(tmp_path: Path, reset: bool) -> None:
    lm, adapter = resetting(2, [40, 41]) if reset else held_model(requests=2)
    (tmp_path / "adapter").mkdir()
    adapter.save(tmp_path / "adapter")
    again = small_lm()
    fresh: Any = type(adapter)(layers=LAYERS, **({"reset": True} if reset else {}))
    fresh.load(again.model, tmp_path / "adapter")
    fresh.know(again)  # what was saved stays
    ids = torch.tensor([[*lm.prompts.prompt(FORGET[1][0]), 40, 41, 42]])
    with torch.no_grad():
        torch.testing.assert_close(lm.model(ids).logits, again.model(ids).logits, rtol=0, atol=0)


def test_where_turns_begin_is_found_or_refused(tmp_path: Path) -> None:
    lm, adapter = held_model(reset=True)
    ids = torch.tensor([[0, 40, 41]])
    with pytest.raises(UsageError, match="nothing has said how a user's turn begins"):
        lm.model(ids)
    adapter.know(lm)
    assert lm.tokenizer.decode(adapter._turn_start) == "\n\nQuestion: "
    with pytest.raises(UsageError, match="call this model with input_ids"):
        lm.model(inputs_embeds=lm.model.get_input_embeddings()(ids))
    tokenizer = chat_tokenizer()
    assert tokenizer.decode(Prompts(tokenizer, "chat").question_start) == "<eos>user\n"
    tokenizer.chat_template = str(tokenizer.chat_template).replace("<eos>", "")
    other: Any = type(adapter)(layers=LAYERS, reset=True)
    with pytest.raises(Refused, match="no special token"):
        other.know(LM(lm.model, tokenizer, Prompts(tokenizer, "chat"), {}))
    plain = held_model()[1]
    plain.save(tmp_path)
    with pytest.raises(ModelError, match="which reset needs"):
        other.load(small_lm().model, tmp_path)


@torch.no_grad()
def test_rows_of_several_sequences_are_refused_where_no_mask_parts_them() -> None:
    lm, _ = held_model()
    ids, positions = torch.tensor([[0, 40, 41, 0, 42, 43]]), torch.tensor([[0, 1, 2, 0, 1, 2]])
    for mask in (None, torch.ones_like(ids)):
        with pytest.raises(UsageError, match="several sequences"):
            lm.model(ids, attention_mask=mask, position_ids=positions)
    same = positions.new_tensor([0, 0, 0, 1, 1, 1])
    parted = (same[:, None] == same) & torch.ones(6, 6, dtype=torch.bool).tril()
    together = lm.model(ids, attention_mask=parted[None, None], position_ids=positions).logits[0]
    apart = torch.cat([lm.model(each).logits[0] for each in ids.split(3, 1)])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)
    # padding before, after and between, and positions that go on from a past
    padded, visible = torch.tensor([[2, 0, 2, 40, 41, 2]]), torch.tensor([[0, 1, 0, 1, 1, 0]])
    found = lm.model(padded, attention_mask=visible, position_ids=torch.tensor([[0, 0, 1, 1, 2, 0]])).logits
    torch.testing.assert_close(found[0, visible[0].bool()], lm.model(ids[:, :3]).logits[0], rtol=1e-4, atol=1e-4)
