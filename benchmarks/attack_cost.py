#!/usr/bin/env python3
"""Cost of `--attacks all`: every scored set whole, as it once was, against what the headline needs, as it is now.

    python benchmarks/attack_cost.py [--model tiny|NAME|FOLDER] [--task tofu_forget10] [--unlearner grun+npo]
        [--attacks all] [--set KEY=VALUE] [--share 1] [--threads 1]

Prints a Markdown table: for each attack the rows asked and the CPU seconds of both ways, and how many numbers of
forgetting of variants that both have are equal; when one is not, the exit code is 1. CPU seconds are the process's own,
which say more than wall time on a busy machine.

The old way is `--attack-sets all`, with each of relearning's `steps` a training of its own, of which the longest gives
the numbers that it gives now. It chose no words by the model, so the variants `tuned` are a cost of the new way alone.
Forget quality compares with the same model's answers without an attack. `mixed` draws its retain questions from those
that are asked, so its numbers are of other prompts.

`tiny` is unlearned as in a run. A real model (from the mirrors in GRUN_BENCH_HUB) is attacked as it is, without
fine-tuning. With a `--share` below 1 only that share of each set's rows is asked, rounded up, and relearning takes as
many steps as its curve has points; the seconds of both are multiplied up to the whole, and said to be estimates.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from grun_bench.attacks import relearn
from grun_bench.attacks.base import Answers, Attack, Subject
from grun_bench.attacks.needed import Needed
from grun_bench.cli.options import parsed
from grun_bench.core.environment import cpu_threads
from grun_bench.core.progress import say
from grun_bench.metrics.about import about
from grun_bench.metrics.evaluate import evaluate
from grun_bench.models.scoring import Example
from grun_bench.results.record import Records
from grun_bench.runs.config import RunConfig
from grun_bench.runs.fit import fit
from grun_bench.runs.inputs import Inputs, resolve
from grun_bench.runs.score import ask, subject_of
from grun_bench.runs.session import Session
from grun_bench.tasks.world import TINY

#: by how much a number may differ between the ways: the noise of sums in batches of other rows
TOLERANCE = 1e-4
#: attacks whose prompts depend on which rows are asked
OTHER_PROMPTS = {"mixed"}


@dataclass
class Cost:
    """Rows asked and CPU seconds, both of the whole sets, and numbers of forgetting by variant."""

    rows: float = 0
    seconds: float = 0.0
    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@contextmanager
def training_timed() -> Iterator[list[float]]:
    """Within this block the CPU seconds of each of relearning's trainings are listed."""
    real, seconds = relearn.fine_tune, []

    def timed(*args: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return real(*args, **options)
        finally:
            seconds.append(time.process_time() - start)

    relearn.fine_tune = timed
    try:
        yield seconds
    finally:
        relearn.fine_tune = real


@dataclass
class Ways:
    """Both ways of attacking a subject, of which a share of each set is asked."""

    inputs: Inputs
    subject: Subject
    share: float

    def __post_init__(self) -> None:
        self.plain = ask(self.inputs, self._part(self.subject)).records

    def new(self, attack: Attack) -> Cost:
        return self._cost(attack, steps=max(attack.settings.get("steps", [0])))

    def old(self, attack: Attack) -> Cost:
        without_choice = {name: 0 if name == "texts" else value for name, value in attack.settings.items()}
        steps = attack.settings.get("steps", [0])
        cost = self._cost(replace(attack, settings=without_choice, everything=True), steps=sum(steps))
        last = f"@{max(self._taken(steps))}"
        kept = {name: each for name, each in cost.numbers.items() if "@" not in name or name.endswith(last)}
        return replace(cost, numbers=kept)

    def _cost(self, attack: Attack, steps: int) -> Cost:
        """What an attack costs on the whole, with so many steps a training."""
        if "steps" in attack.settings:
            attack = replace(attack, settings={**attack.settings, "steps": self._taken(attack.settings["steps"])})
        whole = Needed.of(attack, self.inputs.task.sets, self.inputs.task.headline).subject(self.subject)
        part, asking, asked = self._part(whole), 0.0, 0

        def answer(one: Subject) -> Answers:
            nonlocal asking, asked
            start = time.process_time()
            answers = ask(self.inputs, one).answers
            asking, asked = asking + time.process_time() - start, asked + len(answers.records)
            return answers

        with training_timed() as trainings:
            start = time.process_time()
            attacked = attack.run(part, answer)
            rest = time.process_time() - start - asking - sum(trainings)
        if attack.plugin.access == "user":  # what it does beside that is to ask too
            asking, rest = asking + rest, 0.0
        scale = len(whole.examples) / len(part.examples)
        training = sum(trainings) / max(attack.settings.get("steps", [1])) * steps
        numbers = {name: self._numbers(attack, each.records) for name, each in attacked.variants.items()}
        return Cost(asked * scale, asking * scale + training + rest, numbers)

    def _part(self, subject: Subject) -> Subject:
        by_set: dict[str, list[Example]] = {}
        for row in subject.examples:
            by_set.setdefault(row.set, []).append(row)
        kept = [row for rows in by_set.values() for row in rows[: math.ceil(self.share * len(rows))]]
        return replace(subject, examples=kept)

    def _taken(self, steps: Sequence[int]) -> Sequence[int]:
        return steps if self.share == 1 else range(1, len(steps) + 1)

    def _numbers(self, attack: Attack, records: Records) -> dict[str, float]:
        sets = self.inputs.task.sets
        values = evaluate(records, self.plain, attack.metrics(self.inputs.task.metrics), sets, intervals=False)
        told = about(values, sets)
        return {key: each.value for key, each in values.items() if told[key].forgetting and each.value is not None}


def compared(attack: str, new: Cost, old: Cost) -> tuple[int, int]:
    """How many numbers of both ways are equal, and how many there are."""
    if attack in OTHER_PROMPTS:
        return 0, 0
    pairs = [
        (value, new.numbers[variant].get(key, math.nan))
        for variant, values in old.numbers.items()
        if variant in new.numbers
        for key, value in values.items()
    ]
    return sum(abs(one - other) < TOLERANCE for one, other in pairs), len(pairs)


def config_of(options: argparse.Namespace) -> RunConfig:
    toy = options.model == TINY
    models = {} if toy else {"target_model": options.model, "retain_model": options.model}
    return RunConfig(
        options.unlearner or ("grun+npo" if toy else "none"),
        options.task,
        Path("not-written"),
        attacks=options.attacks,
        overrides=parsed(options.set),
        dtype="float32",
        **models,
    )


def print_table(costs: Mapping[str, tuple[Cost, Cost]], share: float) -> bool:
    """Print what was found; whether all numbers that both ways have are equal."""
    print("| attack | rows, whole | rows, needed | CPU s, whole | CPU s, needed | ratio | equal numbers |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")

    def line(name: str, old: Cost, new: Cost, equal: int, count: int) -> None:
        ratio = f"{old.seconds / new.seconds:.1f}" if new.seconds else "-"
        numbers = f"{equal} of {count}" if count else "-"
        print(f"| {name} | {old.rows:,.0f} | {new.rows:,.0f} | {old.seconds:,.1f} | {new.seconds:,.1f} "
              f"| {ratio} | {numbers} |")  # fmt: skip

    equal = count = 0
    for name, (old, new) in costs.items():
        same, all_of = compared(name, new, old)
        equal, count = equal + same, count + all_of
        line(name, old, new, same, all_of)
    sums = [
        Cost(sum(each.rows for each in way), sum(each.seconds for each in way))
        for way in zip(*costs.values(), strict=True)
    ]
    line("all", *sums, equal, count)
    if share < 1:
        print(f"\nEstimates from {share:g} of the rows of each set.")
    return equal == count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=TINY, help="tiny, a folder, or a Hub id")
    parser.add_argument("--task", default="tofu_forget10")
    parser.add_argument("--unlearner", default="", help="default: grun+npo for tiny, none for others")
    parser.add_argument("--attacks", default="all")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as of `run`")
    parser.add_argument("--share", type=float, default=1.0, help="of each set's rows")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    config = config_of(options)
    session = Session.of(config)
    with session.in_force(), cpu_threads(options.threads):
        inputs = resolve(config, session)
        fitted = fit(inputs, inputs.method).fitted
        if fitted is None:
            return 1
        ways = Ways(inputs, subject_of(inputs, fitted), options.share)
        costs = {}
        for attack in inputs.attacks:
            say(f"{attack.name}: every set")
            old = ways.old(attack)
            say(f"{attack.name}: what the headline needs")
            new = ways.new(attack)
            if new.numbers:
                costs[attack.name] = (old, new)
    return 0 if print_table(costs, options.share) else 1


if __name__ == "__main__":
    sys.exit(main())
