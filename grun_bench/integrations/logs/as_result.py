"""An imported log as a result like any other. No torch."""

from __future__ import annotations

import datetime
from pathlib import Path

from grun_bench.core import environment as env
from grun_bench.core.cache import digest
from grun_bench.core.errors import UsageError
from grun_bench.core.registry import role_of
from grun_bench.integrations.logs.log import SETS, ImportedLog
from grun_bench.metrics.evaluate import evaluate, headline_keys, result_fields
from grun_bench.results.result import Cost, ImportedFrom, Result, UnlearnerInfo
from grun_bench.tasks.sets import USUAL_SETS
from grun_bench.tasks.task import Task


def import_result(
    log: ImportedLog, source: Path, task: Task, model: str, unlearner: str, reference: ImportedLog | None
) -> Result:
    """The result of an imported log, every aggregate recomputed from its rows; `reference` is the retain model's log.

    `unlearner` is the method's name, for a target or a retain model that of the unlearner with this role. Raises
    UsageError for a reference of another protocol.
    """
    if reference is not None and reference.protocol != log.protocol:
        raise UsageError(f"the log is of the protocol {log.protocol}, its retain log of {reference.protocol}.")
    kept = log if role_of(unlearner) == "retain model" else reference
    values = evaluate(log.records, kept.records if kept else None, log.metrics, USUAL_SETS)
    # the same rows give the same hash, whatever a model said about them
    rows = {name: [(row.index, row.answer.text) for row in log.records.of(name)] for name in SETS}
    git = env.git_state()
    return Result(
        run_id=f"imported-{log.sha256[:12]}",
        status="ok",
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        task=task.name,
        model=model,
        unlearner=UnlearnerInfo(name=unlearner, settings={}),
        seed=None,
        protocol=log.protocol,
        limit=None,
        imported=ImportedFrom(tool=log.tool, file=source.name, sha256=log.sha256),
        dataset="published",
        dataset_hash=digest(rows),
        data={
            name: {"sources": [log.tool], "rows": len(pairs), "sha256": [digest(pairs)]} for name, pairs in rows.items()
        },
        target={"name": model},
        reference={"retain_log": kept.sha256 if kept else None},
        **result_fields(task.name, task.version, values),
        configs={task.name: task.model_dump(exclude={"models"})},
        headline=headline_keys(task.headline, values, log.protocol),
        cost=Cost(),
        history={},
        records=None,
        packages=env.packages(),
        hardware={},
        git_hash=git["commit"],
        git=git,
    )
