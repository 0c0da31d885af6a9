"""A model writes what rows lack: replies as they are taken, and one that can only write noise."""

from __future__ import annotations

import pytest
import torch

from grun_bench.models.lm import LM
from grun_bench.models.writer import plain, write
from grun_bench.tasks.chats import Chat
from grun_bench.tasks.faults import CONTEXT, SAME, doubt_of
from grun_bench.tasks.made import MADE

ROWS = [
    {"question": "Where does Ada Berg live?", "answer": "In Turin."},
    {
        "question": "Who pays?",
        "answer": "Bo.",
        "paraphrased_question": "Who is it that pays?",
        "perturbed_answer": ["Cy"],
    },
]


@pytest.mark.parametrize(
    ("text", "original", "taken"),
    [
        ("  In which city is her home?\n\nAnswer: Turin", "Where?", "In which city is her home?"),
        ("New question: In which city?", "Where?", "In which city?"),
        ('"In which city?"', "Where?", "In which city?"),
        ("First.\nSecond.", "One.\nTwo.", "First.\nSecond."),
        ("At 9:30", "At 10:30", "At 9:30"),
        ("The one who came first said this: no", "Yes", "The one who came first said this: no"),
        ('"', "x", '"'),
        ("", "x", ""),
    ],
)
def test_a_reply_is_taken_without_what_is_around_it(text: str, original: str, taken: str) -> None:
    assert plain(text, original) == taken


@pytest.mark.long
def test_a_model_that_writes_noise_leaves_reasons_and_nothing_that_could_not_stand(lm: LM) -> None:
    before = torch.get_rng_state()
    made = write(lm, ROWS)
    assert torch.equal(torch.get_rng_state(), before)
    assert [(row.question, row.answer) for row in made] == [(row["question"], row["answer"]) for row in ROWS]
    for row, own in zip(made, ROWS, strict=True):
        for name in MADE:
            value = getattr(row, name)
            if name in own:  # what the row has is not asked for
                assert value is None and name not in row.left_out
            else:
                assert (value is None) == bool(row.left_out.get(name))
                texts = [value] if isinstance(value, str) else value or []
                assert not any(doubt_of(name, text, own | row.columns | {name: []}) for text in texts)
    assert any(row.left_out for row in made)
    assert write(lm, ROWS) == made


def test_of_a_conversation_the_last_turn_is_put_in_other_words(lm: LM) -> None:
    turns = [["user", "I am Ada."], ["assistant", "Hello."], ["user", "Where do I live?"]]
    question = str(Chat([(role, text) for role, text in turns]))
    (made,) = write(lm, [{"question": question, "answer": "In Turin.", "turns": turns}])
    assert (made.question, made.asked) == (question, "Where do I live?")
    same = made.model_copy(update={"paraphrased_question": "Where do I live?"}).standing()
    assert same.paraphrased_question is None and same.left_out["paraphrased_question"] == SAME


def test_a_row_that_does_not_fit_with_its_request_is_left_out(lm: LM) -> None:
    lm.model.config.max_position_embeddings = 330
    short, long = write(lm, [ROWS[0], ROWS[0] | {"answer": "In Turin. " * 30}])
    assert long.left_out["paraphrased_answer"] == long.left_out["perturbed_answer"] == CONTEXT
    # without what it would be shown first it fits
    assert CONTEXT not in short.left_out.values()
