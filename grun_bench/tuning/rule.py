"""The rule by which one trial of a tuning is chosen, the same for every method. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import harmonic_mean

from grun_bench.results.tuning import GRAIN, KEPT, NEAR, Trial


def utility_of(values: Iterable[float | None]) -> float | None:
    """The harmonic mean of the probability and the ROUGE-L recall of answers that were to be kept; None without one."""
    found = list(values)
    known = [max(0.0, value) for value in found if value is not None]
    return harmonic_mean(known) if known and len(known) == len(found) else None


def shortfall(utility: float | None, whole: float | None, divergence: float | None) -> float:
    """How much utility is missing, as a share of the target's (or divergence in nats too much); 0 where enough is left.

    More than can be missing where nothing is known.
    """
    if divergence is not None:
        return max(0.0, divergence - NEAR)
    if utility is None or not whole:
        return 1.0
    return max(0.0, KEPT - utility / whole)


def loss(extraction_strength: float | None, missing: float) -> float:
    """What a search minimises: the extraction strength where enough utility is left, else above it what is missing."""
    return 1.0 + missing if missing > 0 or extraction_strength is None else extraction_strength


def merit(trial: Trial) -> tuple[bool, float, float, float, int]:
    """The rule as a key: of trials that came to an end the least is chosen; the first trial of equals."""
    missing = shortfall(trial.utility, trial.whole, trial.divergence)
    strength = 1.0 if trial.extraction_strength is None else trial.extraction_strength
    return (missing > 0, missing, round(strength * GRAIN) / GRAIN, trial.seconds or 0.0, trial.trial)


def chosen(trials: Sequence[Trial]) -> list[Trial]:
    """The trials with the one marked that the rule chooses, and those that keep enough utility."""
    ended = [each for each in trials if each.state == "ok"]
    best = min(ended, key=merit).trial if ended else None
    return [
        each.model_copy(
            update={
                "chosen": each.trial == best,
                "admitted": each.state == "ok" and shortfall(each.utility, each.whole, each.divergence) <= 0,
            }
        )
        for each in trials
    ]
