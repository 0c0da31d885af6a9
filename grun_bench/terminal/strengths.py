"""A row's curve over strengths as a table, with its forgetting at equal utility."""

from __future__ import annotations

from rich.table import Table

from grun_bench.core.escaping import terminal
from grun_bench.metrics.strengths import SHARES, STRENGTHS, Equal, equal_utility, led, line
from grun_bench.results.result import Result
from grun_bench.results.words import heading, number
from grun_bench.terminal.listing import print_table, tell


def print_strengths(result: Result) -> None:
    """The curve of a result that has one: nothing for others."""
    if STRENGTHS in result.curves:
        print_table(strength_table(result))
        tell(*equal_lines(result))


def strength_table(result: Result) -> Table:
    """Strengths down, the headline across, without attack; utility as a share of the target's besides."""
    points = sorted(result.curves[STRENGTHS].points, key=lambda point: point.at)
    _, utility = led(result)
    title = f"{terminal(result.unlearner.name)} at other strengths, without attack"
    table = Table("strength", title=title, title_justify="left", caption_justify="left")
    for metric in result.headline:
        table.add_column(terminal(heading(result, metric)), justify="right")
    whole = next((point.values.get(utility) for point in points if point.at == 0), None) if utility else None
    if whole:
        table.add_column("utility, of the target's", justify="right")
    for point in points:
        cells = [number(point.values.get(metric)) for metric in result.headline]
        if utility and whole:
            kept = point.values.get(utility)
            cells.append("" if kept is None else f"{100 * kept / whole:.1f} %")
        table.add_row(f"{point.at / 100:g}{_NAMES.get(point.at, '')}", *cells)
    return table


_NAMES = {0: " (target)", 100: " (this row)"}


def equal_lines(result: Result) -> list[str]:
    """Forgetting at equal utility, a line a share; why there is none otherwise."""
    lead, utility = led(result)
    if lead is None or utility is None:
        return ["at equal utility: none, the headline has no metric of forgetting beside one of utility."]
    places = line(result.curves[STRENGTHS], lead, utility)
    found = [(share, equal_utility(places, share)) for share in SHARES]
    return [
        f"with {100 * share:g} % of the target's {utility}: {lead} {_words(each)}"
        if each
        else f"with {100 * share:g} % of the target's {utility}: none, for the target has none of it."
        for share, each in found
    ]


def _words(equal: Equal) -> str:
    beyond = ", the largest that was scored: more might be forgotten beyond it" if equal.ends else ""
    return f"{number(equal.forgetting)} at strength {equal.strength:.2g} (straight lines between points{beyond})"
