"""Commands that read and show what is there: names, rows, logs of other tools, pages. No torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from grun_bench.cli.options import Include, Json, Output, RunName
from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError, UsageError, unknown
from grun_bench.core.plugins import Control
from grun_bench.core.printing import put
from grun_bench.runs.config import RESULTS


def list_names(
    what: Annotated[
        str, typer.Argument(help="all, adapters, objectives, unlearners, tasks, metrics, attacks or runs.")
    ] = "all",
    output: Output = RESULTS,
    include_path: Include = [],  # noqa: B006
) -> None:
    """List what can be run, or what was."""
    from grun_bench.terminal.names import print_names

    plurals = {f"{kind}s": kind for kind in registry.KINDS}
    if what != "all" and what not in (*plurals, "tasks", "runs"):
        raise unknown("kind", what, (*plurals, "tasks", "runs", "all"))
    for plural, kind in plurals.items():
        entries = registry.entries(kind).values()
        if what in (plural, "all") and entries:
            print_names(plural, {entry.name: entry.summary for entry in entries})
    if what in ("tasks", "all"):
        from grun_bench.tasks.yaml_files import description, task_files

        print_names("tasks", {name: description(path) for name, path in task_files(include_path).items()})
    if what == "runs":
        _list_runs(output)
    if what == "all":
        print("An unlearner is adapter+objective, as in grun+npo; a bare objective trains all weights.")


def _list_runs(output: Path) -> None:
    from grun_bench.leaderboard.build import named_apart
    from grun_bench.results.store import elsewhere, read_result, result_files
    from grun_bench.results.words import number
    from grun_bench.terminal.listing import print_rows

    results = sorted(map(read_result, result_files(output)), key=lambda result: result.date)
    if not results:
        print(f"no runs in {output}{elsewhere(output) or '; `grun-bench run` files them there.'}")
        return
    rows = [
        (
            *(result.run_id, result.task, result.model, name, result.status, result.date[:10]),
            *(number(result.value(metric)) for metric in ("forget_quality", "model_utility")),
        )
        for result, name in zip(results, named_apart(results), strict=True)
    ]
    columns = ("run", "task", "model", "unlearner", "status", "date", "forget quality", "model utility")
    print_rows(f"runs in {output}", columns, rows)


def show(
    result: RunName,
    output: Output = RESULTS,
    as_json: Json = False,
) -> None:
    """Show everything a result says."""
    from grun_bench.results.store import controls_beside, find_result, read_result
    from grun_bench.terminal.result import print_result

    path = find_result(result, output)
    found = read_result(path)
    if as_json:
        put(found.dumps())
    else:
        print_result(found, path, controls_beside(path, found))


def import_log(
    log: Annotated[Path, typer.Argument(help="The log file of another tool.")],
    log_format: Annotated[str, typer.Option("--format", help="open-unlearning or tofu.")],
    task: Annotated[str, typer.Option(help="The task that the log is of, as in tofu_forget10.")],
    model: Annotated[str, typer.Option(help="The Hub id of the model that was scored.")],
    unlearner: Annotated[str, typer.Option(help="none for a target model, retain for a retain model, or the method.")],
    retain_log: Annotated[Path | None, typer.Option(help="The retain model's log: forget quality needs it.")] = None,
    output: Output = RESULTS,
    include_path: Include = [],  # noqa: B006
) -> None:
    """Read the log of another tool into a result, every aggregate recomputed from its rows."""
    from grun_bench.core.files import check_writable, write_whole
    from grun_bench.integrations.logs.as_result import import_result
    from grun_bench.integrations.logs.reading import check_reference, check_rows, read_log
    from grun_bench.reports.rows import FiledRow, Row
    from grun_bench.results.filed import no_orphans, save_records
    from grun_bench.results.store import result_folder
    from grun_bench.tasks.task import load_task
    from grun_bench.terminal.result import print_run

    loaded = load_task(task, tuple(include_path))
    read = read_log(log, log_format)
    check_rows(read, loaded, str(log))
    reference = read_log(retain_log, log_format) if retain_log else None
    if reference:
        check_reference(read.records, reference.records, str(retain_log))
    check_writable(output)
    result = import_result(read, log, loaded, model, unlearner, reference)
    path = result_folder(output, task, model, unlearner) / f"{result.run_id}.json"
    with no_orphans(path):
        result.records = save_records(path, read.records)
        write_whole(path, result.dumps())
    oracle = registry.control("retain model")
    controls: dict[Control, FiledRow] = {}
    if reference and retain_log:
        compared = import_result(reference, retain_log, loaded, model, oracle, None)
        controls["retain model"] = FiledRow(compared, retain_log)
    print_run(Row(FiledRow(result, path), controls), output, reused=False)


def convert(
    folders: Annotated[list[Path], typer.Argument(help="A saved grun or reft model; or folders of pyreft.")],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    base: Annotated[str | None, typer.Option(help="Of pyreft's folders: the model they were trained on.")] = None,
) -> None:
    """Turn a saved adapter into pyreft's folder format, or with --base the other way round."""
    from grun_bench.integrations.pyreft import export_pyreft, import_pyreft

    if base is not None:
        import_pyreft(folders, base, out)
        print(f"model: {out}   (grun_bench.load({str(out)!r}) reads it)")
        return
    if len(folders) != 1:
        raise UsageError("convert takes one saved model; several folders of pyreft need --base.")
    for place in export_pyreft(folders[0], out):
        print(f"pyreft: {place}")


def leaderboard(
    tree: Annotated[Path, typer.Option("--results", help="Folder of the result files.")] = RESULTS,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder of the pages, leaderboards if none is named; with --format a file."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail on a broken result, a wrong number or an old page.")
    ] = False,
    form: Annotated[
        str | None, typer.Option("--format", metavar="markdown|latex|csv", help="Tables alone, in this format.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="With --format: the boards of this task.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="With --format: the boards of this model.")] = None,
    table: Annotated[
        str | None,
        typer.Option("--table", help="With --format: ranking (if none is named), cost, ..., or all."),
    ] = None,
) -> None:
    """Render the result files as Markdown, CSV and one HTML page, or print tables of boards."""
    if form is not None:
        if check:
            raise UsageError("--check looks at the pages and --format prints tables: ask for one of them.")
        _print_tables(tree, form, task, model, table, out)
        return
    if alone := [f"--{name}" for name, given in (("task", task), ("model", model), ("table", table)) if given]:
        raise UsageError(f"--format is missing, markdown, latex or csv: {', '.join(alone)} chooses among its tables.")
    out = RESULTS.parent if out is None else out
    if check:
        from grun_bench.core.escaping import clean
        from grun_bench.leaderboard.check import check as check_tree

        checked = check_tree(tree, out)
        for problem in checked.problems:
            print(clean(problem, limit=10_000))
        if count := len(checked.problems):
            raise GrunBenchError(f"{count} problem{'s' if count > 1 else ''} in {tree} and {out}.")
        print(f"{tree}: every number of {checked.recomputed} results comes from its records.")
        if checked.without_records:
            print(f"{checked.without_records} toy results without records: their schema and pages alone were checked.")
        print(f"The pages in {out} are up to date.")
        return
    from grun_bench.leaderboard.pages import SITE, render, write

    rendered = render(tree, out)
    write(rendered, out)
    print(f"{out / 'README.md'}: {rendered.runs} results in {len(rendered.pages)} files; {out / SITE} has all.")


def _print_tables(
    tree: Path, form: str, task: str | None, model: str | None, table: str | None, out: Path | None
) -> None:
    from grun_bench.core.files import write_whole
    from grun_bench.leaderboard.exports import export
    from grun_bench.leaderboard.tables import RANKING

    if out is not None and out.is_dir():
        raise UsageError(f"--out {out}: is a folder; with --format name the file.")
    text = export(tree, form, task, model, table or RANKING)
    if out is None:
        print(text, end="")
    else:
        write_whole(out, text)
        print(f"tables: {out}")


def cite(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help="Unlearners (grun+npo), adapters, attacks, metrics.")
    ],
    include_path: Include = [],  # noqa: B006
) -> None:
    """Print the papers that methods, attacks and metrics are from, as BibTeX."""
    from grun_bench.core.sources import papers_of

    found = papers_of(names)
    for paper in dict.fromkeys(each for papers in found.values() for each in papers):
        print(paper.bibtex())
    for name, papers in found.items():
        if not papers:
            print(f"{name}: its source names no paper.", file=sys.stderr)
