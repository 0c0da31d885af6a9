"""Commands of those who bring a method: check a plugin, bundle rows, verify bundles."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from grun_bench.cli.options import Include, Output
from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError, UsageError, unknown
from grun_bench.core.printing import put
from grun_bench.runs.config import RESULTS


def test_plugin(
    name: Annotated[str, typer.Argument(help="An adapter, objective, metric, unlearner or attack.")],
    kbench: Annotated[
        Path | None,
        typer.Option(
            metavar="CLONE",
            help="Hold grun, or a folder that `run --save` wrote, against the port in a clone of K-Bench.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the checks as JSON instead of tables.")] = False,
    include_path: Include = [],  # noqa: B006
) -> None:
    """Check that a plugin keeps the contract of its kind, on a small random model."""
    if kbench is not None:
        _test_kbench(name, kbench, as_json)
        return
    kinds = [kind for kind in registry.KINDS if name in registry.entries(kind)]
    if not kinds:
        known = [known for kind in registry.KINDS for known in registry.names(kind)]
        raise registry.missing("plugin", name, known, "`grun-bench ls` lists them all")
    from grun_bench.plugin_checks.check import check
    from grun_bench.terminal.listing import print_rows

    checked = {kind: list(check(kind, name)) for kind in kinds}
    if as_json:
        found = [{"kind": kind} | asdict(each) for kind, rows in checked.items() for each in rows]
        put(json.dumps(found, indent=1) + "\n")
    for kind, rows in checked.items() if not as_json else ():
        print_rows(f"{kind} {name}", ("contract", "result"), [(each.what, each.problem or "ok") for each in rows])
    if failed := sum(each.problem is not None for rows in checked.values() for each in rows):
        raise GrunBenchError(f"{name} breaks {failed} of its contracts.")


def _test_kbench(subject: str, clone: Path, as_json: bool) -> None:
    if not Path(subject).is_dir() and subject not in registry.names("adapter"):
        raise unknown(
            "adapter", subject, registry.names("adapter"), "--kbench takes `grun` or a folder of `run --save`."
        )
    from grun_bench.core.patches import offline_if_unreachable
    from grun_bench.plugin_checks.kbench import conformance
    from grun_bench.terminal.listing import print_rows

    with offline_if_unreachable():
        found = conformance(subject, clone)
    if as_json:
        put(json.dumps(asdict(found) | {"ok": found.ok}, indent=1) + "\n")
    else:
        rows = [
            (each.what, each.dtype, f"{each.largest:.2g}", f"{each.allowed:.2g}", "ok" if each.ok else "differs")
            for each in found.checks
        ]
        title = f"{subject} here and in K-Bench ({found.commit or 'no commit'})"
        print_rows(title, ("check", "dtype", "difference", "allowed", "result"), rows)
    if not found.ok:
        failed = sum(not each.ok for each in found.checks)
        raise GrunBenchError(f"K-Bench's port differs from {subject} in {failed} of {len(found.checks)} checks.")


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
    print_bundle(out, [row.result for row in made.bundle.results], list(made.bundle.models), made.warnings)


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
    from grun_bench.core.patches import offline_if_unreachable
    from grun_bench.leaderboard.bundle import read_bundle
    from grun_bench.leaderboard.verify import marks_of
    from grun_bench.leaderboard.verify import verify as verify_bundle
    from grun_bench.terminal.verified import print_verified

    if trust_plugin and not rerun:
        raise UsageError("--trust-plugin: only --rerun runs anything; without it nothing needs to be trusted.")
    paths = tuple(include_path)
    if rerun:
        plugin = read_bundle(bundle).plugin
        trusted = [plugin] if plugin and trust_plugin else []
        with (
            registry.including(trusted),
            offline_if_unreachable(),
            tempfile.TemporaryDirectory(prefix="grun-bench-") as folder,
        ):
            found = verify_bundle(bundle, results, paths, _rerunner(Path(folder), device, paths))
    else:
        found = verify_bundle(bundle, results, paths)
    print_verified(bundle, found, rerun, marks_of(bundle, results)[0])
    failed = sum(not each.ok for each in found)
    if failed:
        raise GrunBenchError(f"{bundle}: {failed} of {len(found)} rows failed verification.")


def _rerunner(output: Path, device: str, include_path: tuple[Path, ...]) -> Any:
    from grun_bench.rerun import Rerunner

    return Rerunner(output, device, include_path)
