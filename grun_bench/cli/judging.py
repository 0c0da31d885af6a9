"""Commands for whoever decides on a model: rows beside each other, each with a verdict. No torch."""

from __future__ import annotations

from typing import Annotated

import typer

from grun_bench.cli.options import Output
from grun_bench.core.errors import UsageError
from grun_bench.runs.config import RESULTS


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run ids, their beginnings, or result files.")],
    output: Output = RESULTS,
) -> None:
    """Show rows beside each other, and say of each in plain words whether it forgot."""
    from grun_bench.reports.rows import read_row
    from grun_bench.results.store import find_result
    from grun_bench.terminal.verdict import print_comparison

    paths = [find_result(run, output) for run in runs]
    if twice := [run for run, path in zip(runs, paths, strict=True) if paths.count(path) > 1]:
        raise UsageError(f"{', '.join(twice)}: named twice.")
    print_comparison([read_row(path) for path in paths], output)
