"""Norms of gradients: against formulas, where there are none, and what the AUC over them is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import FORGET, RETAIN, SMALL, TASK
from transformers import AutoModelForCausalLM, AutoTokenizer

import grun_bench
from grun_bench.metrics.evaluate import evaluate
from grun_bench.models.batch import Batch, Encoded, collate
from grun_bench.models.gradients import gradient_norm
from grun_bench.models.lm import LM
from grun_bench.models.scoring import Example, ScoringSettings, score
from grun_bench.results.record import Records
from grun_bench.tasks.sets import USUAL_SETS

SIDES = (("forget", FORGET), ("holdout", RETAIN))


def row_of(lm: LM, question: str, answer: str) -> Batch:
    return collate([lm.prompts.encode(question, answer)], lm.pad_id)


def scored(lm: LM) -> Records:
    rows = [Example(name, index, *pair) for name, pairs in SIDES for index, pair in enumerate(pairs)]
    return score(lm, rows, ScoringSettings(generate=False, gradients_of=frozenset({"forget", "holdout"})))


def by_formula(model: torch.nn.Module, row: Encoded) -> float:
    """Of a model whose blocks are zero: embedding, norm and head, differentiated by hand."""
    embedding, scale, head = (
        dict(model.named_parameters())[name].detach().double().numpy()
        for name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
    )
    tokens = np.array(row.prompt + row.answer)
    # all but the end of sequence are predicted from the token before
    at = np.arange(len(row.prompt) - 1, len(tokens) - 2)
    states = embedding[tokens[at]]
    size = np.sqrt((states**2).mean(1, keepdims=True) + model.config.rms_norm_eps)
    normed = states / size
    logits = (normed * scale) @ head.T
    of_logits = np.exp(logits - logits.max(1, keepdims=True))
    of_logits /= of_logits.sum(1, keepdims=True)
    of_logits[np.arange(len(at)), tokens[at + 1]] -= 1
    of_logits /= len(at)
    of_normed = (of_logits @ head) * scale
    of_states = (of_normed - normed * (of_normed * normed).mean(1, keepdims=True)) / size
    of_embedding = np.zeros_like(embedding)
    np.add.at(of_embedding, tokens[at], of_states)
    found = of_logits.T @ (normed * scale), ((of_logits @ head) * normed).sum(0), of_embedding
    return sum(map(np.linalg.norm, found)) / len(list(model.parameters()))


def test_of_a_model_without_blocks_by_formula(make_lm: Callable[..., LM]) -> None:
    lm = make_lm()
    with torch.no_grad():
        for block in lm.model.model.layers:
            for weight in block.parameters():
                weight.zero_()
    for pair in FORGET:
        expected = by_formula(lm.model, lm.prompts.encode(*pair))
        assert gradient_norm(lm, row_of(lm, *pair)) == pytest.approx(expected, rel=1e-4)


def test_the_model_is_left_as_it_was(make_lm: Callable[..., LM]) -> None:
    lm = make_lm()
    first, *others = lm.model.parameters()
    first.requires_grad_(False)
    assert gradient_norm(lm, row_of(lm, *FORGET[0]))
    assert not first.requires_grad and all(each.requires_grad and each.grad is None for each in others)


def test_where_there_is_none(make_lm: Callable[..., LM]) -> None:
    lm = make_lm()
    empty = Encoded(lm.prompts.prompt("Who?"), [lm.tokenizer.eos_token_id])
    assert gradient_norm(lm, collate([empty], lm.pad_id)) is None
    assert gradient_norm(make_lm(dtype=torch.float16), row_of(make_lm(), *FORGET[0])) is None
    quantised = make_lm()
    quantised.model.lm_head.weight = torch.nn.Parameter(torch.zeros(5, dtype=torch.uint8), requires_grad=False)
    assert gradient_norm(quantised, row_of(quantised, *FORGET[0])) is None


def test_the_auc_counts_pairs(make_lm: Callable[..., LM]) -> None:
    """The AUC is the share of pairs whose member has the smaller norm."""
    lm = make_lm()
    records = scored(lm)
    members, others = ([gradient_norm(lm, row_of(lm, *pair)) for pair in pairs] for _, pairs in SIDES)
    found = evaluate(records, None, ["mia_gradnorm"], USUAL_SETS)["mia_gradnorm"]
    assert found.value == pytest.approx(np.mean([one < other for one in members for other in others]))


def test_float16_is_told(make_lm: Callable[..., LM]) -> None:
    found = evaluate(scored(make_lm(dtype=torch.float16)), None, ["mia_gradnorm"], USUAL_SETS)["mia_gradnorm"]
    assert found.value is None and found.reason is not None and "quantised or in float16" in found.reason


@pytest.mark.long
def test_scoring_keeps_them_where_a_metric_asks(hub: Path, environment: Path, tmp_path: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(hub / SMALL), AutoTokenizer.from_pretrained(hub / SMALL)
    unseen = {"source": "locuslab/TOFU:world_facts_perturbed", "role": "holdout"}
    score = {
        "forget": "locuslab/TOFU:forget01_perturbed",
        "retain": "locuslab/TOFU:retain_perturbed",
        "unseen": unseen,
    }
    task = tmp_path / "task.yaml"
    task.write_text(yaml.safe_dump(TASK | {"score": score, "metrics": ["mia_gradnorm"], "headline": ["mia_gradnorm"]}))
    outcome = grun_bench.evaluate(model, tokenizer, task, limit=2)
    assert {row.set for row in outcome.records if row.scores} == {"forget", "unseen"}
    assert 0 <= outcome.metrics["mia_gradnorm"] <= 1
