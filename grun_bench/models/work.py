"""What the engine is asked for and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from grun_bench.models.head import TokenScores


@dataclass(frozen=True)
class Work:
    """One prompt and what is wanted of it, all in token ids.

    `continuations` are scored token by token; `generate` asks for the greedy generation, which is the faster the longer
    it agrees with the first continuation. `moments` asks for `TokenScores.means` and `.deviations` of the first one.
    """

    prompt: Sequence[int]
    continuations: Sequence[Sequence[int]] = ()
    generate: bool = False
    moments: bool = False


@dataclass
class Scored:
    """What a Work gave; `generated` are token ids, the stop token included, None where none were asked for; `gates` are
    gate logits by layer, empty for models without gates."""

    continuations: list[TokenScores] = field(default_factory=list)
    generated: list[int] | None = None
    gates: dict[int, float] = field(default_factory=dict)


@dataclass
class Counts:
    """Costs: tokens through the decoder (padding included), rows through the vocabulary head, row-steps of decoding
    (one per row and pass) and tokens that decoding passes gave."""

    forward_tokens: int = 0
    head_rows: int = 0
    row_steps: int = 0
    decoded_tokens: int = 0
