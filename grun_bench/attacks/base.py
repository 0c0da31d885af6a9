"""Attacks by name, with their settings, and what one leaves on a model: the records of its variants."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from grun_bench.attacks.subject import Subject
from grun_bench.core import registry
from grun_bench.core.errors import Diverged, GrunBenchError, Inapplicable, UsageError, unknown
from grun_bench.methods.trainer import options_of, override, recipes
from grun_bench.results.record import Records
from grun_bench.tasks.world import World


@dataclass
class Answers:
    """What a model answered: its records, and by lm-eval measure why there are no questions."""

    records: Records
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Attacked:
    """What an attack left: answers by variant, why there are none (or no more), and the seconds that it took."""

    variants: dict[str, Answers]
    reason: str | None
    seconds: float


@dataclass(frozen=True)
class Attack:
    """An attack with its settings in force."""

    plugin: registry.AttackPlugin
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.plugin.name

    @property
    def metrics(self) -> Sequence[str] | None:
        """The metrics that take the place of the task's; None for the task's."""
        return self.plugin.metrics

    @property
    def identity(self) -> dict[str, Any]:
        """What decides an attack's values beside the model and the examples, as a result file has it."""
        settings = json.loads(json.dumps(dict(self.settings)))
        return {"version": self.plugin.version, "access": self.plugin.access, "settings": settings}

    def run(self, subject: Subject, answer: Callable[[Subject], Answers]) -> Attacked:
        """The answers of every variant of the subject, by `answer`.

        Whatever happens, the attack ends, and so restores what it changed. A task that has nothing for it, and training
        that diverges, are reasons. Raises GrunBenchError for names of variants that break the contract.
        """
        start, reason = time.perf_counter(), None
        found: dict[str, Answers] = {}
        torch.manual_seed(subject.seed)
        variants = self.plugin.target(subject, **self.settings)
        try:
            for name, altered in variants:
                if name in found or not name or set(name) & set(",:") or name == "mean":
                    raise GrunBenchError(f"attack '{self.name}' yields '{name}', which cannot name a variant.")
                found[name] = answer(altered)
        except (Inapplicable, Diverged) as error:
            reason = str(error)
        finally:
            variants.close()
        return Attacked(found, reason, time.perf_counter() - start)


def make_attacks(names: Sequence[str], overrides: Mapping[str, Any], world: World) -> list[Attack]:
    """Attacks with their settings: code defaults, then recipes.yaml, then `overrides` (`<attack>.<setting>`).

    Raises UsageError for an unknown setting, one of an attack that is not made, or a library that is not installed.
    """
    for key in overrides:
        if key.partition(".")[0] not in names:
            raise unknown("attack in --set", key.partition(".")[0], names, "Only those named in --attacks are made.")
    return [_make(name, overrides, world) for name in names]


def _make(name: str, overrides: Mapping[str, Any], world: World) -> Attack:
    plugin = registry.get("attack", name)
    module, extra = plugin.extra or ("", "")
    if module and importlib.util.find_spec(module) is None:
        raise UsageError(f"the attack {name} needs {module}: pip install 'grun-bench[{extra}]'")
    settings = options_of(plugin.target)
    for section in recipes(world):
        settings |= section.get(name, {})
    own = {key.partition(".")[2]: value for key, value in overrides.items() if key.partition(".")[0] == name}
    return Attack(plugin, override(settings, own, name))
