"""The texts behind a record: what was asked, the answer that the data has, and what the model said. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from grun_bench.results.record import Record
from grun_bench.results.result import Result


@dataclass(frozen=True)
class Texts:
    """`question` is "" of a plain text; `given` are the first words of the answer that an attack gave, and `answer`
    what comes after them; `said` are the model's answers: the greedy one, or those that were sampled."""

    question: str
    answer: str
    said: tuple[str, ...]
    given: str = ""


def texts_of(result: Result, record: Record) -> Texts | None:
    """The texts of a result's record; None where they cannot be had on this machine.

    Whoever shows texts to a person asks here, so that where they are kept is known in one place.
    """
    if record.choices is not None or record.hidden:
        return None
    greedy = [record.generation.text] if record.generation else []
    return Texts(record.question, record.answer.text, tuple(record.samples or greedy), record.prefill or "")
