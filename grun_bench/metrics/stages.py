"""Sequential unlearning: what is scored after each request, as a curve, a table's rows and a picture. No torch.

A point of the curve has, for every request's set, the headline's metrics of the forget set under `stage<n>_<metric>`,
of sets whose turn is yet to come too: they show whether forgetting spreads. The headline's other metrics keep their
names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from grun_bench.core.svg import Line, line_chart
from grun_bench.metrics.about import About, about
from grun_bench.results.record import Records
from grun_bench.results.result import Curve, Point, RecordsFile, Result
from grun_bench.tasks.sets import ScoredSets

#: the curve's name in a result
STAGES = "stages"
_STAGE = re.compile(r"stage(\d+)_.+")


@dataclass(frozen=True)
class Stages:
    """What is measured after every request of a sequence.

    `requests` are ranges of the scored forget set's rows, by their index; `reference` the retain model's records.
    """

    requests: Sequence[tuple[int, int]]
    metrics: Sequence[str]
    headline: Sequence[str]
    sets: ScoredSets
    reference: Records | None

    def point(self, at: int, records: Records, file: RecordsFile | None) -> Point:
        """The point after `at` requests: the headline's values for every request's set; null where one is missing."""
        from grun_bench.metrics.evaluate import evaluate  # takes a moment, and reading a curve needs none of it

        forgotten, values = _of_requests(self.headline, self.sets), dict[str, float | None]()
        for number, request in enumerate(self.requests, 1):
            reference = self._part(self.reference, request) if self.reference else None
            found = evaluate(self._part(records, request), reference, self.metrics, self.sets, intervals=False)
            for key in self.headline:
                name = f"stage{number}_{key}" if key in forgotten else key
                values[name] = found[key].value if key in found else None
        return Point(at=at, values=dict(sorted(values.items())), records=file)

    def _part(self, records: Records, request: tuple[int, int]) -> Records:
        """The records with only the forget rows of one request."""
        cut, (start, stop) = self.sets.of("forget"), request
        return Records(row for row in records if row.set not in cut or start <= row.index < stop)


def _of_requests(headline: Sequence[str], sets: ScoredSets) -> dict[str, About]:
    """The keys of a headline whose number is of a request's rows: lm-eval's questions are all asked every time."""
    found = about(headline, sets).items()
    return {key: each for key, each in found if each.forgetting and (each.set is None or each.set.kind == "answers")}


def measures(result: Result) -> tuple[list[str], list[str]]:
    """What a table shows of the headline: two means over the rows of every request's set, and the rest.

    What compares samples, as forget quality does, is left out: of the few rows of one request it says little.
    """
    forgotten = _of_requests(result.headline, result.sets)
    means = [key for key, each in forgotten.items() if each.set is not None]
    return means[:2], [key for key in result.headline if key not in forgotten]


def stage_count(curve: Curve) -> int:
    """How many requests there are."""
    return max(int(found[1]) for point in curve.points for key in point.values if (found := _STAGE.fullmatch(key)))


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
