"""How deep an answer's entity is gone: what patching of hidden states left in the records."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grun_bench.core.registry import metric
from grun_bench.metrics._common import missing, per_row
from grun_bench.results.record import Record
from grun_bench.tasks.roles import Role

#: the score of a record that holds its depth
SCORE = "erasure_depth"


def _not_known(row: Record, role: Role) -> str | None:
    """Why a row has no depth."""
    return None if SCORE in row.scores else "no layer of the target knows its entity better than the retain model's"


@metric("erasure_depth", roles=("forget",), higher_is_better=True, bounds=(0.0, 1.0), leaves_out=_not_known)
def erasure_depth(rows: Sequence[Record]) -> np.ndarray:
    """Unlearning depth score of an answer's entity, made by the attack `depth`; 0 to 1, high is good.

    0 where the target model reads the entity off this model's hidden states as off its own, 1 where no more than off
    the retain model's: sum d_r clip(d_u / d_r, 0, 1) / sum d_r over the blocks with d_r > 0.05, d being the drop of the
    entity's log probability, nats a token. Source: arXiv 2605.24614 (gnueaj/unlearning-depth-score @ fc31639).
    """
    return per_row(_depth(row) for row in rows)


def _depth(row: Record) -> float:
    if SCORE not in row.scores:
        raise missing(row, "erasure depth", "the attack `depth` measures it")
    return row.scores[SCORE]
