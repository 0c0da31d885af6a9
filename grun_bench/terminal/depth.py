"""How deep forgetting goes, as a table of layers and one number. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from rich.table import Table

from grun_bench.results.words import number
from grun_bench.terminal.listing import print_table, tell

if TYPE_CHECKING:
    from grun_bench.models.depth import Depth


def print_depths(found: Sequence[Depth | None]) -> None:
    """The mean drop of each layer, and the mean depth of the entities that the target's layers know."""
    there = [each for each in found if each is not None]
    known = [value for each in there if (value := each.value) is not None]
    if there:
        table = Table(title="mean drop of the entity's log probability, nats a token", title_justify="left")
        for name in ("layer", "retain model's states", "this model's"):
            table.add_column(name, justify="right")
        for layer in range(len(there[0].retain)):
            means = (fmean(each.retain[layer] for each in there), fmean(each.unlearned[layer] for each in there))
            table.add_row(str(layer), *map(number, means))
        print_table(table)
    mean = number(fmean(known)) if known else "none"
    tell(
        f"erasure depth: {mean}, over {len(known)} of {len(found)} answers (0 as the target, 1 as the retain model); "
        "the others' entities no layer of the target knows better than the retain model's, or are not in the answer."
    )
