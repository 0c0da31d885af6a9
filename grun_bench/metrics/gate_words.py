"""An audit of gates as words and the cells of a table, the same in the terminal and on pages. No torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from grun_bench.core import registry
from grun_bench.metrics.gate_audit import Audit
from grun_bench.results.metric_key import CLEAN, parse_filter
from grun_bench.results.result import GateSpread

#: what stands over the rows whose gates are to be open, and shut, and what it is that they are not
HEADINGS = {True: "to be open: forget questions", False: "to be shut: questions to be kept"}
WRONG = {True: "false-shut", False: "false-open"}
#: what a table's numbers are, below it
LEGEND = (
    "A row's gate is the mean over its layers, read at the prompt's last token; false-shut and false-open are shares "
    "of rows on the wrong side of 0.5. AUC: how well the gate tells forget questions from those to be kept, 1 is "
    "perfectly; each way of asking against the usual one of the other kind. Nearest retain are the retain rows that "
    "share most words with a forget question."
)


def named(label: str, rows: str) -> str:
    """Rows, and the way in which they are asked, by its filter."""
    if label == CLEAN:
        return rows
    attack, variant = parse_filter(label)
    return f"{rows}, {attack}: {variant}" if variant else f"{rows}, {label}"


def lines(gates: Audit, opens: bool) -> Iterator[tuple[str, str, GateSpread]]:
    """(way of asking, rows, spread) of the rows whose gates are to be open, or shut."""
    for label, spreads in gates.items():
        yield from ((label, name, spread) for name, spread in spreads.items() if spread.opens == opens)


def head(opens: bool) -> list[str]:
    """The columns of a table of rows whose gates are to be open, or shut."""
    return ["rows", "n", "5 %", "50 %", "95 %", WRONG[opens], "AUC"]


def numbers_of(spread: GateSpread) -> list[str]:
    """What stands in the columns after the first."""
    shown = [f"{spread.quantiles[place]:.2f}" for place in (1, 10, 19)]
    return [str(spread.n), *shown, f"{spread.wrong:.2f}", "-" if spread.auc is None else f"{spread.auc:.3f}"]


def not_asked(attacks: Collection[str], gates: Audit, run_id: str) -> str:
    """What a row's gates were not read under yet, and the command that does it; "" where nothing is missing.

    `attacks` are those that the row has. Those that leave records of their own kind have no gates.
    """
    asking = [entry for entry in registry.entries("attack").values() if entry.builtin]
    asking = [each for each in asking if each.declared.get("access") == "user" and not each.declared.get("metrics")]
    missing = [entry.name for entry in asking if entry.name not in attacks]
    if CLEAN in gates and not missing:
        return ""
    names = missing or [name for name in attacks if name in {entry.name for entry in asking}]
    command = f"grun-bench attack {run_id} --attacks {','.join(names)}"
    what = f"not read under: {', '.join(missing)}" if CLEAN in gates else "not audited when the row was filed"
    return f"gates {what}; next: {command}"


def worst(gates: Audit, opens: bool) -> tuple[str, str, GateSpread] | None:
    """The line with the largest share of rows on the wrong side, of those whose gates are to be open, or shut."""
    return max(lines(gates, opens), key=lambda line: line[2].wrong, default=None)
