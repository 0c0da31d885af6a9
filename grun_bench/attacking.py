"""A model under attack: an attack's variants one after another, each answered by the same scoring."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from grun_bench import registry
from grun_bench.errors import GrunBenchError
from grun_bench.records import Records
from grun_bench.subject import Subject


@dataclass(frozen=True)
class Attack:
    """An attack with its settings in force."""

    plugin: registry.Plugin
    settings: Mapping[str, Any]

    def variants(self, subject: Subject, answer: Callable[[Subject], Records]) -> Iterator[tuple[str, Records]]:
        """(variant, records that `answer` gives of the altered subject).

        Whatever happens, the attack ends, and so restores what it changed. Raises Inapplicable where the task has
        nothing for it, GrunBenchError for names of variants that break the contract.
        """
        variants = self.plugin.target(subject, **self.settings)
        seen: set[str] = set()
        try:
            for name, altered in variants:
                if name in seen or not name or set(name) & set(",:") or name == "mean":
                    raise GrunBenchError(f"attack '{self.plugin.name}' yields '{name}', which cannot name a variant.")
                seen.add(name)
                yield name, answer(altered)
        finally:
            variants.close()
