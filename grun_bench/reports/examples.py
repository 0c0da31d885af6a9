"""Of the rows that were to be forgotten those that came back most, as people read them. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from grun_bench.metrics.rouge import rouge
from grun_bench.reports.leaks import Leak
from grun_bench.reports.rows import FiledRow, Row
from grun_bench.results.record import Record
from grun_bench.results.texts import Texts, texts_of


@dataclass(frozen=True)
class Said:
    """What a model said to one question, and how much of the original answer is in it, as ROUGE-L recall in [0, 1]."""

    text: str
    recall: float


@dataclass(frozen=True)
class Example:
    """One row of a forget set: what was asked and its original answer, and what each model said to it.

    `attacked` is under the attack of the leak, None without attack; of several sampled answers it is the one that has
    most of the original. `given` are the answer's first words where the attack gives them. A model that is not there,
    or has no text of the row, is None.
    """

    set: str
    index: int
    question: str
    answer: str
    given: str
    attacked: Said | None
    own: Said | None
    target: Said | None
    retain: Said | None


def examples(row: Row, leak: Leak, count: int) -> list[Example]:
    """The `count` rows of the forget sets that came back most under the leak's attack, most first.

    Empty where there are no records, or no texts of them.
    """
    records = row.own.records(leak.attack, leak.variant)
    forget = row.result.sets.of("forget")
    found = [(said, record) for record in records or () if record.set in forget and (said := _said(row.own, record))]
    # of equals the longer answer says more
    most = sorted(found, key=lambda pair: (-pair[0].recall, -len(pair[1].answer.text), pair[1].index))[:count]
    return [_example(row, leak, *each) for each in most]


def _example(row: Row, leak: Leak, said: Said, record: Record) -> Example:
    texts = texts_of(row.result, record)
    clean = _other(row.own, record)
    original = _texts(row.own, record.set, record.index) or texts
    return Example(
        set=record.set,
        index=record.index,
        question=original.question if original else "",
        answer=original.answer if original else "",
        given=texts.given if texts else "",
        attacked=said if leak.attack else None,
        own=clean,
        target=_other(row.target, record),
        retain=_other(row.retain, record),
    )


def _record(row: FiledRow | None, name: str, index: int) -> Record | None:
    """A row's record without attack."""
    records = row.records() if row else None
    return next((each for each in records or () if (each.set, each.index) == (name, index)), None)


def _texts(row: FiledRow, name: str, index: int) -> Texts | None:
    record = _record(row, name, index)
    return texts_of(row.result, record) if record else None


def _other(row: FiledRow | None, like: Record) -> Said | None:
    """What a model said without attack to the question of a record."""
    record = _record(row, like.set, like.index)
    return _said(row, record) if row and record else None


def _said(row: FiledRow, record: Record) -> Said | None:
    """The answer that has most of the original, and how much; None without texts, or where ROUGE reads none of them."""
    texts = texts_of(row.result, record)
    if texts is None or not texts.said or not texts.answer:
        return None
    recalls = [(rouge(record, record.answer, text, unicode=True).recall, text) for text in texts.said]
    recall, text = max(recalls, key=lambda pair: pair[0])
    return Said(text, recall)
