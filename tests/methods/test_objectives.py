"""Each objective against plain loops over raw logits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from conftest import FORGET, RETAIN
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from grun_bench.core import registry
from grun_bench.methods.batch import Side, UnlearningBatch
from grun_bench.methods.retain_terms import RETAIN_TERMS
from grun_bench.models.batch import collate
from grun_bench.models.lm import LM

REFUSALS = ["I don't know.", "No.", "I can't say that.", "Nothing.", "Never heard."]


def side(lm: LM, pairs: Sequence[tuple[str, str]]) -> Side:
    return Side(lm.model, collate([lm.prompts.encode(*pair) for pair in pairs], lm.pad_id))


def batch_of(lm: LM) -> UnlearningBatch:
    refusals = [(question, refusal) for (question, _), refusal in zip(FORGET, REFUSALS, strict=True)]
    return UnlearningBatch(side(lm, FORGET), {"retain": side(lm, RETAIN), "idk": side(lm, refusals)})


@torch.no_grad()
def token_logprobs(lm: LM, pairs: Sequence[tuple[str, str]]) -> list[list[float]]:
    """Log-probability of every answer token, one unpadded sequence at a time, from the plain model's logits."""
    found = []
    for question, answer in pairs:
        prompt, tokens = lm.prompts.prompt(question), lm.prompts.answer(answer)
        logits = lm.model(torch.tensor([prompt + tokens])).logits[0].double()
        scores = []
        for number, token in enumerate(tokens):
            row = logits[len(prompt) - 1 + number].tolist()
            top = max(row)
            scores.append(row[token] - top - math.log(sum(math.exp(value - top) for value in row)))
        found.append(scores)
    return found


def mean_nll(logprobs: list[list[float]]) -> float:
    tokens = [value for row in logprobs for value in row]
    return -sum(tokens) / len(tokens)


def objective(name: str) -> Callable[..., Tensor]:
    return registry.get("objective", name).target


def npo_by_hand(now: list[float], before: list[float], beta: float) -> float:
    """-(2 / beta) mean log sigmoid(-beta log(p / p0)), from each answer's log-probability now and before."""
    terms = []
    for logp, logp0 in zip(now, before, strict=True):
        ratio_to_beta = math.exp(beta * (logp - logp0))
        terms.append(2 / beta * math.log(1 + ratio_to_beta))
    return sum(terms) / len(terms)


def test_answers_differ_in_length(lm: LM) -> None:
    """Or a mean over rows could pass for a mean over tokens."""
    assert len({len(row) for row in token_logprobs(lm, FORGET)}) > 2


@pytest.mark.parametrize("name", ["ga", "gd"])
def test_ascent_is_minus_the_token_mean(lm: LM, name: str) -> None:
    loss = objective(name)(batch_of(lm)).item()
    assert loss == pytest.approx(-mean_nll(token_logprobs(lm, FORGET)), rel=1e-5)


def test_idk_is_the_token_mean_of_the_refusals(lm: LM) -> None:
    pairs = [(question, refusal) for (question, _), refusal in zip(FORGET, REFUSALS, strict=True)]
    loss = objective("idk")(batch_of(lm)).item()
    assert loss == pytest.approx(mean_nll(token_logprobs(lm, pairs)), rel=1e-5)


@pytest.mark.parametrize("beta", [0.1, 0.05, 1.0])
def test_npo_sums_over_the_answer(lm: LM, beta: float) -> None:
    now = [sum(row) for row in token_logprobs(lm, FORGET)]
    before = [logp + change for logp, change in zip(now, [3.0, -2.0, 0.5, -7.0, 0.0], strict=True)]
    batch = batch_of(lm)
    batch.forget.reference = torch.tensor([-logp for logp in before])
    loss = objective("npo")(batch, beta=beta).item()
    assert loss == pytest.approx(npo_by_hand(now, before, beta), rel=1e-4)


def test_npo_default_beta_is_the_papers(lm: LM) -> None:
    batch = batch_of(lm)
    batch.forget.reference = batch.forget.nll.detach() + torch.tensor([1.0, -2.0, 3.0, 0.0, 5.0])
    assert objective("npo")(batch).item() == objective("npo")(batch, beta=0.1).item()


class FakeSide:
    """Answer log-likelihoods given directly."""

    def __init__(self, now: list[float], before: list[float]) -> None:
        self.nll = -torch.tensor(now, dtype=torch.float64)
        self.reference_nll = -torch.tensor(before, dtype=torch.float64)


logps = st.lists(st.tuples(st.floats(-60, 0), st.floats(-60, 0)), min_size=1, max_size=6)


@given(logps, st.floats(0.01, 2))
@settings(max_examples=60, deadline=None)
def test_npo_against_the_formula(pairs: list[tuple[float, float]], beta: float) -> None:
    now, before = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    batch = UnlearningBatch(FakeSide(now, before))  # type: ignore[arg-type]
    assert objective("npo")(batch, beta=beta).item() == pytest.approx(
        npo_by_hand(now, before, beta), rel=1e-9, abs=1e-12
    )


@given(st.lists(st.floats(-60, 0), min_size=1, max_size=6), st.floats(0.01, 2))
@settings(max_examples=30, deadline=None)
def test_npo_of_the_target_itself(now: list[float], beta: float) -> None:
    batch = UnlearningBatch(FakeSide(now, now))  # type: ignore[arg-type]
    assert objective("npo")(batch, beta=beta).item() == pytest.approx(2 / beta * math.log(2), rel=1e-12)


@given(logps)
@settings(max_examples=30, deadline=None)
def test_npo_tends_to_gradient_ascent(pairs: list[tuple[float, float]]) -> None:
    """For beta towards 0, NPO less its constant is the mean of log(p / p0): gradient ascent (arXiv 2404.05868)."""
    now, before = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    batch = UnlearningBatch(FakeSide(now, before))  # type: ignore[arg-type]
    beta = 1e-6
    rest = objective("npo")(batch, beta=beta).item() - 2 / beta * math.log(2)
    expected = sum(logp - logp0 for logp, logp0 in pairs) / len(pairs)
    assert rest == pytest.approx(expected, abs=2e-3)


@given(st.floats(-30, 0), st.floats(0.1, 10))
@settings(max_examples=30, deadline=None)
def test_npo_falls_with_the_probability(before: float, change: float) -> None:
    less, more = ([before - change], [before]), ([before + change], [before])
    losses = [objective("npo")(UnlearningBatch(FakeSide(*pair))).item() for pair in (less, more)]  # type: ignore[arg-type]
    assert losses[0] < 2 / 0.1 * math.log(2) < losses[1]


@pytest.mark.parametrize("name", ["ga", "gd", "npo", "idk"])
def test_a_small_step_lowers_what_it_should(lm: LM, name: str) -> None:
    """Down the gradient the forget answers (and for `idk` the surprise at the refusals) go down."""
    refusals = [(question, refusal) for (question, _), refusal in zip(FORGET, REFUSALS, strict=True)]
    pairs = refusals if name == "idk" else FORGET
    before = token_logprobs(lm, pairs)
    batch = batch_of(lm)
    batch.forget.reference = batch.forget.nll.detach()
    loss = objective(name)(batch)
    loss.backward()
    norm = math.sqrt(sum(float((each.grad**2).sum()) for each in lm.model.parameters() if each.grad is not None))
    with torch.no_grad():
        for parameter in lm.model.parameters():
            if parameter.grad is not None:
                parameter -= 0.01 / norm * parameter.grad
    after = token_logprobs(lm, pairs)
    if name == "idk":
        assert mean_nll(after) < mean_nll(before)
    elif name == "npo":
        assert sum(map(sum, after)) < sum(map(sum, before))
    else:
        assert mean_nll(after) > mean_nll(before)


def test_retain_term_is_the_token_mean(lm: LM) -> None:
    assert RETAIN_TERMS["ce"].loss(batch_of(lm).retain).item() == pytest.approx(
        mean_nll(token_logprobs(lm, RETAIN)), rel=1e-5
    )


def test_what_the_objectives_declare() -> None:
    declared = {name: registry.get("objective", name) for name in registry.names("objective")}
    assert declared["ga"].retain is None
    assert all(declared[name].retain == "ce" for name in ("gd", "npo", "idk"))
    assert {name for name in declared if "reference" in declared[name].needs} == {"npo", "dpo", "altpo"}
    assert {name for name in declared if "idk" in declared[name].needs} == {"idk", "dpo"}


def test_reading_an_undeclared_reference_is_refused(lm: LM) -> None:
    with pytest.raises(TypeError, match="reference"):
        objective("npo")(batch_of(lm))


@pytest.mark.parametrize("name", ["ga", "gd", "idk"])
def test_only_what_is_read_is_run(lm: LM, name: str) -> None:
    batch = batch_of(lm)
    objective(name)(batch)
    assert batch.forget.ran == (name != "idk")
    assert batch.idk.ran == (name == "idk")
    assert not batch.retain.ran
