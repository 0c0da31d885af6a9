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
