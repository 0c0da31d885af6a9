"""Many runs at a time: `sweep`."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from grun_bench.cli.options import names, parsed, seeded, tried
from grun_bench.cli.running import CommonOptions, MachineOptions, TrackOptions
from grun_bench.core import processes, registry
from grun_bench.core.errors import GrunBenchError, UsageError, unknown
from grun_bench.core.escaping import clean
from grun_bench.core.files import near_files

#: keys of a sweep's file that are the axes
AXES = ("unlearners", "tasks", "models", "seeds", "set")


def sweep(
    file: Annotated[Path | None, typer.Argument(metavar="FILE.yaml", help="The sweep, in place of options.")] = None,
    unlearners: Annotated[
        list[str], typer.Option("--unlearner", metavar="all|NAME,...", help="What to run, as in grun+npo; repeat it.")
    ] = [],  # noqa: B006
    tasks: Annotated[list[str], typer.Option("--task", help="A task's name, or the path of its YAML; repeat it.")] = [],  # noqa: B006
    models: Annotated[list[str], typer.Option("--model", help="Hub id or folder; default: tiny; repeat it.")] = [],  # noqa: B006
    seeds: Annotated[str, typer.Option(metavar="0,1,...", help="Seeds of unlearning.")] = "0",
    settings: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="A setting; given again with another value, each is tried."),
    ] = [],  # noqa: B006
    *,
    options: CommonOptions,
    tracking: TrackOptions,
    machine: MachineOptions,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time, each with a device of its own; default: 1.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="slurm|ray", help="Make the runs there, not in processes of this machine.")
    ] = None,
    resources: Annotated[
        list[str],
        typer.Option(
            "--resource",
            metavar="KEY=VALUE",
            help="What each run gets of the cluster: an option of sbatch, or num_cpus, num_gpus, memory of Ray.",
        ),
    ] = [],  # noqa: B006
    status: Annotated[bool, typer.Option("--status", help="Only show what is done, running, failed, waiting.")] = False,
) -> None:
    """Run unlearners x tasks x models x seeds x settings; what is there already is not run again."""
    from grun_bench.core.strict_json import checked
    from grun_bench.matrix.executors import executor
    from grun_bench.matrix.grid import Grid
    from grun_bench.matrix.sweep import Plan, new_owner, shortfall
    from grun_bench.matrix.sweep import sweep as run_all
    from grun_bench.terminal.sweep import print_status, print_sweep, watching

    axes = {"tasks": tasks, "models": models, "seeds": seeded(seeds), "set": tried(settings)}
    axes["unlearners"] = names("--unlearner", unlearners)
    processes.refuse("sweep")
    if file:
        beside = any((unlearners, tasks, models, settings, seeds != "0", options != CommonOptions()))
        axes, options = _from_file(file, beside)
    elif not unlearners:
        raise UsageError("name what to run, with --unlearner NAME or in a FILE.yaml: `grun-bench sweep --help`.")
    config = options.config(machine, **tracking.config())
    plan = Plan.of(checked(Grid, axes, file or "the options of sweep", root=""), config, writes=not status)
    if status:
        print_status(plan, config.output)
        return
    where = executor(cluster, jobs, parsed(resources, "--resource"), owner := new_owner())
    with watching(plan) as show:
        found = run_all(plan, where, owner, show)
    problem = shortfall(plan, found)
    print_sweep(plan, found, config.output, problem)
    if problem:
        raise GrunBenchError(problem)


def _check_there(file: Path) -> None:
    """Raises UsageError where there is no such file, with near names, or as what it was meant."""
    if file.exists():
        return
    name = str(file)
    if any(name in registry.entries(kind) for kind in ("unlearner", "objective")) or "+" in name:
        raise UsageError(f"{file}: no such file; unlearners go after their option: --unlearner {file}.")
    raise UsageError(f"{file}: no such file{near_files(file)}.")


def _from_file(path: Path, beside: bool) -> tuple[dict[str, Any], CommonOptions]:
    """The axes of a sweep's file, and its other keys, which are fields of CommonOptions.

    Raises UsageError for another file, and where what is run was said by options `beside` it.
    """
    from grun_bench.core.strict_json import checked
    from grun_bench.tasks.yaml_files import loaded

    _check_there(path)
    if beside:
        raise UsageError(f"{path}: the file says what is run; options beside it say where and how.")
    keys = loaded(path)
    known = [*AXES, *(each.name for each in fields(CommonOptions))]
    for key in keys if isinstance(keys, dict) else ():
        if key not in known:
            raise unknown(f"key in {path}", clean(str(key), 100), known)
    if not isinstance(keys, dict) or "unlearners" not in keys:
        raise UsageError(f"{path}: a sweep is a mapping of keys with `unlearners`, a list of names, among them.")
    axes = {key: keys.pop(key) for key in AXES if key in keys}
    # what the command takes with commas between may be a list here
    others = {key: ",".join(map(str, value)) if isinstance(value, list) else value for key, value in keys.items()}
    return axes, checked(CommonOptions, others, path, root="")
