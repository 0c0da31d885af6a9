"""How far an unlearned model went from its target model where nothing was to change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grun_bench.core.registry import metric
from grun_bench.metrics._common import missing, per_row
from grun_bench.results.record import Record

_HINT = "it is measured when a row is made, beside its target model, and without attack alone"


@metric("kl_to_target", roles=("utility",), higher_is_better=False, bounds=(0.0, float("inf")), divergence=True)
def kl_to_target(rows: Sequence[Record]) -> np.ndarray:
    """KL divergence of the next-token distribution from the target's, KL(target || model), in nats a token; 0 or more.

    The mean over the tokens of the row's answer, or of its text's rest, each given the true tokens before; low is good,
    0 for the target model itself. Source: the retain term of TOFU's "KL minimization" (arXiv 2401.06121, section 3.2)
    as a measure.
    """
    return per_row(_divergence(row) for row in rows)


def _divergence(row: Record) -> float:
    if "kl_to_target" not in row.scores:
        raise missing(row, "divergence from the target model", _HINT)
    return row.scores["kl_to_target"]
