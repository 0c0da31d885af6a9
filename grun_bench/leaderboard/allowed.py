"""How long work on the records of a result may take: they may be a stranger's. No torch, no scipy."""

from __future__ import annotations

from grun_bench.results.result import Result

#: what recomputing a result may take, for each row that its records have and beside them
SECONDS_PER_ROW, SECONDS = 0.02, 60.0


def allowed_seconds(result: Result) -> float:
    """How long a result's records may take: some ten times of what usual ones do on a slow machine."""
    return SECONDS + SECONDS_PER_ROW * sum(records.count for records in result.all_records())
