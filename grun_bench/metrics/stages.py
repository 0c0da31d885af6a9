"""Sequential unlearning: what is scored after each request, as a curve, a table's rows and a picture. No torch.

A point of the curve has, for every request's set, the forget metrics of the headline under `stage<n>_<metric>`, of sets
whose turn is yet to come too: they show whether forgetting spreads. The headline's other metrics keep their names.
"""

from __future__ import annotations

from collections.abc import Sequence

from grun_bench.core.svg import Line, line_chart
from grun_bench.results.record import Records
from grun_bench.results.result import Curve, Point, RecordsFile, Result

#: the curve's name in a result
STAGES = "stages"
FORGET = "forget_"


def part(records: Records, rows: tuple[int, int]) -> Records:
    """The records with only the forget rows of one request, by their index in the scored set."""
    start, stop = rows
    return Records(row for row in records if row.set != "forget" or start <= row.index < stop)


def stage_point(
    at: int,
    records: Records,
    reference: Records | None,
    stages: Sequence[tuple[int, int]],
    metrics: Sequence[str],
    headline: Sequence[str],
    file: RecordsFile | None,
) -> Point:
    """The point after `at` requests: the values of `headline` for every request's set.

    `reference` holds the retain model's records; null where a value cannot be had.
    """
    from grun_bench.metrics.evaluate import evaluate  # takes a moment, and reading a curve needs none of it

    values: dict[str, float | None] = {}
    for number, rows in enumerate(stages, 1):
        found = evaluate(part(records, rows), part(reference, rows) if reference else None, metrics, intervals=False)
        named = {key: f"stage{number}_{key}" if key.startswith(FORGET) else key for key in headline}
        values |= {name: found[key].value if key in found else None for key, name in named.items()}
    return Point(at=at, values=dict(sorted(values.items())), records=file)


def measures(result: Result) -> tuple[list[str], list[str]]:
    """What a table shows of the headline: two forget metrics of every set, and the rest.

    Forget quality is left out: over the few rows of one request it says little.
    """
    forget = [key for key in result.headline if key.startswith(FORGET) and "quality" not in key]
    return forget[:2], [key for key in result.headline if not key.startswith(FORGET)]


def stage_count(curve: Curve) -> int:
    """How many requests there are."""
    names = (key.partition("_")[0].removeprefix("stage") for point in curve.points for key in point.values)
    return max(int(name) for name in names if name.isdigit())


def stage_chart(result: Result) -> str:
    """The curve as an SVG picture: two forget metrics of every request's set, each with the first other metric."""
    curve = result.curves[STAGES]
    forget, rest = measures(result)

    def line(name: str, key: str, mark: int | None = None) -> Line:
        return Line(name, [point.values.get(key) for point in curve.points], mark, dashed=mark is None)

    panels = {
        metric.replace("_", " "): [
            *(line(f"set {each}", f"stage{each}_{metric}", each) for each in range(1, stage_count(curve) + 1)),
            *(line(key.replace("_", " "), key) for key in rest[:1]),
        ]
        for metric in forget
    }
    ticks = [f"request {point.at}" if point.at else "target" for point in curve.points]
    title = f"{result.unlearner.name} on {result.task}, {result.model}: one request after another"
    return line_chart(title, "after (large dot: the request for this set)", ticks, panels)
