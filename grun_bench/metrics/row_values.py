"""What a metric gives of each row, before its mean is taken. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grun_bench.core import registry
from grun_bench.core.errors import MissingReference
from grun_bench.metrics.evaluate import results_of_each
from grun_bench.results.record import Records
from grun_bench.tasks.sets import ScoredSets

#: (set, index) of a row -> its value; why there is none
RowValues = dict[tuple[str, int], float] | MissingReference


def row_values(records: Records, names: Sequence[str], sets: ScoredSets) -> dict[str, RowValues]:
    """The values of the named metrics on one model's records, a row each, by key; of those that have a value a row.

    Rows that a metric leaves out are not among them. Raises UsageError for an unknown metric, GrunBenchError for one
    that breaks its contract.
    """
    found: dict[str, RowValues] = {}
    for name in dict.fromkeys(names):
        plugin = registry.get("metric", name)
        if plugin.roles is None:
            continue
        for key, rows, result, _ in results_of_each(plugin, records, sets):
            if isinstance(result, MissingReference):
                found[key] = result
            elif np.ndim(result):
                places = ((row.set, row.index) for row in rows)
                found[key] = dict(zip(places, np.asarray(result, dtype=float).tolist(), strict=True))
    return found
