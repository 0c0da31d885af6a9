"""Numbers that are none: wherever a record could hold one, and a model of finite weights that says such."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from grun_bench.core.errors import Diverged
from grun_bench.models.finite import check_finite
from grun_bench.models.lm import LM
from grun_bench.models.scoring import Example, score
from grun_bench.results.record import Choices, Continuation, Generation, Record

#: a record with a number in every field that can hold one
WHOLE = Record(
    "forget",
    7,
    "Who?",
    Continuation("One.", [-0.5, -0.25], [1, 0], [-2.0, -1.0], [0.5, 0.5], probability=0.5),
    Continuation("A one.", loss=1.0),
    [Continuation("Two.", loss=2.0), Continuation("Three.", loss=3.0)],
    Generation("One.", 2, True),
    {"3": 0.5},
    {"3": 0.25},
    {"kl_to_target": 0.5},
    Choices([-1.0, -2.0], [True, False], 0),
)
#: places of its numbers, as `check_finite` names them
PLACES = [
    *(f"answer.{name}.{token}" for name in ("logprobs", "means", "deviations") for token in (0, 1)),
    *("answer.loss", "answer.probability", "paraphrased.loss", "perturbed.0.loss", "perturbed.1.loss"),
    *("gates.3", "gates_paraphrased.3", "scores.kl_to_target", "choices.logprobs.0", "choices.logprobs.1"),
]


def put(record: Record, place: str, number: float) -> None:
    """Put a number at a place of a record."""
    *path, last = place.split(".")
    inner: Any = record
    for part in path:
        inner = inner[int(part)] if isinstance(inner, list) else getattr(inner, part)
    if isinstance(inner, list):
        inner[int(last)] = number
    elif isinstance(inner, dict):
        inner[last] = number
    else:
        setattr(inner, last, number)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", PLACES)
def test_a_number_that_is_none_is_found_wherever_it_is(place: str, number: float) -> None:
    check_finite([WHOLE], torch.float32)
    record = copy.deepcopy(WHOLE)
    put(record, place, number)
    with pytest.raises(Diverged, match=rf"row 7 of 'forget': {place} {number:g}\)"):
        check_finite([WHOLE, record], torch.float32)


@pytest.mark.long
def test_a_model_of_finite_weights_that_says_no_numbers_has_diverged(make_lm: Callable[..., LM]) -> None:
    """The largest weights that float32 holds: their products are beyond it."""
    rows = [Example("forget", 3, "Who is it?", "It is she.")]
    score(make_lm(), rows)
    lm = make_lm()
    with torch.no_grad():
        lm.model.get_output_embeddings().weight.fill_(torch.finfo(torch.float32).max)
    assert all(bool(weight.isfinite().all()) for weight in lm.model.parameters())
    with pytest.raises(Diverged, match="row 3 of 'forget'"):
        score(lm, rows)


def test_of_float16_it_is_said_what_it_holds() -> None:
    record = copy.deepcopy(WHOLE)
    put(record, "answer.loss", math.inf)
    with pytest.raises(Diverged, match="in float16, which holds no number above 65,504"):
        check_finite([record], torch.float16)
