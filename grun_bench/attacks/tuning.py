"""An attack's choice for a model: made on one half of the forget rows, scored on the other."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from grun_bench.attacks.base import Subject
from grun_bench.metrics.evaluate import evaluate, for_protocol
from grun_bench.models.scoring import Example, score
from grun_bench.results.record import Records
from grun_bench.tasks.chats import last_said

#: how many texts are put together at most
ROUNDS = 3


def halves(subject: Subject) -> tuple[list[Example], Subject]:
    """Every other forget row, to choose on, and the subject without these."""
    forget = [row for row in subject.examples if subject.sets.role(row.set) == "forget"]
    tried = forget[::2] if len(forget) > 1 else []
    return tried, replace(subject, examples=[row for row in subject.examples if row not in tried])


def strength(subject: Subject, rows: Sequence[Example]) -> float:
    """How much of the answers to these rows can be extracted: the mean of their sets' extraction strengths."""
    alone = [replace(row, paraphrased_question=None, paraphrased_answer=None, perturbed_answers=()) for row in rows]
    settings = replace(subject.scoring, generate=False, gradients_of=frozenset())
    records = Records(score(subject.lm, alone, settings))
    names = for_protocol(["extraction_strength"], settings.protocol)
    values = evaluate(records, None, names, subject.sets, intervals=False).values()
    found = [value.value for value in values if value.value is not None]
    return sum(found) / len(found) if found else 0.0


def worded(
    subject: Subject, phrases: Mapping[str, str], texts: int, put: Callable[[str, str], str]
) -> Iterator[tuple[str, Subject]]:
    """The questions with each phrase, by its name, and `tuned` ones; `put(question, words)` is how they are asked."""
    for name, phrase in phrases.items():
        yield name, _asking(subject, phrase, put)
    yield from tuned(subject, phrases.values(), texts, put)


def tuned(
    subject: Subject, phrases: Iterable[str], texts: int, put: Callable[[str, str], str]
) -> Iterator[tuple[str, Subject]]:
    """The words that bring back most of one half of the forget rows, put to the other half.

    `put(question, words)` is how they are asked. Tried are the phrases and as many `texts`, questions of the retain set
    drawn by the subject's seed; what is best gets another one of them beside it as long as that brings back more.
    Nothing where there is no half to choose on or nothing is to be tried.
    """
    tried, rest = halves(subject)
    if not tried or not texts:
        return
    asked = [last_said(question) for question, _ in subject.retain if question]
    pool = list(dict.fromkeys([*phrases, *random.Random(subject.seed).sample(asked, min(texts, len(asked)))]))

    def found(words: str) -> float:
        return strength(subject, _asking(replace(subject, examples=tried), words, put).examples)

    best, words = -1.0, ""
    for _ in range(ROUNDS):
        longer = {f"{words} {text}".strip(): 0.0 for text in pool if text not in words}
        longer = {each: found(each) for each in longer}
        first = max(longer, key=longer.__getitem__, default="")
        if not first or longer[first] <= best:
            break
        best, words = longer[first], first
    yield "tuned", _asking(rest, words, put)


def _asking(subject: Subject, words: str, put: Callable[[str, str], str]) -> Subject:
    return subject.asking(lambda question: put(question, words))
