"""A board's other metrics by what they are about: a table of fifty columns is read by nobody. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterable

from grun_bench.leaderboard.filings import Column
from grun_bench.metrics.about import About, about
from grun_bench.tasks.sets import ScoredSets

FORGOTTEN, KEPT, OTHERWISE = "What was to be forgotten", "What was to be kept", "What it knew otherwise"
MEMBERS, WRITING, REST = "Membership", "How answers read", "Other metrics"
GATES, LAYERS = "Gates", "Gates, layer by layer"
#: in the order of pages; layers are of use to whoever builds gates, and pages fold them
THEMES = (FORGOTTEN, KEPT, OTHERWISE, MEMBERS, WRITING, REST, GATES, LAYERS)
#: the ends of the keys of what is said of how a text reads, whatever it says
_WRITING = re.compile(
    r"_(ngram_entropy|empty_answers|runaway_answers|repetition|gibberish|fluency|word_count|degenerate)(_unicode)?$"
)
_GATE, _LAYER = re.compile(r"_gate(_paraphrased)?$"), re.compile(r"_gate(_paraphrased)?_layer_\d+$")


def by_theme(columns: Iterable[Column], sets: ScoredSets) -> dict[str, list[Column]]:
    """Theme -> its columns as they came; themes without any are left out."""
    columns = list(columns)
    told = about((column.metric for column in columns), sets)
    found: dict[str, list[Column]] = {theme: [] for theme in THEMES}
    for column in columns:
        found[_theme(column.metric, told[column.metric])].append(column)
    return {theme: held for theme, held in found.items() if held}


def _theme(metric: str, told: About) -> str:
    if _LAYER.search(metric):
        return LAYERS
    if _GATE.search(metric):
        return GATES
    if _WRITING.search(metric):
        return WRITING
    if "holdout" in told.roles:
        return MEMBERS
    if told.forgetting:
        return FORGOTTEN
    if {"retain", "neighbour"} & {*told.roles}:
        return KEPT
    return OTHERWISE if told.roles else REST
