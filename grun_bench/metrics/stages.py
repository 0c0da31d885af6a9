"""Sequential unlearning, and growing forget sets: what is scored after each request, as a curve, a table and a picture.

A point of the curve has, for every request's set, the headline's metrics of the forget set under `stage<n>_<metric>`,
of sets whose turn is yet to come too: they show whether forgetting spreads. The headline's other metrics keep their
names. Where each request has a scored set of its own, its metrics go by their name without that of the set. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from grun_bench.core.svg import Line, line_chart
from grun_bench.metrics.about import about
from grun_bench.results.record import Records
from grun_bench.results.result import Curve, Point, RecordsFile, Result
from grun_bench.tasks.sets import ScoredSets

#: the curve's name in a result
STAGES = "stages"
_STAGE = re.compile(r"stage(\d+)_.+")


#: the rows of a request: a range of the scored forget set, by their index, or the name of a set of its own
Request = Sequence[int] | str


@dataclass(frozen=True)
class _Measure:
    """A number of the headline that every request has of its rows: its name, and the one set that it is of, if any."""

    name: str
    set: str | None = None
    mean: bool = False


@dataclass(frozen=True)
class Stages:
    """What is measured after every request of a sequence; `reference` are the retain model's records."""

    requests: Sequence[Request]
    metrics: Sequence[str]
    headline: Sequence[str]
    sets: ScoredSets
    reference: Records | None

    def point(self, at: int, records: Records, file: RecordsFile | None) -> Point:
        """The point after `at` requests: the headline's values for every request's set; null where one is missing."""
        from grun_bench.metrics.evaluate import evaluate  # takes a moment, and reading a curve needs none of it

        forgotten, values = _of_requests(self.headline, self.sets, self.requests), dict[str, float | None]()
        for number, request in enumerate(self.requests, 1):
            others = {each for each in self.requests if isinstance(each, str) and each != request}
            sets = replace(self.sets, sets=tuple(each for each in self.sets.sets if each.name not in others))
            reference = self._part(self.reference, request, others) if self.reference else None
            found = evaluate(self._part(records, request, others), reference, self.metrics, sets, intervals=False)
            for key in self.headline:
                value = found[key].value if key in found else None
                if key not in forgotten:
                    values[key] = value
                elif forgotten[key].set in (None, request):
                    values[f"stage{number}_{forgotten[key].name}"] = value
        return Point(at=at, values=dict(sorted(values.items())), records=file)

    def _part(self, records: Records, request: Request, others: Collection[str]) -> Records:
        """The records with only the forget rows of one request, and none of the others' sets."""
        if isinstance(request, str):
            return Records(row for row in records if row.set not in others)
        cut, (start, stop) = self.sets.of("forget"), request
        return Records(row for row in records if row.set not in cut or start <= row.index < stop)


def _of_requests(headline: Sequence[str], sets: ScoredSets, requests: Sequence[Request]) -> dict[str, _Measure]:
    """The keys of a headline whose number is of a request's rows: lm-eval's questions are all asked every time."""
    own = {each for each in requests if isinstance(each, str)}
    found = {}
    for key, each in about(headline, sets).items():
        if not each.forgetting or (each.set and each.set.kind != "answers"):
            continue
        if not own or each.set is None:
            found[key] = _Measure(key, mean=each.set is not None)
        elif each.set.name in own:
            found[key] = _Measure(key.removeprefix(f"{each.set.name}_"), each.set.name, mean=True)
    return found


def requests_of(result: Result) -> list[Request]:
    """The requests of a result's task, as it says them."""
    return list(result.configs.get(result.task, {}).get("stages", []))


def measures(result: Result) -> tuple[list[str], list[str]]:
    """What a table shows of the headline: two means over the rows of every request's set, and the rest.

    What compares samples, as forget quality does, is left out: of the few rows of one request it says little.
    """
    forgotten = _of_requests(result.headline, result.sets, requests_of(result))
    means = dict.fromkeys(each.name for each in forgotten.values() if each.mean)
    return [*means][:2], [key for key in result.headline if key not in forgotten]


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
    growing = result.configs.get(result.task, {}).get("growing")
    how = "each time on all requests so far, anew" if growing else "one request after another"
    title = f"{result.unlearner.name} on {result.task}, {result.model}: {how}"
    return line_chart(title, "after (large dot: the request for this set)", ticks, panels)
