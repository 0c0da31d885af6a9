"""`run --dry-run` says what the run then does, and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import Said

import grun_bench
from grun_bench.results.result import Result

pytestmark = pytest.mark.whole
RECIPES = Path(grun_bench.__file__).with_name("methods") / "recipes.yaml"


def files(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


@pytest.mark.parametrize("unlearner", ["grun+npo", "lora+idk", "full+dpo"])
def test_a_plan_is_what_the_run_then_does(
    command: Callable[..., Said], small_run: list[str], environment: Path, tmp_path: Path, unlearner: str
) -> None:
    output = tmp_path / "results"
    asked = [*small_run, "--unlearner", unlearner, "--output", output, "--attacks", "prefill", "--json"]
    asked += ["--set", "prefill.words=[1]"]
    before = files(environment, tmp_path)
    said = command(*asked, "--dry-run")
    assert said.code == 0, said.err
    plan = json.loads(said.out)
    assert files(environment, tmp_path) == before
    assert plan["seconds"]["training"]["value"] is None
    result = Result.model_validate_json(command(*asked).out)
    assert plan["training"]["steps"] == len(next(iter(result.history.values())))
    assert plan["training"]["parameters"] == result.cost.trainable_parameters
    assert plan["sets"] == {name: part["rows"] for name, part in result.data.items()}
    assert plan["scored_rows"] == result.records.count
    in_force = {each["name"]: each["value"] for each in plan["settings"]}
    assert in_force == in_force | result.unlearner.settings
    attacked = {f"prefill.{name}": value for name, value in result.attacks["prefill"].settings.items()}
    assert attacked == {name: value for name, value in in_force.items() if name.startswith("prefill.")}
    assert [each["by"] for each in plan["settings"] if each["name"] == "prefill.words"] == ["--set"]
    assert [each["run_id"] for each in plan["rows"]][-1] == result.run_id
    assert plan["memory"]["device"]["frozen parts"] == result.cost.trunk_bytes
    # of a row that is there, the plan knows that, and what it took
    again = json.loads(command(*asked, "--dry-run").out)
    assert all(each["filed"] and not each["attacks"] for each in again["rows"])
    assert again["models"]["target model"]["there"]
    assert again["seconds"]["training"]["value"] == pytest.approx(result.cost.training_seconds, abs=0.06)


def test_an_attack_that_the_task_has_no_data_for_asks_nothing(
    command: Callable[..., Said], small_run: list[str], tmp_path: Path
) -> None:
    """The run says of the same attacks that they had nothing to work on."""
    asked = [*small_run, "--unlearner", "full+npo", "--output", tmp_path / "results"]
    asked += ["--attacks", "alias,depth,prefill,translate", "--json"]
    plan = json.loads(command(*asked, "--dry-run").out)
    result = Result.model_validate_json(command(*asked).out)
    nothing = [name for name, info in result.attacks.items() if not info.variants]
    assert nothing == [name for name, rows in plan["attacked"].items() if not rows] == ["alias", "depth", "translate"]
    assert "alias, depth, translate: nothing to ask here, the task has no data for it." in plan["notes"]


def test_a_plan_has_every_setting_with_what_set_it(
    command: Callable[..., Said], small_run: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = [*small_run, "--unlearner", "grun+npo", "--output", tmp_path / "results", "--dry-run"]
    plain = {each["name"]: each for each in json.loads(command(*asked, "--json").out)["settings"]}
    # a name that is not there is answered with all that are
    wrong = command(*asked, "--set", "zzzz=1")
    known = wrong.err.split("choose from: ")[1].rstrip(".\n").split(". ")[0].split(", ")
    # a model in float32 leaves no choice of the first, and a retain term not asked for has the last two
    assert set(known) - plain.keys() == {"trained_as", "recipe", "layer", "positions"} and plain.keys() < set(known)
    hidden = {
        each["name"]: each for each in json.loads(command(*asked, "--set", "retain=hidden", "--json").out)["settings"]
    }
    assert {name: each["by"] for name, each in hidden.items() if name not in plain} == dict.fromkeys(
        ("layer", "positions"), "--set retain"
    )
    # which the options of the small run have
    assert {name for name, each in plain.items() if each["by"]} == {"epochs"}

    more = ["--set", "lr=0.5", "--set", "beta=0.25", "--set", "batch_size=3"]
    given = {each["name"]: each for each in json.loads(command(*asked, *more, "--json").out)["settings"]}
    for name, value in {"lr": 0.5, "beta": 0.25, "batch_size": 3, "epochs": 1}.items():
        assert (given[name]["value"], given[name]["by"]) == (value, "--set")
        assert given[name]["default"] == plain[name]["default"]
    assert all(each == plain[name] for name, each in given.items() if not each["by"])

    monkeypatch.setenv("COLUMNS", "80")
    shown = command(*asked, *more).out.splitlines()
    start = shown.index(next(line for line in shown if line.startswith("settings in force")))
    table = shown[start : start + len(given) + 5]
    assert all(len(line) <= 80 for line in table)
    (beta,) = [line for line in table if line.startswith("│ beta ")]
    assert [cell.strip() for cell in beta.split("│")[1:-1]] == ["beta", "0.25", "--set", str(plain["beta"]["value"])]


def test_a_plan_says_what_a_recipe_set(command: Callable[..., Said], hub: Path, tmp_path: Path) -> None:
    task = tmp_path / "task.yaml"
    task.write_text((hub / "small.yaml").read_text() + "family: tofu\n")
    asked = ["run", "--task", task, "--model", "org/small", "--output", tmp_path / "r", "--dry-run", "--json"]
    said = command(*asked, "--unlearner", "full+npo", "--recipe", "open-unlearning")
    assert said.code == 0, said.err
    settings = {each["name"]: each for each in json.loads(said.out)["settings"]}
    sections = yaml.safe_load(RECIPES.read_text())["open-unlearning/tofu"]
    assert sections["full"].items() <= {name: each["value"] for name, each in settings.items()}.items()
    assert {each["by"] for each in settings.values()} == {"", "--recipe", "--recipe open-unlearning"}


def test_a_plan_is_refused_as_the_run_is(command: Callable[..., Said], small_run: list[str], tmp_path: Path) -> None:
    asked = [*small_run, "--output", tmp_path / "results", "--dry-run", "--unlearner"]
    wrong = command(*asked, "grun+npoo")
    assert wrong.code == 2 and "grun+npo" in wrong.err and "Traceback" not in wrong.err
    assert command(*asked, "grun+npo", "--set", "layers=[0.0]").code == 2
    shown = command(*asked, "grun+npo")
    assert shown.code == 0 and "optimiser steps" in shown.out and "nothing is written" in shown.out
    assert not (tmp_path / "results").exists()
