"""What is refused before torch is loaded: names of settings and of models that cannot be, read off sources and folders.

What the check later finds is the same; it is said here in the time that a typing error is worth.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from grun_bench.core import registry
from grun_bench.core.errors import unknown
from grun_bench.core.plugin_search import entries, keywords
from grun_bench.core.settings import here
from grun_bench.models.names import TINY, folder_of, hub_id
from grun_bench.runs.config import RunConfig

_METHODS = Path(__file__).parents[1] / "methods"
#: the setting that names a recipe, which is no plugin's
_RECIPE = "recipe"


def check_settings(config: RunConfig, attacks: Sequence[str]) -> None:
    """Raises UsageError for a setting that neither the unlearner nor one of the attacks can have.

    Where a source does not say all settings of a plugin, as of one that is installed, nothing is refused here.
    """
    of_attacks = {key: key.partition(".") for key in config.overrides if "." in key}
    for attack, _, setting in of_attacks.values():
        if attack not in attacks:
            raise unknown("attack in --set", attack, attacks, "Only those named in --attacks are made.")
        known = entries("attack")[attack].settings
        if known is not None and setting not in known:
            raise unknown(f"setting of {attack}", setting, known)
    own = [key for key in config.overrides if key not in of_attacks]
    if own and config.unlearner:
        name, settings = _settings(config.unlearner)
        for key in own:
            if settings is not None and key not in settings:
                raise unknown(f"setting of {name}", key, settings, meant=here(key))


def _settings(unlearner: str) -> tuple[str, set[str] | None]:
    """The name of an unlearner, as rows have it, and its settings; None where its sources do not say them all."""
    parsed = registry.parse_unlearner(unlearner)
    if isinstance(parsed, str):
        settings = entries("unlearner")[parsed].settings
        return parsed, None if settings is None else {*settings, _RECIPE}
    parts = entries("adapter")[parsed[0]].settings, entries("objective")[parsed[1]].settings
    known = None if None in parts else {name for part in parts for name in part or ()} | _of_training()
    return "+".join(parsed), known


@cache
def all_settings() -> frozenset[str]:
    """The settings of all unlearners and of training, as far as sources say them."""
    kinds: tuple[registry.Kind, ...] = ("adapter", "objective", "unlearner")
    own = (entry.settings or () for kind in kinds for entry in entries(kind).values())
    return _of_training().union(*own) - {_RECIPE}


@cache
def _of_training() -> frozenset[str]:
    """The settings of every pair: the fields of `Recipe`, and those of retain terms."""
    recipes, terms = (ast.parse((_METHODS / name).read_bytes()) for name in ("recipes.py", "retain_terms.py"))
    recipe = (node for node in recipes.body if isinstance(node, ast.ClassDef) and node.name == "Recipe")
    return frozenset({_RECIPE, *(name for node in (*recipe, *terms.body) for name in keywords(node) or ())})


def check_models(config: RunConfig) -> None:
    """Raises ModelError for a model that is neither a folder nor, by its form, on the Hub."""
    for name in (config.model, config.target_model, config.retain_model, config.writer):
        if name and name != TINY and folder_of(name) is None:
            hub_id(name, f"; the embedded model is '{TINY}'")
