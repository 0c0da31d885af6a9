"""Numbers of a result compared with numbers found for it, one by one. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from grun_bench.metrics.evaluate import Value
from grun_bench.metrics.strengths import STRENGTHS
from grun_bench.results.metric_key import SUMMARIES, MetricKey, parse_filter
from grun_bench.results.result import Point, Result, key_text

#: largest relative difference of a number that is recomputed from the same records
TOLERANCE = 1e-9
#: in place of a number that is not in the file, or that no metric here gives
ABSENT, UNKNOWN = "not in the file", "no metric here gives it"

#: metric -> value, by the filter of its key: `none`, an attack, or `<attack>:<variant>`
Labelled = Mapping[str, Mapping[str, Value]]
#: points of curves, by the curve's name and their place in it
Points = Mapping[tuple[str, int], Point]
#: a version may be a text
Stated = float | str | None
#: what a number may differ by, of its key and the two numbers; None where it is not judged
Allowed = Callable[[str, float, float], float | None]


@dataclass(frozen=True)
class Number:
    """One number of a result, as stated and as found; `place` is its place in the file.

    `allowed` is the largest difference; None where it is not judged. `reason` says why none was found.
    """

    place: str
    stated: Stated
    found: Stated
    allowed: float | None
    reason: str | None = None

    @property
    def difference(self) -> float | None:
        """|stated - found|; None unless both are numbers."""
        if isinstance(self.stated, str | None) or isinstance(self.found, str | None):
            return None
        return abs(self.stated - self.found)

    @property
    def ok(self) -> bool:
        if self.allowed is None:
            return True
        if self.difference is None:
            return self.stated is None and self.found is None
        return self.difference <= self.allowed


def compare(
    key: str, stated: Mapping[str, Stated], found: Mapping[str, Stated], allowed: Allowed, what: str = ""
) -> Number:
    """One number of two mappings."""
    one, other = stated.get(key, ABSENT), found.get(key, UNKNOWN)
    both = not isinstance(one, str | None) and not isinstance(other, str | None)
    return Number(f"{what}{key}", one, other, allowed(key, one, other) if both else 0.0)  # type: ignore[arg-type]


def compared(result: Result, values: Labelled, points: Points, intervals: bool = True) -> list[Number]:
    """Every number of a result against values by filter and the points of its own curves."""
    numbers = [*_values(result, values), *_details(result, values), *_curves(result, values, points)]
    return [*numbers, *_intervals(result, values)] if intervals else numbers


def relative(key: str, stated: float, found: float) -> float:
    """What a recomputed number may differ by."""
    return TOLERANCE * max(abs(stated), abs(found))


def exact(key: str, stated: float, found: float) -> float:
    """What a number may differ by that is counted or declared: nothing."""
    return 0.0


def _values(result: Result, labelled: Labelled) -> Iterator[Number]:
    stated: Mapping[str, Stated] = result.results[result.task]
    found = dict(_by_key(labelled))
    numbers = {key: value.value for key, value in found.items()}
    for key in dict.fromkeys([*stated, *numbers]):
        number = compare(key, stated, numbers, relative, "results.")
        yield replace(number, reason=found[key].reason if key in found else None)


def _by_key(labelled: Labelled) -> Iterator[tuple[str, Value]]:
    """The values by their keys in a result file."""
    for label, values in labelled.items():
        attack, variant = parse_filter(label)
        for metric, value in values.items():
            yield key_text(metric, attack, variant), value


def _intervals(result: Result, labelled: Labelled) -> Iterator[Number]:
    for key, value in _by_key(labelled):
        stated = result.intervals.get(key)
        if stated is None and MetricKey.parse(key).variant not in SUMMARIES:
            continue  # of single variants older results alone have any
        found = None if value.low is None or value.high is None else (value.low, value.high)
        for end in (0, 1) if stated or found else ():
            given, new = ({key: each[end]} if each else {} for each in (stated, found))
            yield compare(key, given, new, relative, f"intervals[{end}].")


def _details(result: Result, labelled: Labelled) -> Iterator[Number]:
    """Row counts, directions and versions of metrics."""
    told: dict[str, Value] = {}
    for values in labelled.values():
        told = {**values, **told}  # what is told once for all filters is told of the first
    directions = {key: value.higher_is_better for key, value in told.items()}
    for what, stated, found in (
        ("n-samples.", _stated(result.n_samples[result.task]), _stated({key: told[key].n for key in told})),
        ("higher_is_better.", _signs(result.higher_is_better[result.task]), _signs(directions)),
        ("versions.", _stated(result.versions), _stated({key: told[key].version for key in told})),
    ):
        for key in told:
            yield compare(key, stated, found, exact, what)


def _stated(numbers: Mapping[str, int] | Mapping[str, int | str]) -> dict[str, Stated]:
    return dict(numbers)


def _signs(directions: Mapping[str, bool | None]) -> dict[str, Stated]:
    """1 where higher is better, -1 where lower is, 0 where neither is."""
    return {key: 0.0 if better is None else 1.0 if better else -1.0 for key, better in directions.items()}


def _curves(result: Result, labelled: Labelled, points: Points) -> Iterator[Number]:
    """The points that attacks left and those over stages or strengths; a sample during training left no records."""
    for name, curve in result.curves.items():
        for place, point in enumerate(curve.points):
            if parse_filter(name)[0] in result.attacks:
                found = {key: value.value for key, value in labelled.get(f"{name}@{point.at}", {}).items()}
                keys = list(point.values)
            elif (name, place) in points or name == STRENGTHS:
                # boards draw strengths: of a point without records nothing is known
                found = points[name, place].values if (name, place) in points else {}
                keys = list(dict.fromkeys([*point.values, *found]))
            else:
                continue
            for key in keys:
                yield compare(key, point.values, found, relative, f"curves.{name}.points.{place}.")
