"""Whether one result forgot anything that can be seen, by the rule of the boards. No torch, no scipy."""

from __future__ import annotations

from grun_bench.core import registry
from grun_bench.leaderboard.cells import worst_ends
from grun_bench.leaderboard.ranking import unseen
from grun_bench.metrics.about import leads
from grun_bench.results.result import Result


def mark_of(result: Result, target: Result | None) -> str:
    """The mark of boards for a result that forgot nothing that can be seen beside the target's; "" for any other."""
    lead = leads(result.headline, result.higher_is_better[result.task], result.sets)[0]
    if lead is None or target is None or registry.role_of(result.unlearner.name) == "target":
        return ""
    return unseen(worst_ends(result, lead), worst_ends(target, lead))
