"""Sequential unlearning: the combination of modules, what a stage starts from, and what a run leaves of every stage."""

from __future__ import annotations

import bz2
import hashlib
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from attaching import logits_of
from conftest import FORGET, RETAIN, SMALL, TASK, Said
from torch import Tensor

import grun_bench
from grun_bench.core.errors import UsageError
from grun_bench.core.svg import Line, line_chart
from grun_bench.methods import step
from grun_bench.methods.adapters.grun import Grun
from grun_bench.methods.adapters.reft import Edit
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.make import make_unlearner
from grun_bench.metrics.stages import Stages
from grun_bench.models.lm import LM
from grun_bench.results.record import Choices, Continuation, Record, Records, load_records
from grun_bench.results.store import read_result, result_files
from grun_bench.runs.config import RunConfig
from grun_bench.runs.run import run
from grun_bench.tasks.sets import ScoredSet, ScoredSets
from grun_bench.tasks.task import load_task
from grun_bench.tasks.world import PUBLISHED, TOY, World

REQUESTS = [FORGET[:2], FORGET[2:4], FORGET[4:]]


# --- the modules of grun ----------------------------------------------------------------------------------------------


def shift(edit: Edit, states: np.ndarray) -> np.ndarray:
    """sigmoid(g(h)) R^T (W h + b - R h) in double precision, for a linear gate."""
    weights = [edit.rotation.weight.T, edit.source.weight, edit.source.bias, edit.gate.weight[0], edit.gate.bias]
    rows, weight, bias, gate, offset = (tensor.detach().double().numpy() for tensor in weights)
    scale = 1 / (1 + np.exp(-(states @ gate + offset)))
    return scale[:, None] * ((states @ weight.T + bias - states @ rows.T) @ rows)


@pytest.mark.parametrize(("factor", "expected"), [([0.6, 0.6], [1.2, 1.8, 2.4]), ([0, 1], [1, 1, 1])])
def test_modules_are_combined_by_the_formula(lm: LM, factor: list[float], expected: list[float]) -> None:
    adapter = Grun(layers=[2, 4], gate="linear", stage_factor=factor)
    adapter.attach(lm.model)
    assert adapter.factor == 1  # of a single request
    states = torch.randn(7, 32, generator=torch.Generator().manual_seed(1))
    for count, scale in enumerate(expected, 1):
        adapter.next_stage()
        assert adapter.factor == pytest.approx(scale)
        with torch.no_grad():
            adapter.edits["4"].source.bias.normal_(0, 2.0)
            edited, gates = adapter._edit(4, states)
        modules = [edits["4"] for edits in adapter.stages]
        assert len(modules) == count
        total = states.double().numpy() + scale * sum(shift(module, states.double().numpy()) for module in modules)
        np.testing.assert_allclose(edited.numpy(), total, atol=1e-4)
        # a record holds the most open gate; a loss sees that of the module which is trained
        each = torch.stack([module.gate(states).squeeze(-1) for module in modules])
        torch.testing.assert_close(gates, each.amax(0))
        torch.testing.assert_close(adapter._edit(4, states)[1], each[-1])


def test_a_factor_of_other_length_is_refused() -> None:
    with pytest.raises(UsageError, match="stage_factor"):
        make_unlearner("grun+npo", {"stage_factor": [0.6]}, TOY)


# --- what a stage starts from -----------------------------------------------------------------------------------------


def in_sequence(make_lm: Callable[..., LM], name: str, count: int = 3, **overrides: Any) -> list[Fitted]:
    """The states after each of the requests, as a run makes them (the model is the same object in all)."""
    if name.split("+")[0] in ("reft", "grun"):
        overrides.setdefault("layers", [2, 4])
    unlearner = make_unlearner(name, {"epochs": 2, "batch_size": 2, "lr": 1e-3} | overrides, TOY)
    fitted: list[Fitted] = []
    for stage, rows in enumerate(REQUESTS[:count]):
        previous = fitted[-1] if fitted else None
        load = (lambda: fitted[-1].lm) if fitted else make_lm
        fitted.append(unlearner.fit(FitContext(rows, RETAIN, load, make_lm, 0, stage, count, previous)))
    return fitted


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def test_earlier_modules_of_grun_are_frozen(make_lm: Callable[..., LM], monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[dict[str, Tensor]] = []
    real = Grun.next_stage

    def noting(self: Grun) -> None:
        kept.append(snapshot(self.stages))
        real(self)

    monkeypatch.setattr(Grun, "next_stage", noting)
    fitted = in_sequence(make_lm, "grun+npo", lr=1e-2)
    adapter = fitted[-1].adapter
    assert len(adapter.stages) == 3 and adapter.first_layer == 2
    now = adapter.stages.state_dict()
    for before in kept[1:]:
        assert all(torch.equal(now[name], value) for name, value in before.items())
    trained = [parameter for parameter in adapter.stages.parameters() if parameter.requires_grad]
    assert len(trained) == len(adapter.trainable_parameters()) == len(list(adapter.stages[0].parameters()))
    # each module was trained, and each began elsewhere
    rotations = [edits["2"].rotation.weight for edits in adapter.stages]
    assert all((first - rotations[-1]).abs().max() > 1e-2 for first in rotations[:-1])
    sizes = [each.trainable for each in fitted]
    assert sizes == [sizes[0], 2 * sizes[0], 3 * sizes[0]]


@pytest.mark.parametrize("name", ["full+gd", "lora+gd", "reft+gd", "task-vector"])
def test_training_of_other_unlearners_goes_on(make_lm: Callable[..., LM], name: str) -> None:
    overrides = {"layers": [2, 4]} if name.startswith("reft") else {}
    unlearner = make_unlearner(name, {"epochs": 1, "lr": 1e-3} | overrides, TOY)
    first = unlearner.fit(FitContext(REQUESTS[0], RETAIN, make_lm, make_lm, 0, 0, 2))
    parameters = list(first.state.trainable_parameters() if first.state else first.lm.model.parameters())
    before = [parameter.detach().clone() for parameter in parameters]
    second = unlearner.fit(FitContext(REQUESTS[1], RETAIN, lambda: first.lm, make_lm, 0, 1, 2, first))
    assert second.lm is first.lm and second.state is first.state
    assert second.trainable == first.trainable == sum(map(torch.numel, parameters))
    start = make_lm() if name == "task-vector" else None
    moved = [(now - value).abs().max() for now, value in zip(parameters, before, strict=True)]
    assert max(moved) > 0
    if start is not None:  # from where the first request left it: nearer to that than to the target
        away = [(now - value).norm() for now, value in zip(parameters, start.model.parameters(), strict=True)]
        steps = [(now - value).norm() for now, value in zip(parameters, before, strict=True)]
        assert sum(away) > sum(steps)


@torch.no_grad()
def target_nll(lm: LM, pair: tuple[str, str]) -> float:
    prompt, answer = lm.prompts.prompt(pair[0]), lm.prompts.answer(pair[1])
    logprobs = lm.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return -sum(logprobs[len(prompt) - 1 + place, token].item() for place, token in enumerate(answer))


@pytest.mark.parametrize("name", ["full+npo", "lora+npo", "reft+npo", "grun+npo"])
def test_the_reference_of_every_stage_is_the_target(
    make_lm: Callable[..., LM], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    seen: list[Tensor] = []
    real = step.reference_nll

    def noting(*arguments: Any) -> Tensor:
        seen.append(real(*arguments))
        return seen[-1]

    monkeypatch.setattr(step, "reference_nll", noting)
    in_sequence(make_lm, name, lr=1e-2)
    assert len(seen) == len(REQUESTS)
    for found, rows in zip(seen, REQUESTS, strict=True):
        assert found.tolist() == pytest.approx([target_nll(make_lm(), pair) for pair in rows], rel=1e-4)


# --- tasks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stages", [[[0, 2], [1, 4]], [[0, 1], [2, 4]], [[1, 2], [2, 4]], [[0, 0], [0, 4]], [[2, 1], [0, 2]]]
)
def test_stages_are_a_partition(tmp_path: Path, stages: list[list[int]]) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(yaml.safe_dump(TASK | {"stages": stages}))
    with pytest.raises(UsageError, match="no gap"):
        load_task(str(path))
    path.write_text(yaml.safe_dump(TASK | {"stages": [[2, 4], [0, 2]]}))
    assert [(source.start, source.stop) for source in load_task(str(path)).sources["forget"]] == [(2, 4), (0, 2)]


def test_stages_need_one_scored_forget_set(tmp_path: Path) -> None:
    path = tmp_path / "odd.yaml"
    score = {name: source for name, source in TASK["score"].items() if name != "forget"}
    for changes in ({"score": score}, {"forget": TASK["forget"] * 2}):
        path.write_text(yaml.safe_dump(TASK | {"stages": [[0, 4]]} | changes))
        with pytest.raises(UsageError, match="stages"):
            load_task(str(path))


SOURCES = {
    "forget": ["locuslab/TOFU:forget01[0:2]", "locuslab/TOFU:forget01[2:4]"],
    "score": {
        "first": {"source": "locuslab/TOFU:forget01_perturbed[0:2]", "role": "forget"},
        "second": {"source": "locuslab/TOFU:forget01_perturbed[2:4]", "role": "forget"},
        "about_both": {"source": "locuslab/TOFU:forget01_perturbed", "role": "forget"},
        "retain": "locuslab/TOFU:retain_perturbed",
    },
    "metrics": ["probability", "privleak"],
    "headline": ["first_probability", "second_probability", "about_both_probability", "retain_probability"],
    "stages": ["first", "second"],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ["first", "secnd"]}, "unknown scored forget set in stages 'secnd': did you mean second"),
        ({"stages": ["first", "retain"]}, "unknown scored forget set in stages 'retain'"),
        ({"stages": ["first"]}, "a scored forget set for each of the 2 sources"),
        ({"stages": ["first", "first"]}, "none of them twice"),
        ({"stages": [[0, 2], [2, 4]]}, "of several sources name the scored forget set of each"),
        ({"stages": [], "growing": True}, "growing: it needs stages"),
    ],
)
def test_requests_of_several_sources_name_their_sets(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(yaml.safe_dump(TASK | SOURCES | changes))
    with pytest.raises(UsageError, match=message):
        load_task(str(path))
    path.write_text(yaml.safe_dump(TASK | SOURCES))
    assert [(source.start, source.stop) for source in load_task(str(path)).sources["forget"]] == [(0, 2), (2, 4)]


@pytest.mark.parametrize("world", [TOY, PUBLISHED], ids=lambda world: world.name)
def test_requests_of_tofu_are_disjoint_authors_of_forget10(
    world: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if world is PUBLISHED:
        monkeypatch.setenv("GRUN_BENCH_HUB", str(request.getfixturevalue("shared") / "hub"))
    task = load_task("tofu_sequential")
    task = world.task(task)
    author = 10 if world is TOY else 20
    parts = [world.rows(source).rows for source in task.sources["forget"]]
    assert len(parts) >= 3 and len({len(part) for part in parts}) == 1 and len(parts[0]) % author == 0
    whole = world.rows(load_task("tofu_forget10").sources["forget"][0]).rows
    assert [row for part in parts for row in part] == whole
    questions = [row["question"] for part in parts for row in part]
    assert len(set(questions)) == len(questions)
    kept = {row["question"] for source in task.sources["retain"] for row in world.rows(source).rows}
    assert not kept & set(questions)
    # the rows that score a request are the rows that it is trained on
    scored = world.rows(task.scored["forget"]).rows
    for (start, stop), part in zip(task.stages, parts, strict=True):
        assert [row["question"] for row in scored[start:stop]] == [row["question"] for row in part]


def test_a_point_cuts_the_forget_set_whatever_its_name() -> None:
    losses = {"leavers": [0.1, 0.2, 0.4, 0.8], "stayers": [0.5, 0.7]}
    rows = [
        Record(name, index, "who?", Continuation("x", loss=loss))
        for name, each in losses.items()
        for index, loss in enumerate(each)
    ]
    rows += [
        Record("quiz", index, "", Continuation(""), choices=Choices([-1.0, -2.0], [True, False], target))
        for index, target in enumerate([0, 1, 1, 1])
    ]
    names = (ScoredSet("leavers", "forget"), ScoredSet("stayers", "retain"), ScoredSet("quiz", "forget", "questions"))
    headline = ["leavers_probability", "stayers_probability", "quiz_accuracy"]
    # as a result file has them
    stages = Stages([[0, 1], [1, 4]], ["probability", "accuracy"], headline, ScoredSets(names), None)
    probabilities = {name: np.exp(-np.array(each)) for name, each in losses.items()}
    assert (
        stages.point(1, Records(rows), None).values
        == {
            "quiz_accuracy": 0.25,  # lm-eval's questions belong to no request
            "stage1_leavers_probability": pytest.approx(probabilities["leavers"][0]),
            "stage2_leavers_probability": pytest.approx(probabilities["leavers"][1:].mean()),
            "stayers_probability": pytest.approx(probabilities["stayers"].mean()),
        }
    )


def test_a_point_has_the_numbers_of_a_requests_own_set_under_one_name() -> None:
    losses = {"first": [0.1, 0.2], "second": [0.4], "about_both": [0.9], "kept": [0.5], "strangers": [0.6, 2.0]}
    rows = [
        Record(name, index, "who?", Continuation("x", loss=loss))
        for name, each in losses.items()
        for index, loss in enumerate(each)
    ]
    names = tuple(ScoredSet(name, "forget") for name in ("first", "second", "about_both"))
    sets = ScoredSets((*names, ScoredSet("kept", "retain"), ScoredSet("strangers", "holdout")))
    headline = [*(f"{name}_probability" for name in ("first", "second", "about_both", "kept")), "mia_loss"]
    stages = Stages(["first", "second"], ["probability", "mia_loss"], headline, sets, None)
    means = {name: pytest.approx(float(np.exp(-np.array(each)).mean())) for name, each in losses.items()}
    assert stages.point(1, Records(rows), None).values == {
        "about_both_probability": means["about_both"],  # of no request: asked every time
        "kept_probability": means["kept"],
        "stage1_probability": means["first"],
        "stage2_probability": means["second"],
        # over the sets of a role: without those of other requests; pairs in which a member is the more likely
        "stage1_mia_loss": pytest.approx(1 - (1 / 2 * 1 / 3)),
        "stage2_mia_loss": pytest.approx(3 / 4),
    }


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def task(environment: Path, tmp_path: Path) -> Path:
    path = tmp_path / "sequence.yaml"
    metrics = [*TASK["metrics"], "extraction_strength"]
    headline = [*TASK["headline"], "forget_extraction_strength"]
    path.write_text(yaml.safe_dump(TASK | {"stages": [[0, 2], [2, 4]], "metrics": metrics, "headline": headline}))
    return path


def probability(path: Path, rows: range) -> float:
    records = [record for record in load_records(path).of("forget") if record.index in rows]
    return float(np.mean([math.exp(sum(row.answer.logprobs) / len(row.answer.logprobs)) for row in records]))


@pytest.mark.whole
def test_a_run_keeps_every_stage(task: Path, command: Callable[..., Said], tmp_path: Path) -> None:
    options = ["--task", task, "--model", SMALL, "--output", tmp_path / "results"]
    said = command("run", "--unlearner", "full+ga", "--set", "lr=3e-3", "--set", "epochs=3", *options)
    assert said.code == 0, said.err
    rows = {
        row.unlearner.name: (row, path) for path in result_files(tmp_path / "results") for row in [read_result(path)]
    }
    assert not rows["none"][0].curves and not rows["retain"][0].curves
    result, path = rows["full+ga"]
    curve = result.curves["stages"]
    assert curve.unit == "stages" and [point.at for point in curve.points] == [0, 1, 2]
    for point in curve.points:
        file = path.with_name(point.records.file)
        assert hashlib.sha256(bz2.decompress(file.read_bytes())).hexdigest() == point.records.sha256
        for stage, part in ((1, range(0, 2)), (2, range(2, 4))):
            assert point.values[f"stage{stage}_forget_probability"] == pytest.approx(probability(file, part))
    # before the first request it is the target, after the last the row itself
    target, last = rows["none"][0], curve.points[-1]
    first = load_records(path.with_name(curve.points[0].records.file)).dumps()
    assert first == load_records(rows["none"][1].with_name(target.records.file)).dumps()
    assert last.records == result.records and last.values["model_utility"] == result.value("model_utility")
    both = [last.values[f"stage{stage}_forget_probability"] for stage in (1, 2)]
    assert np.mean(both) == pytest.approx(result.value("forget_probability"))
    # ascent unlearns a set when its turn comes
    fell = [curve.points[at].values[f"stage{at}_forget_probability"] for at in (1, 2)]
    begun = [curve.points[0].values[f"stage{at}_forget_probability"] for at in (1, 2)]
    assert all(now < before for now, before in zip(fell, begun, strict=True))
    assert len(result.history["forget"]) == 2 * 3
    # the tables of `run` and `show`, and the picture
    for text in (said.out, command("show", result.run_id, "--output", tmp_path / "results").out):
        assert "request 2" in text and "set 2" in text and f"{last.values['stage1_forget_probability']:.3f}" in text
    assert ElementTree.parse(path.with_suffix(".stages.svg")).getroot().tag.endswith("svg")


@pytest.mark.whole
def test_a_sequence_of_modules_is_saved_and_loaded(task: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grun_bench.runs import row

    real, seen = row.save, []

    def noting(fitted: Fitted, *rest: Any) -> None:
        seen.append(logits_of(fitted.lm))
        real(fitted, *rest)

    monkeypatch.setattr(row, "save", noting)
    overrides = {"epochs": 2, "lr": 1e-2}
    run(RunConfig("grun+npo", str(task), tmp_path / "r", model=SMALL, overrides=overrides, save=tmp_path / "model"))
    lm = grun_bench.load(tmp_path / "model")
    assert torch.equal(logits_of(lm), seen[-1])
    from safetensors.torch import load_file

    assert {name[0] for name in load_file(tmp_path / "model" / "adapter.safetensors")} == {"0", "1"}


@pytest.mark.whole
def test_a_sequence_that_diverges_keeps_what_was_scored(task: Path, tmp_path: Path) -> None:
    overrides = {"epochs": 4, "lr": 1e30, "clip": 1e30}
    cell = run(RunConfig("full+ga", str(task), tmp_path, model=SMALL, overrides=overrides)).cell
    assert cell.result.status == "diverged"
    assert [point.at for point in cell.result.curves["stages"].points] == [0]


def test_rows_of_no_request_are_refused(task: Path, command: Callable[..., Said], tmp_path: Path) -> None:
    task.write_text(yaml.safe_dump(TASK | {"stages": [[0, 2], [2, 3]]}))
    said = command("run", "--unlearner", "ga", "--task", task, "--model", SMALL, "--output", tmp_path / "results")
    assert said.code == 2 and "the stages hold 3 of the 4 rows of locuslab/TOFU:forget01" in said.err


@pytest.mark.whole
def test_a_limit_cuts_every_request(task: Path, tmp_path: Path) -> None:
    cell = run(RunConfig("full+ga", str(task), tmp_path, model=SMALL, overrides={"epochs": 1}, limit=1)).cell
    assert cell.result.data["train:forget"]["rows"] == 2
    assert [record.index for record in cell.records.of("forget")] == [0, 2]
    values = cell.result.curves["stages"].points[-1].values
    assert None not in (values["stage1_forget_probability"], values["stage2_forget_probability"])


@pytest.mark.whole
def test_requests_of_several_sources_come_one_after_another_or_grow(
    environment: Path, tmp_path: Path, command: Callable[..., Said]
) -> None:
    """After the first it is the model of the first source alone, and a set that has grown to its end is the whole."""

    def ran(name: str, **changes: Any) -> Any:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(TASK | SOURCES | changes))
        overrides = {"epochs": 2, "lr": 3e-3}
        return run(RunConfig("full+gd", str(path), tmp_path / "r", model=SMALL, overrides=overrides)).cell.result

    sequence, growing = ran("sequence"), ran("growing", growing=True)
    learnt = {"target": ["locuslab/TOFU:forget01", "locuslab/TOFU:retain99"]}
    first, whole = ran("first", forget=SOURCES["forget"][:1], stages=[], learnt=learnt), ran("whole", stages=[])
    for result in (sequence, growing):
        points = result.curves["stages"].points
        assert [point.at for point in points] == [0, 1, 2] and result.data["train:forget"]["rows"] == 4
        assert points[1].values["stage2_probability"] == pytest.approx(first.value("second_probability"), abs=1e-6)
        assert points[1].values["retain_probability"] == pytest.approx(first.value("retain_probability"), abs=1e-6)
        at_once = pytest.approx(whole.value("first_probability"), abs=1e-6)
        assert (points[2].values["stage1_probability"] == at_once) == (result is growing)
    said = command("show", growing.run_id, "--output", tmp_path / "r")
    assert said.code == 0 and "probability ↓ of each request's set" in said.out


# --- the picture ------------------------------------------------------------------------------------------------------


def test_a_line_goes_through_its_values_and_breaks_where_one_is_missing() -> None:
    lines = [Line("a < b", [0.0, 1.0, None, 0.5, 0.5], mark=1), Line("b", [1.0] * 5, dashed=True)]
    svg = ElementTree.fromstring(line_chart("A & B", "step", list("01234"), {"share": lines, "other": lines[:1]}))
    space = "{http://www.w3.org/2000/svg}"
    texts = [node.text for node in svg.iter(f"{space}text")]
    assert {"A & B", "step", "share", "other", "a < b", "b", "0.0", "1.0"} <= set(texts)
    circles = [(float(node.get("cx")), float(node.get("cy")), node.get("r")) for node in svg.iter(f"{space}circle")]
    (x0, y0, r0), (x1, y1, r1), (x3, y3, _), *_ = circles
    # up is more, ticks are evenly spaced, the mark is larger, and the missing value has no dot
    assert y1 < y3 < y0 and y3 == pytest.approx((y0 + y1) / 2) and x3 - x1 == pytest.approx(2 * (x1 - x0))
    assert float(r1) > float(r0) and len(circles) == 4 + 5 + 4
    path = next(node.get("d") for node in svg.iter(f"{space}path") if node.get("fill") == "none")
    assert path.count("M") == 2 and path.count("L") == 2
    assert "prefers-color-scheme:dark" in next(svg.iter(f"{space}style")).text
