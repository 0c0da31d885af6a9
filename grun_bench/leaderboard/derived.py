"""Numbers that a result does not state and its records give: metrics that every row has, of rows filed before them.

They are made when a page is; the file, its run id and what `--check` recomputes stay as they are. No torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from grun_bench.core.errors import GrunBenchError
from grun_bench.leaderboard.kept_numbers import kept_numbers
from grun_bench.metrics.fluency import everywhere
from grun_bench.results.filed import Filed, records_problem
from grun_bench.results.record import load_records
from grun_bench.results.result import Result, key_text

if TYPE_CHECKING:
    from grun_bench.metrics.evaluate import Value

#: significant digits of a derived number: a page is the same whatever machine sums
_DIGITS = 9


def completed(filed: Filed) -> Filed:
    """A filed result with the metrics that every row has, as far as its records are there and whole.

    Toy rows are left as they are: most lie without their records, and a page must be the same where they were made
    again.
    """
    result = filed.result
    if result.toy or result.records is None or not filed.has(result.records):
        return filed
    stated = result.results[result.task]
    names = [name for name, keys in everywhere(result.sets).items() if not any(key_text(key) in stated for key in keys)]
    if not names:
        return filed
    named, file = result.records, filed.beside(result.records)

    def values() -> dict[str, dict[str, Any]]:
        from grun_bench.metrics.evaluate import evaluate

        found = evaluate(load_records(file), None, names, result.sets, intervals=False)
        return {key: asdict(_rounded(value)) for key, value in found.items()}

    try:
        if records_problem(filed.file, [named]):
            return filed
        kept = kept_numbers("values", named, names, result.sets, values)
    except GrunBenchError:  # `--check` says what is wrong with them
        return filed
    from grun_bench.metrics.evaluate import Value  # loads scipy, and most rows need none of it

    return replace(filed, result=_with(result, {key: Value(**value) for key, value in kept.items()}))


def _rounded(value: Value) -> Value:
    return value if value.value is None else replace(value, value=float(f"{value.value:.{_DIGITS}g}"))


def _with(result: Result, values: Mapping[str, Value]) -> Result:
    """A copy of a result with these values beside its own."""
    from grun_bench.metrics.evaluate import result_fields

    task = result.task
    fields = result_fields(task, 0, values)
    added: dict[str, Any] = {"reasons": result.reasons | fields["reasons"]}
    added["versions"] = fields["versions"] | result.versions
    for name, key in (("results", "results"), ("n_samples", "n-samples"), ("higher_is_better", "higher_is_better")):
        added[name] = {task: getattr(result, name)[task] | fields[key][task]}
    return result.model_copy(update=added)
