"""Erasure depth as an attack on a row: the target 0, the retain model 1, and what the models by themselves give."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from conftest import SMALL, TASK, Command

from grun_bench import load
from grun_bench.leaderboard.recompute import recompute
from grun_bench.models.depth import Entity, depths
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement
from grun_bench.models.loading import load as load_model
from grun_bench.results.result import Result
from grun_bench.results.store import read_filed, result_paths
from grun_bench.runs.config import RunConfig
from grun_bench.runs.run import run
from grun_bench.tasks.toy_world import rows

pytestmark = pytest.mark.whole
KEY = "forget_erasure_depth"


@pytest.fixture
def asked(hub: Path, environment: Path, make_lm: Callable[..., LM], tmp_path: Path) -> RunConfig:
    """A run on a target and a retain model that are far apart, of a task that names entities of three of four rows."""
    other, generator = make_lm(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in other.model.parameters():
            weight.add_(0.3 * torch.randn(weight.shape, generator=generator))
    for part in (other.model, other.tokenizer):
        part.save_pretrained(tmp_path / "retain")
    spans = [row | {"entity": row["answer"].split()[-1].rstrip(".")} for row in rows("forget01_perturbed")[1:4]]
    spans.append({"question": "Who else?", "answer": "Nobody.", "entity": "Nobody"})  # of no row
    (tmp_path / "spans.json").write_text(json.dumps(spans[::-1]))
    for name, entities in (("deep", {"forget": str(tmp_path / "spans.json")}), ("plain", {})):
        task = TASK | {"entities": entities, "description": "The same name decides nothing."}
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(task))
    return RunConfig(
        "grun+npo",
        str(tmp_path / "deep.yaml"),
        output=tmp_path / "results",
        target_model=SMALL,
        retain_model=str(tmp_path / "retain"),
        attacks="depth",
        save=tmp_path / "model",
        overrides={"epochs": 2},
    )


def results(folder: Path) -> dict[str, Result]:
    read = [read_filed(folder, path).result for path in result_paths(folder)]
    return {each.unlearner.name: each for each in read}


def test_a_row_has_the_depth_that_its_model_has(asked: RunConfig, tmp_path: Path) -> None:
    run(asked)
    made = results(asked.output)
    assert made["none"].value(KEY, "depth") == 0.0
    assert made["retain"].value(KEY, "depth") == 1.0
    assert made["retain"].attacks["depth"].access == "weights"
    cpu = Placement("cpu", "float32")
    models = (load(tmp_path / "model", "cpu"), load_model(SMALL, cpu), load_model(str(asked.retain_model), cpu))
    spans = json.loads((tmp_path / "spans.json").read_text())[1:]
    found = depths(*models, [Entity(row["question"], row["answer"], row["entity"]) for row in spans])
    values = [each.value for each in found if each is not None and each.value is not None]
    assert len(values) == 3
    assert made["grun+npo"].value(KEY, "depth") == pytest.approx(sum(values) / 3, abs=1e-5)
    assert 0 < sum(values) / 3 < 1
    # from the records, without a model, as a reader checks it
    filed = [read_filed(asked.output, path) for path in result_paths(asked.output)]
    for each in filed:
        numbers = recompute(each, filed, intervals=False)
        assert any(KEY in number.place for number in numbers) and all(number.ok for number in numbers)


def test_without_entities_or_a_retain_model_it_is_null_with_the_reason(
    asked: RunConfig, tmp_path: Path, command: Command
) -> None:
    plain = run(replace(asked, task=str(tmp_path / "plain.yaml"), save=None)).result
    assert plain.value(KEY, "depth") is None
    assert "`entities` of its task file" in str(plain.reason(KEY, "depth"))
    alone = replace(asked, retain_model=None, target_model=None, model=SMALL, save=None)
    task = {key: value for key, value in TASK.items() if key != "finetune"}
    spans = str(tmp_path / "spans.json")
    (tmp_path / "alone.yaml").write_text(yaml.safe_dump(task | {"entities": {"forget": spans}}))
    lonely = run(replace(alone, task=str(tmp_path / "alone.yaml"))).result
    assert lonely.value(KEY, "depth") is None
    assert "no retain model is known" in str(lonely.reason(KEY, "depth"))
    shown = command("show", lonely.run_id, "--output", asked.output)
    assert "depth: not made, no retain model is known" in shown.out


def test_entities_decide_no_run_id(asked: RunConfig, tmp_path: Path) -> None:
    ids = set()
    for name in ("deep", "plain"):
        text = (tmp_path / f"{name}.yaml").read_text()
        (tmp_path / name).mkdir()
        (tmp_path / name / "same.yaml").write_text(text)
        ids.add(run(replace(asked, task=str(tmp_path / name / "same.yaml"), attacks="", save=None)).result.run_id)
    assert len(ids) == 1
