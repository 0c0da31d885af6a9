"""Rows beside each other, as plain data: headline, verdict and paired tests of each. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from grun_bench.leaderboard.build import measured
from grun_bench.metrics.paired import Paired, paired_tests
from grun_bench.metrics.power import ks_words, least_words
from grun_bench.reports.leaks import Leak
from grun_bench.reports.rows import FiledRow, Row
from grun_bench.reports.verdict import Verdict, verdict
from grun_bench.results.words import made_notes


def compare_with(first: FiledRow, other: FiledRow) -> list[Paired] | str:
    """The paired tests of a row against another on what the headline has of every example, or why there are none."""
    ours, theirs = other.records(), first.records()
    if ours is None or theirs is None:
        run = (other if ours is None else first).result.run_id
        return f"no paired tests, the records of {run} are not there."
    return paired_tests(ours, theirs, first.result.headline, first.result.sets)


def comparable(rows: Sequence[Row]) -> bool:
    """Whether the numbers of rows compare: the same task, data, model, protocol and versions."""
    return len({measured(row.result) for row in rows}) <= 1


def comparison(rows: Sequence[Row]) -> dict[str, Any]:
    """All that `compare` says, for machines; texts of rows are not in it. A number that is missing is None.

    `paired` compares each row with the first where `comparable`; a row without tests has `reason` in their place.
    """
    first, same = rows[0], comparable(rows)
    return {
        "comparable": same,
        "rows": [_row(row) for row in rows],
        "paired": [_paired(first.own, row.own) for row in rows[1:]] if same else [],
    }


def _row(row: Row) -> dict[str, Any]:
    result = row.result
    return {
        "run_id": result.run_id,
        "status": result.status,
        **{"task": result.task, "model": result.model, "unlearner": result.unlearner.name},
        **{"settings": result.unlearner.settings, "tuned": result.unlearner.tuned_label},
        **{"seed": result.seed, "protocol": result.protocol, "limit": result.limit},
        "headline": {
            metric: {
                "value": result.value(metric),
                "interval": result.interval(metric),
                "n": (count := result.n_samples[result.task].get(metric, 0)),
                "least_seen": least_words(metric, count, result.interval(metric)),
                "power": ks_words(metric, count),
                "reason": result.reason(metric),
            }
            for metric in result.headline
        },
        "made": made_notes(result),
        "training_seconds": result.cost.training_seconds,
        "scoring_seconds": result.cost.scoring_seconds,
        "verdict": _verdict(verdict(row)),
    }


def _verdict(found: Verdict) -> dict[str, Any]:
    whole, utility = found.whole, found.utility
    return {
        "answer": found.answer,
        "grade": found.grade,
        "mark": found.mark,
        "plain": _leak(found.plain),
        "user": _leak(found.user),
        "users": [_leak(each) for each in found.users],
        "owner": [_leak(each) for each in found.owner],
        "whole": whole and {"answers": len(whole.rows), "of": whole.of},
        "utility": utility and asdict(utility) | {"kept": utility.kept},
        "untried": found.untried,
    }


def _leak(leak: Leak | None) -> dict[str, Any] | None:
    return asdict(leak) | {"share": leak.share} if leak else None


def _paired(first: FiledRow, other: FiledRow) -> dict[str, Any]:
    found = compare_with(first, other)
    told = {"reason": found} if isinstance(found, str) else {"tests": [asdict(test) for test in found]}
    return {"run_id": other.result.run_id, "against": first.result.run_id} | told
