"""Commands for whoever decides on a model: rows beside each other, each with a verdict. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from grun_bench.cli.options import Output, RunName
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


def report(
    result: RunName,
    out: Annotated[Path, typer.Option(help="The HTML file to write.")],
    output: Output = RESULTS,
) -> None:
    """Write a page for whoever must sign: verdict, numbers in words, examples, what is not erased, provenance."""
    from grun_bench.core.files import write_whole
    from grun_bench.reports.page import page
    from grun_bench.reports.rows import read_row
    from grun_bench.results.store import find_result

    if out.is_dir():
        raise UsageError(f"--out {out}: is a folder; name the HTML file.")
    write_whole(out, page(read_row(find_result(result, output)), output))
    print(f"report: {out}")
