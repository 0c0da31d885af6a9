"""Plain texts that are asked to be gone on with: against a plain pass over them and the model's own `generate`."""

from __future__ import annotations

import pytest
import torch

from grun_bench.methods.draws import encode_rows
from grun_bench.methods.recipes import Recipe
from grun_bench.models.lm import LM
from grun_bench.models.scoring import Example, ScoringSettings, score
from grun_bench.models.text_prompts import TextPrompts
from grun_bench.tasks.passages import continuation

TEXTS = ["Ada Berg moved to Turin\nin the spring of 1987, and she stayed.", "one\ntwo", "A b"]


def examples(context: tuple[tuple[str, str], ...] = (), prefill: str = "") -> list[Example]:
    found = []
    for number, text in enumerate(TEXTS):
        beginning, join, rest = continuation(text)
        found.append(Example("forget", number, beginning, rest, context=context, prefill=prefill, join=join))
    return found


def test_the_rest_is_scored_after_the_beginning_without_a_template(lm: LM) -> None:
    records = score(lm, examples(), ScoringSettings(max_new_tokens=6))
    for text, record, asked in zip(TEXTS, records, examples(), strict=True):
        ids = torch.tensor([lm.tokenizer(text).input_ids])
        with torch.no_grad():
            given = torch.log_softmax(lm.model(ids).logits[0, :-1].double(), -1)
        count = len(lm.tokenizer(asked.join + asked.answer, add_special_tokens=False).input_ids)
        wanted = given.gather(1, ids[0, 1:, None])[-count:, 0]
        assert record.answer.logprobs == pytest.approx(wanted.tolist(), abs=1e-4)
        assert record.answer.matches == (given.argmax(-1) == ids[0, 1:])[-count:].int().tolist()
        begun = ids[:, : ids.shape[1] - count]
        tokens = lm.model.generate(begun, max_new_tokens=6, do_sample=False, pad_token_id=2)[0, begun.shape[1] :]
        assert record.generation.text == lm.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_other_texts_and_first_words_go_before(lm: LM) -> None:
    asked = examples((("Once", "upon a time."),), "given words")[0]
    prompts = TextPrompts(lm.tokenizer, asked.join)
    (encoded,) = prompts.encode_answers(asked.question, [asked.answer], asked.context, asked.prefill)
    assert prompts.prompt(asked.question, asked.context, asked.prefill) == encoded.prompt
    whole = lm.tokenizer.decode(encoded.prompt + encoded.answer, skip_special_tokens=True)
    assert whole == f"Once upon a time.\n\n{asked.question} given words {asked.answer}"


def test_half_of_a_text_is_the_prompt_in_training_as_in_scoring(lm: LM) -> None:
    """Where the beginning ends is where a training with `text_prompt` 0.5 of the same text edits."""
    text = "abcd efgh"  # bytes: the beginning of sequence, and 4 of 9
    beginning, join, rest = continuation(text)
    (trained,) = encode_rows(lm, [("", text)], Recipe(text_prompt=0.5))
    (scored,) = TextPrompts(lm.tokenizer, join).encode_answers(beginning, [rest])
    assert (trained.prompt, trained.answer) == (scored.prompt, scored.answer)
