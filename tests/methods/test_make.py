"""Unlearners by name: defaults, recipes.yaml and the user's settings, in that order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from grun_bench.core.errors import UsageError
from grun_bench.methods import recipes as recipe_files
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.recipes import Recipe
from grun_bench.tasks.own import Own, OwnData
from grun_bench.tasks.world import PUBLISHED, TOY


def recipes(section: str) -> dict[str, dict[str, Any]]:
    text = Path(recipe_files.__file__).with_name("recipes.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)[section]


def test_code_defaults_are_under_the_recipes() -> None:
    settings = make_unlearner("grun+npo", {}, PUBLISHED).settings
    assert settings["beta"] == 0.1 and settings["rank"] == 4  # written in the objective and the adapter alone
    assert "lr" in recipes("default")["grun"] and settings["lr"] == recipes("default")["grun"]["lr"] != Recipe().lr
    # the pair's own recipe is over the adapter's
    assert settings["forget_weight"] == recipes("default")["grun+npo"]["forget_weight"]


def test_the_embedded_recipe_is_over_the_papers() -> None:
    paper, embedded = (make_unlearner("grun+npo", {}, world).settings for world in (PUBLISHED, TOY))
    assert embedded["layers"] == recipes("embedded")["grun"]["layers"] != list(paper["layers"])
    assert embedded["lr"] == recipes("embedded")["grun"].get("lr", paper["lr"])


def test_grun_defaults_are_the_papers() -> None:
    common = {"lr": 4e-3, "batch_size": 16, "epochs": 40, "clip": 1.0, "warmup": 0.0, "gate_weight": 10.0, "rank": 4}
    weights = {"gd": (1.0, 2.0), "npo": (100.0, 1.0), "idk": (1.0, 1.0)}
    for name, (forget, retain) in weights.items():
        settings = make_unlearner(f"grun+{name}", {}, PUBLISHED).settings
        assert {key: settings[key] for key in common} == common
        assert list(settings["layers"]) == [0.65, 0.8, 1.0]
        assert (settings["forget_weight"], settings["retain_weight"]) == (forget, retain)


def test_overrides_win_and_are_recorded() -> None:
    changed = {"lr": 0.5, "epochs": 3, "layers": [1, 2], "gate": "linear", "beta": 1, "clip": "1e-2"}
    settings = make_unlearner("grun+npo", changed, TOY).settings
    assert settings["lr"] == 0.5 and settings["epochs"] == 3 and settings["layers"] == [1, 2]
    assert settings["gate"] == "linear" and settings["clip"] == 0.01
    assert settings["beta"] == 1.0 and isinstance(settings["beta"], float)


def test_unknown_setting_names_the_near_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown setting of grun\+npo 'epoch': did you mean epochs"):
        make_unlearner("grun+npo", {"epoch": 3}, TOY)
    with pytest.raises(UsageError, match="'beta'"):
        make_unlearner("grun+gd", {"beta": 0.1}, TOY)
    with pytest.raises(UsageError, match="'lr'"):
        make_unlearner("none", {"lr": 0.1}, TOY)


@pytest.mark.parametrize(
    ("key", "value"),
    [("epochs", 1.5), ("epochs", "many"), ("epochs", True), ("lr", "fast"), ("lr", True), ("lr", [1.0]), ("layers", 3)],
)
def test_wrong_type_is_refused(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"--set {key}="):
        make_unlearner("grun+npo", {key: value}, TOY)


@pytest.mark.parametrize("value", ["cee", 5])
def test_unknown_retain_term_is_refused(value: Any) -> None:
    with pytest.raises(UsageError, match="retain"):
        make_unlearner("full+ga", {"retain": value}, TOY)


def test_names() -> None:
    assert make_unlearner("npo", {}, TOY).settings == make_unlearner("full+npo", {}, TOY).settings
    for wrong, near in (("grum+npo", "grun"), ("grun+mpo", "npo"), ("retian", "retain"), ("grn+npo", "grun")):
        with pytest.raises(UsageError, match=rf"did you mean .*\b{near}\b"):
            make_unlearner(wrong, {}, TOY)


# --- own rows, which may be few, and models of any size ---------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Own:
    (tmp_path / "rows.jsonl").write_text('{"question": "Who?", "answer": "Ada."}\n')
    return Own(OwnData(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize("name", ["full+npo", "lora+gd", "grun+npo", "grun-held+npo", "reft+idk"])
def test_steps_at_the_least_are_of_own_rows_alone(own: Own, name: str) -> None:
    """So published tasks have the settings, and so the run ids, that they had."""
    settings = make_unlearner(name, {}, own).settings
    assert settings["least_steps"] == 130 == 10 * -(-400 // 32)
    for world in (PUBLISHED, TOY):
        assert not {"least_steps", "lr_width"} & make_unlearner(name, {}, world).settings.keys()
    # a row that is made again has the settings that it says
    assert make_unlearner(name, settings, own).settings == settings


@pytest.mark.parametrize("key", ["epochs", "batch_size", "steps"])
def test_who_says_how_long_means_it(own: Own, key: str) -> None:
    settings = make_unlearner("full+npo", {key: 2}, own).settings
    assert "least_steps" not in settings and settings[key] == 2
    assert make_unlearner("full+npo", settings, own).settings == settings
    assert make_unlearner("full+npo", {key: 2, "least_steps": 5}, own).settings["least_steps"] == 5


def test_a_rate_goes_with_the_width_unless_it_is_said(own: Own) -> None:
    assert make_unlearner("full+npo", {}, own).recipe.rate(4096) == make_unlearner("npo", {}, PUBLISHED).recipe.lr
    assert make_unlearner("lora+npo", {}, own).recipe.rate(1024) == pytest.approx(4e-4)
    said = make_unlearner("full+npo", {"lr": 3e-5}, own)
    assert said.recipe.rate(1024) == 3e-5 and "lr_width" not in said.settings
    assert make_unlearner("grun+npo", {}, own).recipe.rate(1024) == 4e-3
