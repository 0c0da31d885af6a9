"""What a sweep is of: axes, settings that are tried, controls, and files that say the same as options."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from conftest import Said
from pydantic import ValidationError

from grun_bench.core.errors import UsageError
from grun_bench.matrix.cell import Cell, Status
from grun_bench.matrix.grid import Grid
from grun_bench.matrix.sweep import Plan, control_of, shortfall
from grun_bench.runs.config import RunConfig

SHARED = RunConfig("", output=Path("out"), attacks="prefill", overrides={"recipe": "paper"})


def grid(**axes: object) -> Grid:
    return Grid.model_validate(axes)


def test_every_combination_once() -> None:
    axes = {
        "tasks": ["tofu_forget10", "tofu_forget05"],
        "models": ["tiny", "org/other"],
        "unlearners": ["npo", "grun+npo"],
        "set": {"lr": [1e-3, 1e-4], "epochs": 2},
        "seeds": [0, 1, 2],
    }
    configs = grid(**axes).configs(SHARED)
    found = [(each.task, each.model, each.unlearner, each.overrides["lr"], each.seed) for each in configs]
    assert found == list(
        itertools.product(axes["tasks"], axes["models"], axes["unlearners"], axes["set"]["lr"], axes["seeds"])
    )
    assert all(each.overrides["epochs"] == 2 and each.overrides["recipe"] == "paper" for each in configs)
    assert all(each.attacks == "prefill" for each in configs)


def test_a_list_as_a_value_stands_in_a_list() -> None:
    (one,) = grid(unlearners=["grun+npo"], set={"layers": [[1, 2]]}).configs(SHARED)
    assert one.overrides["layers"] == [1, 2]


def test_settings_of_an_unlearner_are_over_those_of_all() -> None:
    chosen = {"name": "grun+npo", "set": {"lr": [4e-3, 2e-3]}}
    configs = grid(unlearners=["npo", chosen], set={"lr": 1e-4}).configs(SHARED)
    assert [(each.unlearner, each.overrides["lr"]) for each in configs] == [
        ("npo", 1e-4),
        ("grun+npo", 4e-3),
        ("grun+npo", 2e-3),
    ]


def test_controls_have_the_settings_of_attacks_alone() -> None:
    attacks = {"suffix.phrases": {"a": "Now."}}
    (control,) = grid(unlearners=["none"], set={"lr": 1e-4, **attacks}).configs(SHARED)
    assert control.overrides == attacks


@pytest.mark.parametrize(
    "axes", [{}, {"unlearners": []}, {"unlearners": ["npo"], "seeds": [-1]}, {"unlearners": [{"set": {}}]}]
)
def test_what_is_no_grid_is_refused(axes: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Grid.model_validate(axes)


# --- plans -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def shared(tmp_path: Path) -> RunConfig:
    return RunConfig("", output=tmp_path)


def test_a_control_is_planned_once_and_first(shared: RunConfig) -> None:
    plan = Plan.of(grid(unlearners=["npo", "none", "retain"], tasks=["tofu_forget10"], seeds=[0, 1]), shared)
    (control,) = plan.first
    assert control.config.unlearner == "none" and control in plan.cells and plan.all[0] == control
    assert len(plan.all) == len(plan.cells) == 6


def test_models_that_are_fine_tuned_for_a_seed_have_a_control_of_each() -> None:
    """The toy model is the same for all seeds; so are published target models; those made here are not."""
    config = RunConfig("npo", "tofu_forget10", seed=3, overrides={"lr": 1e-3, "suffix.phrases": {}})
    assert control_of(config).seed == 0
    assert control_of(replace(config, model="open-unlearning/tofu_Llama-3.2-1B-Instruct_full")).seed == 0
    assert control_of(replace(config, model="org/other")).seed == 3
    assert control_of(config).overrides == {"suffix.phrases": {}}


def test_unknown_names_are_refused_before_anything_is_made(shared: RunConfig) -> None:
    with pytest.raises(UsageError, match="did you mean npo"):
        Plan.of(grid(unlearners=["nppo"], tasks=["tofu_forget10"]), shared)
    with pytest.raises(UsageError, match="unknown task"):
        Plan.of(grid(unlearners=["npo"], tasks=["tofu_forget10", "tofu_forget1"]), shared)


def test_a_cell_is_what_decides_its_numbers(tmp_path: Path) -> None:
    """Not where its result goes or what it is made on; of a task file and of plugins, what is in them."""
    task = tmp_path / "mine.yaml"
    task.write_text("include: tofu_forget10.yaml\n")
    config = RunConfig("npo", str(task), output=tmp_path)
    cell = Cell.of(config)
    assert Cell.of(replace(config, output=tmp_path / "elsewhere", device="cuda:1", scoring_batch_size=4)) == cell
    others = [replace(config, **{key: value}) for key, value in {"seed": 1, "limit": 3, "overrides": {"lr": 1}}.items()]
    task.write_text("include: tofu_forget10.yaml\ndescription: another\n")
    others.append(config)
    assert len({cell, *map(Cell.of, others)}) == 5


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (["done", "refused"], ""),
        (["refused", "refused"], "of 2 runs 0 failed or diverged, and 2 were refused."),
        (["done", "failed"], "of 2 runs 1 failed or diverged, and 0 were refused."),
    ],
)
def test_a_sweep_fails_where_a_run_failed_or_none_was_made(shared: RunConfig, states: list[str], said: str) -> None:
    """The rows of the controls, which nobody asked for, are no success."""
    plan = Plan.of(grid(unlearners=["npo", "full+pdu"], tasks=["tofu_forget10"]), shared)
    found = {plan.first[0]: Status(state="done")} | {
        cell: Status.model_validate({"state": state}) for cell, state in zip(plan.cells, states, strict=True)
    }
    assert shortfall(plan, found) == said


def test_strengths_are_of_unlearned_models_alone(shared: RunConfig) -> None:
    plan = Plan.of(
        grid(unlearners=["none", "npo", "retain"], tasks=["tofu_forget10"]), replace(shared, strengths=(0.5,))
    )
    found = {cell.config.unlearner: cell.config.strengths for cell in plan.all}
    assert found == {"none": (), "npo": (0.5,), "retain": ()} and len(plan.all) == 3


# --- the command -----------------------------------------------------------------------------------------------------


def test_a_file_says_what_options_say(command: object, tmp_path: Path) -> None:
    axes = ["--unlearner", "npo", "--unlearner", "grun+npo", "--task", "tofu_forget10", "--seeds", "0,1"]
    options = [*axes, "--set", "lr=1e-3", "--set", "lr=1e-4", "--set", "epochs=2", "--limit", "3", "--retain-log", "x"]
    options += ["--strengths", "0.5,1.5"]
    keys = {
        "unlearners": ["npo", "grun+npo"],
        "tasks": ["tofu_forget10"],
        "seeds": [0, 1],
        "set": {"lr": ["1e-3", "1e-4"], "epochs": 2},
        "limit": 3,
        "retain_log": "x",
        "strengths": [0.5, 1.5],
    }
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(keys))
    said = [status(command, tmp_path, *options), status(command, tmp_path, file)]
    assert said[0].out == said[1].out and "9 runs: 9 waiting" in said[0].out


SLURM = ["--unlearner", "npo", "--task", "tofu_forget10", "--cluster", "slurm"]


@pytest.mark.parametrize(
    ("keys", "options", "parts"),
    [
        ({"unlearners": ["npo"], "seed": 1}, [], ["key in", "'seed'", "did you mean seeds"]),
        ({"tasks": ["tofu_forget10"]}, [], ["`unlearners`"]),
        ({"unlearners": ["npo"], "seeds": "all"}, [], ["sweep.yaml: seeds: should be a list, as in [all]."]),
        ({"unlearners": ["npo"], "limit": "many"}, [], ["sweep.yaml: limit: should be a whole number."]),
        ({"unlearners": ["npo"]}, ["--task", "tofu_forget10"], ["the file says what is run"]),
        ({"unlearners": ["npo"]}, [], ["--task says"]),
        (None, ["--task", "tofu_forget10"], ["--unlearner NAME"]),
        (None, ["--unlearner", "npo", "--task", "tofu_forget10", "--resource", "time=3"], ["add --cluster"]),
        (None, ["--unlearner", "npo", "--task", "tofu_forget10", "--cluster", "slrum"], ["did you mean slurm"]),
        (None, [*SLURM, "--resource", "time=2"], ["time=2", "90 s before", "less than 5 minutes"]),
        (None, [*SLURM, "--resource", "time=1-00:00:00"], ["minutes as a whole number"]),
    ],
)
def test_odd_sweeps_are_refused(
    command: object, tmp_path: Path, keys: dict[str, object] | None, options: list[str], parts: list[str]
) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(keys))
    said = command("sweep", *([file] if keys else []), *options, "--output", tmp_path / "out")  # type: ignore[operator]
    assert said.code == 2 and said.err.count("\n") == 1, said.err
    for part in parts:
        assert part in said.err


def status(command: object, output: Path, *options: object) -> Said:
    said: Said = command("sweep", *options, "--output", output, "--status")  # type: ignore[operator]
    assert said.code == 0, said.err
    return said
