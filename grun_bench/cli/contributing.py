"""Commands of those who bring a method: check a plugin, bundle rows, verify bundles."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from grun_bench.cli.options import Include, Output
from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError, UsageError, unknown
from grun_bench.runs.config import RESULTS


def test_plugin(
    name: Annotated[str, typer.Argument(help="An adapter, objective, metric, unlearner or attack.")],
    include_path: Include = [],  # noqa: B006
) -> None:
    """Check that a plugin keeps the contract of its kind, on a small random model."""
    kinds = [kind for kind in registry.KINDS if name in registry.entries(kind)]
    if not kinds:
        known = [known for kind in registry.KINDS for known in registry.names(kind)]
        raise unknown("plugin", name, known, "`grun-bench ls` lists them all.")
    from grun_bench.plugin_checks.check import check
    from grun_bench.terminal.listing import print_rows

    failed = 0
    for kind in kinds:
        rows = [(checked.what, checked.problem or "ok") for checked in check(kind, name)]
        failed += sum(problem != "ok" for _, problem in rows)
        print_rows(f"{kind} {name}", ("contract", "result"), rows)
    if failed:
        raise GrunBenchError(f"{name} breaks {failed} of its contracts.")


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
    print_verified(bundle, found, rerun)
    failed = sum(not each.ok for each in found)
    if failed:
        raise GrunBenchError(f"{bundle}: {failed} of {len(found)} rows failed verification.")


def _rerunner(output: Path, device: str, include_path: tuple[Path, ...]) -> Any:
    from grun_bench.rerun import Rerunner

    return Rerunner(output, device, include_path)
