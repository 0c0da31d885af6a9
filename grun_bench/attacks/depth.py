"""Activation patching: whether the target still reads a fact off the unlearned model's hidden states."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import Inapplicable
from grun_bench.core.registry import attack
from grun_bench.metrics.depth import SCORE
from grun_bench.models.depth import Entity, depths

#: the one variant
VARIANT = "patched"


@attack("depth", access="weights", version=1, metrics=("erasure_depth",))
def depth(subject: Subject) -> Iterator[tuple[str, Subject]]:
    """Hidden states put into the target model, block by block: how deep the answers' entities are gone.

    Of forget rows for which the task's data name an entity (`entities` of a task file), compared with the retain model
    (see `models/depth`). The unlearning depth score, arXiv 2605.24614.
    """
    entities = subject.entities()
    asked = [row for row in subject.examples if (row.set, row.index) in entities]
    if not asked:
        raise Inapplicable("no row to forget is among those that the task's entities are of.")
    if VARIANT in subject.answered:
        yield VARIANT, subject
        return
    target, retain = subject.references()
    spans = [Entity(row.question, row.answer, entities[row.set, row.index]) for row in asked]
    found = zip(asked, depths(subject.lm, target, retain, spans), strict=True)
    values = {(row.set, row.index): each.value for row, each in found if each is not None}
    scores = {place: {SCORE: value} for place, value in values.items() if value is not None}
    scoring = replace(subject.scoring, generate=False)
    yield VARIANT, replace(subject, examples=asked, measures=(), scores=scores, scoring=scoring)
