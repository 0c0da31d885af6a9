"""What every column, metric, attack and method of the boards is, in the words of its source: the end of the page.

The texts of metrics, attacks and methods are their docstrings, from which the pages of the documentation are made too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache

from grun_bench.core import registry
from grun_bench.core.docstrings import as_html
from grun_bench.core.escaping import html
from grun_bench.core.plugin_search import Entry
from grun_bench.core.plugins import Kind
from grun_bench.leaderboard import words
from grun_bench.leaderboard.boards import Board
from grun_bench.leaderboard.filings import Column, attack_of
from grun_bench.metrics.about import defined_by
from grun_bench.results.metric_key import MetricKey

#: plugins on boards -> what stands over them
_PARTS: dict[Kind, str] = {
    "attack": "Attacks",
    "adapter": "Adapters: what may change",
    "objective": "Objectives: what is optimised",
    "unlearner": "Other methods, target and retain model",
}
#: the columns that are no metrics
COLUMNS = {
    "rank": "Place among the rows that may be compared: less is left of the forget set under the worst attack of a "
    "user, among rows that keep enough utility. Rows that cannot be told from the target model have none. "
    f"{words.PARETO}: on the Pareto front, no other ranked row is at least as good in both numbers and better in one.",
    "unlearner": "The method, as adapter+objective: what may change, and what is optimised. Below the name are the "
    "settings in which the rows of a method differ, and what must be known beside the numbers. The target model is the "
    "model before unlearning; the retain model is one that never saw the forget set.",
    "worst case": "The metric without attack or under the strongest attack of somebody who may only ask, whichever "
    "leaves more; the attack is named below. This ranks.",
    "n": "How many runs (seeds) the row has; its numbers are their means.",
    "attacks": "How many attacks the row was under, with those that do not rank: `sampling`, which has its own "
    "measure, and those of an owner of the weights. Fewer attacks can only make a row look better.",
    "trainable": "How many weights were trained (k: thousands, M: millions, B: billions).",
    "train s": "Seconds that training took, mean over the runs, on the machine that the opened row names.",
    "peak GiB": "Most memory that training took on the device, in GiB.",
    "source": "How far a row can be trusted. "
    + " ".join(f"{tier[0].upper()}{tier[1:]}: {text}." for tier, text in words.TIERS.items()),
    "recovery": "How much of what was gone an attack brought back: 0 nothing, 1 all that the target model knew.",
    "interval": words.INTERVALS,
}


@cache
def metric_of(key: str) -> Entry | None:
    """The metric behind a key; None for one that is not known here."""
    return defined_by(MetricKey(key).recovered.metric, registry.entries("metric"))


def place(kind: str, name: str) -> str:
    """The id of an entry on the page."""
    return f"g-{kind}-{name}".replace(" ", "-")


@cache
def place_of_metric(key: str) -> str:
    """The id of the entry of a key's metric; "" without one."""
    entry = metric_of(key)
    return place("metric", entry.name) if entry else ""


@dataclass(frozen=True)
class Terms:
    """What a board shows that is explained: metric keys with their headings, attacks, and unlearners with their
    parts."""

    metrics: Mapping[str, str]
    attacks: Set[str]
    unlearners: Set[str]


def terms(board: Board) -> Terms:
    """The terms of one board."""
    return Terms(
        _metric_keys(board),
        {attack_of(name) for name in board.access},
        {part for row in board.rows for part in (row.name, *row.name.split("+"))},
    )


def glossary(boards: Sequence[Terms]) -> str:
    """The entries of all that boards with these terms show, as HTML."""
    columns = "".join(_entry(place("column", name), name, text) for name, text in COLUMNS.items())
    parts = [_part("Columns", columns, " open")]
    by_theme: dict[str, dict[str, Entry]] = {}
    keys: dict[str, str] = {}
    for board in boards:
        for key, heading in board.metrics.items():
            keys.setdefault(key, heading)
    for key in keys:
        if entry := metric_of(key):
            by_theme.setdefault(entry.theme or "Other metrics", {})[entry.name] = entry
    for theme, entries in by_theme.items():
        parts.append(_part(theme, "".join(_metric(entry, keys) for entry in entries.values())))
    for kind, title in _PARTS.items():
        used = set[str]().union(*(each.attacks if kind == "attack" else each.unlearners for each in boards))
        known = registry.entries(kind)
        found = "".join(_plugin(known[name]) for name in sorted(used) if name in known)
        parts += [_part(title, found)] if found else []
    return "".join(parts)


def _metric_keys(board: Board) -> dict[str, str]:
    """Metric key -> its heading, of all columns and of what attacks have beside them."""
    found: dict[str, str] = {}
    own = (Column(metric, "1") for metrics in board.under.values() for metric in metrics)
    for column in dict.fromkeys([*board.headline, *board.others, *own]):
        found.setdefault(column.metric, words.heading(board, column))
    return found


def _part(title: str, entries: str, opened: str = "") -> str:
    return f"<details{opened}><summary>{html(title)}</summary>{entries}</details>"


def _metric(entry: Entry, keys: Mapping[str, str]) -> str:
    shown = [heading for key, heading in keys.items() if metric_of(key) is entry and "_layer_" not in key]
    names = f'<p class="columns">Columns: {html("; ".join(shown))}</p>'
    return _entry(place("metric", entry.name), entry.name, entry.summary, as_html(_rest(entry)) + names)


def _plugin(entry: Entry) -> str:
    return _entry(place(entry.kind, entry.name), entry.name, entry.summary, as_html(_rest(entry)))


def _rest(entry: Entry) -> str:
    """What a docstring says beside its first line; of an attack what its file says comes before."""
    before, _, after = (entry.docstring or "").partition(entry.summary)
    return f"{before}\n\n{after}".strip("\n")


def _entry(name: str, title: str, short: str, rest: str = "") -> str:
    """`short` is what the tip over a heading says."""
    told = as_html(short).replace("<p>", f'<p id="{html(name)}-tip">', 1)
    return (
        f'<div class="entry" id="{html(name)}" tabindex="-1"><h4>{html(title.replace("_", " "))}</h4>{told}{rest}</div>'
    )
