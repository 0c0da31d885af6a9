"""Training below float32: where it ends beside float32, how it rounds, and that it goes on where it was killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FORGET, RETAIN
from torch import Tensor, nn

from grun_bench.core.errors import Diverged, UsageError
from grun_bench.methods import checkpoints, trained_weights
from grun_bench.methods.adapters.grun import make_gate
from grun_bench.methods.adapters.reft import Edit
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.checkpoints import Checkpoint
from grun_bench.methods.loop import Schedule, optimise
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.trained_weights import WAYS, LossScale, TrainedWeights, rounded
from grun_bench.models.lm import LM
from grun_bench.tasks.world import PUBLISHED

LOW = (torch.bfloat16, torch.float16)


# --- rounding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", LOW)
def test_numbers_of_the_dtype_stay(dtype: torch.dtype) -> None:
    """Those with few bits, powers of two among them, where the numbers below lie closer than those above."""
    values = torch.cat([torch.randn(10_000).to(dtype), 2.0 ** torch.arange(-12, 12).to(dtype)]).float()
    values = torch.cat([values, -values, torch.zeros(3)])
    for seed in range(5):
        assert torch.equal(rounded(values, dtype, seed).float(), values)


@pytest.mark.parametrize("dtype", LOW)
@pytest.mark.parametrize("value", [1.001, -0.3, 0.0123, -57.7])
def test_up_or_down_in_proportion(dtype: torch.dtype, value: float) -> None:
    values = torch.full((200_000,), value)
    found = rounded(values, dtype, 3).double()
    below, above = found.unique().tolist()
    assert below < value < above and above - below <= 2 * torch.finfo(dtype).eps * abs(value)
    # the share of those above is binomial: five standard deviations
    share = (value - below) / (above - below)
    assert abs((found == above).double().mean().item() - share) < 5 * np.sqrt(share * (1 - share) / len(values))


def test_a_weight_that_moves_on_does_not_jump_back() -> None:
    start = torch.randn(5_000).bfloat16().float()
    path = torch.stack([rounded(start + step * 1e-4, torch.bfloat16, 7).float() for step in range(100)])
    assert (path.diff(dim=0) >= 0).all() and (path[-1] > path[0]).float().mean() > 0.9


def test_large_weights_are_rounded_piece_by_piece_without_bias() -> None:
    """More places than numbers are drawn: each is rounded to a neighbour, and means over rows and columns hold."""
    size = (1200, 1800)
    values = torch.rand(size, generator=torch.Generator().manual_seed(0)) + 1
    found = rounded(values, torch.bfloat16, 3).float()
    apart = (found - values).double() / torch.finfo(torch.bfloat16).eps
    assert apart.abs().max() < 1
    # the variance of an error is at most a quarter: six standard deviations of each mean
    for dimension in (0, 1):
        assert apart.mean(dimension).abs().max() < 6 * 0.5 / size[dimension] ** 0.5
    # and no two rows have the same errors: a product with one vector is as exact in all of them
    vector = torch.randn(size[1], dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    errors = apart @ vector
    assert errors.abs().max() < 6 * 0.5 * vector.norm()
    assert torch.corrcoef(torch.stack([apart[1], apart[1 + 1_048_573 // size[1]]]))[0, 1].abs() < 0.15


# --- the steps --------------------------------------------------------------------------------------------------------


def problem(dtype: torch.dtype) -> tuple[list[nn.Parameter], Callable[[int], dict[str, Tensor]]]:
    """Parameters that are the same numbers in every dtype, and a loss of them."""
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(40, 30, generator=generator).bfloat16().to(dtype))
    inputs, wanted = torch.randn(5, 16, 30, generator=generator), torch.randn(5, 16, 40, generator=generator)

    def losses(number: int) -> dict[str, Tensor]:
        given = inputs[number % 5].bfloat16().to(dtype)
        return {"loss": (given @ weight.T - wanted[number % 5].to(dtype)).float().square().mean()}

    return [weight], losses


@pytest.mark.parametrize("way", WAYS)
def test_bytes_of_each_weight(way: str) -> None:
    """Weight, gradient and what AdamW keeps, as stated."""
    parameters, losses = problem(torch.bfloat16)
    weights = TrainedWeights(parameters, way)
    optimiser = weights.adamw(1e-3, (0.9, 0.999), 0.0)
    with weights.gathering():
        losses(0)["loss"].backward()
    optimiser.step()
    state = [value for of_one in optimiser.state.values() for value in of_one.values() if torch.is_tensor(value)]
    tensors = [*parameters, *weights.values, *state, *(each.grad for each in (*parameters, *weights.values))]
    kept = {id(each): each.numel() * each.element_size() for each in tensors if each is not None and each.dim() > 0}
    assert sum(kept.values()) / parameters[0].numel() == {"float32": 18, "compensated": 12, "own": 8}[way]


def test_a_copy_in_float32_is_torchs_adamw_of_the_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    parameters, losses = problem(torch.bfloat16)
    weights = TrainedWeights(parameters)
    theirs = nn.Parameter(parameters[0].detach().float())
    # as it is used: some processors sum otherwise without
    adamw = torch.optim.AdamW([theirs], lr=1e-3, weight_decay=0.1, fused=True)
    for number in range(10):
        adamw.param_groups[0]["lr"] = 1e-3 * (1 - number / 10)
        copy = [nn.Parameter(rounded(theirs.detach(), torch.bfloat16, 0))]
        loss = problem_of(copy, number)
        theirs.grad = torch.autograd.grad(loss, copy)[0].float()
        nn.utils.clip_grad_norm_([theirs], 1.0)
        adamw.step()
    optimise(weights, range(10), losses, Schedule(1e-3, weight_decay=0.1), "test")
    assert torch.equal(weights.values[0], theirs)
    assert torch.equal(parameters[0], rounded(theirs.detach(), torch.bfloat16, 0))


def problem_of(parameters: list[nn.Parameter], number: int) -> Tensor:
    """The loss of `problem` with other parameters."""
    own, losses = problem(parameters[0].dtype)
    own[0].data = parameters[0].data
    own[0].requires_grad_(True)
    loss = losses(number)["loss"]
    # the graph ends in the problem's own parameter: hand its gradient to the one that was given
    gradient = torch.autograd.grad(loss, own)[0]
    return (parameters[0].float() * gradient.float()).sum()


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_compensated_step_is_adamws(weight_decay: float) -> None:
    """In float32, where nothing is rounded away, torch's AdamW; in bfloat16 near it, and far nearer than without."""
    schedule, ended = Schedule(1e-4, weight_decay=weight_decay), {}
    for name, dtype, way in (
        ("theirs", torch.float32, "own"),
        ("ours", torch.float32, "compensated"),
        ("low", torch.bfloat16, "compensated"),
        ("lost", torch.bfloat16, "own"),
    ):
        parameters, losses = problem(dtype)
        start = parameters[0].detach().float().clone()
        optimise(TrainedWeights(parameters, way), range(50), losses, schedule, "test")
        ended[name] = parameters[0].detach().float() - start
    torch.testing.assert_close(ended["ours"], ended["theirs"], atol=1e-6, rtol=1e-4)
    # each weight is rounded, so their sums along the way are compared: the share of the way that was gone
    way = {name: (each * ended["theirs"]).sum() / ended["theirs"].square().sum() for name, each in ended.items()}
    assert way["low"] == pytest.approx(1, abs=0.1) and way["lost"] < 0.5


def test_weights_that_are_not_finite_after_the_last_step_are_told() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))

    def losses(_: int) -> dict[str, Tensor]:
        # the gradient of the square root at 0 is infinite; the loss is not
        return {"loss": (parameter - parameter.detach()).sqrt().sum()}

    with pytest.raises(Diverged, match="weights are not finite after step 1 of 1; lower lr"):
        optimise([parameter], range(1), losses, Schedule(0.1), "test")


def test_what_float16_does_not_hold_is_told() -> None:
    parameter = nn.Parameter(torch.tensor([300.0]).half())
    with pytest.raises(Diverged, match=r"not finite at step 1 of 1 in float16, which holds no number above 65,504"):
        optimise(
            [parameter], range(1), lambda _: {"loss": parameter.square().sum()}, Schedule(0.1), "", arithmetic=LOW[1]
        )


# --- training beside float32 ------------------------------------------------------------------------------------------


def fit(
    make_lm: Callable[..., LM], name: str, dtype: torch.dtype, checkpoint: Checkpoint | None = None, **own: Any
) -> Fitted:
    """20 steps from weights that are numbers of bfloat16 and, small as they are, of float16."""

    def load() -> LM:
        lm = make_lm()
        lm.model.to(torch.bfloat16).to(dtype)
        return lm

    if name.startswith("grun"):
        own.setdefault("layers", [2, 4])
    chosen = {"epochs": 20, "batch_size": 5, "lr": 1e-4} | own
    unlearner = make_unlearner(name, chosen, PUBLISHED, str(dtype).removeprefix("torch."))
    return unlearner.fit(FitContext(FORGET, RETAIN, load, load, 0, checkpoint=checkpoint))


def fallen(fitted: Fitted) -> float:
    """By how much what is minimised of the forget set fell from the first to the last step."""
    return fitted.history[0]["forget"] - fitted.history[-1]["forget"]


@pytest.mark.whole
@pytest.mark.parametrize("name", ["full+ga", "task-vector"])
def test_20_steps_end_where_float32_does(make_lm: Callable[..., LM], name: str) -> None:
    """The forget loss falls as far as in float32, to a tenth; without copy or compensation it does not."""
    wanted = fallen(fit(make_lm, name, torch.float32))
    assert abs(wanted) > 0.02
    low = {dtype: fit(make_lm, name, dtype) for dtype in LOW}
    for dtype, found in low.items():
        assert fallen(found) == pytest.approx(wanted, rel=0.1)
        assert {each.dtype for each in found.lm.model.parameters()} == {dtype}
    if name != "task-vector":  # which leaves no choice
        compensated, lost = (fit(make_lm, name, torch.bfloat16, trained_as=way) for way in ("compensated", "own"))
        assert fallen(compensated) == pytest.approx(wanted, rel=0.1)
        assert fallen(lost) < 0.3 * wanted


def gated_edit(dtype: torch.dtype, way: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """W, b and the gate of GRUN's edit, numbers of bfloat16 at first: as they begin, and after 20 steps of 0.001."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        edit = Edit(32, 4, torch.bfloat16, make_gate(32, (16,), torch.bfloat16))
        states, wanted = torch.randn(20, 8, 32).bfloat16().to(dtype), torch.randn(20, 8, 32)
    start = {name: each.detach().float().clone() for name, each in edit.named_parameters() if "rotation" not in name}
    for part in (edit.source, edit.gate):
        part.to(dtype)

    def losses(step: int) -> dict[str, Tensor]:
        edited, logits = edit(states[step])
        far = (edited.float() - wanted[step]).square().mean()
        return {"edit": far, "gate": nn.functional.softplus(logits.float()).mean()}

    optimise(TrainedWeights(edit.parameters(), way), range(20), losses, Schedule(1e-3), "test", arithmetic=dtype)
    ended = dict(edit.named_parameters())
    return start, {name: ended[name].detach().float() for name in start}


def test_20_steps_of_a_gated_edit_end_where_float32_does() -> None:
    """Each of W, b and the gate's maps ends within a tenth of its way in float32; without, not."""
    start, wanted = gated_edit(torch.float32, "own")

    def farthest(dtype: torch.dtype, way: str) -> float:
        found = gated_edit(dtype, way)[1]
        return max(float((found[each] - wanted[each]).norm() / (wanted[each] - start[each]).norm()) for each in start)

    assert len(start) == 6
    for dtype, way in ((torch.bfloat16, "float32"), (torch.bfloat16, "compensated"), (torch.float16, "float32")):
        assert farthest(dtype, way) < 0.1
    assert farthest(torch.bfloat16, "own") > 0.2


def test_gradient_checkpointing_changes_nothing(make_lm: Callable[..., LM]) -> None:
    kept, again = (fit(make_lm, "full+ga", torch.bfloat16, epochs=3, checkpointing=on) for on in (False, True))
    assert all(map(torch.equal, kept.lm.model.parameters(), again.lm.model.parameters()))


def test_weights_that_are_one_stay_one_and_frozen_ones_as_they_are(make_lm: Callable[..., LM]) -> None:
    lm = make_lm(dtype=torch.bfloat16)
    lm.model.config.tie_word_embeddings = True
    lm.model.tie_weights()
    before = {name: each.detach().clone() for name, each in lm.model.named_parameters()}
    context = FitContext(FORGET, RETAIN, lambda: lm, lambda: lm, 0)
    chosen = {"epochs": 3, "batch_size": 5, "weights": "embed"}
    make_unlearner("full+ga", chosen, PUBLISHED, "bfloat16").fit(context)
    assert lm.model.get_input_embeddings().weight is lm.model.get_output_embeddings().weight
    changed = {name for name, each in lm.model.named_parameters() if not torch.equal(each, before[name])}
    assert changed == {"model.embed_tokens.weight"}


@pytest.mark.long
def test_small_gradients_count_in_float16(make_lm: Callable[..., LM]) -> None:
    """A loss of a millionth has gradients that float16 rounds to zero; AdamW's steps do not depend on its scale."""
    own = {"forget_weight": 1e-6, "clip": 1e9}
    wanted, found = (fit(make_lm, "full+ga", dtype, **own) for dtype in (torch.float32, torch.float16))
    assert fallen(found) == pytest.approx(fallen(wanted), rel=0.1)


def test_the_scale_of_a_loss_in_float16_is_that_of_torchs_scaler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over steps whose gradients are large, then small, then large again; and it goes on from a checkpoint."""
    monkeypatch.setattr(trained_weights, "GROWS_AFTER", 3)
    parameter = nn.Parameter(torch.ones(1))
    optimiser = torch.optim.SGD([parameter], lr=0.0)
    theirs, ours = torch.amp.GradScaler("cpu", 2.0**16, growth_interval=3), LossScale(torch.float16)
    gradients = [2.0**power for power in (2, 5, 9, 9, *[-7] * 14, 6, 6, -3, -3, -3, -3)]
    factors = []
    for gradient in gradients:
        while True:  # a step that overflows is left out there, and there is another batch
            before = theirs.get_scale()
            optimiser.zero_grad()
            theirs.scale(gradient * parameter.half().sum()).backward()
            theirs.step(optimiser)
            theirs.update()
            if theirs.get_scale() >= before:
                break
        while True:
            parameter.grad = None
            (ours.factor * (gradient * parameter.half().sum())).backward()
            if ours.fits([parameter]):
                break
        assert parameter.grad is not None and parameter.grad.item() == gradient
        assert ours.factor == theirs.get_scale()
        factors.append(ours.factor)
        again = LossScale(torch.float16)
        again.load_state_dict(ours.state_dict())
        ours = again
    assert min(factors) < 2.0**8 and max(factors) > 2.0**11 and factors[0] > min(factors) < factors[-1]


def test_a_gradient_that_no_scale_makes_finite_is_left_to_the_loss() -> None:
    scale, parameter = LossScale(torch.float16), nn.Parameter(torch.ones(1).half())
    tries = 0
    while True:
        parameter.grad, tries = torch.full((1,), float("inf")).half(), tries + 1
        if scale.fits([parameter]):
            break
    assert (tries, scale.factor, parameter.grad.item()) == (17, 1.0, float("inf"))


@pytest.mark.long
def test_large_gradients_are_run_again_with_the_same_draws(make_lm: Callable[..., LM]) -> None:
    """A loss whose gradients overflow in float16 at first: its batch is run again, dropout and multiplier as before."""
    own = {"forget_weight": 30.0, "dropout": 0.3, "dual_warmup": 0.0, "lr": 1e-3, "epochs": 6}
    wanted, found = (fit(make_lm, "lora+pdu", dtype, **own) for dtype in (torch.float32, torch.float16))
    assert [terms["retain"] for terms in found.history] == pytest.approx(
        [terms["retain"] for terms in wanted.history], rel=0.05, abs=0.1
    )


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "dtype", "way"),
    [pytest.param("full+npo", torch.bfloat16, way, marks=pytest.mark.whole) for way in WAYS]
    + [("full+pdu", torch.float16, "float32"), ("grun+npo", torch.bfloat16, "float32")],
)
def test_it_goes_on_where_it_was_killed(
    make_lm: Callable[..., LM],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    dtype: torch.dtype,
    way: str,
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY", 0.0)
    monkeypatch.setattr(checkpoints, "TIMES", 0)
    own = {"epochs": 4} | ({"trained_as": way} if dtype == torch.bfloat16 else {})
    whole = fit(make_lm, name, dtype, **own)
    offer, written = Checkpoint.offer, []

    def stopping(self: Checkpoint, state: Callable[[], dict[str, Any]]) -> None:
        offer(self, state)
        written.append(state)
        if len(written) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "offer", stopping)
        with pytest.raises(KeyboardInterrupt):
            fit(make_lm, name, dtype, Checkpoint(tmp_path / "kept.pt"), **own)
    resumed = fit(make_lm, name, dtype, Checkpoint(tmp_path / "kept.pt"), **own)
    assert resumed.history == whole.history
    pairs = zip(resumed.lm.model.state_dict().values(), whole.lm.model.state_dict().values(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_disabled_is_the_target_to_the_bit(make_lm: Callable[..., LM]) -> None:
    """While weights are trained in bfloat16 the target model is that of before."""
    lm = make_lm(dtype=torch.bfloat16)
    before = [parameter.detach().clone() for parameter in lm.model.parameters()]
    context = FitContext(FORGET, RETAIN, lambda: lm, lambda: lm, 0)
    fitted = make_unlearner("full+kl", {"epochs": 2, "batch_size": 5}, PUBLISHED, "bfloat16").fit(context)
    assert not all(map(torch.equal, before, lm.model.parameters()))
    with fitted.state.disabled():
        assert all(map(torch.equal, before, lm.model.parameters()))


# --- the setting ------------------------------------------------------------------------------------------------------


def test_it_is_no_setting_where_there_is_no_choice() -> None:
    assert make_unlearner("grun+npo", {}, PUBLISHED, "bfloat16").settings["trained_as"] == "float32"
    for dtype in ("float32", "float16"):
        assert "trained_as" not in make_unlearner("grun+npo", {}, PUBLISHED, dtype).settings
        with pytest.raises(UsageError, match=f"--set trained_as=own: .*{dtype}"):
            make_unlearner("full+npo", {"trained_as": "own"}, PUBLISHED, dtype)
    with pytest.raises(UsageError, match=r"trained_as must be one of float32, compensated, own"):
        make_unlearner("full+npo", {"trained_as": "half"}, PUBLISHED, "bfloat16")
