"""The command that hands results on in the formats of others. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from grun_bench.cli.options import Output
from grun_bench.core.errors import UsageError, unknown
from grun_bench.runs.config import RESULTS

FORMS = ("eee", "dataset")


def share(
    to: Annotated[str, typer.Option("--to", metavar="eee|dataset", help="Every Eval Ever, or a data set of the Hub.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    organisation: Annotated[str, typer.Option(help="With --to eee, whose results they are.")] = "unknown",
    output: Output = RESULTS,
) -> None:
    """Write filed results, without those of private rows, in a format that others read."""
    if to not in FORMS:
        raise unknown("--to", to, FORMS)
    from grun_bench.core.files import check_empty
    from grun_bench.results.sharing import shared

    check_empty(out, "--out")
    results = list(shared(output))
    if not results:
        raise UsageError(f"{output}: no results there, or of private rows alone.")
    if to == "eee":
        from grun_bench.integrations.eee import write_records

        files = write_records(results, out, organisation)
        if not files:
            raise UsageError(f"{output}: toy or diverged results alone, which are no records.")
        print(f"records: {len(files)} in {out / 'data'}")
        return
    from grun_bench.integrations.hub_dataset import write_dataset

    write_dataset(results, out)
    upload = f"hf upload ORG/NAME {out} --repo-type dataset"
    print(f"data set: {out}   (datasets.load_dataset({str(out)!r}) reads it, and `{upload}` shares it)")
