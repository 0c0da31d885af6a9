"""The command line. Tables on stdout, the rest on stderr; exit codes 0, 1 failed, 2 usage, 130 interrupted."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError, UsageError, unknown
from grun_bench.core.progress import waiting

if TYPE_CHECKING:
    from grun_bench.results.result import Result
    from grun_bench.runs.run import RunConfig

app = typer.Typer(
    name="grun-bench",
    help="Train, score and compare unlearning methods for language models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Include = Annotated[
    list[Path], typer.Option("--include-path", help="A plugin file, or a folder of plugins and task YAML.")
]
Output = Annotated[Path, typer.Option("--output", help="Folder of the result files.")]
RESULTS = Path("leaderboards/results")
TaskName = Annotated[str, typer.Option("--task", help="A task's name, or the path of its YAML.")]
Model = Annotated[str | None, typer.Option("--model", help="Hub id or folder; default: tiny, the embedded toy model.")]
Target = Annotated[str | None, typer.Option("--target", help="A target model already fine-tuned on the task.")]
Retain = Annotated[str | None, typer.Option("--retain", help="A retain model, fine-tuned without the forget set.")]
RetainLog = Annotated[Path | None, typer.Option(help="A published retain log instead of a retain model.")]
Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; repeat it.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
BatchSize = Annotated[str, typer.Option(help="Sequences scored at once; auto finds it.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first rows of each data set: a smoke test.")]
ProtocolName = Annotated[
    str, typer.Option("--protocol", help="grun-bench, or open-unlearning to compare with its tables.")
]
Attacks = Annotated[
    str, typer.Option(metavar="all|NAME,...", help="Attack the model, and the target and retain model as controls.")
]
TrustRemoteCode = Annotated[bool, typer.Option("--trust-remote-code", help="Let a model bring its own code.")]
#: the base of the errors of parsing; newer versions of typer carry their own copy of click
ParserError: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


@app.command()
def run(
    unlearner: Annotated[str, typer.Option(help="adapter+objective, as in grun+npo; `ls` lists them.")],
    task: TaskName,
    model: Model = None,
    target: Target = None,
    retain: Retain = None,
    settings: Set = [],  # noqa: B006
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
    limit: Limit = None,
    protocol: ProtocolName = "grun-bench",
    retain_log: RetainLog = None,
    seed: Annotated[int, typer.Option(help="Seed of unlearning.")] = 0,
    output: Output = RESULTS,
    include_path: Include = [],  # noqa: B006
    attacks: Attacks = "",
    save: Annotated[Path | None, typer.Option(help="Keep the unlearned model in this folder.")] = None,
    trunk_cache: Annotated[
        bool,
        typer.Option("--trunk-cache/--no-trunk-cache", help="Compute what frozen first layers give once, and keep it."),
    ] = True,
    eval_every: Annotated[
        int | None, typer.Option(min=1, help="Score a small sample every so many training steps, as a curve.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run again what is there already.")] = False,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result file instead of tables.")] = False,
) -> None:
    """Unlearn, score and record one unlearner on one task."""
    _include(include_path)
    registry.parse_unlearner(unlearner)
    _check_names(task, attacks, dtype, output, tuple(include_path))
    overrides, size = _settings(settings), _batch_size(batch_size)
    _offline_first(model or target)
    with waiting("loading torch and transformers"):
        from grun_bench.runs.run import RunConfig

    config = RunConfig(
        unlearner=unlearner,
        task=task,
        model=model,
        target=target,
        retain=retain,
        overrides=overrides,
        device=device,
        dtype=dtype,
        batch_size=size,
        limit=limit,
        protocol=protocol,
        retain_log=retain_log,
        seed=seed,
        output=output,
        include=tuple(include_path),
        save=save,
        attacks=attacks,
        trunk_cache=trunk_cache,
        eval_every=eval_every,
        overwrite=overwrite,
        trust_remote_code=trust_remote_code,
    )
    result = _run(config, as_json)
    if save and result.status == "ok" and not as_json:
        print(f"model: {save}   (grun_bench.load({str(save)!r}) gives it back)")


@app.command()
def attack(
    result: Annotated[
        str, typer.Argument(metavar="RUN", help="A run id, its beginning, or the path of a result file.")
    ],
    attacks: Annotated[str, typer.Option(metavar="all|NAME,...", help="The attacks; `ls attacks` lists them.")] = "all",
    saved: Annotated[
        Path | None, typer.Option(help="The folder of the model (run --save); without it the model is made again.")
    ] = None,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="ATTACK.KEY=VALUE", help="Override a setting of an attack; repeat it.")
    ] = [],  # noqa: B006
    task: Annotated[str | None, typer.Option(help="The task's YAML, where it is not a packaged one.")] = None,
    model: Annotated[str | None, typer.Option(help="The model's folder, where its name does not lead to it.")] = None,
    target: Annotated[str | None, typer.Option(help="The target model that the run named.")] = None,
    retain: Annotated[str | None, typer.Option(help="The retain model that the run named.")] = None,
    retain_log: Annotated[Path | None, typer.Option(help="The retain log that the run named.")] = None,
    device: Device = "auto",
    batch_size: BatchSize = "auto",
    output: Output = RESULTS,
    include_path: Include = [],  # noqa: B006
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result file instead of tables.")] = False,
) -> None:
    """Attack the model of a result that is there already, and add what comes of it to the result."""
    _include(include_path)
    from grun_bench.results.result import find_result, read_result
    from grun_bench.tasks.task import load_task

    path = find_result(result, output)
    row = read_result(path)
    if row.imported:
        raise UsageError(f"{row.run_id} was imported from {row.imported.file}: there is no model to attack.")
    registry.attack_names(attacks, load_task(task or row.task, tuple(include_path)).attacks)
    overrides, size = _settings(settings), _batch_size(batch_size)
    if odd := [key for key in overrides if "." not in key]:
        raise UsageError(f"--set {odd[0]}: the row's settings stay; an attack's is written <attack>.{odd[0]}=value.")
    _offline_first(row.dataset == "published")
    with waiting("loading torch and transformers"):
        from grun_bench.runs.run import RunConfig

    config = RunConfig(
        unlearner=row.unlearner.name,
        task=task or row.task,
        model=model or (row.model if target is None else None),
        target=target,
        retain=retain,
        overrides=row.unlearner.settings | overrides,
        device=device,
        dtype=row.hardware["dtype"],
        batch_size=size,
        limit=row.limit,
        protocol=row.protocol,
        retain_log=retain_log,
        seed=row.seed if row.seed is not None else row.reference.get("seed", 0),
        output=path.resolve().parents[3],
        include=tuple(include_path),
        attacks=attacks,
        saved=saved,
        run_id=row.run_id,
        trust_remote_code=trust_remote_code,
    )
    _run(config, as_json)


def _check_names(task: str, attacks: str, dtype: str, output: Path, include: tuple[Path, ...]) -> None:
    """What can be refused before anything is loaded."""
    if dtype not in ("auto", "float32", "bfloat16", "float16"):
        raise unknown("--dtype", dtype, ("auto", "float32", "bfloat16", "float16"))
    from grun_bench.results.result import check_writable
    from grun_bench.tasks.task import load_task

    loaded = load_task(task, include)
    if attacks:
        registry.attack_names(attacks, loaded.attacks)
    check_writable(output)


def _offline_first(needed: Any) -> None:
    """Find out whether the Hub is there before its libraries are imported: they read it then."""
    if needed:
        from grun_bench.core.environment import offline_if_unreachable

        offline_if_unreachable()


def _run(config: RunConfig, as_json: bool) -> Result:
    from grun_bench.runs.run import run as run_cell
    from grun_bench.terminal.result import print_run

    outcome = run_cell(config)
    cell = outcome.cell
    if as_json:
        print(cell.result.dumps(), end="")
    else:
        beside = [other.result if other else None for other in (outcome.target, outcome.retain)]
        print_run(cell.result, *beside, cell.path, cell.reused)
    if cell.result.status != "ok":
        name = config.unlearner
        raise GrunBenchError(f"{name} {cell.result.status}: {cell.result.error} The row is kept in {cell.path}.")
    return cell.result


@app.command()
def sweep(
    unlearners: Annotated[
        list[str], typer.Option("--unlearner", metavar="all|NAME", help="What to run, as in grun+npo; repeat it.")
    ],
    task: TaskName,
    seeds: Annotated[str, typer.Option(metavar="0,1,...", help="Seeds of unlearning.")] = "0",
    model: Model = None,
    target: Target = None,
    retain: Retain = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    batch_size: BatchSize = "auto",
    limit: Limit = None,
    protocol: ProtocolName = "grun-bench",
    retain_log: RetainLog = None,
    output: Output = RESULTS,
    include_path: Include = [],  # noqa: B006
    attacks: Attacks = "",
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Run many unlearners and seeds on one task; what is there already is not run again."""
    _include(include_path)
    _check_names(task, attacks, dtype, output, tuple(include_path))
    size, numbers = _batch_size(batch_size), seeds.split(",")
    if not all(number.isdigit() for number in numbers):
        raise UsageError(f"--seeds {seeds}: write whole numbers with commas between, as in 0,1,2.")
    _offline_first(model or target)
    with waiting("loading torch and transformers"):
        from grun_bench.matrix.sweep import expand
        from grun_bench.matrix.sweep import sweep as run_all
        from grun_bench.runs.run import RunConfig
        from grun_bench.terminal.sweep import print_sweep
    names = expand(unlearners)

    config = RunConfig(
        unlearner="",
        task=task,
        model=model,
        target=target,
        retain=retain,
        device=device,
        dtype=dtype,
        batch_size=size,
        limit=limit,
        protocol=protocol,
        retain_log=retain_log,
        output=output,
        include=tuple(include_path),
        attacks=attacks,
        trust_remote_code=trust_remote_code,
    )
    done = list(run_all(config, names, map(int, numbers)))
    print_sweep(task, done)
    failed = sum(not each.refused and (each.result is None or each.result.status != "ok") for each in done)
    if failed:
        raise GrunBenchError(f"{failed} of {len(done)} runs failed or diverged.")


@app.command("ls")
def list_names(
    what: Annotated[
        str, typer.Argument(help="all, adapters, objectives, unlearners, tasks, metrics, attacks or runs.")
    ] = "all",
    output: Output = RESULTS,
    include_path: Include = [],  # noqa: B006
) -> None:
    """List what can be run, or what was."""
    from grun_bench.terminal.listing import print_names

    _include(include_path)
    plurals = {f"{kind}s": kind for kind in registry.KINDS}
    if what != "all" and what not in (*plurals, "tasks", "runs"):
        raise unknown("kind", what, (*plurals, "tasks", "runs", "all"))
    for plural, kind in plurals.items():
        entries = registry.entries(kind).values()
        if what in (plural, "all") and entries:
            print_names(plural, ("name", "what it is"), [(entry.name, entry.summary) for entry in entries])
    if what in ("tasks", "all"):
        from grun_bench.tasks.task import load_task, task_files

        names = task_files(tuple(include_path))
        print_names(
            "tasks", ("name", "what it is"), [(name, load_task(str(path)).description) for name, path in names.items()]
        )
    if what == "runs":
        _list_runs(output)
    if what == "all":
        print("An unlearner is adapter+objective, as in grun+npo; a bare objective trains all weights.")


def _list_runs(output: Path) -> None:
    from grun_bench.results.result import read_result, result_files
    from grun_bench.results.words import number
    from grun_bench.terminal.listing import print_names

    results = [read_result(path) for path in result_files(output)]
    rows = [
        (
            *(result.run_id, result.task, result.model, result.unlearner.name, result.status, result.date[:16]),
            *(number(result.value(metric)) for metric in ("forget_quality", "model_utility")),
        )
        for result in sorted(results, key=lambda result: result.date)
    ]
    columns = ("run", "task", "model", "unlearner", "status", "date", "forget quality", "model utility")
    print_names(f"runs in {output}", columns, rows)


@app.command()
def show(
    result: Annotated[
        str, typer.Argument(metavar="RUN", help="A run id, its beginning, or the path of a result file.")
    ],
    output: Output = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result file.")] = False,
) -> None:
    """Show everything a result says."""
    from grun_bench.results.result import controls, find_result, read_result
    from grun_bench.terminal.result import print_result

    path = find_result(result, output)
    found = read_result(path)
    if as_json:
        print(found.dumps(), end="")
    else:
        print_result(found, path, controls(path, found))


@app.command("import")
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
    from grun_bench.integrations.imported import import_result
    from grun_bench.integrations.logs import check_reference, read_log
    from grun_bench.results.result import check_writable, result_folder, save_records, write_whole
    from grun_bench.tasks.task import load_task
    from grun_bench.terminal.result import print_run

    loaded = load_task(task, tuple(include_path))
    read = read_log(log, log_format)
    reference = read_log(retain_log, log_format) if retain_log else None
    if reference:
        check_reference(read.records, reference.records, str(retain_log))
    check_writable(output)
    result = import_result(read, log, loaded, model, unlearner, reference)
    path = result_folder(output, task, model, unlearner) / f"{result.run_id}.json"
    result.records = save_records(path.with_suffix(".records.jsonl"), read.records.dumps())
    write_whole(path, result.dumps())
    compared = import_result(reference, retain_log, loaded, model, "retain", None) if reference and retain_log else None
    print_run(result, None, compared, path, reused=False)


@app.command()
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


@app.command()
def leaderboard(
    tree: Annotated[Path, typer.Option("--results", help="Folder of the result files.")] = RESULTS,
    out: Annotated[Path, typer.Option("--out", help="Folder of the pages.")] = RESULTS.parent,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail on a broken result, a wrong number or an old page.")
    ] = False,
) -> None:
    """Render the result files as Markdown, CSV and one HTML page."""
    if check:
        from grun_bench.core.escaping import clean
        from grun_bench.leaderboard.check import problems

        count = 0
        for problem in problems(tree, out):
            print(clean(problem, limit=10_000))
            count += 1
        if count:
            raise GrunBenchError(f"{count} problem{'s' if count > 1 else ''} in {tree} and {out}.")
        print(f"{tree}: every number comes from its records, and the pages in {out} are up to date.")
        return
    from grun_bench.leaderboard.pages import render, write

    rendered = render(tree, out)
    write(rendered.pages, out)
    print(f"{out / 'README.md'}: {rendered.runs} results on {len(rendered.pages)} pages; {out / 'index.html'} has all.")


@app.command("test")
def test_plugin(
    name: Annotated[str, typer.Argument(help="An adapter, objective, metric, unlearner or attack.")],
    include_path: Include = [],  # noqa: B006
) -> None:
    """Check that a plugin keeps the contract of its kind, on a small random model."""
    _include(include_path)
    kinds = [kind for kind in registry.KINDS if name in registry.entries(kind)]
    if not kinds:
        known = [known for kind in registry.KINDS for known in registry.names(kind)]
        raise unknown("plugin", name, known, "`grun-bench ls` lists them all.")
    from grun_bench.plugin_checks import check
    from grun_bench.terminal.listing import print_names

    failed = 0
    for kind in kinds:
        rows = [(checked.what, checked.problem or "ok") for checked in check(kind, name)]
        failed += sum(problem != "ok" for _, problem in rows)
        print_names(f"{kind} {name}", ("contract", "result"), rows)
    if failed:
        raise GrunBenchError(f"{name} breaks {failed} of its contracts.")


@app.command()
def submit(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run ids, their beginnings, or result files.")],
    out: Annotated[Path, typer.Option(help="The bundle's folder, made new.")],
    card: Annotated[Path, typer.Option(help="The method card, as YAML or JSON; leaderboards/SUBMITTING.md has one.")],
    model: Annotated[
        list[Path], typer.Option(help="A folder that `run --save` wrote, one for each run; repeat it.")
    ] = [],  # noqa: B006
    plugin: Annotated[Path | None, typer.Option(help="The plugin file, for a method of your own.")] = None,
    output: Output = RESULTS,
) -> None:
    """Bundle runs of a method for a pull request to the leaderboards."""
    from grun_bench.leaderboard.submit import submit as make_bundle
    from grun_bench.terminal.verified import print_bundle

    made = make_bundle(runs, out, card, output, model, plugin)
    print_bundle(out, [row.result for row in made.bundle.rows], list(made.bundle.models), made.warnings)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle, as `submit` makes it, or a folder of results.")],
    rerun: Annotated[
        bool, typer.Option("--rerun", help="Score the saved models again; train again what has none.")
    ] = False,
    trust_plugin: Annotated[
        bool, typer.Option("--trust-plugin", help="With --rerun: run the bundle's plugin.py. Read it first.")
    ] = False,
    results: Annotated[Path, typer.Option(help="Reviewed results, for retain rows that the bundle lacks.")] = RESULTS,
    device: Annotated[str, typer.Option(help="With --rerun: auto, cpu, cuda, cuda:1, ...")] = "auto",
    include_path: Include = [],  # noqa: B006
) -> None:
    """Make every number of a bundle, or of a folder of results, again: from its records or from its models."""
    from grun_bench.leaderboard.bundle import read_bundle
    from grun_bench.leaderboard.verify import verify as verify_bundle
    from grun_bench.terminal.verified import print_verified

    _include(include_path)
    if trust_plugin and not rerun:
        raise UsageError("--trust-plugin: only --rerun runs anything; without it nothing needs to be trusted.")
    include = tuple(include_path)
    if rerun:
        plugin = read_bundle(bundle).plugin
        if plugin and trust_plugin:
            _include([plugin])
        with tempfile.TemporaryDirectory(prefix="grun-bench-") as folder:
            found = verify_bundle(bundle, results, include, _rerunner(Path(folder), device, include))
    else:
        found = verify_bundle(bundle, results, include)
    print_verified(bundle, found, rerun)
    failed = sum(not each.ok for each in found)
    if failed:
        raise GrunBenchError(f"{bundle}: {failed} of {len(found)} rows failed verification.")


def _rerunner(output: Path, device: str, include: tuple[Path, ...]) -> Any:
    from grun_bench.core.environment import offline_if_unreachable

    offline_if_unreachable()  # before the Hugging Face libraries are imported: they read it then
    from grun_bench.rerun import Rerunner

    return Rerunner(output, device, include)


def _include(paths: list[Path]) -> None:
    for path in paths:
        registry.include(path)


def _settings(pairs: list[str]) -> dict[str, Any]:
    import yaml

    settings = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {pair}: write it as key=value.")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--set {pair}: '{value}' is not a number, word or [list].") from None
    return settings


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: write auto or a whole number above 0.")
    return int(text)


def main() -> None:
    """The entry point: expected errors as one message and an exit code, never a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = app(standalone_mode=False)
    except ParserError as error:
        _show_parser_error(error)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except GrunBenchError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    if code == 130:
        print(
            "interrupted; nothing half-written is left, and the same command goes on with what is done.",
            file=sys.stderr,
        )
    sys.exit(code or 0)


def _show_parser_error(error: Any) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    hint = f" `{error.ctx.command_path} --help` says more." if getattr(error, "ctx", None) else ""
    message = error.format_message()
    print(f"error: {message}{'' if message.endswith(('.', '?')) else '.'}{hint}", file=sys.stderr)
