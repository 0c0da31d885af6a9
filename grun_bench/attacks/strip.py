"""The adapter taken off: a gate is a guard, not an erasure."""

from __future__ import annotations

from collections.abc import Iterator

from grun_bench.attacks.base import Subject
from grun_bench.attacks.weights import KEPT
from grun_bench.core.errors import Inapplicable
from grun_bench.core.registry import attack


@attack("strip", access="weights", version=1, utility=KEPT)
def strip(subject: Subject) -> Iterator[tuple[str, Subject]]:
    """What an owner of the weights gets by removing the adapter: the target model."""
    if subject.adapter is None:
        raise Inapplicable("the model itself was changed: there is no adapter to remove.")
    with subject.adapter.disabled():
        yield "strip", subject
