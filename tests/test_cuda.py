"""On a CUDA device, where `auto` places runs: scores, training, quantisation and a whole run against the CPU's.

pytest -m gpu
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FORGET, RETAIN, Command

from grun_bench.attacks.quantisation import rounded_4bit, rounded_int8
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.make import make_unlearner
from grun_bench.models.engine import Engine
from grun_bench.models.lm import LM
from grun_bench.models.work import Work
from grun_bench.plugin_checks.small_model import logits, small_lm, two_sets
from grun_bench.tasks.world import PUBLISHED

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CUDA = "cuda"
#: two passes of this model that differ only in how sums are rounded, by dtype
CLOSE = {torch.float32: 1e-3, torch.bfloat16: 0.25}
#: without dropout, which devices draw differently
METHODS: dict[str, dict[str, Any]] = {"npo": {}, "lora+npo": {"dropout": 0.0}, "reft+npo": {}, "grun+npo": {}}


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """No TensorFloat-32, which would round products of float32 to ten bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def placed(dtype: torch.dtype, device: str, seed: int = 0) -> LM:
    lm = small_lm(seed, dtype)
    lm.model.to(device)
    return lm


def trained(method: str, dtype: torch.dtype, device: str, **settings: Any) -> Fitted:
    unlearner = make_unlearner(
        method, {"epochs": 3, "batch_size": 4, "lr": 1e-3} | METHODS[method] | settings, PUBLISHED
    )
    load = (lambda: placed(dtype, device)), (lambda: placed(dtype, device, 1))
    return unlearner.fit(FitContext(FORGET, RETAIN, *load, seed=0))


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_scores_and_texts_are_those_of_plain_passes(dtype: torch.dtype) -> None:
    lm = placed(dtype, CUDA)
    works = [
        Work(lm.prompts.prompt(row.question), [lm.prompts.answer(each) for each in row.candidates], True)
        for row in two_sets()
    ]
    for number, scored in Engine(lm.model, stops=[1], max_new_tokens=8).run(works):
        work = works[number]
        for answer, scores in zip(work.continuations, scored.continuations, strict=True):
            with torch.no_grad():
                plain = lm.model(torch.tensor([[*work.prompt, *answer]], device=CUDA)).logits[0].double()
            expected = plain.log_softmax(-1)[len(work.prompt) - 1 : -1].cpu().gather(-1, torch.tensor(answer)[:, None])
            found = torch.tensor(scores.logprobs, dtype=torch.double)
            torch.testing.assert_close(found, expected[:, 0], rtol=0, atol=CLOSE[dtype])
        if dtype == torch.float32:
            ids = torch.tensor([work.prompt], device=CUDA)
            whole = lm.model.generate(ids, do_sample=False, max_new_tokens=8, eos_token_id=1, pad_token_id=2)
            assert scored.generated == whole[0, len(work.prompt) :].tolist()


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}, {"use_cache": False}], ids=str)
def test_a_plain_call_is_edited_where_the_engines_passes_are(options: dict[str, Any]) -> None:
    lm = trained("grun+npo", torch.float32, CUDA, lr=1e-2).lm
    for question, answer in FORGET:
        prompt, tokens = lm.prompts.prompt(question), lm.prompts.answer(answer)
        ((_, scored),) = Engine(lm.model, stops=[1], max_new_tokens=8).run([Work(prompt, [tokens], True)])
        whole = torch.tensor([prompt + tokens], device=CUDA)
        labels = whole.masked_fill(torch.arange(whole.shape[1], device=CUDA) < len(prompt), -100)
        with torch.no_grad():
            loss = lm.model(whole, labels=labels).loss.item()
        assert loss == pytest.approx(-sum(scored.continuations[0].logprobs) / len(tokens), rel=1e-3)
        said = lm.model.generate(
            whole[:, : len(prompt)], do_sample=False, max_new_tokens=8, eos_token_id=1, pad_token_id=2, **options
        )
        assert said[0, len(prompt) :].tolist() == scored.generated


@pytest.mark.parametrize("method", METHODS)
def test_training_ends_where_it_does_on_the_cpu(method: str) -> None:
    on_cpu, on_cuda = (logits(trained(method, torch.float32, device).lm) for device in ("cpu", CUDA))
    before = logits(placed(torch.float32, "cpu"))
    moved = (on_cpu - before).abs().max()
    assert moved > 0.05
    assert (on_cuda.cpu() - on_cpu).abs().max() < 0.05 * moved


@pytest.mark.parametrize("method", METHODS)
def test_training_in_bfloat16_moves_the_model_as_float32_does(method: str) -> None:
    changes = []
    for dtype in CLOSE:
        before, after = placed(dtype, CUDA), trained(method, dtype, CUDA, lr=3e-3)
        changes.append((logits(after.lm).float() - logits(before).float()).cpu())
        assert next(after.lm.model.parameters()).dtype == dtype
    exact, rounded = changes
    # this model's predictions are sharp, so rounding is loud: an edit's change came out 0.54 to 0.64 of its size apart
    assert (rounded - exact).norm() < 0.8 * exact.norm()


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
def test_what_is_frozen_may_be_kept(dtype: torch.dtype) -> None:
    trained_with = []
    for kept in (True, False):
        unlearner = make_unlearner("grun+npo", {"epochs": 2, "batch_size": 4}, PUBLISHED)
        load = (lambda: placed(dtype, CUDA)), (lambda: placed(dtype, CUDA, 1))
        fitted = unlearner.fit(FitContext(FORGET, RETAIN, *load, seed=0, trunk_cache=kept))
        assert bool(fitted.trunk_bytes) == kept
        trained_with.append(fitted.history[0])
    first, second = trained_with
    assert first == pytest.approx(second, rel=1e-3 if dtype == torch.float32 else 0.05)


def test_rounded_weights_are_those_of_the_cpu() -> None:
    pytest.importorskip("bitsandbytes")
    weight = torch.randn(128, 64, generator=torch.Generator().manual_seed(0))
    for rounded in (rounded_int8, lambda each: rounded_4bit(each, "nf4"), lambda each: rounded_4bit(each, "fp4")):
        on_cpu, on_cuda = rounded(copy.deepcopy(weight)), rounded(weight.to(CUDA)).cpu()
        # a weight that lies between two values may go either way
        assert (on_cpu != on_cuda).float().mean() < 0.01


def test_a_run_with_attacks(command: Command, small_run: list[str], tmp_path: Path) -> None:
    said = command(*small_run, "--unlearner", "grun+npo", "--attacks", "prefill,int4,relearn", "--output", tmp_path)
    assert said.code == 0, said.err
    result = json.loads(next(tmp_path.glob("*/*/grun+npo/*.json")).read_text())
    assert result["hardware"]["gpu"]
