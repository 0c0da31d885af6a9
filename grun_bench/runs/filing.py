"""Where a row is filed, whether it is there already, and what its result says."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from grun_bench.core import environment as env
from grun_bench.core import processes
from grun_bench.core.progress import say
from grun_bench.methods.saving import is_saved
from grun_bench.metrics.evaluate import Value, headline_keys, result_fields
from grun_bench.models.maps import placed
from grun_bench.results.filed import read_records, records_problem
from grun_bench.results.record import Records
from grun_bench.results.result import Cost, RecordsFile, Result, UnlearnerInfo
from grun_bench.results.store import read_result, result_folder
from grun_bench.runs.fit import Trained
from grun_bench.runs.inputs import Inputs, Method
from grun_bench.runs.outcome import Cell
from grun_bench.runs.score import Asked


def place_of(inputs: Inputs, method: Method) -> Path:
    """The result file of a method's row."""
    folder = result_folder(inputs.config.output, inputs.task.name, inputs.models.name, method.name)
    return folder / f"{inputs.run_id(method)}.json"


def filed(inputs: Inputs, method: Method, path: Path) -> Cell | None:
    """The row that is there already; None where there is none, or another one is asked for."""
    if not path.exists() or _wanted_again(inputs, method, path):
        return None
    result = read_result(path)
    problem = records_problem(path, result.own_records())
    if problem:
        say(f"{path}: {problem}; running it again.")
        return None
    records = read_records(path, result.records) if result.records else Records([])
    return Cell(result, records, path, reused=True)


def _wanted_again(inputs: Inputs, method: Method, path: Path) -> bool:
    config = inputs.config
    if method is not inputs.method:
        return False
    # a row has no weights: to have them the model is made again
    if config.overwrite or config.keep_model or (config.save and not is_saved(config.save, path.stem)):
        return True
    return config.eval_every is not None and "training" not in read_result(path).curves


def result_of(
    inputs: Inputs,
    method: Method,
    trained: Trained,
    asked: Asked,
    values: dict[str, Value],
    cost: Cost,
    records: RecordsFile | None,
) -> Result:
    """The result of a row that was made just now."""
    task, config, git = inputs.task, inputs.config, env.git_state()
    measured, placement = asked.measured, inputs.session.placement
    history = trained.fitted.history if trained.fitted else []
    fields = result_fields(task.name, task.version, values)
    fields["versions"] |= measured.versions if measured else {}
    return Result(
        run_id=inputs.run_id(method),
        status="diverged" if trained.error else "ok",
        error=trained.error,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        task=task.name,
        model=inputs.models.name,
        unlearner=UnlearnerInfo(
            name=method.name,
            settings=method.unlearner.settings,
            tuned=method.tuned,
            adjusted=trained.fitted.adjusted if trained.fitted else {},
        ),
        seed=config.seed if method.unlearner.seeded else None,
        protocol=config.protocol,
        limit=config.limit,
        dataset=inputs.session.world.name,
        dataset_hash=inputs.data.sha256,
        data=inputs.data.provenance() | (measured.data if measured else {}),
        target=trained.origin,
        reference=dict(inputs.models.identity) | {"retain_log": inputs.log.sha256 if inputs.log else None},
        **fields,
        configs={task.name: task.model_dump(exclude={"models"})} | (measured.configs if measured else {}),
        headline=headline_keys(task.headline, values, config.protocol),
        cost=cost,
        history={key: [float(f"{step[key]:.6g}") for step in history] for key in (history[0] if history else ())},
        records=records,
        packages=env.packages(),
        hardware=env.hardware() | {"device": placement.device, "dtype": placement.dtype} | _placed(inputs, trained),
        git_hash=git["commit"],
        git=git,
    )


def _placed(inputs: Inputs, trained: Trained) -> dict[str, Any]:
    """What a result says of a model that is spread over devices, or rounded to fewer bits with an adapter beside it,
    and of several processes that made it together."""
    said: dict[str, Any] = {"processes": processes.announced()} if processes.announced() > 1 else {}
    if code := inputs.session.placement.quantise:
        said["quantised"] = code
    if trained.fitted is None:
        return said
    if where := placed(trained.fitted.lm.model):
        said["device_map"] = where
    adapter = trained.fitted.adapter
    if code and adapter is not None:
        kinds = {str(each.dtype).removeprefix("torch.") for each in adapter.trainable_parameters()}
        said["adapter_dtype"] = ", ".join(sorted(kinds))
    return said
