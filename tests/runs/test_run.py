"""Whole runs on a small random model and local data: what they keep and reuse, and what a stopped one leaves."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import FORGET, SMALL, Said

from grun_bench.attacks.base import Answers
from grun_bench.core.errors import UsageError
from grun_bench.methods.finetune import finetune
from grun_bench.models.batch import collate
from grun_bench.models.forward import forward
from grun_bench.models.lm import LM
from grun_bench.results.record import load_records
from grun_bench.results.result import Point, Result, best_step
from grun_bench.results.store import read_result, result_files
from grun_bench.runs.config import RunConfig
from grun_bench.runs.inputs import resolve
from grun_bench.runs.run import run
from grun_bench.runs.score import values_of
from grun_bench.runs.session import Session
from grun_bench.tasks.sets import ScoredSet, ScoredSets
from grun_bench.tasks.task import FineTuning


def config(hub: Path, output: Path, unlearner: str, **changes: object) -> RunConfig:
    return RunConfig(unlearner, str(hub / "small.yaml"), output, model=SMALL, **changes)


@pytest.mark.whole
def test_target_and_retain_model_are_fine_tuned_once(
    environment: Path, hub: Path, results: Path, tmp_path: Path
) -> None:
    before = sorted((environment / "models").iterdir())
    outcome = run(config(hub, tmp_path, "lora+gd", overrides={"epochs": 1}))
    assert sorted((environment / "models").iterdir()) == before
    target, retain, cell = outcome.target, outcome.retain, outcome.cell
    assert target.result.unlearner.name == "none" and retain.result.unlearner.name == "retain"
    # the retain model has seen no forget row, and so is another model
    assert target.result.target["sha256"] != retain.result.target["sha256"]
    assert cell.result.target["sha256"] == target.result.target["sha256"]
    assert {cell.result.dataset for cell in (target, retain, cell)} == {"published"}
    # the same three rows on the second time, none of them computed
    again = run(config(hub, tmp_path, "lora+gd", overrides={"epochs": 1}))
    assert again.cell.reused and again.target.reused and again.retain.reused
    assert again.cell.result == cell.result


@pytest.mark.whole
def test_the_same_seed_gives_the_same_numbers(environment: Path, hub: Path, tmp_path: Path) -> None:
    rows = [run(config(hub, tmp_path / name, "grun+idk", overrides={"epochs": 1})).cell for name in ("a", "b")]
    assert rows[0].result.results == rows[1].result.results
    assert rows[0].result.records == rows[1].result.records
    assert not rows[1].reused


@pytest.mark.whole
def test_a_limited_run_is_a_row_of_its_own(environment: Path, hub: Path, tmp_path: Path) -> None:
    runs = [run(config(hub, tmp_path, "none", limit=limit)).cell for limit in (None, 2)]
    assert runs[0].path != runs[1].path
    assert [cell.result.limit for cell in runs] == [None, 2]
    assert [cell.result.records.count for cell in runs] == [4 + 4 + 3 + 3, 2 * 4]
    assert len({cell.result.dataset_hash for cell in runs}) == 2


@pytest.mark.whole
def test_a_row_without_its_records_is_made_again_and_its_file_left_alone_where_it_answers_the_same(
    environment: Path, hub: Path, tmp_path: Path
) -> None:
    cell = run(config(hub, tmp_path, "grun+gd", overrides={"epochs": 1})).cell
    cell.path.write_text(cell.path.read_text().replace(cell.result.date, "2020-01-01T00:00:00+00:00"))
    filed, records = cell.path.read_bytes(), cell.path.with_name(cell.result.records.file)
    content = records.read_bytes()
    records.unlink()
    again = run(config(hub, tmp_path, "grun+gd", overrides={"epochs": 1})).cell
    assert not again.reused and again.result.date.startswith("2020")
    assert cell.path.read_bytes() == filed and records.read_bytes() == content
    # what was filed says something else: then it was of another model
    cell.path.write_text(
        cell.path.read_text().replace('"forget_probability,none": 0.', '"forget_probability,none": 1.')
    )
    records.unlink()
    assert not run(config(hub, tmp_path, "grun+gd", overrides={"epochs": 1})).cell.result.date.startswith("2020")


def launch(hub: Path, output: Path, cache: Path, log: Path, *, epochs: int) -> subprocess.Popen[bytes]:
    """A real process that unlearns for long; what it says goes to a file."""
    options = f"--unlearner grun+gd --task {hub / 'small.yaml'} --model {SMALL} --output {output} --set epochs={epochs}"
    return subprocess.Popen(
        [sys.executable, "-m", "grun_bench", "run", *options.split()],
        env=os.environ | {"GRUN_BENCH_HUB": str(hub), "GRUN_BENCH_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=log.open("w"),
        # tests that run in the background have Ctrl-C switched off, and so would what they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def await_training(log: Path, process: subprocess.Popen[bytes]) -> None:
    """Until the loop of unlearning has begun; target and retain rows are saved by then."""
    while "unlearning grun+gd" not in log.read_text():
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    time.sleep(0.3)


# a kill is in the fast tier in test_resume
@pytest.mark.whole
@pytest.mark.parametrize("kind", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_stopped_run_leaves_nothing_false(
    environment: Path, hub: Path, results: Path, tmp_path: Path, kind: signal.Signals
) -> None:
    log = tmp_path / "log"
    process = launch(hub, tmp_path, environment, log, epochs=20_000)
    await_training(log, process)
    process.send_signal(kind)
    process.wait(timeout=60)
    if kind == signal.SIGINT:
        assert process.returncode == 130
        assert "Traceback" not in log.read_text()
        assert not list(tmp_path.rglob("*.part"))
    else:
        assert process.returncode == -signal.SIGKILL
    # what is there is whole, and none of it is the row that was not finished
    rows = [read_result(path) for path in result_files(tmp_path)]
    assert sorted(row.unlearner.name for row in rows) == ["none", "retain"]
    # the next run goes on from there
    outcome = run(config(hub, tmp_path, "grun+gd", overrides={"epochs": 1}))
    assert outcome.target.reused and outcome.retain.reused
    assert outcome.cell.result.status == "ok"


@pytest.mark.whole
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fine_tuning_changes_the_weights_that_it_trains_with(make_lm: Callable[..., LM], dtype: torch.dtype) -> None:
    """The loss measured afterwards is the one that training ended with: no pass ran on weights of an earlier step."""
    lm = make_lm(dtype=dtype)
    batch = collate([lm.prompts.encode(*pair) for pair in FORGET], lm.pad_id)

    @torch.no_grad()
    def loss() -> float:
        return torch.nn.functional.cross_entropy(forward(lm.model, batch).logits.float(), batch.targets).item()

    before = loss()
    recipe = FineTuning(lr=3e-3, epochs=60, batch_size=len(FORGET), weight_decay=0.0, warmup=0.1)
    finetune(lm, FORGET, recipe, 0, "fine-tuning")
    assert {parameter.dtype for parameter in lm.model.parameters()} == {dtype}
    assert loss() < 0.2 < 2 < before


# --- the training's settings ------------------------------------------------------------------------------------------


@pytest.mark.whole
def test_eval_every_writes_a_curve_and_changes_no_number(
    environment: Path, hub: Path, results: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(results, tmp_path / "results")
    overrides = {"epochs": 5, "batch_size": 4}
    plain = run(config(hub, output, "lora+gd", overrides=overrides)).cell.result
    # a row without a curve is run again to get one, a row with one is not
    outcome = run(config(hub, output, "lora+gd", overrides=overrides, eval_every=2))
    watched, target = outcome.cell, outcome.target
    assert not watched.reused
    assert run(config(hub, output, "lora+gd", overrides=overrides, eval_every=2)).cell.reused
    assert watched.result.results == plain.results and watched.result.history == plain.history
    curve = watched.result.curves["training"]
    assert curve.unit == "steps" and [point.at for point in curve.points] == [0, 2, 4, 5]
    # step 0 is the target model and the last step the result, since the sample holds all rows of this task
    for point, result in ((curve.points[0], target.result), (curve.points[-1], watched.result)):
        for key in ("forget_probability", "retain_probability", "model_utility"):
            assert point.values[key] == pytest.approx(result.value(key))
    named = ("probability", "rougeL_recall", "extraction_strength")
    assert {f"{side}_{name}" for side in ("forget", "retain") for name in named} <= set(curve.points[0].values)


def test_eval_every_needs_scored_answers(environment: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--eval-every"):
        run(RunConfig("grun+rmu", "wmdp_cyber", tmp_path, eval_every=5))


def test_the_best_step_is_that_of_the_rule() -> None:
    def point(at: int, extraction: float | None, retain: float | None) -> Point:
        return Point(at=at, values={"forget_extraction_strength": extraction, "retain_probability": retain})

    start = point(0, 0.1, 0.8)
    assert best_step([start, point(5, 0.5, 0.73), point(10, 0.3, 0.73), point(15, 0.2, 0.71)]) == 10
    assert best_step([start, point(5, 0.3, 0.9), point(10, 0.3, 0.9)]) == 5
    assert best_step([start, point(5, 0.3, 0.1), point(10, None, 0.9), point(15, 0.3, None)]) is None
    assert best_step([start, point(5, 0.3, 0.9)], ScoredSets()) is None
    assert best_step([point(5, 0.3, 0.9)]) is None
    named = [Point(at=at, values={"gone_extraction_strength": 0.2, "kept_probability": 0.5}) for at in (0, 5)]
    sets = ScoredSets((ScoredSet("kept", "retain"), ScoredSet("gone", "forget")))
    assert (best_step(named, sets), best_step(named)) == (5, None)


@pytest.mark.whole
def test_the_trunk_cache_is_part_of_the_cost(environment: Path, hub: Path, results: Path, tmp_path: Path) -> None:
    output = shutil.copytree(results, tmp_path / "results")
    kept = run(config(hub, output, "grun+npo", overrides={"epochs": 1})).cell
    assert kept.reused
    plain = run(config(hub, output, "grun+npo", overrides={"epochs": 1}, trunk_cache=False, overwrite=True)).cell
    assert kept.result.cost.trunk_bytes > 0 == plain.result.cost.trunk_bytes
    assert kept.path == plain.path
    assert kept.result.history["forget"] == pytest.approx(plain.result.history["forget"], rel=1e-4)


def test_a_number_that_is_none_is_not_explained_by_a_missing_retain_model(
    environment: Path, hub: Path, results: Path
) -> None:
    asked = RunConfig("none", str(hub / "small.yaml"), target_model=SMALL)
    inputs = resolve(asked, Session.of(asked))
    records = load_records(next(results.rglob("none/*.records.jsonl.bz2")))
    for record in records.of("forget"):
        record.answer = replace(
            record.answer, logprobs=[math.nan], means=None, deviations=None, matches=None, loss=None
        )
    values = values_of(inputs, Answers(records, {}), None, inputs.metrics, inputs.models.no_retain)
    assert "no retain model" in str(values["forget_quality"].reason)
    assert "not finite in 4 of 4 rows" in str(values["forget_probability"].reason)
    assert "no retain model" not in str(values["forget_probability"].reason)


def test_a_row_says_what_training_had_in_place_of_its_settings(
    command: Callable[..., Said], small_run: list[str], hub: Path, tmp_path: Path
) -> None:
    width = json.loads((hub / SMALL / "config.json").read_text())["hidden_size"]
    asked = ["--unlearner", "lora+npo", "--output", tmp_path / "results", "--save", tmp_path / "saved", "--json"]
    asked += ["--set", "lr=0.002", "--set", f"lr_width={3 * width}", "--set", "batch_size=50", "--set", "least_steps=5"]
    said = command(*small_run, *asked)
    assert said.code == 0, said.err
    result = Result.model_validate_json(said.out)
    adjusted, rows = result.unlearner.adjusted, result.data["train:forget"]["rows"]
    assert adjusted["lr"] == pytest.approx(0.006) and result.unlearner.settings["lr"] == 0.002
    steps = len(next(iter(result.history.values())))
    epochs = adjusted.get("epochs", 1)
    assert steps >= 5 and steps == epochs * -(-rows // adjusted["batch_size"])
    shown = command("show", result.run_id, "--output", tmp_path / "results").out
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "0.002 (0.006 in training)" in shown and "lr=0.002 (0.006 in training)" in card
    assert f"batch_size=50 ({adjusted['batch_size']} in training)" in card
