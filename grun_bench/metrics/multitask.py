"""Many tasks in one number: completions and questions of several kinds, to forget and to keep. No torch."""

from __future__ import annotations

import numpy as np

from grun_bench.core.errors import MissingReference
from grun_bench.core.registry import metric
from grun_bench.metrics._common import KNOWN, per_row
from grun_bench.metrics.aggregates import harmonic
from grun_bench.metrics.membership import mia_loss
from grun_bench.metrics.questions import accuracy
from grun_bench.metrics.scored import ScoredRecords, SetRecords
from grun_bench.metrics.texts import rougeL_recall, written


@metric("exact_match", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0))
def exact_match(rows: SetRecords) -> np.ndarray:
    """Share of greedy answers that are the answer, but for case and white space around it; 0 to 1, low on forget.

    Source: LUME (arXiv 2502.15097) and SemEval-2025 task 4, of questions (their `knowledge-score`).
    """
    return per_row(float(written(row).strip().lower() == row.answer.text.strip().lower()) for row in rows)


@metric("task_aggregate", over=("forget", "retain"), higher_is_better=True, bounds=(0.0, 1.0))
def task_aggregate(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Harmonic mean over the forget and retain sets of how they are answered, inverted on forget; 0 to 1, high is good.

    Of a set it is the mean `exact_match` where the set's `metrics` name that, else the mean `rougeL_recall`: with a set
    for each kind of task, completions and questions, forget and retain, LUME's twelve. Source: LUME (arXiv 2502.15097)
    and SemEval-2025 task 4 (its `harmonic-mean-task-aggregate`).
    """
    return harmonic(
        [1.0 - _answered(records, rows) for rows in records.each("forget")]
        + [_answered(records, rows) for rows in records.each("retain")]
    )


def _answered(records: ScoredRecords, rows: SetRecords) -> float:
    asked = next(each for each in records.sets.sets if each.name == rows.name)
    return float((exact_match if "exact_match" in asked.metrics else rougeL_recall)(rows).mean())


@metric("membership_score", over=("forget", "holdout"), higher_is_better=True, bounds=(0.0, 1.0))
def membership_score(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """1 - 2 |AUC - 0.5| of membership inference by the loss (`mia_loss`); 0 to 1, high is good: nothing can be told.

    Source: SemEval-2025 task 4 (its `mia_final_score`).
    """
    return 1.0 - 2.0 * abs(mia_loss(records, None) - 0.5)


@metric("aggregate_score", over=("forget", "retain", "holdout"), higher_is_better=True, bounds=(0.0, 1.0))
def aggregate_score(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Mean of `task_aggregate`, `membership_score` and the accuracy on lm-eval's utility measures; 0 to 1, high.

    Source: SemEval-2025 task 4 (its `aggregate-score`), whose measure is MMLU. Its organisers ranked no model below
    three quarters of the target's accuracy.
    """
    names = records.sets.of("utility", kind="questions")
    asked = [row for name in names for row in records.records.of(name)]
    if not asked:
        raise MissingReference("no questions of lm-eval with the role 'utility' were asked.")
    tasks = task_aggregate(records.taking("task_aggregate"), None)
    members = membership_score(records.taking("membership_score"), None)
    return float(np.mean([tasks, members, accuracy(asked).mean()]))
