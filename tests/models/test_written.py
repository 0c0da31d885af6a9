"""Sets that are asked in their own way: prompts as written, questions before the question, cut generations, texts."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from attaching import saved
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st

import grun_bench
from grun_bench.methods.base import Fitted
from grun_bench.methods.saving import CARD, save
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, load
from grun_bench.models.protocols import PROTOCOLS, prompts_under
from grun_bench.models.sampling import sampled_records
from grun_bench.models.scoring import Example, ScoringSettings, cut, score
from grun_bench.models.written import WrittenPrompts

KNOWMEM = "Question: {question}\nAnswer: "
MARKS = ["\n\n", "\nQuestion", "Question:"]


def test_few_shot_prompts_are_those_of_muse(lm: LM) -> None:
    """Its code puts them together so: blocks with a blank line after each, then the question; all with a space after
    "Answer:", tokenised at once."""
    shots = [("Who?", "Ada"), ("Where?", "In Rome")]
    general = "".join(f"Question: {question}\nAnswer: {answer}\n\n" for question, answer in shots)
    whole = general + "Question: When?\nAnswer: "
    prompts = WrittenPrompts(lm.tokenizer, KNOWMEM)
    assert prompts.text("When?", shots) == whole
    assert prompts.prompt("When?", shots) == lm.tokenizer(whole).input_ids
    (encoded,) = prompts.encode_answers("When?", ["1979"], shots)
    ids = lm.tokenizer(whole + "1979").input_ids
    assert encoded.prompt + encoded.answer == [*ids, lm.tokenizer.eos_token_id]


def test_a_text_that_goes_on_has_one_space_before_it(lm: LM) -> None:
    prompts = WrittenPrompts(lm.tokenizer, "{question}")
    encoded = prompts.encode("The king", "of {question} Spain")
    ids = lm.tokenizer("The king of {question} Spain").input_ids
    assert encoded.prompt + encoded.answer == [*ids, lm.tokenizer.eos_token_id]
    assert prompts.text("{question}s", [("a", "b")]) == "a b\n\n{question}s"


def test_the_tag_begins_after_the_question(lm: LM) -> None:
    prompts = WrittenPrompts(lm.tokenizer, KNOWMEM)
    start = prompts.tag_start("Who?")
    assert lm.tokenizer.decode(prompts.prompt("Who?")[start:]) == "\nAnswer: "


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_tasks_own_form_stands_under_every_protocol(make_lm: Callable[..., LM], protocol: str) -> None:
    lm = make_lm()
    lm.prompts = prompts_under(protocol, lm, KNOWMEM)
    assert prompts_under(protocol, lm).text("Who?") == "Question: Who?\nAnswer: "
    assert prompts_under(protocol, lm, "{question}").text("Who?") == "Who?"


@pytest.mark.parametrize("name", ["grun", "full"])
def test_a_saved_model_keeps_the_form_that_it_was_trained_in(name: str, environment: Path, tmp_path: Path) -> None:
    lm = load(SMALL, Placement("cpu", "float32"))
    lm.prompts = prompts_under("grun-bench", lm, KNOWMEM)
    if name == "full":
        save(Fitted(lm), "full+npo", tmp_path / "model")
    else:
        saved(lm, tmp_path / "model", name)
    again = grun_bench.load(tmp_path / "model", "cpu", "float32")
    assert again.prompts.text("Who?") == "Question: Who?\nAnswer: " and isinstance(again.prompts, WrittenPrompts)
    assert again.prompts.encode("Who?", "Ada") == lm.prompts.encode("Who?", "Ada")
    # a folder of an older version says nothing of it
    card = json.loads((tmp_path / "model" / CARD).read_text())
    del card["template"]
    (tmp_path / "model" / CARD).write_text(json.dumps(card))
    assert grun_bench.load(tmp_path / "model", "cpu", "float32").prompts.text("Who?") == "Question: Who?\nAnswer:"


# --- generations ----------------------------------------------------------------------------------------------------


def muse_prefix(text: str) -> str:
    """MUSE's own way: split by one mark after another, and keep what is in front."""
    return functools.reduce(lambda left, mark: left.split(mark)[0], MARKS, text)


@given(st.lists(st.sampled_from(["a", " ", "\n", "Question", ":", *MARKS]), max_size=12).map("".join))
def test_generations_are_cut_as_muse_cuts_them(text: str) -> None:
    assert cut(text, MARKS) == muse_prefix(text)


def test_every_set_has_its_own_number_of_new_tokens(lm: LM) -> None:
    rows = [Example(f"set{new}", 0, "Who wrote it?", "Ada", max_new_tokens=new) for new in (None, 0, 3, 5)]
    together = score(lm, rows, ScoringSettings(max_new_tokens=4))
    lengths = [record.generation and record.generation.tokens for record in together]
    assert lengths == [4, None, 3, 5]  # a random model does not stop
    alone = [score(lm, [row], ScoringSettings(max_new_tokens=4))[0] for row in rows]
    assert [record.generation for record in together] == [record.generation for record in alone]
    assert [record.set for record in together] == [row.set for row in rows]


def test_what_is_generated_ends_before_a_mark_sampled_too(lm: LM) -> None:
    row = Example("set", 0, "Who wrote it?", "Ada", max_new_tokens=8)
    (whole,) = score(lm, [row])
    text = whole.generation.text if whole.generation else ""
    assert len(text) > 2
    (shorter,) = score(lm, [replace(row, until=(text[2:],))])
    assert shorter.generation and shorter.generation.text == text[:2].strip()
    (drawn,) = sampled_records(lm, [row], 4, 0, ScoringSettings())
    (fewer,) = sampled_records(lm, [replace(row, until=tuple("aeiou "))], 4, 0, ScoringSettings())
    assert fewer.samples == [cut(each, "aeiou ") for each in drawn.samples] != drawn.samples


# --- plain texts ----------------------------------------------------------------------------------------------------


def test_a_plain_text_is_scored_from_its_second_token_to_an_end(lm: LM) -> None:
    text = "Once upon a time."
    (record,) = score(lm, [Example("texts", 3, "", text, max_new_tokens=7)])
    ids = torch.tensor([[*lm.tokenizer(text).input_ids, lm.tokenizer.eos_token_id]])
    with torch.no_grad():
        logprobs = lm.model(ids).logits.float().log_softmax(-1)[0, :-1]
    expected = logprobs.gather(1, ids[0, 1:, None])[:, 0].tolist()
    assert record.answer.logprobs == pytest.approx(expected, abs=1e-5)
    assert record.answer.text == text and record.question == "" and record.generation is None
