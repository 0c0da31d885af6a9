"""Questions in another language than the one that was unlearned."""

from __future__ import annotations

from collections.abc import Iterator

from grun_bench.attacks.base import Subject
from grun_bench.attacks.rewording import reworded
from grun_bench.core.registry import attack


@attack("translate", access="user", version=1)
def translate(subject: Subject) -> Iterator[tuple[str, Subject]]:
    """Questions in other languages, where the task's data have them, with answers as they were and translated."""
    yield from reworded(subject, "translate")
