"""What is refused before torch is loaded: names of settings and of models that cannot be, read off sources and folders.

What the check later finds is the same; it is said here in the time that a typing error is worth.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from grun_bench.core import registry
from grun_bench.core.errors import Refused, UsageError, unknown
from grun_bench.core.libraries import check_installed, lacking, needs, without
from grun_bench.core.plugin_search import defaults, entries, keywords
from grun_bench.core.settings import here, typed
from grun_bench.models.names import TINY, folder_of, hub_id
from grun_bench.runs.config import RunConfig, label_of
from grun_bench.tasks.yaml_files import loaded

_METHODS = Path(__file__).parents[1] / "methods"
#: the setting that names a recipe, which is no plugin's
_RECIPE = "recipe"
#: options of the command line that are no keywords of the same name in Python -> what is said of them
FLAGS = {
    "target": "the option --target is `target_model` in Python",
    "tuned": "the option --tuned is `tuning` in Python",
    "include_path": "the option --include-path is `include` in Python",
    "set": "the option --set is `settings` in Python",
    **{name: f"--{name.replace('_', '-')} is of the command line alone" for name in ("dry_run", "json", "quiet")},
}


def check_settings(config: RunConfig, attacks: Sequence[str]) -> None:
    """Raises UsageError for a setting that neither the unlearner nor one of the attacks can have.

    Where a source does not say all settings of a plugin, as of one that is installed, nothing is refused here.
    """
    of_attacks = {key: key.partition(".") for key in config.overrides if "." in key}
    for key, (attack, _, setting) in of_attacks.items():
        if attack not in attacks:
            raise _not_made(attack, key, attacks)
        known = entries("attack")[attack].settings
        if known is not None and setting not in known:
            raise unknown(f"setting of {attack}", setting, known)
    own = [key for key in config.overrides if key not in of_attacks]
    if own and config.unlearner:
        name, settings = _settings(config.unlearner)
        for key in own:
            if settings is not None and key not in settings:
                if key in FLAGS:
                    raise UsageError(f"{key}: no setting of {name}; {FLAGS[key]}.")
                raise unknown(f"setting of {name}", key, settings, meant=here(key))
        _check_types({key: config.overrides[key] for key in own}, _defaults(config.unlearner))


def _check_types(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises UsageError for a value of another type than its default, as far as sources and recipes.yaml say that."""
    for key, value in settings.items():
        if key == _RECIPE:
            if value not in (names := _recipes()):
                raise unknown("recipe", value, names)
        elif isinstance(defaults.get(key), bool | int | float | str):
            typed(key, value, defaults[key])


def _defaults(unlearner: str) -> dict[str, Any]:
    """The defaults that sources say of an unlearner; of one that is no pair, none of training."""
    parsed = registry.parse_unlearner(unlearner)
    if isinstance(parsed, str):
        return dict(entries("unlearner")[parsed].defaults)
    return {
        **_defaults_of_training(),
        **entries("adapter")[parsed[0]].defaults,
        **entries("objective")[parsed[1]].defaults,
    }


def _not_made(attack: str, key: str, attacks: Sequence[str]) -> UsageError:
    """The error for a setting of an attack that is not to be made."""
    known = entries("attack")
    if attack not in known:
        return unknown("attack in --set", attack, attacks or known, "Only those named in --attacks are made.")
    asked = ", ".join(attacks)
    said = f"{attack} is not among the attacks asked for ({asked})" if attacks else "no attack is asked for"
    return UsageError(f'--set {key}: {said}: name it, as in --attacks {attack}, or attacks="{attack}" in Python.')


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
    return frozenset({_RECIPE, *(name for node in _training() for name in keywords(node) or ())})


@cache
def _defaults_of_training() -> dict[str, Any]:
    """The defaults of those that have a literal for one."""
    return {name: value for node in reversed(_training()) for name, value in defaults(node).items()}


@cache
def _training() -> list[ast.stmt]:
    """`Recipe`, and then what declares the settings of retain terms."""
    recipes, terms = (ast.parse((_METHODS / name).read_bytes()) for name in ("recipes.py", "retain_terms.py"))
    return [*(each for each in recipes.body if isinstance(each, ast.ClassDef) and each.name == "Recipe"), *terms.body]


@cache
def _recipes() -> list[str]:
    """The names of recipes."""
    known = loaded(_METHODS / "recipes.yaml")
    return ["default", *dict.fromkeys(key.partition("/")[0] for key in known if "/" in key)]


def check_libraries(config: RunConfig, attacks: Sequence[str]) -> None:
    """Raises UsageError where a library is not installed that the base's rounding needs, or an attack by its source.

    Of attacks with how to go without them; `attacks` are what `config.attacks` means.
    """
    if config.quantise:
        check_installed("--quantise", "bitsandbytes", "quantisation")
    asked = config.attacks
    if lacked := lacking(attacks):
        others = [name for name in attacks if name not in lacked]
        of_all = asked.split(",")[0].strip() == "all"
        rest = without(lacked, asked) if of_all else ",".join(others)
        told = f"; without: --attacks {rest}" if others else ""
        raise UsageError(f"--attacks {asked}: {needs(lacked)}{told}")


def check_tuned(config: RunConfig, task: str) -> None:
    """Raises UsageError where there is no tuning of what is asked for, by the name of its task."""
    parsed = registry.parse_unlearner(config.unlearner)
    name = parsed if isinstance(parsed, str) else "+".join(parsed)
    if config.tuning is None or registry.role_of(name) is not None:
        return
    from grun_bench.runs.next_command import asked
    from grun_bench.runs.tuned import tuned_settings

    tuned_settings(config.tuning, name, task, label_of(config), config.seed, asked(config))


def check_searched(unlearner: str) -> None:
    """Raises Refused for an unlearner that by its source has no settings to be tuned."""
    parsed = registry.parse_unlearner(unlearner)
    if isinstance(parsed, str):
        entry = entries("unlearner")[parsed]
        if isinstance(entry.origin, Path) and "searched" not in entry.options:
            raise Refused(f"{parsed} declares no settings to be searched: there is nothing to tune.")


def check_models(config: RunConfig) -> None:
    """Raises ModelError for a model that is neither a folder nor, by its form, on the Hub."""
    for name in (config.model, config.target_model, config.retain_model, config.writer):
        if name and name != TINY and folder_of(name) is None:
            hub_id(name, f"; the embedded model is '{TINY}'")
