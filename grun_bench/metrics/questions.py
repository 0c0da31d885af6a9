"""What lm-eval's questions say: accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grun_bench.core.registry import metric
from grun_bench.metrics._common import KNOWN, missing, per_row
from grun_bench.results.record import Record

#: what stands for accuracy in tasks without options, in this order
_SCORES = ("acc", "exact_match")


@metric("accuracy", roles=KNOWN, kind="questions", higher_is_better="kept", bounds=(0.0, 1.0))
def accuracy(rows: Sequence[Record]) -> np.ndarray:
    """Share of questions answered rightly, on each lm-eval measure of the task; 0 to 1, low is good on forget measures.

    Multiple choice: the option with the largest summed log-probability is the right one, lm-eval's `acc`; over all
    questions of a group, so `mmlu` weights its subjects by size as lm-eval does. Other tasks: lm-eval's `acc` or
    `exact_match` of each question. Source: lm-eval 0.4.13; WMDP (arXiv 2403.03218) and MMLU (arXiv 2009.03300).
    """
    return per_row(_right(row) for row in rows)


def _right(row: Record) -> float:
    if row.choices is not None:
        # NaN would be the largest
        known = not np.isnan(row.choices.logprobs).any()
        return float(np.argmax(row.choices.logprobs) == row.choices.target) if known else float("nan")
    for name in _SCORES:
        for key, value in row.scores.items():
            if key.split(",")[0] == name:
                return value
    raise missing(row, "options, `acc` or `exact_match`")
