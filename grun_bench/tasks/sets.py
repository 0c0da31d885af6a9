"""Which sets there are, and what each is to unlearning: all that metrics know of a task. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from grun_bench.tasks.roles import ROLES, Role

#: `answers`: questions with an answer to be scored. `questions`: a task of lm-eval, with its own way of scoring.
Kind = Literal["answers", "questions"]

#: the columns that every scored set has
PAIR = ("question", "answer")
_TRAINED = (*PAIR, "paraphrased_answer", "perturbed_answer", "paraphrased_question")
#: sets that a task may give by their source alone: name -> role and the columns that every row must have
USUAL: dict[str, tuple[Role, tuple[str, ...]]] = {
    "forget": ("forget", _TRAINED),
    "retain": ("retain", _TRAINED),
    "real_authors": ("utility", (*PAIR, "perturbed_answer")),
    "world_facts": ("utility", (*PAIR, "perturbed_answer")),
    "holdout": ("holdout", PAIR),
}


@dataclass(frozen=True)
class ScoredSet:
    """One set that is scored."""

    name: str
    role: Role
    kind: Kind = "answers"
    #: the metrics that are taken of it; empty: all that its role is asked for
    metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoredSets:
    """The scored sets of a task, no two of one name; `absent` says what brings a set of a role that no set has."""

    sets: tuple[ScoredSet, ...] = ()
    absent: Mapping[Role, str] = field(default_factory=dict, compare=False)

    def of(self, *roles: Role, kind: Kind = "answers") -> list[str]:
        """The names of the sets with these roles: role by role, then in the task's order."""
        return [each.name for role in roles for each in self.sets if each.role == role and each.kind == kind]

    def taking(self, *names: str) -> ScoredSets:
        """The sets of which a metric is taken that goes by any of these names."""
        kept = tuple(each for each in self.sets if not each.metrics or {*names} & {*each.metrics})
        return replace(self, sets=kept)

    def role(self, name: str) -> Role | None:
        """What a set is to unlearning; None for a name that is none of the sets'."""
        return next((each.role for each in self.sets if each.name == name), None)

    def beginning(self, key: str) -> ScoredSet | None:
        """The set whose name, and `_`, a metric's key begins with, of several the longest; None where none is."""
        found = (each for each in self.sets if key.startswith(f"{each.name}_"))
        return max(found, key=lambda each: len(each.name), default=None)

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> ScoredSets:
        """The sets of a task's `score` and `measures`, from its plain data as results have it.

        What is not described as a task file describes it is passed over: results are strangers'. Where nothing is said
        of scored sets there are the usual ones.
        """
        score = config.get("score", dict.fromkeys(USUAL, ""))
        return cls((*_described(score, "answers"), *_described(config.get("measures"), "questions")))


def _described(part: Any, kind: Kind) -> Iterable[ScoredSet]:
    for name, each in part.items() if isinstance(part, Mapping) else ():
        role = each.get("role") if isinstance(each, Mapping) else USUAL.get(name, (None,))[0]
        if role in ROLES:
            taken = each.get("metrics") if isinstance(each, Mapping) else None
            yield ScoredSet(name, role, kind, tuple(map(str, taken)) if isinstance(taken, (list, tuple)) else ())


#: the sets of TOFU's evaluation and of its published logs
USUAL_SETS = ScoredSets.of_config({})
