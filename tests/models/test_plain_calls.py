"""A model with an adapter called as any model: its numbers are those of the project's own passes, or it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import pytest
import torch
from attaching import PROMPTS, attached, chat_tokenizer
from torch import Tensor
from transformers import DynamicCache, StaticCache

from grun_bench.core.errors import UsageError
from grun_bench.methods.adapters.base import Adapter
from grun_bench.methods.adapters.outside import hand_over
from grun_bench.models.batch import IGNORED, collate, collate_prompts
from grun_bench.models.engine import Engine
from grun_bench.models.forward import calling, checkpointing, current_call, decoder_layers
from grun_bench.models.lm import LM, Prompts
from grun_bench.models.work import Work

UNKNOWN = "where the prompt ends is not known"
#: where keys and values are kept
CACHES: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "static": {"cache_implementation": "static"},
    "none": {"use_cache": False},
}
COUNT = 8
each_cache = pytest.mark.parametrize("cache", CACHES)
each_side = pytest.mark.parametrize("side", ["left", "right"])


@pytest.fixture
def adapter(lm: LM) -> Adapter:
    """On `lm`, with every weight drawn at random."""
    lm.prompts = Prompts(chat_tokenizer(), "chat")
    torch.manual_seed(0)
    adapter = attached(lm, "grun", layers=[1, 3, 5])
    hand_over(adapter, lm)
    return adapter


@pytest.fixture
def edited(lm: LM, adapter: Adapter) -> LM:
    return lm


@pytest.fixture(autouse=True)
def no_gradients() -> Any:
    with torch.no_grad():
        yield


def padded(lm: LM, side: str) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, mask and labels of questions with an answer behind them."""
    batch = collate([lm.prompts.encode(prompt, "Yes, it is.") for prompt in PROMPTS], lm.pad_id)
    if side == "right":
        return batch.input_ids, batch.attention_mask, batch.labels
    shifts = (batch.attention_mask == 0).sum(1).tolist()
    ids, mask, labels = (
        torch.stack([row.roll(shift) for row, shift in zip(each, shifts, strict=True)])
        for each in (batch.input_ids, batch.attention_mask, batch.labels)
    )
    return ids, mask, labels


def told(lm: LM, labels: Tensor, by: str) -> dict[str, Any]:
    counts = [len(lm.prompts.prompt(prompt)) for prompt in PROMPTS]
    return {"labels": {"labels": labels}, "lengths": {"prompt_lengths": counts}, "template": {}}[by]


@each_side
@pytest.mark.parametrize("by", ["labels", "lengths", "template"])
def test_a_plain_pass_has_the_engines_numbers(edited: LM, by: str, side: str) -> None:
    ids, mask, labels = padded(edited, side)
    logits = edited.model(ids, mask, **told(edited, labels, by)).logits
    works = [Work(edited.prompts.prompt(prompt), [edited.prompts.answer("Yes, it is.")]) for prompt in PROMPTS]
    for row, scored in Engine(edited.model, stops=[], max_new_tokens=1).run(works):
        at = labels[row] != IGNORED
        found = logits[row].roll(1, 0)[at].log_softmax(-1).gather(1, labels[row][at][:, None])[:, 0]
        assert found.tolist() == pytest.approx(scored.continuations[0].logprobs, abs=1e-4)


@pytest.mark.parametrize("by", ["labels", "lengths"])
def test_embeddings_in_the_place_of_token_ids_have_the_same_logits(edited: LM, by: str) -> None:
    ids, mask, labels = padded(edited, "left")
    embeddings = edited.model.get_input_embeddings()(ids)
    found = edited.model(inputs_embeds=embeddings, attention_mask=mask, **told(edited, labels, by)).logits
    expected = edited.model(input_ids=ids, attention_mask=mask).logits
    assert torch.equal(found, expected)
    with pytest.raises(UsageError, match=UNKNOWN):
        edited.model(inputs_embeds=embeddings, attention_mask=mask)


def greedy_of_the_engine(lm: LM) -> list[list[int]]:
    works = [Work(lm.prompts.prompt(prompt), [], True) for prompt in PROMPTS]
    scored = dict(Engine(lm.model, stops=[], max_new_tokens=COUNT).run(works))
    return [list(scored[row].generated) for row in range(len(PROMPTS))]


def generated(lm: LM, inputs: dict[str, Tensor], **options: Any) -> list[list[int]]:
    """The new tokens of a plain `generate`."""
    given = {"max_new_tokens": COUNT, "do_sample": False, "eos_token_id": None, "pad_token_id": lm.pad_id} | options
    width = inputs["input_ids"].shape[1] if "input_ids" in inputs else 0
    return lm.model.generate(**inputs, **given)[:, width:].tolist()


def left_padded(lm: LM) -> dict[str, Tensor]:
    ids, mask = collate_prompts([lm.prompts.prompt(prompt) for prompt in PROMPTS], lm.pad_id)
    return {"input_ids": ids, "attention_mask": mask}


@each_cache
def test_generate_gives_the_engines_text(edited: LM, cache: str) -> None:
    inputs, expected = left_padded(edited), greedy_of_the_engine(edited)
    assert generated(edited, inputs, **CACHES[cache]) == expected
    # the mask that transformers makes of the padding
    assert generated(edited, {"input_ids": inputs["input_ids"]}, **CACHES[cache]) == expected
    embeddings = edited.model.get_input_embeddings()(inputs["input_ids"])
    as_embeddings = {"inputs_embeds": embeddings, "attention_mask": inputs["attention_mask"]}
    assert generated(edited, as_embeddings, **CACHES[cache]) == expected
    single = {"input_ids": torch.tensor([edited.prompts.prompt(PROMPTS[1])])}
    assert generated(edited, single, **CACHES[cache]) == expected[1:2]


def test_a_draft_from_the_prompt_changes_nothing(edited: LM) -> None:
    """Several tokens after a past are the answer's, as many as `generate` says."""
    prompt = torch.tensor([edited.prompts.prompt(PROMPTS[1])])
    assert (
        generated(edited, {"input_ids": prompt}, prompt_lookup_num_tokens=3, eos_token_id=2)
        == greedy_of_the_engine(edited)[1:2]
    )


@each_cache
def test_right_padding_is_edited_at_the_last_token_of_each_row(edited: LM, cache: str) -> None:
    """As where every step is a whole pass that is told the columns."""
    batch = collate([edited.prompts.encode(prompt, "x") for prompt in PROMPTS], edited.pad_id)
    mask = torch.arange(batch.input_ids.shape[1]) <= batch.prompt_end[:, None]
    inputs = {"input_ids": batch.input_ids.where(mask, edited.pad_id), "attention_mask": mask.long()}
    with calling(batch.prompt_end):
        expected = generated(edited, inputs, use_cache=False)
    assert generated(edited, inputs, **CACHES[cache]) == expected


@each_cache
def test_beams_have_the_scores_that_the_engine_gives_their_texts(edited: LM, cache: str) -> None:
    inputs, prompts = left_padded(edited), [edited.prompts.prompt(prompt) for prompt in PROMPTS]
    out = edited.model.generate(
        **inputs,
        **CACHES[cache],
        num_beams=3,
        num_return_sequences=2,
        max_new_tokens=COUNT,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=edited.pad_id,
        return_dict_in_generate=True,
        output_scores=True,
    )
    texts = out.sequences[:, inputs["input_ids"].shape[1] :].tolist()
    works = [Work(prompt, [texts[2 * row], texts[2 * row + 1]]) for row, prompt in enumerate(prompts)]
    scored = dict(Engine(edited.model, stops=[], max_new_tokens=1).run(works))
    expected = [sum(each.logprobs) / COUNT for row in range(len(prompts)) for each in scored[row].continuations]
    assert out.sequences_scores.tolist() == pytest.approx(expected, abs=1e-4)


def test_samples_do_not_depend_on_the_cache(edited: LM) -> None:
    found = []
    for options in CACHES.values():
        torch.manual_seed(3)
        found.append(generated(edited, left_padded(edited), do_sample=True, num_return_sequences=3, **options))
    assert found[0] == found[1] == found[2] and len({tuple(each) for each in found[0]}) > len(PROMPTS)


# --- a past -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 5, 100])
@pytest.mark.parametrize("static", [False, True])
def test_a_sequence_in_pieces_has_the_logits_of_the_whole(edited: LM, size: int, static: bool) -> None:
    """The prompt's end is told in the piece that has it; a single token after a past needs nothing."""
    old = {"max_batch_size": 1, "device": "cpu", "dtype": torch.float32}
    options = old if "device" in signature(StaticCache.__init__).parameters else {}
    prompt, answer = edited.prompts.prompt(PROMPTS[1]), edited.prompts.answer("Yes.")
    whole = torch.tensor([prompt + answer])
    cache = StaticCache(edited.model.config, max_cache_len=128, **options) if static else DynamicCache()
    starts = [*range(0, len(prompt), size), *range(len(prompt), whole.shape[1])]
    logits = []
    for start, end in zip(starts, [*starts[1:], whole.shape[1]], strict=True):
        ends_here = start < len(prompt) <= end
        known = {"prompt_lengths": len(prompt) - start if ends_here else 0} if start < len(prompt) else {}
        mask = torch.ones(1, end, dtype=torch.long)
        logits.append(edited.model(whole[:, start:end], attention_mask=mask, past_key_values=cache, **known).logits)
    expected = edited.model(whole).logits
    torch.testing.assert_close(torch.cat(logits, 1), expected, atol=1e-4, rtol=1e-4)


def test_a_conversation_is_edited_at_each_prompt(edited: LM) -> None:
    """What a user of a cache gets turn by turn is what a pass over each turn is told to give."""
    first = torch.tensor([edited.prompts.prompt("Who?")])
    cache = DynamicCache()
    options = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": None, "past_key_values": cache}
    said = edited.model.generate(first, **options)
    second = torch.cat([said, torch.tensor([edited.prompts.prompt("And where?")])], 1)
    found = edited.model.generate(second, **options)[:, second.shape[1] :]
    by_hand, past = [], DynamicCache()
    edited.model(first, past_key_values=past)
    for token in said[0, first.shape[1] : -1]:
        edited.model(token[None, None], past_key_values=past)
    piece = second[:, said.shape[1] - 1 :]
    for _ in range(4):
        known = {"prompt_lengths": piece.shape[1]} if piece.shape[1] > 1 else {}
        piece = edited.model(piece, past_key_values=past, **known).logits[:, -1:].argmax(-1)
        by_hand.append(int(piece))
    assert found[0].tolist() == by_hand


# --- refusals ---------------------------------------------------------------------------------------------------------


def wrong_calls(lm: LM) -> Iterator[tuple[str, dict[str, Any]]]:
    """The reason why it is refused, and the arguments."""
    ids, mask, labels = padded(lm, "right")
    plain = torch.full_like(ids, 40)
    yield "row 0 has no turn of the assistant", {"input_ids": plain}
    yield "row 2 has no turn", {"input_ids": torch.cat([ids[:2], plain[:1], ids[2:]])}
    # nothing is prompt; everything is; there are two answers
    yield "row 0 of labels", {"input_ids": ids, "attention_mask": mask, "labels": ids}
    yield "row 0 of labels", {"input_ids": ids, "labels": torch.full_like(ids, IGNORED)}
    yield "row 0 of labels", {"input_ids": ids, "labels": labels.index_fill(1, torch.tensor([3]), 7)}
    yield "several sequences", {"input_ids": ids, "position_ids": torch.arange(ids.shape[1]).remainder(9).expand(4, -1)}
    yield "not (batch, length)", {"input_ids": ids, "attention_mask": mask[:, None, None].bool()}
    past = DynamicCache()
    lm.model(ids, past_key_values=past)
    yield "no turn of the assistant", {"input_ids": plain[:, :50], "past_key_values": past}
    yield "from 0 to", {"input_ids": ids, "attention_mask": mask, "prompt_lengths": ids.shape[1]}
    yield "from 0 to", {"input_ids": ids, "prompt_lengths": -1}
    yield "whole number for each of 4 rows", {"input_ids": ids, "prompt_lengths": [1, 2]}
    yield "whole number", {"input_ids": ids, "prompt_lengths": 1.5}


def test_what_does_not_tell_where_the_prompt_ends_is_refused(edited: LM, adapter: Adapter) -> None:
    for reason, arguments in wrong_calls(edited):
        with pytest.raises(UsageError, match="prompt_lengths") as said:
            edited.model(**arguments)
        assert reason in str(said.value)
        assert current_call() is None
        # the model without its edits is any model
        with adapter.disabled():
            edited.model(**{name: value for name, value in arguments.items() if name != "prompt_lengths"})


def test_generate_needs_a_mask_that_tells_padding(edited: LM) -> None:
    prompt = torch.tensor([edited.prompts.prompt("Who?")])
    with pytest.raises(UsageError, match="does not tell padding"):
        edited.model.generate(prompt, attention_mask=torch.ones(1, 1, *prompt.shape))


def test_two_models_at_once_are_edited_each_at_its_own_prompts(edited: LM, make_lm: Callable[..., LM]) -> None:
    """A model that another asks for each of its tokens, as in contrastive decoding."""
    other = make_lm()
    hand_over(attached(other, "reft"), other)
    whole, seen = torch.tensor([other.prompts.prompt("Where does it end?")]), []
    expected = other.model(whole, prompt_lengths=whole.shape[1]).logits

    def asking(ids: Tensor, scores: Tensor) -> Tensor:
        seen.append(other.model(whole, prompt_lengths=whole.shape[1]).logits)
        return scores

    assert generated(edited, left_padded(edited), logits_processor=[asking]) == greedy_of_the_engine(edited)
    assert len(seen) == COUNT and all(torch.equal(each, expected) for each in seen)


def test_the_decoder_by_itself_is_refused(edited: LM) -> None:
    with pytest.raises(UsageError, match="called without its model"):
        edited.model.model(torch.tensor([edited.prompts.prompt("Who?")]))


def test_without_a_chat_template_nothing_is_guessed(lm: LM) -> None:
    hand_over(attached(lm, "reft"), lm)
    encoded = lm.prompts.encode("Who?", "Ada.")
    with pytest.raises(UsageError, match="nothing says it"):
        lm.model(torch.tensor([encoded.prompt + encoded.answer]))


@pytest.mark.parametrize("template", ["{{ messages[-1].content }}", "Q: {{ messages[-1].content }}\nA:"])
def test_a_template_without_a_special_token_is_not_looked_for(template: str) -> None:
    tokenizer = chat_tokenizer()
    tokenizer.chat_template = template
    assert Prompts(tokenizer, "chat").answer_start == []


def test_the_answers_start_is_what_the_template_writes_after_any_question() -> None:
    prompts = Prompts(chat_tokenizer(), "chat")
    assert prompts.tokenizer.decode(prompts.answer_start) == "<eos>assistant\n"


# --- training and copies ----------------------------------------------------------------------------------------------


@torch.enable_grad()
def test_layers_that_run_again_in_the_backward_pass_edit_where_they_did(edited: LM) -> None:
    ids, mask, labels = padded(edited, "right")
    edited.model.requires_grad_(True).train()

    def gradients() -> list[Tensor]:
        edited.model.zero_grad()
        # two calls before either is differentiated
        losses = [
            edited.model(ids[rows], mask[rows], labels=labels[rows], use_cache=False).loss
            for rows in (slice(0, 2), slice(2, None))
        ]
        sum(losses).backward()
        return [parameter.grad.clone() for parameter in edited.model.parameters() if parameter.grad is not None]

    expected = gradients()
    with checkpointing(edited.model, True):
        torch.testing.assert_close(gradients(), expected)
    edited.model.gradient_checkpointing_enable()
    with pytest.raises(UsageError, match="gradient checkpointing"):
        edited.model(ids, mask, labels=labels)


def test_a_copy_is_edited_by_itself(edited: LM, adapter: Any) -> None:
    ids, mask, labels = padded(edited, "right")
    copied, before = copy.deepcopy(edited.model), edited.model(ids, mask, labels=labels).logits
    texts = generated(edited, left_padded(edited))
    for parameter in adapter.trainable_parameters():
        parameter.add_(1)
    assert torch.equal(copied(ids, mask, labels=labels).logits, before)
    assert not torch.equal(edited.model(ids, mask, labels=labels).logits, before)
    assert (
        copied.generate(**left_padded(edited), max_new_tokens=COUNT, do_sample=False, eos_token_id=None)[
            :, -COUNT:
        ].tolist()
        == texts
    )


class Doubling(Adapter):
    """Somebody's adapter, which knows of a call no more than where its prompts end."""

    edits_prompt_end = True

    def attach(self, model: Any) -> None:
        def hook(block: Any, args: Any, output: Any) -> Any:
            states, call = output[0] if isinstance(output, tuple) else output, current_call()
            if call is None or call.prompt_end is None:
                return output
            states[range(len(states)), call.prompt_end] *= 2
            return output

        decoder_layers(model)[2].register_forward_hook(hook)

    def trainable_parameters(self) -> list[Any]:
        return []

    def disabled(self) -> Any:
        raise NotImplementedError


def test_any_adapter_that_edits_prompt_ends_is_told_them(make_lm: Callable[..., LM]) -> None:
    lm = make_lm()
    adapter = Doubling()
    adapter.attach(lm.model)
    hand_over(adapter, lm)
    assert generated(lm, left_padded(lm)) == greedy_of_the_engine(lm) != greedy_of_the_engine(make_lm())
    with pytest.raises(UsageError, match=UNKNOWN):
        lm.model(torch.tensor([lm.prompts.prompt("Who?")]))
