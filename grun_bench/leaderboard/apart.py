"""Which rows of a table are compared with which target and retain model: the project's own win. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import groupby

from grun_bench.core import registry
from grun_bench.core.cache import digest
from grun_bench.core.plugins import Control
from grun_bench.leaderboard.filings import Run
from grun_bench.leaderboard.likeness import same_control
from grun_bench.results.filed import Filed, controls


def by_controls(table: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of a table by what they are compared with, "" being the target and retain rows of the tree itself.

    A submission stands apart whose own target or retain row is another; the copies that it brings of the tree's own are
    left out. Submissions with the same rows of their own stay together.
    """
    own = [run for run in table if not run.filings[0].submission]
    pins = [run.filings[0] for run in own if _role(run)]
    found: dict[str, list[Run]] = defaultdict(list, {"": own} if own else {})
    brought = sorted((run for run in table if run.filings[0].submission), key=lambda run: run.filings[0].submission)
    for _, group in groupby(brought, key=lambda run: run.filings[0].submission):
        runs = list(group)
        theirs = [run.filings[0] for run in runs if _role(run)]
        methods = [run for run in runs if not _role(run)]
        if _agree(theirs, pins) if theirs else _fit(methods, pins):
            found[""] += methods
        else:
            found[digest(sorted(_name(filed) for filed in theirs))] += runs
    return found


def _role(run: Run) -> Control | None:
    return registry.role_of(run.result.unlearner.name)


def _agree(theirs: Sequence[Filed], pins: Sequence[Filed]) -> bool:
    """Whether each control of a submission is one of the tree's."""
    return all(any(same_control(one, pin, pins) for pin in pins) for one in theirs)


def _fit(methods: Sequence[Run], pins: Sequence[Filed]) -> bool:
    """Whether runs that come without controls were made with the tree's."""
    roles = {registry.role_of(pin.result.unlearner.name) for pin in pins} - {None}
    return bool(roles) and all(any(controls(run.result, role, pins)) for run in methods for role in roles if role)


def _name(filed: Filed) -> tuple[str, str]:
    records = filed.result.records
    return filed.result.unlearner.name, records.sha256 if records else ""
