"""What an attack gets and what it yields: an unlearned model with the examples that it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from grun_bench.models import LM
from grun_bench.scoring import Example


@dataclass(frozen=True)
class Subject:
    """A model under evaluation.

    `adapter` is what was trained beside it, None where the model itself was changed. `forget` and `retain` are the
    training rows, (question, answer) or ("", text).
    """

    lm: LM
    examples: Sequence[Example]
    forget: Sequence[tuple[str, str]]
    retain: Sequence[tuple[str, str]]
    seed: int
    adapter: Any = None
