"""Records against those of the target and the retain model: the same questions, and not the same model. No torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from grun_bench.core import registry
from grun_bench.core.plugins import Control
from grun_bench.results.filed import CONTROLS, Filed, controls
from grun_bench.results.metric_key import CLEAN, MetricKey
from grun_bench.results.record import Record, Records, load_records

#: two models are one where their records differ by no more than this share of what target and retain model differ by
ALIKE = 0.1


def unlike(filed: Filed, among: Iterable[Filed]) -> Iterator[str]:
    """What is wrong with records beside those of their target and retain rows, which must all be there.

    Rows that come twice, other questions or answers than the target model had, and a retain model filed as a method.
    The rows of a tree are asked before those that a submission brought.
    """
    among = list(among)
    found = {role: _first(filed, role, among) for role in CONTROLS}
    role = registry.role_of(filed.result.unlearner.name)
    for of in ("target", "retain model"):
        control = found[of]
        if control is not None and role != of:
            yield from _other_rows(filed, control)
            break
    target, retain = found["target"], found["retain model"]
    if role is None and target is not None and retain is not None and clean(filed) is not None:
        yield from _clones(filed, target, retain)


def _first(filed: Filed, role: Control, among: Sequence[Filed]) -> Filed | None:
    """The row of a control that the result may have been made with; the project's own before a submission's."""
    found = list(controls(filed.result, role, among))
    found.sort(key=lambda each: (bool(each.submission), each.root == filed.root))
    return next((each for each in found if each.result.records and not each.problem()), None)


def same_control(one: Filed, other: Filed, pins: Sequence[Filed]) -> bool:
    """Whether two rows are of one target or retain model: equal records, or near ones, as of another device.

    `pins` are the target and the retain model that say how far apart two models are.
    """
    if one.result.unlearner.name != other.result.unlearner.name or one.problem() or other.problem():
        return False
    if one.result.records and one.result.records.same(other.result.records):
        return True
    whole = [distance(clean(a), clean(b)) for a in pins for b in pins if a.result.unlearner != b.result.unlearner]
    return distance(clean(one), clean(other)) <= ALIKE * min((each for each in whole if each < math.inf), default=0.0)


def _other_rows(filed: Filed, control: Filed) -> Iterator[str]:
    own, other = clean(filed), clean(control)
    if own is not None and other is not None:
        mine, theirs = ([_asked(record) for record in records] for records in (own, other))
        if mine != theirs:
            odd = next((one for one, two in zip(mine, theirs, strict=False) if one != two), None)
            where = f"row {odd[1]} of '{odd[0]}'" if odd else f"{len(mine)} rows, and {len(theirs)} there"
            yield f"$.records: not the questions and answers of {control.path}: {where}"
    for name, info in filed.result.attacks.items():
        known = control.result.attacks.get(name)
        if known and known.access != info.access:
            yield f"$.attacks.{name}.access: {info.access}, and {control.path} has {known.access}"
        if known and known.version == info.version and known.settings != info.settings:
            yield f"$.attacks.{name}.settings: not those that {control.path} has: not the same attack"
        alike = known and (known.version, known.settings, known.rows) == (info.version, info.settings, info.rows)
        there = known.variants if known and alike else {}
        if absent := sorted(there.keys() - info.variants.keys()):
            yield f"$.attacks.{name}.variants: not all that {control.path} has: no {', '.join(absent)}"
        for variant in info.variants:
            label, place = MetricKey("", name, variant).filter, f"$.attacks.{name}.variants.{variant}"
            rows = _numbers(filed, label)
            if len(set(rows)) < len(rows):
                yield f"{place}: a row twice"
            if variant in there and not control.left_out() and rows != _numbers(control, label):
                yield f"{place}: not the rows that {control.path} has"


def _clones(filed: Filed, target: Filed, retain: Filed) -> Iterator[str]:
    """Records that are the retain model's, without attack or under one that only asks the model.

    Who owns the weights may make models alike: those that learn the forget set again, say.
    """
    asking = [
        MetricKey("", name, variant).filter
        for name, info in filed.result.attacks.items()
        for variant in (info.variants if info.access == "user" else ())
    ]
    for label in (CLEAN, *asking):
        own, theirs, oracle = (_labelled(each, label) for each in (filed, target, retain))
        apart, whole = distance(own, oracle), distance(theirs, oracle)
        if apart <= ALIKE * whole < math.inf and whole:
            place = "$.records" if label == CLEAN else f"the records of {label}"
            yield (
                f"{place}: those of the retain model of {retain.path}, {apart:.2g} nats a token from it where the "
                f"target model is {whole:.2g}: a retain model is no method"
            )


def _numbers(filed: Filed, label: str) -> list[tuple[str, int]]:
    return [(record.set, record.index) for record in filed.records([label])[label]]


def clean(filed: Filed) -> Records | None:
    """The records without attack; None where there are none."""
    return _labelled(filed, CLEAN)


def _labelled(filed: Filed, label: str) -> Records | None:
    """The records of a filter; None where there are none, or not beside the result."""
    records = filed.named().get(label)
    return _read(filed.beside(records), records.sha256) if records and filed.beside(records).exists() else None


@lru_cache(maxsize=8)
def _read(path: Path, sha256: str) -> Records:
    """Kept, since every row is compared with the same; by content, which was compared with the hash."""
    return load_records(path)


def distance(one: Records | None, other: Records | None) -> float:
    """By how much the losses of two models differ, as a mean over their answers, in nats a token.

    Of multiple-choice questions it is the options' log probabilities. Infinite where they were asked something else.
    """
    if one is None or other is None or [_asked(record) for record in one] != [_asked(record) for record in other]:
        return math.inf
    apart = [abs(mine - theirs) for mine, theirs in zip(_said(one), _said(other), strict=True)]
    return math.fsum(apart) / len(apart) if apart else math.inf


def _asked(record: Record) -> tuple[Any, ...]:
    texts = [answer.text for answer in (record.answer, record.paraphrased, *record.perturbed) if answer]
    options = (record.choices.target, len(record.choices.logprobs)) if record.choices else ()
    return (record.set, record.index, record.question, *texts, *options)


def _said(records: Records) -> list[float]:
    answers = [answer for each in records for answer in (each.answer, each.paraphrased, *each.perturbed) if answer]
    options = [logprob for each in records if each.choices for logprob in each.choices.logprobs]
    return [*(0.0 if answer.loss is None else answer.loss for answer in answers), *options]
