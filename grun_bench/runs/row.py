"""One row: read where it is filed, else trained, scored and filed."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from grun_bench.core import processes, registry
from grun_bench.core.environment import cache_folder
from grun_bench.core.errors import Diverged, GrunBenchError, ModelError
from grun_bench.core.files import locked, write_whole
from grun_bench.methods.base import Fitted
from grun_bench.methods.monitor import Monitor
from grun_bench.methods.saving import save
from grun_bench.metrics.evaluate import Value
from grun_bench.metrics.fluency import everywhere
from grun_bench.metrics.recovery import carry_attacks
from grun_bench.metrics.stages import STAGES, stage_chart
from grun_bench.results.filed import no_orphans, records_problem, save_records
from grun_bench.results.private import hashed_otherwise
from grun_bench.results.record import Records, load_records
from grun_bench.results.result import Cost, Result
from grun_bench.results.store import filing, read_result
from grun_bench.runs.curves import monitor_of, stage_curve, training_curve
from grun_bench.runs.filing import filed, place_of, result_of
from grun_bench.runs.fit import Trained, checkpoints_of, fit
from grun_bench.runs.gates import audit
from grun_bench.runs.inputs import Inputs, Method
from grun_bench.runs.outcome import Cell
from grun_bench.runs.score import Asked, ask_fitted, check_same_tokens, target_of, total, values_of


def row(
    inputs: Inputs, method: Method, retain: Records | None, target: Records | None = None
) -> tuple[Cell, Fitted | None]:
    """The row of a method, and its model where it is the one that was asked for and was made just now.

    `retain` are the records of the retain model, None where there are none; `target` those of the target model, where
    curves over requests begin. A method that diverged is a row too. Raises ModelError for a target or retain model that
    diverged, and GrunBenchError when the model cannot be saved; the row is filed then.
    """
    path = place_of(inputs, method)
    read = partial(filed, inputs, method, path)
    there = processes.only_first(read)
    if there is None:
        with _alone(path.stem):
            there = processes.only_first(read)  # another process may have made it by now
            if there is None:
                return _made(inputs, method, retain, target, path)
    return there, None


@contextmanager
def _alone(run_id: str) -> Iterator[None]:
    """Within this block no other run makes the same row: it waits for it. Where the cache has no locks, it may."""
    with ExitStack() as stack:
        if processes.writes():
            with suppress(OSError):
                lock = cache_folder() / "locks" / f"{run_id}.lock"
                stack.enter_context(locked(lock, f"another process is making the row {run_id}; waiting for it."))
        yield


def _made(
    inputs: Inputs, method: Method, retain: Records | None, target: Records | None, path: Path
) -> tuple[Cell, Fitted | None]:
    asked_for = method is inputs.method
    monitor = monitor_of(inputs) if asked_for else None
    earlier: list[tuple[Asked, Cost]] = []
    kept = target_of(inputs)
    told = inputs.track.trained if inputs.track and asked_for else None
    between = lambda fitted: earlier.append(ask_fitted(inputs, fitted))  # noqa: E731
    trained = fit(inputs, method, path.stem, monitor, between, kept, told)
    asked, cost = Asked(Records([])), Cost(parameters=0)
    if trained.fitted:
        try:
            asked, cost = ask_fitted(inputs, trained.fitted, kept)
            cost = total([*(each for _, each in earlier), cost])
        except Diverged as error:
            trained = replace(trained, fitted=None, error=str(error))
    if trained.error and (role := registry.role_of(method.name)):
        raise ModelError(f"{inputs.models.name}: nothing can be compared with its {role}: {trained.error}")
    is_oracle = method is inputs.oracle
    if retain is not None:
        check_same_tokens(asked.records, retain)
    reason = inputs.models.no_retain if retain is None and not is_oracle else ""
    if trained.error:
        reason = f"training diverged: {trained.error}"
    metrics = [*inputs.metrics, *everywhere(inputs.task.sets)]
    values = values_of(inputs, asked.answers, asked.records if is_oracle else retain, metrics, reason)
    scored = [*(each for each, _ in earlier), asked]
    filed = partial(_file, inputs, method, trained, scored, values, cost, path, retain, target, monitor)
    result = processes.only_first(filed)
    if trained.fitted and asked_for and inputs.config.save:
        processes.only_first(partial(_save, inputs, method, trained.fitted, inputs.config.save, path, result))
    # no two models at once: those of controls are loaded again in no time
    fitted = trained.fitted if asked_for and (inputs.config.keep_model or not method.is_control) else None
    del trained, filed
    gc.collect()
    return Cell(result, asked.records, path, reused=False), fitted


def _file(
    inputs: Inputs,
    method: Method,
    trained: Trained,
    scored: Sequence[Asked],
    values: dict[str, Value],
    cost: Cost,
    path: Path,
    retain: Records | None,
    target: Records | None,
    monitor: Monitor | None,
) -> Result:
    """The result of a row, filed with all that lies beside it; `scored` has what was asked after each request."""
    records = scored[-1].records
    with filing(path), no_orphans(path):
        there = read_result(path) if path.exists() and not inputs.config.overwrite else None
        other_hashes = _other_hashes(inputs, path, there, records)
        saved = save_records(path, records, private=inputs.task.private) if len(records) else None
        result = result_of(inputs, method, trained, scored[-1], values, cost, saved)
        if there:
            there.records = saved if other_hashes else there.records
            carry_attacks(there, result)
        if inputs.data.staged and method.unlearner.sequential and target is not None:
            before = [target, *(each.records for each in scored[:-1])]
            last = (records, saved) if saved else None
            result.curves[STAGES] = stage_curve(inputs, path, before, retain, last, result.headline)
            write_whole(path.with_suffix(".stages.svg"), stage_chart(result))
        audit(path, result)
        if monitor is not None:
            result.curves["training"] = training_curve(inputs, monitor)
        if there and not other_hashes and there.same_numbers(result):
            result = there  # its records were not there, or its model
        else:
            write_whole(path, result.dumps())
    return result


def _other_hashes(inputs: Inputs, path: Path, there: Result | None, records: Records) -> bool:
    """Whether the row that is there answered the same, and has other hashes in the place of private texts."""
    if not inputs.task.private or there is None or there.records is None or records_problem(path, [there.records]):
        return False
    return hashed_otherwise(load_records(path.with_name(there.records.file)), records)


def _save(inputs: Inputs, method: Method, fitted: Fitted, folder: Path, path: Path, result: Result) -> None:
    """Save the model of the row that is filed by now; its training is kept until that is done."""
    try:
        save(fitted, method.name, folder, path.stem, result)
    except GrunBenchError as error:
        kept = all(each.path.exists() for each in checkpoints_of(inputs, method, path.stem))
        again = " The same command with a folder that can be written does not train again." if kept else ""
        raise GrunBenchError(f"{error} The row is filed: {path}.{again}") from error
