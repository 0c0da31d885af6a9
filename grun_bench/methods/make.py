"""Unlearners by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.core.settings import bounds_of, options_of, override, said
from grun_bench.methods.base import Unlearner
from grun_bench.methods.recipes import DEFAULT, MEANT, RECIPE, Recipe, in_force, section_of
from grun_bench.methods.retain_terms import retain_term
from grun_bench.methods.trained_weights import ONE_WAY
from grun_bench.methods.trainer import Pair
from grun_bench.tasks.world import World

#: the setting of `Recipe` that says what weights are kept in while they are trained
TRAINED_AS = "trained_as"


def make_unlearner(
    name: str, overrides: Mapping[str, Any], world: World, dtype: str = "float32", family: str | None = None
) -> Unlearner:
    """The unlearner of this name with its settings: code defaults, then recipes.yaml for the world, then `overrides`.

    `dtype` is that of the model: not every one leaves a choice what its weights are trained as. Where `overrides` name
    a `recipe`, it is that for tasks of the `family`, which stands in place of the default one.

    Raises UsageError for an unknown name, an unknown setting, a value of the wrong type or out of its bounds, or a
    recipe that does not have the pair.
    """
    parsed = registry.parse_unlearner(name)
    own = {key: value for key, value in overrides.items() if key != RECIPE}
    recipe = str(overrides.get(RECIPE, DEFAULT))
    if isinstance(parsed, tuple):
        sections = list(world.sections)
        if recipe != DEFAULT:
            sections[0] = section_of(recipe, family, "+".join(parsed))
        return _pair(parsed, own, name, sections, dtype, recipe)
    if recipe != DEFAULT:
        raise UsageError(f"--recipe {recipe}: recipes are of pairs as grun+npo; {name} has the default one.")
    target = registry.get("unlearner", parsed).target
    settings = in_force(options_of(target), [parsed], world.sections)
    return target(**override(settings, own, name, bounds_of(target)))


def _pair(
    parts: tuple[str, str], own: Mapping[str, Any], name: str, sections: Sequence[str], dtype: str, recipe: str
) -> Pair:
    """An adapter with an objective. Where no recipe is named its settings are as results of old have them."""
    adapter, objective = registry.get("adapter", parts[0]), registry.get("objective", parts[1])
    defaults = options_of(Recipe) | {"retain": objective.retain}
    defaults |= options_of(adapter.target) | options_of(objective.target)
    defaults = in_force(defaults, [*parts, "+".join(parts)], sections)
    if dtype in ONE_WAY:
        # not in the settings of a row, which would have another id with it
        if way := own.get(TRAINED_AS):
            raise UsageError(f"--set {TRAINED_AS}={way}: {ONE_WAY[dtype]}.")
        del defaults[TRAINED_AS]
    defaults |= {name: 0 for name, others in MEANT.items() if others & own.keys()}
    term = retain_term(own.get("retain", defaults["retain"]))
    defaults = (options_of(term.loss) if term else {}) | defaults
    targets = [*([term.loss] if term else ()), Recipe, adapter.target, objective.target]
    settings = override(defaults, own, name, bounds_of(*targets))
    return Pair(adapter, objective, said(settings, *targets) if recipe == DEFAULT else settings | {RECIPE: recipe})
