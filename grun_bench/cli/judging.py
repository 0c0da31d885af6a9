"""Commands for whoever decides on a model: rows beside each other, each with a verdict. No torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from grun_bench.cli.options import Output, RunName, names, numbers, seeded
from grun_bench.cli.running import MachineOptions
from grun_bench.core.errors import UsageError
from grun_bench.core.printing import put
from grun_bench.runs.config import RESULTS

#: what `meta-eval` asks unless it is told: TOFU with rows that no model was trained on, for the metrics of membership
TASK = "tofu_forget10_holdout"
#: and of the toy model: methods that OpenUnlearning's meta-evaluation has too, on all weights
METHODS = ("gd", "idk", "npo", "simnpo", "rmu", "undial")


def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run ids, their beginnings, or result files.")],
    output: Output = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON, without texts of rows.")] = False,
) -> None:
    """Show rows beside each other, and say of each in plain words whether it forgot."""
    from grun_bench.reports.rows import read_row
    from grun_bench.results.store import find_result

    paths = [find_result(run, output) for run in runs]
    if twice := [run for run, path in zip(runs, paths, strict=True) if paths.count(path) > 1]:
        raise UsageError(f"{', '.join(twice)}: named twice.")
    rows = [read_row(path) for path in paths]
    if as_json:
        from grun_bench.reports.comparison import comparison

        put(json.dumps(comparison(rows), indent=1) + "\n")
    else:
        from grun_bench.terminal.verdict import print_comparison

        print_comparison(rows, _root(paths[0], output))


def _root(path: Path, output: Path) -> Path:
    """The folder of results that a row lies in, which next commands name; `output` for a file that lies in none."""
    return path.parents[3] if len(path.parents) > 3 else output


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
    path = find_result(result, output)
    write_whole(out, page(read_row(path), _root(path, output)))
    print(f"report: {out}")


def meta_eval(
    machine: MachineOptions,
    task: Annotated[str, typer.Option("--task", help="A task's name, or the path of its YAML.")] = TASK,
    model: Annotated[str | None, typer.Option(help="Hub id or folder of a base; default: tiny, the toy model.")] = None,
    unlearner: Annotated[
        list[str] | None,
        typer.Option(
            help="A method whose row, under both attacks, is made in OUT/rows; repeat it. Default: six of the toy "
            "model, of another none, and the rows that --output has are taken."
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds of the models in the pools.")] = "0,1",
    trained: Annotated[str, typer.Option(help="Shares of the training that they had.")] = "0.25,0.5,1",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first rows of each data set: a smoke test.")
    ] = None,
    protocol: Annotated[str, typer.Option(help="grun-bench or open-unlearning.")] = "grun-bench",
    out: Annotated[Path, typer.Option(help="Folder of the pools' answers, their rows and the page.")] = Path(
        "meta-eval"
    ),
) -> None:
    """Ask which metric can be trusted: pools of models that know and do not know, rows relearned and in 4 bits."""
    from grun_bench.core import registry
    from grun_bench.models.names import TINY
    from grun_bench.reports.trust import judge, rows_attacked
    from grun_bench.reports.trust_page import write_page
    from grun_bench.runs.front import pools
    from grun_bench.terminal.trust import print_trust

    shares = numbers("--trained", trained)
    if not shares or not all(0 < each <= 1 for each in shares):
        raise UsageError(f"--trained {trained}: must be shares above 0, up to 1.")
    wanted = seeded(seeds)
    options = {"model": model, "limit": limit, "protocol": protocol, **machine.config()}
    unlearners = names("--unlearner", unlearner or ()) or (METHODS if model in (None, TINY) else ())
    for name in unlearners:
        registry.parse_unlearner(name)  # a wrong one is told before minutes of training
    made = pools(task, out, wanted, shares, **options)
    if unlearners:
        rows_attacked(unlearners, task, **options | {"output": out / "rows"})
    judged = judge(made, out / "rows" if unlearners else machine.output)
    print_trust(judged, f"which metric can be trusted? {made.task}, {made.model}")
    print(f"page: {write_page(made, judged, out)}")


def depth(
    model: Annotated[str, typer.Argument(help="The unlearned model: a folder of --save, a Hub id or a folder.")],
    target: Annotated[str, typer.Option(help="The target model, by Hub id or folder.")],
    retain: Annotated[str, typer.Option(help="The retain model, by Hub id or folder.")],
    entities: Annotated[Path, typer.Option(help="JSON: a list of question, answer and entity (a part of the answer).")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
) -> None:
    """Measure how deep forgetting goes: the model's hidden states in the target, layer by layer (arXiv 2605.24614)."""
    from grun_bench.core.strict_json import read_json
    from grun_bench.runs.front import erasure_depth
    from grun_bench.terminal.depth import print_depths

    rows = read_json(entities, list[dict[str, Any]])[:limit]
    if odd := [key for row in rows for key in ("question", "answer", "entity") if not isinstance(row.get(key), str)]:
        raise UsageError(f"--entities {entities}: every entry needs a text '{odd[0]}'.")
    print_depths(erasure_depth(model, target, retain, rows, device))
