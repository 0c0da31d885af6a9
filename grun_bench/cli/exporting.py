"""The command that takes an unlearned model home: a folder that others' programs load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from grun_bench.cli.options import Output
from grun_bench.core.errors import UsageError, unknown
from grun_bench.core.files import check_empty, near_files
from grun_bench.core.given import DTYPES
from grun_bench.runs.config import RESULTS


def export(
    source: Annotated[str, typer.Argument(metavar="DIR|RUN", help="A folder that `run --save` wrote, or a run id.")],
    to: Annotated[str, typer.Option("--to", metavar="merged|peft|hf", help="In the weights, for PEFT, or with code.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    base: Annotated[str | None, typer.Option(help="Its base's folder or Hub id, where that is not found.")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    output: Output = RESULTS,
) -> None:
    """Write an unlearned model as a folder that plain transformers, servers and lm-eval load."""
    if not Path(source).is_dir():
        _refuse_run(source, output)
    from grun_bench.integrations.hf.forms import FORMS, Form

    for what, name, known in (("--to", to, FORMS), ("--dtype", dtype, DTYPES)):
        if name not in known:
            raise unknown(what, name, known)
    check_empty(out, "--out")  # loading takes its time
    from grun_bench.core.patches import offline_if_unreachable
    from grun_bench.integrations.hf.export import export as write
    from grun_bench.models.loading import Placement

    with offline_if_unreachable():
        written = write(Path(source), cast(Form, to), out, Placement.choose("cpu", dtype), base)
    print(f"model: {written.folder}   ({written.loads})")
    for note in written.notes:
        print(note)


def _refuse_run(run: str, output: Path) -> None:
    """Raises UsageError with the command that keeps the model of a run: runs keep none by themselves."""
    from grun_bench.results.store import find_result, read_result

    try:
        path = find_result(run, output)
    except UsageError as error:
        from grun_bench.methods.saving import is_saved_model

        if near := near_files(Path(run), is_saved_model):
            raise UsageError(f"{run}: no such folder{near}. Nor is it a run: {error}") from None
        raise
    result = read_result(path)
    if result.imported:
        raise UsageError(f"{result.run_id} was imported from {result.imported.file}: there is no model to export.")
    from grun_bench.runs.again import command_of

    again = command_of(result, output, "model")
    raise UsageError(
        f"{result.run_id}: a run keeps its model with --save alone. This makes it again and keeps it: {again.command}"
        + "".join(f"\n{note}" for note in again.notes)
    )
