"""Where settings are searched: the same number for every method, in ranges that RECIPES.md lists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grun_bench.core import registry
from grun_bench.core.ranges import FREE, OF_ADAPTER, OF_ONE_TERM, Choice, Range, Searched, times
from grun_bench.methods.make import make_unlearner
from grun_bench.tasks.world import PUBLISHED, TOY, World

RECIPES = (Path(__file__).parents[2] / "RECIPES.md").read_text()


def written(searched: Searched) -> str:
    return "; ".join(f"`{name}` {each}" for name, each in searched.items())


@pytest.mark.parametrize("world", [PUBLISHED, TOY], ids=lambda world: world.name)
def test_every_pair_has_four_free_settings_with_its_defaults_among_them(world: World) -> None:
    for adapter in registry.names("adapter"):
        for objective in registry.names("objective"):
            both = {**registry.get("adapter", adapter).searched, **registry.get("objective", objective).searched}
            settings = make_unlearner(f"{adapter}+{objective}", {}, world).settings
            assert len(both) == FREE, (adapter, objective)
            assert all(each.around(settings[name]).holds(settings[name]) for name, each in both.items())


def test_recipes_lists_all_of_them() -> None:
    lines = dict(
        re.findall(r"^\| `([\w-]+)` \| (`.*) \|$", RECIPES.partition("## Where settings are searched")[2], re.M)
    )
    plugins = [*((kind, name) for kind in ("adapter", "objective", "unlearner") for name in registry.names(kind))]
    declared = {name: registry.get(kind, name).searched for kind, name in plugins}
    assert lines == {name: written(each) for name, each in declared.items() if each}


def test_a_plugin_that_declares_nothing_has_the_documented_defaults() -> None:
    assert registry.get("adapter", "lora").searched == OF_ADAPTER
    assert registry.get("objective", "ga").searched == OF_ONE_TERM
    assert set(registry.get("objective", "gd").searched) == {"retain_weight", "warmup"}


def test_factors_are_of_the_default_and_whole_numbers_stay_whole() -> None:
    assert times(0.1, 10).around(4e-3) == Range(4e-4, 4e-2, log=True)
    assert times(0.5, 2).around(5) == Range(2, 10, log=True) and times(0.5, 2).around(1) == Range(1, 2, log=True)
    assert Range(0, 0.5).around(7) == Range(0, 0.5) and Choice((1, 2)).around(1).holds(2)
    assert not Range(1, 2).holds("1") and not Choice((1, 2)).holds(3)
