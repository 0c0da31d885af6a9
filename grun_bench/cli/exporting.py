"""The command that takes an unlearned model home: a folder that others' programs load."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from grun_bench.cli.options import Output
from grun_bench.core.errors import UsageError, unknown
from grun_bench.runs.config import RESULTS, config_of, in_folder

if TYPE_CHECKING:
    from grun_bench.results.result import Result
    from grun_bench.tasks.task import OwnFile, OwnRole


def export(
    source: Annotated[str, typer.Argument(metavar="DIR|RUN", help="A folder that `run --save` wrote, or a run id.")],
    to: Annotated[str, typer.Option("--to", metavar="merged|peft|hf", help="In the weights, for PEFT, or with code.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    output: Output = RESULTS,
) -> None:
    """Write an unlearned model as a folder that plain transformers, servers and lm-eval load."""
    if not Path(source).is_dir():
        _refuse_run(source, output)
    from grun_bench.integrations.hf.forms import FORMS, Form
    from grun_bench.runs.front import DTYPES

    for what, name, known in (("--to", to, FORMS), ("--dtype", dtype, DTYPES)):
        if name not in known:
            raise unknown(what, name, known)
    from grun_bench.core.patches import offline_if_unreachable
    from grun_bench.integrations.hf.export import export as write
    from grun_bench.models.loading import Placement

    with offline_if_unreachable():
        written = write(Path(source), cast(Form, to), out, Placement.choose("cpu", dtype))
    print(f"model: {written.folder}   ({written.loads})")
    for note in written.notes:
        print(note)


def _refuse_run(run: str, output: Path) -> None:
    """Raises UsageError with the command that keeps the model of a run: runs keep none by themselves."""
    from grun_bench.results.store import find_result, read_result

    result = read_result(find_result(run, output))
    if result.imported:
        raise UsageError(f"{result.run_id} was imported from {result.imported.file}: there is no model to export.")
    raise UsageError(
        f"{result.run_id}: a run keeps its model with --save alone. This makes it again and keeps it: "
        f"{_run_command(result, output)}"
    )


def _run_command(result: Result, output: Path) -> str:
    """The command that makes a row again and keeps its model in ./model."""
    made = config_of(result)
    options = {
        "--unlearner": made.unlearner,
        **_data(result),
        "--model": made.model,
        "--target": made.target_model,
        "--retain-model": made.retain_model,
        "--seed": made.seed,
        "--limit": made.limit,
        "--protocol": made.protocol,
        "--dtype": made.dtype,
    }
    given = [f"{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None]
    for key, value in made.overrides.items():
        given.append(f"--set {shlex.quote(f'{key}={value if isinstance(value, str) else json.dumps(value)}')}")
    if writer := next((file.made.by for file in _own(result).values() if file.made), None):
        given.append(f"--augment --writer {shlex.quote(writer)}")
    return f"grun-bench run {' '.join(given)} --save model{in_folder('--output', output)}"


def _data(result: Result) -> dict[str, str]:
    """The options that say what is to be forgotten: a task, or the files of own rows by their names."""
    if result.dataset != "own":
        return {"--task": result.task}
    return {f"--{role}": each.file for role, each in _own(result).items()}


def _own(result: Result) -> dict[OwnRole, OwnFile]:
    """The files of own rows by what they are to unlearning; empty for a row of others'."""
    from grun_bench.tasks.task import Task

    return Task.model_validate(result.configs[result.task]).own if result.dataset == "own" else {}
