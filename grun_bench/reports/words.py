"""A verdict in sentences, the same in the terminal and on the page. Plain text, not escaped. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from grun_bench.core import libraries, registry
from grun_bench.reports.examples import Example, Returned, examples
from grun_bench.reports.leaks import Leak
from grun_bench.reports.rows import Row
from grun_bench.reports.verdict import Utility, Verdict
from grun_bench.results.protocol_names import plain_name
from grun_bench.results.result import Cost, Result
from grun_bench.results.words import number, trained_share
from grun_bench.runs.next_command import on_row

#: the least share of what was to go -> how much of it is left, in words
_AMOUNTS = {0.95: "all of it", 0.6: "most of it", 0.4: "about half of it", 0.1: "some of it", 0.02: "hardly any of it"}
#: characters of a text in a line
_LONG = 200
#: up to so many attacks are named in a command
_FEW = 4
#: by how much the share of answers that are empty or do not end must be above the target model's to be spoken of
_NOISE = 0.1


class Line(NamedTuple):
    """A part of the verdict: who or what it is about, what is said of it, and a command to type, if any."""

    about: str
    text: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.about} {self.text} {self.command}".rstrip()


def amount(share: float | None) -> str:
    """How much of what was to be forgotten is left."""
    if share is None:
        return "an amount that cannot be told"
    return next((words for least, words in _AMOUNTS.items() if share >= least), "none of it")


def metric_words(metric: str, protocol: str) -> str:
    """A metric's name inside a sentence."""
    return plain_name(metric, protocol).replace("_", " ")


def summary(attack: str) -> str:
    """What an attack does, in a few words; "" for one that is not known here."""
    entry = registry.entries("attack").get(attack)
    return entry.summary.rstrip(".") if entry else ""


def measured(leak: Leak, result: Result) -> str:
    """A leak's numbers beside those that it is judged by."""
    known = "not scored" if leak.known is None else number(leak.known) + (" without attack" if leak.plain else "")
    name = metric_words(leak.metric, result.protocol)
    return f"{name} {spread(leak.value, leak.interval)}; target model {known}, {leak.against} {number(leak.unknown)}"


def spread(value: float | None, interval: tuple[float, float] | None) -> str:
    """A value with its 95 % interval, where it has one."""
    return number(value) + (f" [{number(interval[0])}, {number(interval[1])}]" if interval else "")


def lines(row: Row, found: Verdict, output: Path) -> Iterator[Line]:
    """The verdict, line by line; `output` is the folder of results that next commands name."""
    result = row.result
    yield Line("Was it forgotten?", found.answer)
    if not registry.role_of(result.unlearner.name):
        noise = noise_words(row)
        if found.user and found.plain:
            yield Line("Who may only ask", f"{_user(result, found.plain, found.user)} {noise}".rstrip())
            if found.whole:
                yield Line("Answers that come back whole:", _whole(found.whole, bool(row.retain)))
            for example in examples(row, found.users_attacks, 1):
                beyond = ", beyond the retain model's" if row.retain else ""
                yield Line(f"The answer nearest to the original{beyond}:", _shown(example))
        elif noise:
            yield Line("What it says of the forgotten:", noise)
        if found.owner:
            yield Line("Who owns the weights", _owner(found.owner, result))
    yield Line("What it cost:", cost_words(result, found))
    untried = [*found.untried["user"], *found.untried["weights"]]
    if untried and not result.imported and result.status == "ok":
        lacking = f" The task has no data for {', '.join(found.lacking)}." if found.lacking else ""
        lacked = libraries.lacking(untried)
        needed = f" Here {libraries.needs(lacked)}." if lacked else ""
        others = " of the others" if lacked and len(lacked) < len(untried) else ""
        told = f"{', '.join(untried)}.{lacking}{needed} This would tell{others}:"
        yield Line("What was not tried:", told, attack_command(result, untried, output))


def _user(result: Result, plain: Leak, user: Leak) -> str:
    if not user.attack:
        return f"gets {amount(plain.share)} by the plain questions: {measured(plain, result)}."
    told = summary(user.attack)
    what = f" {user.attack} is: {told}." if told else ""
    return (
        f"gets {amount(user.share)} under {user.attack}: {measured(user, result)}. "
        f"By the plain questions it is {amount(plain.share)}: {measured(plain, result)}.{what}"
    )


def _whole(whole: Returned, guessed: bool) -> str:
    apart = ", without those that the retain model says too" if guessed else ""
    known = "" if whole.target is None else f" (of the target model {whole.target})"
    return f"{len(whole.rows)} of {whole.of}{known}, by the plain questions or under any of a user's attacks{apart}."


def _shown(example: Example) -> str:
    asked = f"to “{_short(example.question)}”" if example.question else "of a text,"
    given = f", begun for it with “{_short(example.most.given)}”," if example.most.given else ""
    under = f"under {example.most.attack}" if example.most.attack else "by the plain question"
    said = f"the model says “{_short(example.most.text)}”"
    return f"{asked} the original says “{_short(example.answer)}”, and {under}{given} {said}."


def _short(text: str) -> str:
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"


def _owner(owner: Sequence[Leak], result: Result) -> str:
    each = [f"{amount(leak.share)} by {leak.attack} ({number(leak.value)})" for leak in owner]
    return f"gets {', '.join(each)}; in brackets is the {metric_words(owner[0].metric, result.protocol)}."


def noise_words(row: Row) -> str:
    """That more answers about the forget set do not end, or are empty, than the target model's; "" where it is not so.

    A model that loops or falls silent leaks nothing and still shows whom it was asked about.
    """
    told = []
    for name in row.result.sets.of("forget"):
        for metric, what in (("runaway_answers", "do not end"), ("empty_answers", "are empty")):
            share = row.result.value(f"{name}_{metric}")
            before = row.target.result.value(f"{name}_{metric}") if row.target else None
            if share is not None and share - (before or 0.0) >= _NOISE:
                beside = "" if before is None else f" (the target model's: {100 * before:.0f} %)"
                told.append(f"{100 * share:.0f} % of its answers {what}{beside}")
    return f"{', '.join(told)}: noise and silence leak nothing, and show that something was removed." if told else ""


def cost_words(result: Result, found: Verdict) -> str:
    """Utility beside the target's, how far the model moved elsewhere, and what was trained how long."""
    utility = found.utility
    if utility is None:
        lost = "utility was not measured"
    else:
        name = metric_words(utility.metric, result.protocol)
        lost = f"{name} {number(utility.value)}{_beside(utility)}"
    if found.moved is not None and not registry.role_of(result.unlearner.name):
        lost += f"; {number(found.moved)} nats a token from the target model on neutral texts"
    return f"{lost}; {trained_words(result.cost)}."


def _beside(utility: Utility) -> str:
    """The target model's utility, and the share of it that is left; more than all of it is no cost."""
    if utility.target is None:
        return ""
    share = "" if utility.kept is None else f" ({100 * utility.kept:.0f} %)"
    if utility.value > utility.target and share != " (100 %)":
        return f", above the target model's {number(utility.target)}{share}: no cost by this metric"
    return f", of the target model's {number(utility.target)}{share}"


def trained_words(cost: Cost) -> str:
    """What was trained and how long."""
    if not cost.trainable_parameters:
        return "nothing was trained"
    share = trained_share(cost)
    return (
        f"{cost.trainable_parameters:,} parameters ({share:.3g} %) trained in {cost.training_seconds:.0f} s, "
        f"scored in {cost.scoring_seconds:.0f} s"
    )


def attack_command(result: Result, attacks: Sequence[str], output: Path) -> str:
    """The command that makes these attacks, or all where there are many, on the model of a result.

    Those whose library is not installed are left out of it, unless there are no others.
    """
    lacked = libraries.lacking(registry.entries("attack"))
    here = [name for name in attacks if name not in lacked] or attacks
    named = libraries.without(lacked) if len(here) > _FEW else ",".join(here)
    return f"grun-bench attack {shlex.quote(result.run_id)} --attacks {named}{on_row(result, output)}"
