"""Curves of a row: over the steps of its training, and over requests that come one after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from grun_bench.methods.monitor import METRICS, ROWS, Monitor
from grun_bench.metrics.about import about
from grun_bench.metrics.evaluate import evaluate, for_protocol
from grun_bench.metrics.stages import Stages
from grun_bench.models.lm import LM
from grun_bench.models.scoring import ScoringSettings, score
from grun_bench.results.filed import save_records
from grun_bench.results.protocol_names import plain_name
from grun_bench.results.record import Records
from grun_bench.results.result import Curve, Point, RecordsFile, best_step
from grun_bench.runs.inputs import Inputs


def monitor_of(inputs: Inputs) -> Monitor | None:
    """What measures a model during its training; None where that was not asked for."""
    every, told = inputs.config.eval_every, [inputs.watch, inputs.track.measured if inputs.track else None]

    def watch(step: int, values: dict[str, float | None]) -> None:
        for each in filter(None, told):
            each(step, values)

    return Monitor(every, lambda lm: _sample(inputs, lm), watch=watch) if every else None


def _sample(inputs: Inputs, lm: LM) -> dict[str, float | None]:
    """What is measured during training, on the first rows of each scored set, under the names of the clean way."""
    counted: Counter[str] = Counter()
    rows = []
    for row in inputs.data.examples():
        counted[row.set] += 1
        if counted[row.set] <= ROWS:
            rows.append(row)
    protocol = inputs.config.protocol
    settings = ScoringSettings(inputs.task.max_new_tokens, inputs.config.scoring_batch_size, protocol)
    values = evaluate(score(lm, rows, settings), None, for_protocol(METRICS, protocol), inputs.task.sets)
    told = about(values, inputs.task.sets)
    shown = [key for key in values if {"forget", "retain"} & {*told[key].roles}]
    return {plain_name(key, protocol): values[key].value for key in shown}


def training_curve(inputs: Inputs, monitor: Monitor) -> Curve:
    """What was measured during a training."""
    points = [Point(at=step, values=found) for step, found in sorted(monitor.values.items())]
    return Curve(unit="steps", points=points, best=best_step(points, inputs.task.sets))


def stage_curve(
    inputs: Inputs,
    path: Path,
    scored: Sequence[Records],
    reference: Records | None,
    last: tuple[Records, RecordsFile] | None,
    headline: Sequence[str],
) -> Curve:
    """The curve over requests: before the first, after each and after the last, whose records are the row's own.

    Writes the records of the others beside the row.
    """
    files = [
        save_records(path, records, f"stage{at}", private=inputs.task.private) for at, records in enumerate(scored)
    ]
    points = [*zip(scored, files, strict=True), *([last] if last else [])]
    measured = Stages(inputs.task.stages, inputs.metrics, headline, inputs.task.sets, reference)
    return Curve(
        unit="stages",
        points=[measured.point(at, records, file) for at, (records, file) in enumerate(points)],
    )
