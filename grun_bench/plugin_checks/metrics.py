"""The contract of a metric."""

from __future__ import annotations

from functools import cache

from grun_bench.core import registry
from grun_bench.metrics.evaluate import evaluate
from grun_bench.models.scoring import Example, ScoringSettings, score
from grun_bench.plugin_checks.contract import Check, require
from grun_bench.plugin_checks.small_model import FORGET, RETAIN, small_lm
from grun_bench.results.record import Choices, Continuation, Record, Records
from grun_bench.tasks.roles import ROLES
from grun_bench.tasks.sets import USUAL_SETS, ScoredSet, ScoredSets

#: TOFU's sets with one of every other role, and a measure of lm-eval's
SETS = ScoredSets((*USUAL_SETS.sets, ScoredSet("neighbour", "neighbour"), ScoredSet("quiz", "utility", "questions")))


@cache
def _records(seed: int) -> Records:
    """What a small random model with this seed said of every kind of set."""
    lm = small_lm(seed)
    examples = [
        Example(name, index, question, answer, answer.upper(), ("No.", "Never, no."), question.lower())
        for name, rows in zip(SETS.of(*ROLES), (FORGET, RETAIN) * 3, strict=True)
        for index, (question, answer) in enumerate(rows)
    ]
    questions = [
        Record("quiz", index, question, Continuation(""), choices=Choices([-1.0 - index, -3.0], [True, False], 0))
        for index, (question, _) in enumerate(FORGET)
    ]
    return Records([*score(lm, examples, ScoringSettings(4, gradients_of=frozenset(SETS.of(*ROLES)))), *questions])


def stays_in_bounds(name: str) -> None:
    """every value lies within the declared bounds, or is null with a reason"""
    low, high = registry.get("metric", name).bounds
    values = evaluate(_records(0), _records(1), [name], SETS)
    require(bool(values), "no value at all")
    for key, value in values.items():
        if value.value is None:
            require(bool(value.reason), f"{key} is null without a reason")
        else:
            require(low <= value.value <= high, f"{key} is {value.value}, the bounds are {low} to {high}")


def does_not_depend_on_order(name: str) -> None:
    """the order of the records changes nothing"""
    records, reference = _records(0), _records(1)
    mixed = Records(reversed(list(records)))
    first, second = (evaluate(each, reference, [name], SETS) for each in (records, mixed))
    require(first == second, "another order, other values")


#: all checks
CONTRACT: tuple[Check, ...] = (stays_in_bounds, does_not_depend_on_order)
