"""Was it forgotten? What a user and an owner of the weights still get, and what it cost. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from grun_bench.core import registry
from grun_bench.leaderboard.forgotten import mark_of
from grun_bench.leaderboard.ranking import LIKE_TARGET, UTILITY_FLOOR
from grun_bench.metrics.about import leads
from grun_bench.reports.examples import Returned, returned, texts_gone
from grun_bench.reports.leaks import Leak, leaks
from grun_bench.reports.rows import Row
from grun_bench.tasks.attack_data import lacks

#: how bad it is: `bad` a user gets at it, `part` at some of it, `hidden` an owner of the weights does, `good` nobody
#: does who tried, `open` something was not tried, `none` there is nothing to judge
Grade = Literal["bad", "part", "hidden", "good", "open", "none"]
#: the shares of what was to go from which it is not forgotten at all, and from which it is in part
WHOLE, PART = 0.5, 0.1
#: nats a token by which a model that is changed says other things of what was not to change; a tenth of it is what
#: RepSelect (arXiv 2606.17168) lets a method cost
MOVED = 0.1
#: the metric of that
DIVERGENCE = "kl_to_target"


@dataclass(frozen=True)
class Utility:
    """The metric of utility that the task's headline has first, of this row and of the target model."""

    metric: str
    value: float
    target: float | None

    @property
    def kept(self) -> float | None:
        """The share of the target model's that is left."""
        return self.value / self.target if self.target else None


@dataclass(frozen=True)
class Verdict:
    """`answer` is the verdict in a few words and `grade` what it comes to. `plain` is what is left without attack,
    `user` the most that one who may only ask finds, with or without attack; `users` and `owner` are what attacks of a
    user and of an owner of the weights find, most first. `whole` are the answers that a user gets back whole, with or
    without attack. `untried` are the attacks that nobody made, by access, and `lacking` those among them for which the
    task has no data, left out of it. None and empty where there is nothing to judge by. `moved` is the divergence from
    the target model on neutral texts, in nats a token, where it was measured.
    `mark` says that nothing forgotten can be seen beside the target, by the rule of the boards (`ranking`); else "".
    """

    answer: str
    grade: Grade
    plain: Leak | None
    user: Leak | None
    users: Sequence[Leak]
    owner: Sequence[Leak]
    whole: Returned | None
    utility: Utility | None
    untried: dict[str, list[str]]
    moved: float | None = None
    mark: str = ""
    lacking: Sequence[str] = ()

    @property
    def users_attacks(self) -> list[str]:
        """What one who may only ask can do: plain questions (""), and the attacks that were made."""
        return ["", *(leak.attack for leak in self.users)]


def verdict(row: Row) -> Verdict:
    """The verdict on a row, by what it was measured with. Raises UsageError for records that are none."""
    found = leaks(row)
    plain = next((each for each in found if not each.attack), None)
    ordered = sorted(found, key=lambda each: each.weight, reverse=True)
    users, owner = ([each for each in ordered if each.access == access] for access in ("user", "weights"))
    user = next((each for each in ordered if each.access != "weights"), None)
    whole = returned(row, ["", *(each.attack for each in users)])
    utility, special = _utility(row), _special(row)
    untried, lacking = _untried(row)
    moved, mark = _moved(row), "" if special else mark_of(row.result, row.target.result if row.target else None)
    judged = (user, users, owner, whole)
    grade, answer = _answer(*judged)
    if special:
        grade, answer = "none", special
    else:
        answer += _partly(grade, users, untried, lacking) + _marked(mark) + _uncounted(row, grade, whole)
        answer += _price(utility, moved)
    return Verdict(answer, grade, plain, *judged, utility, untried, moved, mark, lacking)


def _special(row: Row) -> str:
    """The verdict on a row that is none of an unlearned model; "" on any other."""
    result = row.result
    if result.status == "diverged":
        return f"No verdict: training diverged ({result.error})"
    role = registry.role_of(result.unlearner.name)
    if role == "target":
        return "Nothing was unlearned: this is the target model as it was."
    return "This is the retain model, which never saw the forget set: what others are compared with." if role else ""


def _answer(
    user: Leak | None, users: Sequence[Leak], owner: Sequence[Leak], whole: Returned | None
) -> tuple[Grade, str]:
    if user is None:
        return "none", "It cannot be told: the task's headline has no metric of forgetting with a value."
    if user.share is None:
        return "none", _without_share(user)
    if user.share >= WHOLE:
        return "bad", "Not forgotten: who may only ask still gets at it."
    if user.share >= PART:
        return "part", "Forgotten in part: who may only ask still gets some of it."
    if whole and whole.rows:
        return "part", f"Forgotten but for {len(whole.rows)} of {whole.of} answers, which who may only ask gets whole."
    if not users:
        return "open", "Forgotten as far as plain questions show; no attack of a user was tried."
    if not owner:
        return "open", "Forgotten for whoever may only ask; what an owner of the weights gets was not tried."
    if (owner[0].share or 0.0) >= PART:
        return "hidden", "Hidden, not erased: who may only ask gets hardly any of it, an owner of the weights does."
    return "good", "Forgotten under every attack that was made, an owner's of the weights too."


def _without_share(user: Leak) -> str:
    if user.known is None:
        return "It cannot be told how much is left: the target model was not scored."
    return "It cannot be told: by this metric the target model knows no more than one that never saw the forget set."


def _partly(grade: Grade, users: Sequence[Leak], untried: dict[str, list[str]], lacking: Sequence[str]) -> str:
    """How many of a user's attacks a better verdict than "in part" was given without, of those that the task has data
    for."""
    if grade not in ("open", "hidden", "good") or not users or not untried["user"]:
        return ""
    attacks = registry.entries("attack").items()
    known = [name for name, entry in attacks if entry.declared.get("access") == "user" and name not in lacking]
    return f" {len(untried['user'])} of {len(known)} attacks of a user were not tried."


def _uncounted(row: Row, grade: Grade, whole: Returned | None) -> str:
    """That a better verdict than "in part" was given without a look at single answers, where that is so."""
    if grade not in ("open", "hidden", "good") or whole or not texts_gone(row.own):
        return ""
    return " Whether single answers come back whole cannot be told here, where their texts are not."


def _price(utility: Utility | None, moved: float | None) -> str:
    kept = utility.kept if utility else None
    if kept is not None and kept < UTILITY_FLOOR:
        return f" The model paid for it: {100 * kept:.0f} % of the target's utility is left."
    if moved is not None and moved >= MOVED:
        return " The model paid for it: it goes on otherwise from texts that have nothing to do with what was to go."
    return ""


def _marked(mark: str) -> str:
    """The mark in a sentence of its own."""
    return f" In the worst case it {'is ' if mark == LIKE_TARGET else ''}{mark}." if mark else ""


def _moved(row: Row) -> float | None:
    """The first divergence from the target model on neutral texts that the task's headline has."""
    result = row.result
    values = (result.value(metric) for metric in result.headline if metric.endswith(f"_{DIVERGENCE}"))
    return next((value for value in values if value is not None), None)


def _utility(row: Row) -> Utility | None:
    result = row.result
    metric = leads(result.headline, result.higher_is_better[result.task], result.sets)[1]
    value = result.value(metric) if metric else None
    if metric is None or value is None:
        return None
    return Utility(metric, value, row.target.result.value(metric) if row.target else None)


def _untried(row: Row) -> tuple[dict[str, list[str]], list[str]]:
    """The package's attacks that the row does not have, by access, and apart those that the task has no data for.

    Those that were made and had nothing to work on count as made.
    """
    found: dict[str, list[str]] = {"user": [], "weights": []}
    lacking: list[str] = []
    for name, entry in registry.entries("attack").items():
        access = entry.declared.get("access")
        if name not in row.result.attacks and access in found:
            (lacking if _lacks(row, name) else found[access]).append(name)
    return found, lacking


def _lacks(row: Row, attack: str) -> bool:
    """Whether the task, as the result has it, says that its data have nothing for an attack."""
    return lacks(row.result.configs.get(row.result.task, {}), attack)
