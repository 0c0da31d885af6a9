"""Token losses without logits: torch's cross-entropy and its gradients, and what they are used for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from conftest import FORGET, RETAIN
from torch import nn
from torch.nn.functional import cross_entropy

from grun_bench.methods import trainer
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.batch import Side
from grun_bench.methods.make import make_unlearner
from grun_bench.models import head as head_module
from grun_bench.models.batch import collate
from grun_bench.models.head import Head, frozen_head, token_losses
from grun_bench.models.lm import LM
from grun_bench.tasks.world import TOY


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_losses_and_gradients_are_those_of_cross_entropy(
    monkeypatch: pytest.MonkeyPatch, rows: int, bias: bool
) -> None:
    torch.manual_seed(0)
    head = nn.Linear(6, 11, bias=bias).requires_grad_(False)
    monkeypatch.setitem(head_module.LOGIT_BYTES, "cpu", 4 * 11 * rows)
    states, targets, weights = torch.randn(7, 6), torch.randint(0, 11, (7,)), torch.randn(7)
    found, expected = states.clone().requires_grad_(), states.clone().requires_grad_()
    losses, whole = token_losses(found, targets, head), cross_entropy(head(expected), targets, reduction="none")
    torch.testing.assert_close(losses, whole)
    # a loss that is not linear in them, and reads them twice
    ((losses * weights).sigmoid().sum() + losses.mean()).backward()
    ((whole * weights).sigmoid().sum() + whole.mean()).backward()
    torch.testing.assert_close(found.grad, expected.grad)
    assert not token_losses(states, targets, head).requires_grad


def test_in_bf16_it_is_as_near_as_torch() -> None:
    torch.manual_seed(0)
    head = nn.Linear(32, 50).requires_grad_(False)
    states, targets = torch.randn(20, 32), torch.randint(0, 50, (20,))
    exact = states.clone().requires_grad_()
    cross_entropy(head(exact), targets).backward()
    low = head.to(torch.bfloat16)
    found = states.bfloat16().requires_grad_()
    token_losses(found, targets, low).mean().backward()
    assert found.grad.dtype == torch.bfloat16
    torch.testing.assert_close(found.grad.float(), exact.grad, rtol=0.05, atol=1e-3)


def fit(make_lm: Callable[..., LM], name: str) -> Fitted:
    options = {"layers": [2, 4]} if name.startswith("grun") else {}
    unlearner = make_unlearner(name, {"epochs": 4, "batch_size": 2, "lr": 1e-3} | options, TOY)
    return unlearner.fit(FitContext(FORGET, RETAIN, make_lm, make_lm, 0))


@pytest.mark.long
@pytest.mark.parametrize("name", ["grun+npo", "grun+kl", "lora+satimp", "grun+ceu"])
def test_training_is_the_same(make_lm: Callable[..., LM], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    without_logits = fit(make_lm, name)
    monkeypatch.setattr(trainer, "frozen_head", lambda model: None)
    assert [list(step.values()) for step in without_logits.history] == [
        pytest.approx(list(step.values()), rel=1e-4) for step in fit(make_lm, name).history
    ]


def test_only_a_frozen_head_that_ends_the_model(make_lm: Callable[..., LM]) -> None:
    lm = make_lm()
    head = lm.model.get_output_embeddings()
    assert frozen_head(lm.model) is None  # its weights are trained
    lm.model.requires_grad_(False)
    assert frozen_head(lm.model) is head
    side = Side(lm.model, collate([lm.prompts.encode(*FORGET[1])], lm.pad_id), head=head)
    whole = Side(side.model, side.batch)
    torch.testing.assert_close(side.token_nll, whole.token_nll)
    torch.testing.assert_close(side.logits, whole.logits)


def test_a_model_that_caps_its_logits_keeps_them(make_lm: Callable[..., LM], monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make_lm()
    lm.model.requires_grad_(False)
    own = lm.model.forward

    def capped(*args: object, **kwargs: object) -> object:
        output = own(*args, **kwargs)
        output.logits = 3 * torch.tanh(output.logits / 3)
        return output

    monkeypatch.setattr(lm.model, "forward", capped)
    assert not Head(lm.model).plain
    assert frozen_head(lm.model) is None
