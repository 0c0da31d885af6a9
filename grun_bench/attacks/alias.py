"""Who is asked about goes unnamed: a gate that knows a name does not know its bearer."""

from __future__ import annotations

from collections.abc import Iterator

from grun_bench.attacks.base import Subject
from grun_bench.attacks.rewording import reworded
from grun_bench.core.registry import attack


@attack("alias", access="user", version=1)
def alias(subject: Subject) -> Iterator[tuple[str, Subject]]:
    """Questions with a description in place of the name, where the task's data have them so."""
    yield from reworded(subject, "alias")
