"""One training at several strengths: forgetting against utility, as a curve, and at equal utility. No torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from grun_bench.core.errors import UsageError
from grun_bench.metrics.about import leads
from grun_bench.results.record import Records
from grun_bench.results.result import Curve, Point, RecordsFile, Result
from grun_bench.tasks.sets import ScoredSets

#: the curve's name in a result
STRENGTHS = "strengths"
#: the largest strength
MOST = 10
#: shares of the target model's utility at which methods are compared
SHARES = (0.95, 0.98)


def percents(strengths: Collection[float]) -> list[int]:
    """Strengths as whole percents, in order, without 0 and 1, which are the target's row and the row itself.

    Raises UsageError for one that is not from 0 to `MOST`, or finer than a percent, and where there is no other.
    """
    found = set()
    for strength in strengths:
        if not 0 <= strength <= MOST or abs(100 * strength - round(100 * strength)) > 1e-6:
            raise UsageError(f"--strengths {strength:g}: must be from 0 to {MOST}, in hundredths, as 0.25 or 1.5.")
        found.add(round(100 * strength))
    if strengths and not found - {0, 100}:
        raise UsageError("--strengths: 0 and 1 are always there, the target and the row itself; name others, as 0.5.")
    return sorted(found - {0, 100})


@dataclass(frozen=True)
class Strengths:
    """What is measured at every strength: the headline's values; `reference` are the retain model's records."""

    metrics: Sequence[str]
    headline: Sequence[str]
    sets: ScoredSets
    reference: Records | None

    def point(self, at: int, records: Records, file: RecordsFile | None) -> Point:
        """The point at this strength, in percent; null where a number is missing."""
        from grun_bench.metrics.evaluate import evaluate  # takes a moment, and reading a curve needs none of it

        found = evaluate(records, self.reference, self.metrics, self.sets, intervals=False)
        return Point(at=at, values={key: found[key].value for key in self.headline if key in found}, records=file)


@dataclass(frozen=True)
class Equal:
    """The least forgetting metric on a curve where a share of the target's utility is kept, and the strength there.

    `ends` says that it is at the largest strength that was tried: a larger one might forget more.
    """

    share: float
    forgetting: float
    strength: float
    ends: bool


def led(result: Result) -> tuple[str | None, str | None]:
    """The metrics of forgetting and of utility that a result is judged by."""
    return leads(result.headline, result.higher_is_better[result.task], result.sets)


#: (strength in percent, forgetting, utility)
Place = tuple[int, float, float]


def line(curve: Curve, lead: str, utility: str) -> list[Place]:
    """The points that have both numbers, by strength."""
    found = ((point.at, _of(point.values, lead), _of(point.values, utility)) for point in curve.points)
    return sorted((at, x, y) for at, x, y in found if x is not None and y is not None)


def _of(values: Mapping[str, float | None], key: str) -> float | None:
    return values.get(key)


def equal_utility(places: Sequence[Place], share: float) -> Equal | None:
    """Forgetting where a `share` of the utility at strength 0 is kept, on the straight lines between points.

    None without a point at 0 that has some. The least value of the forgetting metric, of equals at the least strength.
    """
    if not places or places[0][0] != 0 or places[0][2] <= 0:
        return None
    level = share * places[0][2]
    kept = [place for place in map(_floats, places) if place[2] >= level]
    kept += [crossing for one, other in pairwise(map(_floats, places)) for crossing in _crossing(one, other, level)]
    if not kept:
        return None
    at, forgetting, _ = min(kept, key=lambda place: (place[1], place[0]))
    return Equal(share, forgetting, at / 100, at == places[-1][0])


def _floats(place: Place) -> tuple[float, float, float]:
    return float(place[0]), place[1], place[2]


def _crossing(
    one: tuple[float, float, float], other: tuple[float, float, float], level: float
) -> list[tuple[float, float, float]]:
    """Where the line between two points has this utility, if it goes through it."""
    if (one[2] - level) * (other[2] - level) >= 0:
        return []
    way = (level - one[2]) / (other[2] - one[2])
    at, forgetting = (start + way * (end - start) for start, end in zip(one[:2], other[:2], strict=True))
    return [(at, forgetting, level)]
