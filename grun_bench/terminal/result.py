"""One result as tables: its headline, its attacks, its training and its stages, beside target and retain model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from grun_bench.core.escaping import terminal
from grun_bench.core.plugins import Control
from grun_bench.leaderboard.forgotten import mark_of
from grun_bench.metrics.power import ks_words, least_words
from grun_bench.metrics.stages import STAGES, measures, stage_count
from grun_bench.reports.rows import Row
from grun_bench.results.metric_key import MetricKey, parse_filter
from grun_bench.results.result import Curve, Result
from grun_bench.results.words import (
    dataset_label,
    heading,
    made_notes,
    metric_heading,
    metric_number,
    number,
    trained_share,
)
from grun_bench.runs.config import in_folder
from grun_bench.terminal.gates import print_gates
from grun_bench.terminal.listing import facts_table, leaderboard_command, print_table, tell
from grun_bench.terminal.strengths import print_strengths

#: shown beside the headline where a result has them
_GATES = ("forget_gate", "forget_gate_paraphrased", "retain_gate")


def print_run(row: Row, output: Path, reused: bool) -> None:
    """What ran, the headline numbers with target and retain model beside them, the verdict, and the next commands."""
    from grun_bench.terminal.verdict import print_verdict  # it loads what metrics are made of, and `show` needs none

    result, path = row.result, row.own.path
    settings = f"model {result.model}, seed {result.seed}, data {dataset_label(result)}, protocol {result.protocol}"
    tell(f"{result.unlearner.name} on {result.task}: {settings}")
    if result.limit:
        tell(f"--limit {result.limit}: a smoke test, not a benchmark result.")
    if result.status == "diverged":
        Console().print(terminal(f"diverged: {result.error}"), style="bold red", highlight=False)
    beside = {role: other.result for role, other in row.controls.items() if other.result != result}
    gates = [name for name in _GATES if result.value(name) is not None]
    _print_tables(result, [*result.headline, *gates], beside, beside)
    tell(*_remarks(result))
    _print_end(result, path)
    print_verdict(row, output)
    done = f"already run on {result.date[:10]}; --overwrite runs it again. " if reused else ""
    show = f"grun-bench show {result.run_id}{in_folder('--output', output)}"
    report = f"grun-bench report {result.run_id} --out report.html{in_folder('--output', output)}"
    tell(f"{done}result: {path}", f"next: {show}   |   {report if result.own else leaderboard_command(output)}")


def _remarks(result: Result) -> Iterator[str]:
    """Why numbers of the headline are missing, and which rows had to be left out of others."""
    for metric in result.headline:
        reason = result.reason(metric)
        if result.value(metric) is None:
            yield f"{metric}: none, {reason or 'not part of this task'}"
        elif reason:
            yield f"{metric}: {reason}"
    yield from made_notes(result)


def print_result(result: Result, path: Path, beside: Mapping[Control, Result]) -> None:
    """Everything a result file says, for `show`; `beside` are the results of target and retain model."""
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
    if tuned := result.unlearner.tuned:
        facts["settings"] = f"{tuned.label}, seed {tuned.seed}"
    if result.limit:
        facts["limit"] = f"{result.limit} rows a set: not a benchmark result"
    print_table(facts_table("result " + result.run_id, facts))
    print_table(facts_table("settings", result.unlearner.told))
    _print_tables(result, result.metrics(), {}, beside)
    if mark := mark_of(result, beside.get("target")):
        tell(f"in the worst case: {mark}")
    print_gates(result, path)
    reasons = ((MetricKey.parse(text), reason) for text, reason in result.reasons.items())
    tell(*(f"{key.metric}: {reason}" for key, reason in reasons if not key.attack), *made_notes(result))
    _print_end(result, path)


def _print_tables(
    result: Result, metrics: Iterable[str], beside: Mapping[Control, Result], attacked: Mapping[Control, Result]
) -> None:
    """The metrics, the training and the attacks; `beside` are other results of the first, `attacked` of the last."""
    shown = list(metrics)
    print_table(metric_table(result, shown, beside))
    tell(*powers(result, shown))
    if "training" in result.curves:
        print_table(training_table(result.curves["training"]))
    print_strengths(result)
    if result.attacks:
        print_table(attack_table(result, attacked))


def _print_end(result: Result, path: Path) -> None:
    """Attacks that were not made, the cost, and the stages of sequential unlearning with their picture."""
    tell(*_not_made(result), *_sampled(result), _cost(result))
    if STAGES in result.curves:
        for metric in measures(result)[0]:
            print_table(stage_table(result, metric))
        tell(f"picture: {path.with_suffix('.stages.svg')}")
    if result.gates:
        tell(f"picture of the gates: {path.with_suffix('.gates.svg')}")


def powers(result: Result, metrics: Iterable[str]) -> list[str]:
    """What p of forget quality can say with so many rows as the result has, where it is among the metrics."""
    counts = result.n_samples[result.task]
    words = (ks_words(metric, counts.get(metric, 0)) for metric in metrics if result.value(metric) is not None)
    return [*dict.fromkeys(filter(None, words))][:1]


def metric_table(result: Result, metrics: Iterable[str], beside: Mapping[Control, Result]) -> Table:
    """One row a metric: this result with its interval, and other results beside it."""
    table = Table(title=f"{terminal(result.unlearner.name)} on {terminal(result.task)}", title_justify="left")
    table.add_column("metric")
    table.add_column(terminal(result.unlearner.name), justify="right", style="bold")
    for name in ("95 % interval", "n", "least seen"):
        table.add_column(name, justify="right")
    for name in beside:
        table.add_column(name, justify="right")
    for metric in metrics:
        interval = result.interval(metric)
        shown = f"{number(interval[0])} to {number(interval[1])}" if interval else ""
        others = [metric_number(metric, other.value(metric)) for other in beside.values()]
        count = result.n_samples[result.task].get(metric, 0)
        least = least_words(metric, count, interval) if result.value(metric) is not None else ""
        cells = [metric_number(metric, result.value(metric)), shown, str(count or ""), least, *others]
        table.add_row(terminal(heading(result, metric)), *cells)
    table.caption = "least seen: a difference between two such rows that a test at 5 % finds 4 times of 5"
    table.caption_justify = "left"
    return table


def attack_table(result: Result, beside: Mapping[Control, Result]) -> Table:
    """What each attack makes of the forget set's metrics, here and on the other results, and how much comes back."""
    name = terminal(result.unlearner.name)
    table = Table(title=f"{name} under attack, the worst variant of each", title_justify="left")
    for column in ("attack", "access", "metric"):
        table.add_column(column)
    for column in (name, *beside, "recovery"):
        table.add_column(column, justify="right", style="bold" if column == name else None)
    made = [(info.access, attack) for attack, info in result.attacks.items() if info.variants]
    # users' attacks, which decide the rank, before those of an owner of the weights
    for access, attack in [("", ""), *sorted(made, key=lambda pair: pair[0])]:
        first = [attack or "none", access]
        for cells in _attacked(result, attack, beside):
            table.add_row(*map(terminal, first), *cells)
            first = ["", ""]
        table.add_section()
    return table


def _attacked(result: Result, attack: str, beside: Mapping[Control, Result]) -> Iterator[list[str]]:
    """The cells of an attack's rows from the metric on; of the metrics whose recovery is reported, in file order.

    Of an attack that has others than the row has without it, of those that have no recovery too.
    """
    recovered = [key.recovered.metric for key in result.metric_keys() if key.is_recovery]
    own = set(result.metrics(attack)).difference(result.metrics()) if attack else ()
    for metric in dict.fromkeys([*recovered, *(name for name in result.metrics(attack) if name in own)]):
        values = [each.value(metric, attack) for each in (result, *beside.values())]
        if any(value is not None for value in values):
            recovery = number(result.value(MetricKey(metric).recovery.metric, attack), 2) if attack else ""
            yield [terminal(heading(result, metric)), *map(number, values), recovery]


def _not_made(result: Result) -> Iterator[str]:
    """Why attacks have no values."""
    for attack, info in result.attacks.items():
        if not info.variants:
            reasons = (why for key, why in result.reasons.items() if MetricKey.parse(key)[1:] == parse_filter(attack))
            yield f"{attack}: not made, {next(reasons)}"


def _sampled(result: Result) -> Iterator[str]:
    """Which attacks asked a part of a set, and how much of it."""
    by_rows: dict[str, list[str]] = {}
    for attack, info in result.attacks.items():
        shown = ", ".join(f"{count} of {name}" for name, count in info.rows.items() if count)
        if shown:
            by_rows.setdefault(shown, []).append(attack)
    for shown, attacks in by_rows.items():
        yield f"sampled under {', '.join(attacks)}, rows: {shown}"


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


def stage_table(result: Result, metric: str) -> Table:
    """Sequential unlearning: stages down, a forget metric of every request's set and the utility across.

    The set that a stage unlearns is bold; those to its right are yet to come.
    """
    curve, (_, rest) = result.curves[STAGES], measures(result)
    sets = range(1, stage_count(curve) + 1)
    better = next(result.better(key) for key in result.headline if key.endswith(metric))
    name = metric_heading(metric, better, result.protocol)
    table = Table("after", title=f"{name} of each request's set", title_justify="left")
    for name in (*(f"set {each}" for each in sets), *(heading(result, key) for key in rest)):
        table.add_column(name, justify="right")
    for point in curve.points:
        cells = [number(point.values.get(f"stage{each}_{metric}")) for each in sets]
        if point.at:
            cells[point.at - 1] = f"[bold]{cells[point.at - 1]}[/bold]"
        cells += [number(point.values.get(key)) for key in rest]
        table.add_row(f"request {point.at}" if point.at else "target", *cells)
    return table


def _cost(result: Result) -> str:
    cost = result.cost
    if result.imported:
        return f"imported: {result.imported.file} of {result.imported.tool}, sha256 {result.imported.sha256[:12]}"
    if not cost.trainable_parameters:
        return f"cost: nothing trained, scored in {cost.scoring_seconds:.0f} s"
    share = trained_share(cost)
    peak = f", peak memory {cost.training_peak_bytes / 2**30:.1f} GiB" if cost.training_peak_bytes else ""
    return (
        f"cost: {cost.trainable_parameters:,} trainable parameters ({share:.3g} %), "
        f"trained in {cost.training_seconds:.0f} s, scored in {cost.scoring_seconds:.0f} s{peak}"
    )
