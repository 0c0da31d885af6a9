"""The objectives beyond ascent, NPO and refusals against plain loops, and the known traps of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from conftest import FORGET, RETAIN
from test_objectives import REFUSALS, mean_nll, objective, side, token_logprobs
from torch import Tensor

from grun_bench.methods.adapters.full import Full
from grun_bench.methods.batch import Side, UnlearningBatch
from grun_bench.methods.retain_terms import RETAIN_TERMS
from grun_bench.models.lm import LM

REFUSED = [(question, refusal) for (question, _), refusal in zip(FORGET, REFUSALS, strict=True)]


@torch.no_grad()
def token_logits(lm: LM, pairs: Sequence[tuple[str, str]]) -> list[list[tuple[int, list[float]]]]:
    """Answer by answer, (token, logits that predict it), one unpadded sequence at a time, from the plain model."""
    found = []
    for question, answer in pairs:
        prompt, tokens = lm.prompts.prompt(question), lm.prompts.answer(answer)
        logits = lm.model(torch.tensor([prompt + tokens])).logits[0].double().tolist()
        found.append([(token, logits[len(prompt) - 1 + place]) for place, token in enumerate(tokens)])
    return found


def softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    powers = [math.exp(value - top) for value in logits]
    return [power / sum(powers) for power in powers]


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def flat(rows: list[list[tuple[int, list[float]]]]) -> list[tuple[int, list[float]]]:
    return [each for row in rows for each in row]


class Moved:
    """A model that has moved away from its target, with the adapter that brings the target back."""

    def __init__(self, make_lm: Callable[..., LM]) -> None:
        self.target, self.lm = make_lm(), make_lm()
        self.adapter = Full()
        self.adapter.attach(self.lm.model)
        self.adapter.keep_target()
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in self.lm.model.parameters():
                parameter += 0.03 * torch.randn(parameter.shape, generator=generator)

    def side(self, pairs: Sequence[tuple[str, str]], layers: Sequence[int] = ()) -> Side:
        plain = side(self.lm, pairs)
        return Side(self.lm.model, plain.batch, adapter=self.adapter, layers=layers)

    def batch(self, layers: Sequence[int] = ()) -> UnlearningBatch:
        return UnlearningBatch(
            self.side(FORGET, layers),
            {"retain": self.side(RETAIN, layers), "idk": self.side(REFUSED), "alternate": self.side(REFUSED)},
            tokens=lambda text: self.lm.prompts.answer(text)[:-1],
        )


@pytest.fixture
def moved(make_lm: Callable[..., LM]) -> Moved:
    return Moved(make_lm)


# --- weightings of ascent ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 1.0, 0.3])
def test_wga(lm: LM, beta: float) -> None:
    batch = UnlearningBatch(side(lm, FORGET))
    logps = [value for row in token_logprobs(lm, FORGET) for value in row]
    loss = objective("wga")(batch, beta=beta)
    assert loss.item() == pytest.approx(mean([math.exp(beta * value) * value for value in logps]), rel=1e-4)
    if beta == 0:
        assert loss.item() == pytest.approx(objective("ga")(batch).item(), rel=1e-6)


def test_satimp(lm: LM) -> None:
    batch = UnlearningBatch(side(lm, FORGET))
    logps = [value for row in token_logprobs(lm, FORGET) for value in row]
    expected = mean([math.exp(0.5 * value) * (1 - math.exp(value)) ** 2 * value for value in logps])
    assert objective("satimp")(batch, beta1=0.5, beta2=2.0).item() == pytest.approx(expected, rel=1e-4)
    assert objective("satimp")(batch, beta1=1.0, beta2=0.0).item() == pytest.approx(
        objective("wga")(batch, beta=1.0).item(), rel=1e-5
    )


@pytest.mark.parametrize("name", ["wga", "satimp"])
def test_the_weights_have_no_gradient(name: str) -> None:
    """The gradient is that of -weight x NLL with the weight a constant."""

    class Answers:
        token_nll = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64, requires_grad=True)

    objective(name)(UnlearningBatch(Answers())).backward()  # type: ignore[arg-type]
    p = [math.exp(-nll) for nll in (0.1, 1.0, 3.0)]
    weights = p if name == "wga" else [each**5 * (1 - each) for each in p]
    assert Answers.token_nll.grad.tolist() == pytest.approx([-weight / 3 for weight in weights])


# --- preferences ------------------------------------------------------------------------------------------------------


def test_simnpo_takes_log_probabilities_per_token(lm: LM) -> None:
    """Not logits, and not their sum: a shift of all logits changes nothing, a longer answer weighs no more."""
    nll = [-mean(row) for row in token_logprobs(lm, FORGET)]
    expected = mean([2 / 2.5 * math.log(1 + math.exp(-2.5 * (value - 0.4))) for value in nll])
    batch = UnlearningBatch(side(lm, FORGET))
    assert objective("simnpo")(batch, beta=2.5, delta=0.4).item() == pytest.approx(expected, rel=1e-4)
    shifted = UnlearningBatch(side(lm, FORGET))
    shifted.forget._forward.logits = shifted.forget._forward.logits + 7.0
    assert objective("simnpo")(shifted, beta=2.5, delta=0.4).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["dpo", "altpo"])
def test_preferences(moved: Moved, name: str) -> None:
    now, before = (
        {kind: [sum(row) for row in token_logprobs(lm, pairs)] for kind, pairs in (("bad", FORGET), ("good", REFUSED))}
        for lm in (moved.lm, moved.target)
    )
    beta = 0.05
    margins = [
        (good - good0) - (bad - bad0)
        for good, good0, bad, bad0 in zip(now["good"], before["good"], now["bad"], before["bad"], strict=True)
    ]
    assert max(margins) - min(margins) > 1
    expected = mean([2 / beta * math.log(1 + math.exp(-beta * margin)) for margin in margins])
    assert objective(name)(moved.batch(), beta=beta).item() == pytest.approx(expected, rel=1e-4)


def test_a_cached_reference_wins_over_another_pass(moved: Moved) -> None:
    answers = moved.side(FORGET)
    answers.reference = torch.arange(5.0)
    assert answers.reference_nll.tolist() == [0, 1, 2, 3, 4]
    assert "target" not in answers.__dict__


# --- other distributions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [10.0, 1.0])
def test_undial(moved: Moved, beta: float) -> None:
    losses = []
    for (token, now), (_, before) in zip(
        flat(token_logits(moved.lm, FORGET)), flat(token_logits(moved.target, FORGET)), strict=True
    ):
        adjusted = [value - beta * (place == token) for place, value in enumerate(before)]
        losses.append(-sum(q * math.log(p) for q, p in zip(softmax(adjusted), softmax(now), strict=True)))
    assert objective("undial")(moved.batch(), beta=beta).item() == pytest.approx(mean(losses), rel=1e-4)


def test_undial_leaves_the_last_vocabulary_entry_alone(moved: Moved) -> None:
    """The label -100 used as an index hits entry -100 of the vocabulary; nothing but answer tokens may lose beta."""
    batch = moved.batch()
    before = batch.forget.target.logits.clone()
    one, other = (objective("undial")(batch, beta=beta) for beta in (0.0, 10.0))
    assert torch.equal(batch.forget.target.logits, before), "the target's logits themselves stay"
    targets = batch.forget.batch.targets
    assert (targets >= 0).all() and len(targets) == sum(len(row) for row in token_logprobs(moved.lm, FORGET))
    kept = torch.nn.functional.cross_entropy(batch.forget.logits, before.softmax(-1))
    assert one.item() == pytest.approx(kept.item(), rel=1e-6) and other.item() != pytest.approx(kept.item())


@pytest.mark.parametrize("skip", [0, 1, 3])
def test_ceu(lm: LM, skip: int) -> None:
    losses = []
    for row in token_logits(lm, FORGET):
        for token, logits in row[skip:]:
            others = softmax([-math.inf if place == token else value for place, value in enumerate(logits)])
            p = softmax(logits)
            losses.append(-sum(q * math.log(p[place]) for place, q in enumerate(others) if q > 0))
    batch = UnlearningBatch(side(lm, FORGET))
    assert objective("ceu")(batch, skip=skip).item() == pytest.approx(mean(losses), rel=1e-4)


def test_ceu_has_no_gradient_through_its_target() -> None:
    """d loss / d logits is p minus the target distribution, a token at a time."""
    logits = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)

    class Answers:
        places = torch.tensor([1])

        class batch:
            targets = torch.tensor([0])

    Answers.logits = logits
    objective("ceu")(UnlearningBatch(Answers())).backward()  # type: ignore[arg-type]
    wanted = [0.0, *softmax([0.0, -1.0])]
    assert logits.grad[0].tolist() == pytest.approx(
        [p - q for p, q in zip(softmax([1.0, 0.0, -1.0]), wanted, strict=True)]
    )


def js(p: Sequence[float], q: Sequence[float]) -> float:
    """Jensen-Shannon divergence in nats, by its definition."""
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]

    def kl(a: Sequence[float]) -> float:
        return sum(x * math.log(x / m) for x, m in zip(a, middle, strict=True) if x > 0)

    return (kl(p) + kl(q)) / 2


def test_jensun(moved: Moved) -> None:
    refusal = moved.lm.prompts.answer("No idea")[:-1]
    assert len(refusal) > 2
    losses = []
    for row in token_logits(moved.lm, FORGET):
        for place, (_, logits) in enumerate(row):
            wanted = refusal[place % len(refusal)]
            losses.append(js(softmax(logits), [float(token == wanted) for token in range(len(logits))]))
    assert objective("jensun")(moved.batch()).item() == pytest.approx(mean(losses), rel=1e-4)


def test_jensun_is_bounded_and_smooth_where_the_refusal_is_impossible(moved: Moved) -> None:
    batch = moved.batch()
    logits = torch.full_like(batch.forget.logits, 0.0)
    logits[:, 0] = 500.0  # every other token's probability underflows
    logits.requires_grad_()
    batch.forget.logits = logits
    loss = objective("jensun")(batch)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2)) and torch.isfinite(logits.grad).all()


# --- hidden states ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def states(lm: LM, pairs: Sequence[tuple[str, str]], layer: int, first: int) -> list[Tensor]:
    """Outputs of a block, one unpadded sequence at a time, from `first` places before the answer's own tokens on.

    Read as the input of the next block's norm, or of the last one.
    """
    found: list[Tensor] = []
    blocks = lm.model.model.layers
    norm = blocks[layer + 1].input_layernorm if layer + 1 < len(blocks) else lm.model.model.norm
    handle = norm.register_forward_pre_hook(lambda _, args: found.append(args[0][0]))
    rows = []
    for question, answer in pairs:
        prompt, tokens = lm.prompts.prompt(question), lm.prompts.answer(answer)
        lm.model(torch.tensor([prompt + tokens]))
        start = len(prompt) - first
        rows.append(found.pop()[start : start + len(tokens)])
    handle.remove()
    return rows


@pytest.mark.parametrize(("layer", "index"), [(0.5, 3), (1.0, 5), (2, 2)])
@pytest.mark.parametrize(("positions", "first"), [("predicting", 1), ("answer", 0)])
def test_rmu(moved: Moved, layer: float, index: int, positions: str, first: int) -> None:
    batch = moved.batch(layers=(index,))
    batch.seed = 3
    hidden = torch.cat(states(moved.lm, FORGET, index, first))
    assert len(hidden) == len(batch.forget.batch.targets)
    loss = objective("rmu")(batch, layer=layer, positions=positions, steering=4.0).item()
    direction = torch.rand(32, generator=torch.Generator().manual_seed(3)).tolist()
    length = math.sqrt(sum(value**2 for value in direction))
    expected = mean(
        [(state - 4.0 * u / length) ** 2 for row in hidden.tolist() for state, u in zip(row, direction, strict=True)]
    )
    assert loss == pytest.approx(expected, rel=1e-4)
    kept = torch.cat(states(moved.lm, RETAIN, index, first)) - torch.cat(states(moved.target, RETAIN, index, first))
    found = RETAIN_TERMS["hidden"].loss(batch.retain, layer=layer, positions=positions).item()
    assert found == pytest.approx((kept**2).mean().item(), rel=1e-3)


def test_the_direction_of_rmu_is_the_same_in_all_steps_and_differs_by_seed(moved: Moved) -> None:
    batch = moved.batch(layers=(1,))
    losses = []
    for seed in (0, 0, 1):
        batch.seed = seed
        losses.append(objective("rmu")(batch, layer=1).item())
    assert losses[0] == losses[1] != losses[2]


# --- retain terms -----------------------------------------------------------------------------------------------------


def test_retain_kl_and_js(moved: Moved) -> None:
    retain = moved.batch().retain
    now, before = ([softmax(logits) for _, logits in flat(token_logits(lm, RETAIN))] for lm in (moved.lm, moved.target))
    pairs = list(zip(before, now, strict=True))
    kl = mean([sum(p0 * math.log(p0 / p) for p0, p in zip(old, new, strict=True)) for old, new in pairs])
    assert RETAIN_TERMS["kl"].loss(retain).item() == pytest.approx(kl, rel=1e-3)
    expected = mean([js(old, new) for old, new in pairs])
    assert RETAIN_TERMS["js"].loss(retain).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("term", ["kl", "js", "hidden"])
def test_nothing_is_to_be_kept_before_anything_moved(make_lm: Callable[..., LM], term: str) -> None:
    lm, adapter = make_lm(), Full()
    adapter.attach(lm.model)
    retain = Side(lm.model, side(lm, RETAIN).batch, adapter=adapter, layers=(5,))
    loss = RETAIN_TERMS[term].loss(retain)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert max(each.grad.abs().max().item() for each in lm.model.parameters() if each.grad is not None) < 1e-3


def test_kl_is_ascent_with_its_retain_term(moved: Moved) -> None:
    assert objective("kl")(moved.batch()).item() == pytest.approx(-mean_nll(token_logprobs(moved.lm, FORGET)), rel=1e-5)


def test_reading_an_undeclared_target_is_refused(lm: LM) -> None:
    for name in ("undial", "dpo"):
        batch = UnlearningBatch(side(lm, FORGET), {"idk": side(lm, REFUSED)})
        with pytest.raises(TypeError, match="needs="):
            objective(name)(batch)


# --- primal-dual ------------------------------------------------------------------------------------------------------


def test_pdu_flattens_logits(lm: LM) -> None:
    margins = [max(logits) - mean(logits) for _, logits in flat(token_logits(lm, FORGET))]
    batch = UnlearningBatch(side(lm, FORGET))
    assert objective("pdu")()(batch).item() == pytest.approx(mean([margin**2 for margin in margins]), rel=1e-4)


def test_the_multiplier_of_pdu() -> None:
    """It waits for its warm-up, rises by step x excess, falls below the start, and never below zero."""
    dual = objective("pdu")(retain_limit=0.5, dual_step=2.0, dual_warmup=0.5)
    multiplier, seen = 3.0, []
    steps = [(0.0, 2.0), (0.4, 2.0), (0.5, 1.5), (0.6, 0.0), (0.7, 0.0), *[(0.8, -1.0)] * 3, (0.9, 1.0), (1.0, 1.0)]
    for progress, loss in steps:
        retain = torch.tensor(loss, requires_grad=True)
        term = dual.weigh_retain(retain, 3.0, progress)
        term.backward()
        assert retain.grad.item() == pytest.approx(multiplier), "the multiplier is a constant for the model's step"
        assert term.item() == pytest.approx(multiplier * (loss - 0.5))
        seen.append(multiplier)
        if progress >= 0.5:
            multiplier = max(0.0, multiplier + 2.0 * (loss - 0.5))
    assert min(seen) == 0.0 and max(seen) > 3.0 and seen[-1] > 0


def test_the_state_of_pdu_is_in_its_state_dict() -> None:
    first, second = (objective("pdu")(dual_warmup=0.0) for _ in range(2))
    first.weigh_retain(torch.tensor(2.0), 1.0, 0.0)
    second.load_state_dict(first.state_dict())
    assert second.weigh_retain(torch.tensor(2.0), 1.0, 0.5) == first.weigh_retain(torch.tensor(2.0), 1.0, 0.5)


# --- the target model beside the trained one --------------------------------------------------------------------------


def test_the_target_comes_back_between_forward_and_backward(moved: Moved) -> None:
    """Same gradients with and without a pass of the target in between, and the trained weights are back after it."""

    def gradients(between: bool) -> list[Tensor]:
        moved.lm.model.zero_grad()
        answers = moved.side(FORGET)
        loss = answers.cross_entropy
        if between:
            expected = token_logprobs(moved.target, FORGET)
            assert answers.target.nll.tolist() == pytest.approx([-sum(row) for row in expected], rel=1e-4)
            assert not answers.target.logits.requires_grad
        loss.backward()
        return [each.grad.clone() for each in moved.lm.model.parameters()]

    before = [each.clone() for each in moved.lm.model.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(gradients(False), gradients(True), strict=True))
    assert all(torch.equal(one, other) for one, other in zip(before, moved.lm.model.parameters(), strict=True))
