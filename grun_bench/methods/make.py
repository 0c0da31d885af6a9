"""Unlearners by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grun_bench.core import registry
from grun_bench.core.settings import options_of, override
from grun_bench.methods.base import Unlearner
from grun_bench.methods.recipes import Recipe, in_force
from grun_bench.methods.retain_terms import retain_term
from grun_bench.methods.trainer import Pair
from grun_bench.tasks.world import World


def make_unlearner(name: str, overrides: Mapping[str, Any], world: World) -> Unlearner:
    """The unlearner of this name with its settings: code defaults, then recipes.yaml for the world, then `overrides`.

    Raises UsageError for an unknown name, an unknown setting, or a setting of the wrong type.
    """
    parsed = registry.parse_unlearner(name)
    if isinstance(parsed, str):
        target = registry.get("unlearner", parsed).target
        return target(**override(in_force(options_of(target), [parsed], world.sections), overrides, name))
    adapter, objective = registry.get("adapter", parsed[0]), registry.get("objective", parsed[1])
    defaults = options_of(Recipe) | {"retain": objective.retain}
    defaults |= options_of(adapter.target) | options_of(objective.target)
    defaults = in_force(defaults, [*parsed, "+".join(parsed)], world.sections)
    term = retain_term(overrides.get("retain", defaults["retain"]))
    return Pair(adapter, objective, override((options_of(term.loss) if term else {}) | defaults, overrides, name))
