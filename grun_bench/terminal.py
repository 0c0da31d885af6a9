"""Results as tables in the terminal. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from grun_bench.core.escaping import terminal
from grun_bench.leaderboard.bundle import VERIFICATION
from grun_bench.metrics.stages import STAGES, measures, stage_count
from grun_bench.results.words import dataset_label, heading, number

if TYPE_CHECKING:
    from grun_bench.leaderboard.verify import Verified
    from grun_bench.matrix.sweep import Swept
    from grun_bench.results.result import Curve, Result


def metric_table(result: Result, metrics: Iterable[str], beside: dict[str, Result]) -> Table:
    """One row a metric: this result with its interval, and other results beside it."""
    table = Table(title=f"{terminal(result.unlearner.name)} on {terminal(result.task)}", title_justify="left")
    table.add_column("metric")
    table.add_column(terminal(result.unlearner.name), justify="right", style="bold")
    table.add_column("95 % interval", justify="right")
    for name in beside:
        table.add_column(name, justify="right")
    for metric in metrics:
        interval = result.intervals.get(f"{metric},none")
        shown = f"{number(interval[0])} to {number(interval[1])}" if interval else ""
        others = [number(other.value(metric)) for other in beside.values()]
        table.add_row(terminal(heading(result, metric)), number(result.value(metric)), shown, *others)
    return table


def print_run(result: Result, target: Result | None, retain: Result | None, path: Path, reused: bool) -> None:
    """What ran, the headline numbers with target and retain model beside them, the file, and the next command."""
    out = Console()
    settings = f"model {result.model}, seed {result.seed}, data {dataset_label(result)}, protocol {result.protocol}"
    out.print(terminal(f"{result.unlearner.name} on {result.task}: {settings}"), highlight=False)
    if result.limit:
        out.print(f"--limit {result.limit}: a smoke test, not a benchmark result.", highlight=False)
    if result.status == "diverged":
        out.print(terminal(f"diverged: {result.error}"), style="bold red")
    beside = {
        name: other for name, other in (("target", target), ("retain model", retain)) if other and other != result
    }
    out.print(metric_table(result, [*result.headline, *_gates(result)], beside))
    if "training" in result.curves:
        out.print(training_table(result.curves["training"]))
    if result.attacks:
        out.print(attack_table(result, beside))
    for line in (*_notes(result), *_not_made(result), _cost(result)):
        out.print(terminal(line), highlight=False)
    _print_stages(out, result, path)
    done = f"already run on {result.date[:10]}; --overwrite runs it again. " if reused else ""
    out.print(terminal(f"{done}result: {path}"), highlight=False, soft_wrap=True)
    out.print(
        terminal(f"next: grun-bench show {result.run_id}   |   grun-bench leaderboard"), highlight=False, soft_wrap=True
    )


def attack_table(result: Result, beside: dict[str, Result]) -> Table:
    """What each attack makes of the forget set's metrics, here and on the other results, and how much comes back."""
    name = terminal(result.unlearner.name)
    table = Table(title=f"{name} under attack, the worst variant of each", title_justify="left")
    for column in ("attack", "access", "metric"):
        table.add_column(column)
    for column in (name, *beside, "recovery"):
        table.add_column(column, justify="right", style="bold" if column == name else None)

    def rows(attack: str, access: str) -> None:
        label = attack
        for metric in _attacked_metrics(result):
            values = [each.value(metric, attack) for each in (result, *beside.values())]
            if any(value is not None for value in values):
                recovery = number(result.value(f"recovery_{metric}", attack), 2) if attack != "none" else ""
                table.add_row(label, access, heading(result, metric), *map(number, values), recovery)
                label = access = ""
        table.add_section()

    rows("none", "")
    made = [attack for attack, info in result.attacks.items() if info.variants]
    # users' attacks, which decide the rank, before those of an owner of the weights
    for attack in sorted(made, key=lambda attack: result.attacks[attack].access):
        rows(attack, result.attacks[attack].access)
    return table


def _not_made(result: Result) -> list[str]:
    """Why attacks have no values."""
    lines = []
    for attack, info in result.attacks.items():
        if not info.variants:
            reason = next(why for key, why in result.reasons.items() if key.endswith(f",{attack}"))
            lines.append(f"{attack}: not made, {reason}")
    return lines


def _attacked_metrics(result: Result) -> list[str]:
    """The metrics whose recovery is reported, in the order of the file."""
    keys = dict.fromkeys(key.partition(",")[0] for key in result.results[result.task])
    return [key.removeprefix("recovery_") for key in keys if key.startswith("recovery_")]


def training_table(curve: Curve) -> Table:
    """The target model, a training's best step as `best_step` has it, and its last one, on the sample scored then."""
    points = {point.at: point for point in curve.points}
    shown = {"target": points[0]} if 0 in points else {}
    if curve.best is not None:
        shown[f"best step, {curve.best}"] = points[curve.best]
    shown[f"last step, {max(points)}"] = points[max(points)]
    table = Table(title="during training, on the first rows of each set", title_justify="left", caption_justify="left")
    table.add_column("metric")
    for name in shown:
        table.add_column(name, justify="right")
    for metric in curve.points[-1].values:
        table.add_row(metric.replace("_", " "), *(number(point.values.get(metric)) for point in shown.values()))
    rule = "lowest forget extraction strength with 0.9 of the target's retain probability"
    none = "" if curve.best is not None else " (no step has it)"
    table.caption = f"best: {rule}{none}. Reported, not used: all other numbers are the last step's."
    return table


def _gates(result: Result) -> list[str]:
    named = ("forget_gate", "forget_gate_paraphrased", "retain_gate")
    return [name for name in named if result.value(name) is not None]


def _notes(result: Result) -> list[str]:
    missing = [metric for metric in result.headline if result.value(metric) is None]
    return [f"{metric}: none, {result.reasons.get(f'{metric},none', 'not part of this task')}" for metric in missing]


def _cost(result: Result) -> str:
    cost = result.cost
    if result.imported:
        return f"imported: {result.imported.file} of {result.imported.tool}, sha256 {result.imported.sha256[:12]}"
    if not cost.trainable_parameters:
        return f"cost: nothing trained, scored in {cost.scoring_seconds:.0f} s"
    share = 100 * cost.trainable_parameters / cost.parameters
    peak = f", peak memory {cost.training_peak_bytes / 2**30:.1f} GiB" if cost.training_peak_bytes else ""
    return (
        f"cost: {cost.trainable_parameters:,} trainable parameters ({share:.3g} %), "
        f"trained in {cost.training_seconds:.0f} s, scored in {cost.scoring_seconds:.0f} s{peak}"
    )


def print_result(result: Result, path: Path, beside: dict[str, Result]) -> None:
    """Everything a result file says, for `show`; `beside` are the results of target and retain model."""
    out = Console()
    facts = {
        "task": f"{result.task} (version {result.versions.get(result.task)})",
        "model": result.model,
        "unlearner": result.unlearner.name,
        "status": result.status + (f": {result.error}" if result.error else ""),
        "seed": result.seed,
        "data": dataset_label(result),
        "protocol": result.protocol,
        "date": result.date,
        "harness": f"{result.git['commit'] or 'installed'}{' (dirty)' if result.git.get('dirty') else ''}",
        "hardware": ", ".join(f"{key} {value}" for key, value in result.hardware.items() if value),
        "file": str(path),
    }
    if result.limit:
        facts["limit"] = f"{result.limit} rows a set: not a benchmark result"
    out.print(pairs_table("result " + result.run_id, facts))
    out.print(pairs_table("settings", result.unlearner.settings))
    names = [key.removesuffix(",none") for key in result.results[result.task] if key.endswith(",none")]
    out.print(metric_table(result, names, {}))
    if "training" in result.curves:
        out.print(training_table(result.curves["training"]))
    for key, reason in result.reasons.items():
        if key.endswith(",none"):
            out.print(terminal(f"{key.removesuffix(',none')}: {reason}"), highlight=False)
    if result.attacks:
        out.print(attack_table(result, beside))
    for line in (*_not_made(result), _cost(result)):
        out.print(terminal(line), highlight=False)
    _print_stages(out, result, path)


def stage_table(result: Result, metric: str) -> Table:
    """Sequential unlearning: stages down, a forget metric of every request's set and the utility across.

    The set that a stage unlearns is bold; those to its right are yet to come.
    """
    curve, (_, rest) = result.curves[STAGES], measures(result)
    sets = range(1, stage_count(curve) + 1)
    table = Table("after", title=f"{heading(result, metric)} of each request's set", title_justify="left")
    for name in (*(f"set {each}" for each in sets), *(heading(result, key) for key in rest)):
        table.add_column(name, justify="right")
    for point in curve.points:
        cells = [number(point.values.get(f"stage{each}_{metric}")) for each in sets]
        if point.at:
            cells[point.at - 1] = f"[bold]{cells[point.at - 1]}[/bold]"
        cells += [number(point.values.get(key)) for key in rest]
        table.add_row(f"request {point.at}" if point.at else "target", *cells)
    return table


def _print_stages(out: Console, result: Result, path: Path) -> None:
    if STAGES in result.curves:
        for metric in measures(result)[0]:
            out.print(stage_table(result, metric))
        out.print(terminal(f"picture: {path.with_suffix('.stages.svg')}"), highlight=False, soft_wrap=True)


def print_bundle(folder: Path, results: Sequence[Result], models: Sequence[str], warnings: Sequence[str]) -> None:
    """What a bundle holds, what its reviewers will ask about, and the next command."""
    rows = [
        (
            *(result.task, result.model, result.unlearner.name, result.run_id),
            "yes" if result.run_id in models else "",
            ", ".join(result.attacks),
        )
        for result in results
    ]
    print_names(f"bundle {folder}", ("task", "model", "unlearner", "run", "saved model", "attacks"), rows)
    out = Console()
    for warning in warnings:
        out.print(terminal(f"note: {warning}"), highlight=False, soft_wrap=True)
    out.print(terminal(f"next: grun-bench verify {folder}"), highlight=False, soft_wrap=True)


def pairs_table(title: str, pairs: dict[str, Any]) -> Table:
    """Two columns: name and value."""
    table = Table(title=terminal(title), title_justify="left", show_header=False)
    for name, value in pairs.items():
        table.add_row(terminal(name), terminal(value if isinstance(value, str) else json.dumps(value)))
    return table


def print_sweep(task: str, done: Sequence[Swept]) -> None:
    """One row a run: its headline numbers, or why there are none."""
    shown = next((each.result for each in done if each.result), None)
    headline = shown.headline if shown else []
    table = Table(title=f"sweep of {terminal(task)}", title_justify="left")
    for column in ("unlearner", "seed", "status"):
        table.add_column(column, no_wrap=True)
    for metric in headline:
        table.add_column(heading(shown, metric) if shown else metric, justify="right")
    for each in done:
        seed = "" if each.result and each.result.seed is None else str(each.seed)
        status = each.result.status if each.result else "refused" if each.refused else "failed"
        values = [number(each.result.value(metric)) for metric in headline] if each.result else []
        table.add_row(terminal(each.unlearner), seed, status, *values)
    out = Console()
    out.print(table)
    for each in done:
        if each.problem:
            out.print(terminal(f"{each.unlearner}: {each.problem}"), highlight=False)
    out.print("next: grun-bench leaderboard", highlight=False)


def print_names(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain listing for `ls`."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(terminal(cell) for cell in row))
    Console().print(table)


# --- verification

#: rows of a table of differences
_SHOWN = 30


def print_verified(folder: Path, found: Sequence[Verified], rerun: bool) -> None:
    """One line a row, the differences, and what was written."""
    out = Console()
    table = Table(title=terminal(f"verified: {folder}"), title_justify="left")
    for column in ("unlearner", "run", "numbers", "differ", "largest difference", "verdict"):
        right = column in ("numbers", "differ", "largest difference")
        table.add_column(column, justify="right" if right else "left", overflow="fold")
    for each in found:
        largest = max((one.difference or 0.0 for one in each.numbers), default=0.0)
        verdict = each.tier if each.ok else "failed"
        names = (each.row.result.unlearner.name, each.row.result.run_id)
        counts = (str(len(each.numbers)), str(len(each.wrong)), f"{largest:.2g}")
        table.add_row(*map(terminal, names), *counts, verdict)
    out.print(table)
    for each in found:
        for problem in each.problems:
            out.print(terminal(f"{each.row.path}: {problem}"), highlight=False)
        if rerun or each.wrong:
            out.print(_differences(each, rerun))
    from grun_bench.leaderboard.recompute import TOLERANCE  # with scipy, which no other table needs

    how = "the tolerances in the table" if rerun else f"a relative {TOLERANCE:g}"
    if all(each.ok for each in found):
        out.print(terminal(f"verified within {how}; written to {folder / VERIFICATION}"), highlight=False)
    else:
        out.print(terminal(f"not verified: the allowed difference is {how}."), highlight=False)


def _differences(found: Verified, rerun: bool) -> Table:
    """Number by number: what is wrong first, then the headline."""
    headline = {f"results.{key},none" for key in found.row.result.headline}
    right = [each for each in found.numbers if each.ok and each.place in headline] if rerun else []
    table = Table(title=terminal(found.row.result.run_id), title_justify="left")
    for column in ("number", "stated", "found", "difference", "allowed"):
        table.add_column(column, justify="left" if column == "number" else "right", overflow="fold")
    for each in [*found.wrong[:_SHOWN], *right]:
        gap = "" if each.difference is None else f"{each.difference:.2g}"
        allowed = "not judged" if each.allowed is None else f"{each.allowed:.2g}"
        table.add_row(terminal(each.place), _told(each.stated), _told(each.found), gap, allowed)
    if len(found.wrong) > _SHOWN:
        table.caption = f"and {len(found.wrong) - _SHOWN} more"
    return table


def _told(value: float | str | None) -> str:
    return terminal(value) if isinstance(value, str) else number(value, 6)
