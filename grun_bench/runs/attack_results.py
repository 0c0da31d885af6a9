"""Attacks on a row: those that it does not have yet are made, and written into its result one by one."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from grun_bench.attacks.base import Answers, Attack, Attacked
from grun_bench.attacks.needed import Needed
from grun_bench.core import processes
from grun_bench.core.errors import GrunBenchError
from grun_bench.core.files import write_whole
from grun_bench.core.progress import say
from grun_bench.methods.base import Fitted
from grun_bench.metrics.about import about
from grun_bench.metrics.evaluate import Value, evaluate, for_protocol
from grun_bench.metrics.recovery import add_attack, average, recoveries, worst
from grun_bench.results.filed import records_problem, save_records
from grun_bench.results.metric_key import MEAN
from grun_bench.results.record import Records
from grun_bench.results.result import AttackInfo, Result
from grun_bench.results.store import filing, read_result
from grun_bench.runs.fit import checkpoints_of
from grun_bench.runs.gates import audited
from grun_bench.runs.inputs import Inputs, Method
from grun_bench.runs.kept_answers import kept_answers
from grun_bench.runs.made_again import made_again
from grun_bench.runs.outcome import Cell
from grun_bench.runs.score import ask, subject_of, values_of


def attack(
    inputs: Inputs, cell: Cell, method: Method, target: Cell | None, retain: Cell | None, fitted: Fitted | None = None
) -> Cell:
    """The row with the attacks that it did not have yet; `fitted` is its model, None to make it again.

    When the last is filed, nothing of the row's training is kept any more.
    """
    there = processes.only_first(lambda: [has(cell.result, cell.path, each) for each in inputs.attacks])
    wanted = [each for each, has in zip(inputs.attacks, there, strict=True) if not has]
    subject = None
    if wanted and cell.result.status == "ok":
        # controls are the same for every seed
        seed = inputs.config.seed if method.unlearner.seeded else 0
        subject = subject_of(inputs, fitted or made_again(inputs, cell, method), seed)
    for number, each in enumerate(wanted, 1):
        say(f"attack {number} of {len(wanted)} on {cell.result.unlearner.name}: {each.name}")
        needed = Needed.of(each, inputs.task.sets, cell.result.headline)
        kept = kept_answers(inputs, cell, each)
        if kept:
            say(f"{each.name}: goes on after {', '.join(kept)}, whose answers {kept.folder} kept.")
        attacked = each.run(needed.subject(subject), lambda one: ask(inputs, one).answers, kept) if subject else None
        attacked = attacked or Attacked({}, cell.result.error, 0.0)
        # at once, so that what is stopped here is a whole result
        cell = processes.only_first(partial(_filed, inputs, cell, each, needed, attacked, target, retain))
        cell = processes.only_first(partial(audited, cell))
        kept.remove()
    if inputs.attacks and not wanted:
        cell = processes.only_first(partial(audited, cell))
    if wanted or not cell.reused:
        for checkpoint in checkpoints_of(inputs, method, cell.result.run_id):
            checkpoint.remove()
    fitted = subject = None
    gc.collect()
    return cell


def has(result: Result, path: Path, attack: Attack) -> bool:
    """Whether a row has this attack, by version and settings, on all that it is to ask, with the records it left."""
    info = result.attacks.get(attack.name)
    if info is None or (attack.everything and info.rows) or records_problem(path, info.variants.values()):
        return False
    return all(getattr(info, key) == value for key, value in attack.identity.items())


def _filed(
    inputs: Inputs,
    cell: Cell,
    attack: Attack,
    needed: Needed,
    attacked: Attacked,
    target: Cell | None,
    retain: Cell | None,
) -> Cell:
    """The row with an attack's values in its result, as that is by now, and its records beside it."""
    metrics = for_protocol(attack.metrics(inputs.task.metrics), inputs.config.protocol)
    values: dict[str, dict[str, Value]] = {}
    rows = needed.asked((answers.records for answers in attacked.variants.values()), cell.records)
    for variant, answers in attacked.variants.items():
        is_retain = retain is not None and cell.path == retain.path
        reference = answers.records if is_retain else retain.attacked(attack.name, variant) if retain else None
        found = _values(inputs, answers, reference, metrics, cell, target)
        values[variant] = _explained(inputs, found, rows)
    labelled = _labelled(inputs, attack, values, attacked.reason, metrics)
    with filing(cell.path):
        result = read_result(cell.path)
        if not result.same_model(cell.result):
            raise GrunBenchError(
                f"{cell.path} was made again while it was attacked, and the new model answers otherwise: the attack "
                f"{attack.name} is not filed. The same command attacks the new one."
            )
        saved = {
            name: save_records(cell.path, each.records, attack.name, name, private=inputs.task.private)
            for name, each in attacked.variants.items()
        }
        seconds = round(attacked.seconds, 3)
        info = AttackInfo(**attack.identity, variants=saved, seconds=seconds, rows=rows)
        before = result.attacks.get(attack.name)
        add_attack(result, attack.name, info, labelled)
        write_whole(cell.path, result.dumps())
        for variant, left in (before.variants if before else {}).items():
            if variant not in saved:
                cell.path.with_name(left.file).unlink(missing_ok=True)
    return replace(cell, result=result)


def _values(
    inputs: Inputs,
    answers: Answers,
    reference: Records | None,
    metrics: Sequence[str],
    cell: Cell,
    target: Cell | None,
) -> dict[str, Value]:
    """Metric values under an attack's variant, and how much came back of what the row had forgotten without it."""
    reason = "there is no retain model under the same attack." if reference is None else ""
    values = values_of(inputs, answers, reference, metrics, reason)
    known = target.records if target else None
    before = (cell.records, known, inputs.config.protocol, inputs.task.sets)
    return values | recoveries(values, answers.records, *before)


def _explained(inputs: Inputs, values: dict[str, Value], rows: Mapping[str, int]) -> dict[str, Value]:
    """Values that are missing for want of a set that the attack left out, with that as their reason."""
    sets = inputs.task.sets
    absent = {name for name, count in rows.items() if not count}
    roles = {sets.role(name) for name in absent}
    told = about(values, sets)
    why = "the attack asks what its headline needs; --attack-sets all asks every set"

    def lacking(key: str) -> bool:
        of = told[key]
        return values[key].value is None and (of.set.name in absent if of.set else bool(roles.intersection(of.roles)))

    return {
        key: replace(value, reason=f"{value.reason} ({why})") if lacking(key) else value
        for key, value in values.items()
    }


def _labelled(
    inputs: Inputs,
    attack: Attack,
    values: Mapping[str, Mapping[str, Value]],
    reason: str | None,
    metrics: Sequence[str],
) -> dict[str, Mapping[str, Value]]:
    """Values by variant: each one's, the worst of all, and where the attack says so their mean."""
    if not values:
        keys = evaluate(Records([]), None, metrics, inputs.task.sets)
        why = reason or "the attack has no variants."
        return {"": {key: replace(value, reason=why) for key, value in keys.items()}}
    mean = {MEAN: average(values)} if attack.plugin.mean else {}
    return {**values, "": worst(values), **mean}
