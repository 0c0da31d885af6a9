"""Unlearners by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.core.settings import bounds_of, options_of, override
from grun_bench.methods.base import Unlearner
from grun_bench.methods.recipes import Recipe, in_force
from grun_bench.methods.retain_terms import retain_term
from grun_bench.methods.trained_weights import ONE_WAY
from grun_bench.methods.trainer import Pair
from grun_bench.tasks.world import World

#: the setting of `Recipe` that says what weights are kept in while they are trained
TRAINED_AS = "trained_as"


def make_unlearner(name: str, overrides: Mapping[str, Any], world: World, dtype: str = "float32") -> Unlearner:
    """The unlearner of this name with its settings: code defaults, then recipes.yaml for the world, then `overrides`.

    `dtype` is that of the model: not every one leaves a choice what its weights are trained as.

    Raises UsageError for an unknown name, an unknown setting, or a value of the wrong type or out of its bounds.
    """
    parsed = registry.parse_unlearner(name)
    if isinstance(parsed, str):
        target = registry.get("unlearner", parsed).target
        settings = in_force(options_of(target), [parsed], world.sections)
        return target(**override(settings, overrides, name, bounds_of(target)))
    adapter, objective = registry.get("adapter", parsed[0]), registry.get("objective", parsed[1])
    defaults = options_of(Recipe) | {"retain": objective.retain}
    defaults |= options_of(adapter.target) | options_of(objective.target)
    defaults = in_force(defaults, [*parsed, "+".join(parsed)], world.sections)
    if dtype in ONE_WAY:
        # not in the settings of a row, which would have another id with it
        if way := overrides.get(TRAINED_AS):
            raise UsageError(f"--set {TRAINED_AS}={way}: {ONE_WAY[dtype]}.")
        del defaults[TRAINED_AS]
    term = retain_term(overrides.get("retain", defaults["retain"]))
    defaults = (options_of(term.loss) if term else {}) | defaults
    bounds = bounds_of(*([term.loss] if term else ()), Recipe, adapter.target, objective.target)
    return Pair(adapter, objective, override(defaults, overrides, name, bounds))
