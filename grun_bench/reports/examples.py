"""Which answers that were to be forgotten come back, beside the original, as people read them. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from grun_bench.core.words import mostly_ascii
from grun_bench.metrics.rouge import rouge
from grun_bench.metrics.sampled import LEAK
from grun_bench.reports.rows import FiledRow, Row
from grun_bench.results.record import Continuation, Record
from grun_bench.results.texts import Texts, texts_of

#: a row of a scored set: the set's name and the row's index
Place = tuple[str, int]


@dataclass(frozen=True)
class Said:
    """What a model said to one question, without attack ("") or under one, and how much of the original answer is in
    it, as ROUGE-L recall in [0, 1]. `given` are the answer's first words where the attack gives them: the recall is of
    what comes after them."""

    text: str
    recall: float
    attack: str = ""
    given: str = ""


@dataclass(frozen=True)
class Returned:
    """The rows of the forget sets of which the answer comes back whole (ROUGE-L recall of `LEAK` or more) under any of
    some attacks, without those that the retain model says under them too: those can be guessed. `of` were asked.
    `target` is how many the target model gives back so; None where there are no texts of it."""

    rows: frozenset[Place]
    of: int
    target: int | None = None

    @property
    def share(self) -> float:
        return len(self.rows) / self.of if self.of else 0.0


@dataclass(frozen=True)
class Example:
    """One row of a forget set: what was asked, its original answer, and what each model said to it.

    `most` is what came back under any of the attacks that were looked at, and `own` is without attack. A model that is
    not there, or has no text of the row, is None.
    """

    place: Place
    question: str
    answer: str
    most: Said
    own: Said | None
    target: Said | None
    retain: Said | None


def came_back(row: FiledRow | None, attacks: Iterable[str]) -> dict[Place, Said]:
    """Of each row of the forget sets what came back most under any variant of the attacks; "" is without attack."""
    best: dict[Place, Said] = {}
    for attack in attacks if row else ():
        info = row.result.attacks.get(attack) if row else None
        for variant in info.variants if info else [""] if not attack else []:
            for place, said in _said(row, attack, variant).items():
                if place not in best or said.recall > best[place].recall:
                    best[place] = said
    return best


def returned(row: Row, attacks: Iterable[str]) -> Returned | None:
    """The answers that come back whole; None where there are no records, or no texts of them."""
    names = list(attacks)
    said = {role: came_back(each, names) for role, each in (("own", row.own), *row.controls.items())}
    whole = {role: {place for place, each in found.items() if each.recall >= LEAK} for role, found in said.items()}
    guessed = whole.get("retain model", set())
    known = len(whole["target"] - guessed) if said.get("target") else None
    return Returned(frozenset(whole["own"] - guessed), len(said["own"]), known) if said["own"] else None


def texts_gone(row: FiledRow) -> bool:
    """Whether a row has records whose texts are elsewhere, or that are elsewhere themselves."""
    records = row.records()
    return row.result.records is not None and (records is None or any(record.hidden for record in records))


def examples(row: Row, attacks: Iterable[str], count: int) -> list[Example]:
    """The `count` rows of which most came back that the retain model does not say too; of equals the longest answers.

    Empty where there are no records, or no texts of them.
    """
    names = list(attacks)
    own, retain = came_back(row.own, names), came_back(row.retain, names)
    others = {"own": row.own, "target": row.target, "retain": row.retain}
    clean = {role: _said(other, "", "") for role, other in others.items()}
    texts = _originals(row.own)

    def telling(place: Place) -> tuple[float, int, Place]:
        known = retain[place].recall if place in retain else 0.0
        return (known - own[place].recall, -len(texts[place].answer), place)

    return [
        Example(place, texts[place].question, texts[place].answer, own[place], **_of(clean, place))
        for place in sorted((place for place in own if place in texts), key=telling)[:count]
    ]


def _of(clean: Mapping[str, Mapping[Place, Said]], place: Place) -> dict[str, Said | None]:
    return {role: said.get(place) for role, said in clean.items()}


def _originals(row: FiledRow) -> dict[Place, Texts]:
    """The texts of a row's records without attack, by place."""
    found = {(record.set, record.index): texts_of(row.result, record) for record in row.records() or ()}
    return {place: texts for place, texts in found.items() if texts}


def _said(row: FiledRow | None, attack: str, variant: str) -> dict[Place, Said]:
    """What a model said to the rows of the forget sets, without attack or under a variant of one."""
    if row is None:
        return {}
    forget = row.result.sets.of("forget")
    records = (record for record in row.records(attack, variant) or () if record.set in forget)
    found = {(record.set, record.index): _most(row, record, attack) for record in records}
    return {place: said for place, said in found.items() if said}


def _most(row: FiledRow, record: Record, attack: str) -> Said | None:
    """The answer that has most of the original; None without texts."""
    texts = texts_of(row.result, record)
    if texts is None or not texts.said or not texts.answer:
        return None
    original, unicode = Continuation(texts.answer), not mostly_ascii(texts.answer)
    recalls = [(rouge(record, original, text, unicode=unicode).recall, text) for text in texts.said]
    recall, text = max(recalls, key=lambda pair: pair[0])
    return Said(text, recall, attack, texts.given)
