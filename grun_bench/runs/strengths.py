"""A row's model at other strengths: scored and filed one by one, as a curve from the target model to it and beyond."""

from __future__ import annotations

import gc
from dataclasses import replace
from functools import partial

from grun_bench.core import processes
from grun_bench.core.errors import Diverged, GrunBenchError
from grun_bench.core.files import write_whole
from grun_bench.core.progress import say
from grun_bench.methods.base import Fitted
from grun_bench.methods.strength import Strength
from grun_bench.metrics.strengths import STRENGTHS, Strengths, percents
from grun_bench.results.filed import records_problem, save_records
from grun_bench.results.record import Records
from grun_bench.results.result import Curve, Point, Result
from grun_bench.results.store import filing, read_result
from grun_bench.runs.inputs import Inputs
from grun_bench.runs.made_again import made_again
from grun_bench.runs.outcome import Cell
from grun_bench.runs.score import ask, subject_of


def at_strengths(
    inputs: Inputs, cell: Cell, target: Cell, reference: Records | None, fitted: Fitted | None
) -> tuple[Cell, Fitted | None]:
    """The row with the strengths that its curve did not have yet, and its model, which is as it was.

    `target` is the row of the target model, `reference` the retain model's records. Raises Refused where the model
    cannot be had at another strength, and GrunBenchError where what it says there is not finite.
    """
    wanted = processes.only_first(partial(_wanted, inputs, cell))
    if not wanted or cell.result.status != "ok" or inputs.models.target is None:
        return cell, fitted
    fitted = fitted or made_again(inputs, cell, inputs.method)
    strength = Strength(fitted, inputs.models.target)
    for number, percent in enumerate(wanted, 1):
        say(f"strength {number} of {len(wanted)} of {cell.result.unlearner.name}: {percent / 100:g}")
        with strength.at(percent / 100):
            try:
                records = ask(inputs, subject_of(inputs, fitted)).records
            except Diverged as error:
                raise GrunBenchError(f"strength {percent / 100:g} of {cell.result.run_id}: {error}") from error
        # at once, so that what is stopped here is a whole result
        cell = processes.only_first(partial(_filed, inputs, cell, target.records, reference, percent, records))
    del strength
    gc.collect()
    return replace(cell, reused=False), fitted


def _wanted(inputs: Inputs, cell: Cell) -> list[int]:
    """The strengths, in percent, that the row does not have, with the records that they left."""
    curve = cell.result.curves.get(STRENGTHS)
    there = [point for point in curve.points if point.records] if curve else []
    whole = {point.at for point in there if point.records and not records_problem(cell.path, [point.records])}
    return [each for each in percents(inputs.config.strengths) if each not in whole]


def _filed(
    inputs: Inputs, cell: Cell, target: Records, reference: Records | None, percent: int, records: Records
) -> Cell:
    """The row with the point at one strength in its result, and its records beside it."""
    private = inputs.task.private
    with filing(cell.path):
        result = read_result(cell.path)
        if not result.same_model(cell.result):
            raise GrunBenchError(
                f"{cell.path} was made again while it was scored at other strengths, and the new model answers "
                "otherwise: the same command scores the new one."
            )
        measured = Strengths(inputs.metrics, result.headline, inputs.task.sets, reference)
        if STRENGTHS not in result.curves:
            before = save_records(cell.path, target, "strength0", private=private)
            ends = [measured.point(0, target, before), measured.point(100, cell.records, result.records)]
            result.curves[STRENGTHS] = Curve(unit="percent", points=ends)
        saved = save_records(cell.path, records, f"strength{percent}", private=private)
        _put(result, measured.point(percent, records, saved))
        write_whole(cell.path, result.dumps())
    return replace(cell, result=result)


def _put(result: Result, point: Point) -> None:
    curve = result.curves[STRENGTHS]
    others = [each for each in curve.points if each.at != point.at]
    curve.points = sorted([*others, point], key=lambda each: each.at)
