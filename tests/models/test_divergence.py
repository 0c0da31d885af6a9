"""The divergence from the target model: against the sum over the vocabulary, and where it must be zero."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from grun_bench.models.divergence import Target
from grun_bench.models.lm import LM
from grun_bench.models.scoring import Example

ROWS = [Example("kept", 3, "Who?", "Ada."), Example("texts", 0, "Once upon", "a time.", join=" ")]


def probabilities(lm: LM, prompt: str, answer: list[int]) -> torch.Tensor:
    ids = [*lm.tokenizer(prompt).input_ids, *answer]
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids])).logits[0].double()
    return torch.softmax(logits, -1)[len(ids) - len(answer) - 1 : -1]


def test_it_is_the_mean_over_an_answers_tokens_of_the_sum_over_the_vocabulary(make_lm: Callable[..., LM]) -> None:
    one, other = make_lm(), make_lm(seed=1)
    target = Target(ROWS, "grun-bench")
    target.keep(one)
    found = target.divergences(other)
    answers = {
        ("kept", 3): ("Question: Who?\nAnswer:", one.prompts.answer("Ada.")),
        ("texts", 0): ("Once upon", one.tokenizer(" a time.", add_special_tokens=False).input_ids),
    }
    assert found.keys() == answers.keys()
    for key, (prompt, answer) in answers.items():
        p0, p = (probabilities(lm, prompt, answer) for lm in (one, other))
        assert found[key] == pytest.approx(float((p0 * (p0 / p).log()).sum(-1).mean()), rel=1e-4)
        assert found[key] > 0.01


def test_a_model_is_no_way_from_itself_and_the_first_is_kept(make_lm: Callable[..., LM]) -> None:
    one, other = make_lm(), make_lm(seed=1)
    target = Target(ROWS, "grun-bench")
    assert target.divergences(one) == {}
    target.keep(one)
    target.keep(other)
    assert target.divergences(one) == {("kept", 3): 0.0, ("texts", 0): 0.0}
