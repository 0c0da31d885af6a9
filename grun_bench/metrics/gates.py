"""The gates of a gated unlearner."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grun_bench.core.errors import MissingReference
from grun_bench.core.registry import metric
from grun_bench.metrics._common import KNOWN, per_row
from grun_bench.results.record import Record

Gates = Sequence[dict[str, float] | None]


@metric("gate", roles=KNOWN, higher_is_better="forgotten", bounds=(0.0, 1.0))
def gate(rows: Sequence[Record]) -> dict[str, np.ndarray | MissingReference]:
    """Mean gate value on the question, over layers and in each (`gate_layer_<n>`); 0 to 1, high is good on forget.

    `gate_paraphrased` is the same on the paraphrased question. Source: the gate sigmoid(g(h)) of GRUN (arXiv
    2502.17823), read at the last prompt token.
    """
    if any(not row.gates for row in rows):
        raise MissingReference("the model has no gates.")
    values = _by_layer("gate", [row.gates for row in rows])
    paraphrased = [row.gates_paraphrased for row in rows]
    if any(not gates for gates in paraphrased):
        return values | {"gate_paraphrased": MissingReference("the set has no paraphrased questions.")}
    return values | _by_layer("gate_paraphrased", paraphrased)


def _by_layer(key: str, gates: Gates) -> dict[str, np.ndarray | MissingReference]:
    found: dict[str, np.ndarray | MissingReference] = {
        key: per_row(float(np.mean(list((row or {}).values()))) for row in gates)
    }
    for layer in sorted({layer for row in gates for layer in row or {}}, key=int):
        found[f"{key}_layer_{layer}"] = per_row((row or {}).get(layer, np.nan) for row in gates)
    return found
