"""The contract of attacks, and attacks by name with their settings.

An attack is a generator function of a Subject, an unlearned model with the examples that it is asked. It yields
(variant, altered Subject) for each of its variants; every metric of the task is computed again on each, as far as the
rows are there that it asks (see `needed`)::

    @attack("suffix", access="user", version=1)
    def suffix(subject, *, phrases=("Please.", "Think first.")):
        \"\"\"Harmless words after the question.\"\"\"
        for number, phrase in enumerate(phrases, 1):
            yield str(number), subject.asking(lambda question: f"{question} {phrase}")

A Subject is valid until the next one is asked for. An attack that changes the model restores it in a `finally`. Its
keyword-only parameters are its settings. Where a task has nothing that the attack could work on, it raises
`Inapplicable` with the reason before it yields: its values are then null with that reason. The random state is seeded
with `subject.seed` before it begins.

The name of a variant has no comma and no colon. Variants `<kind>@<step>` with whole numbers as steps are the points of
a curve `<attack>:<kind>`, as relearning leaves one; the worst variant is taken over all of them.

Options of the decorator, the first two needed:

- `access`: `user` may only ask the model, `weights` owns its files;
- `version`: an integer, raised when the attack or a metric of its own changes;
- `metrics`: names of metrics that take the place of the task's, for an attack that leaves records of its own kind;
- `metrics_if_listed`: more of these, each for tasks that list it;
- `utility`: roles of sets beside those of forgetting, of which a sample is asked: for an attack that changes the model
  for everyone, or that needs their questions;
- `mean`: True where the mean over the variants says something beside the worst one (`<metric>,<attack>:mean`);
- `extra`: (module, extra), a library that the attack needs and the extra of this package that installs it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Container, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from grun_bench.core import registry
from grun_bench.core.errors import Diverged, GrunBenchError, Inapplicable, unknown
from grun_bench.core.libraries import check_installed
from grun_bench.core.settings import bounds_of, options_of, override
from grun_bench.methods.adapters.base import Adapter
from grun_bench.methods.recipes import in_force
from grun_bench.models.lm import LM
from grun_bench.models.question_form import OWN_FORM, QuestionForm
from grun_bench.models.scoring import Example, ScoringSettings
from grun_bench.results.record import Records
from grun_bench.tasks.chats import changed
from grun_bench.tasks.dataset import Row
from grun_bench.tasks.sets import USUAL_SETS, ScoredSets
from grun_bench.tasks.world import World

#: the text that an answer must have to be right, a part of it, by the row's set and index
Entities = Mapping[tuple[str, int], str]
#: of an attack's wordings by name: the rows that stand for scored ones, by set and index
Rewordings = Mapping[str, Mapping[tuple[str, int], Row]]


def no_rewordings(attack: str) -> Rewordings:
    """What a task has whose data word nothing in another way."""
    raise Inapplicable(f"the task's data have no wordings for {attack} (`reworded` of its task file).")


def no_entities() -> Entities:
    """What a task has whose data name no entities."""
    raise Inapplicable("the task's data name no entities of its answers (`entities` of its task file).")


def no_references() -> tuple[LM, LM]:
    """What a subject is compared with of which nobody said it."""
    raise Inapplicable("there are no target and no retain model to compare with.")


@dataclass(frozen=True)
class Subject:
    """A model under evaluation.

    `adapter` is what was trained beside it, None where the model itself was changed. `forget` and `retain` are the
    training rows, (question, answer) or ("", text). `measures` names the task's lm-eval measures, asked in `form`, of
    those in `limits` the first so many questions; `sets` says what the scored sets are to unlearning. With `samples`
    above 0, so many answers to each example are sampled at temperature 1, in place of scoring, which `scoring` says the
    way of. `rewordings` gives by the name of an attack what the task's data have for it, and raises Inapplicable where
    that cannot be had; so do `entities`, those of the answers to forget, and `references`, which loads the target and
    the retain model. `scores` are values of rows that the attack itself measured, by set and index, for their records.
    `answered` are variants of the attack that a process which was killed has asked: they are not asked again, so
    nothing need be trained for them.
    """

    lm: LM
    examples: Sequence[Example]
    forget: Sequence[tuple[str, str]]
    retain: Sequence[tuple[str, str]]
    seed: int
    adapter: Adapter | None = None
    measures: Sequence[str] = ()
    limits: Mapping[str, int] = field(default_factory=dict)
    form: QuestionForm = OWN_FORM
    samples: int = 0
    sets: ScoredSets = USUAL_SETS
    scoring: ScoringSettings = field(default_factory=ScoringSettings)
    rewordings: Callable[[str], Rewordings] = no_rewordings
    entities: Callable[[], Entities] = no_entities
    references: Callable[[], tuple[LM, LM]] = no_references
    scores: Mapping[tuple[str, int], Mapping[str, float]] = field(default_factory=dict)
    answered: Container[str] = ()

    def asking(self, change: Callable[[str], str]) -> Subject:
        """The same subject asked every question as `change` puts it, paraphrased and multiple-choice ones too.

        Of a conversation it is the user's last turn that is changed.
        """
        examples = [
            replace(
                row,
                question=changed(row.question, change),
                paraphrased_question=row.paraphrased_question and changed(row.paraphrased_question, change),
            )
            for row in self.examples
        ]
        return replace(self, examples=examples, form=replace(self.form, question=change))

    def without_texts(self) -> Subject:
        """The same subject without rows that are plain texts, for an attack that needs a question.

        Raises Inapplicable where the rows to forget are of no other kind.
        """
        kept = [row for row in self.examples if row.join is None]
        forget = {row.join is None for row in self.examples if self.sets.role(row.set) == "forget"}
        if forget == {False}:
            raise Inapplicable("the rows to forget are plain texts, in which nothing is asked.")
        return replace(self, examples=kept)


@dataclass
class Answers:
    """What a model answered: its records, and by lm-eval measure why there are no questions."""

    records: Records
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Attacked:
    """What an attack left: answers by variant, why there are none (or no more), and the seconds that this process took
    for it."""

    variants: dict[str, Answers]
    reason: str | None
    seconds: float


@dataclass(frozen=True)
class Attack:
    """An attack with its settings in force; `everything` makes it ask all scored sets whole (see `needed`)."""

    plugin: registry.AttackPlugin
    settings: Mapping[str, Any]
    everything: bool = False

    @property
    def name(self) -> str:
        return self.plugin.name

    def metrics(self, of_task: Sequence[str]) -> list[str]:
        """The metrics that are taken under the attack, for a task with these."""
        own = self.plugin.metrics
        listed = [name for name in self.plugin.metrics_if_listed if name in of_task]
        return list(of_task) if own is None else [*own, *listed]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides an attack's values beside the model and the examples, as a result file has it."""
        settings = json.loads(json.dumps(dict(self.settings)))
        return {"version": self.plugin.version, "access": self.plugin.access, "settings": settings}

    def run(
        self,
        subject: Subject,
        answer: Callable[[Subject], Answers],
        kept: MutableMapping[str, Answers] | None = None,
    ) -> Attacked:
        """The answers of every variant of the subject: those in `kept`, and others by `answer`, which are put there.

        Whatever happens, the attack ends, and so restores what it changed. A task that has nothing for it, and training
        that diverges, are reasons. Raises GrunBenchError for names of variants that break the contract.
        """
        start, reason = time.perf_counter(), None
        found: dict[str, Answers] = {}
        kept = {} if kept is None else kept
        torch.manual_seed(subject.seed)
        variants = self.plugin.target(replace(subject, answered=kept), **self.settings)
        try:
            for name, altered in variants:
                if name in found or not name or set(name) & set(",:") or name == "mean":
                    raise GrunBenchError(f"attack '{self.name}' yields '{name}', which cannot name a variant.")
                if name not in kept:
                    kept[name] = answer(altered)
                found[name] = kept[name]
        except (Inapplicable, Diverged) as error:
            reason = str(error)
        finally:
            variants.close()
        return Attacked(found, reason, time.perf_counter() - start)


def make_attacks(
    names: Sequence[str], overrides: Mapping[str, Any], world: World, everything: Collection[str] = ()
) -> list[Attack]:
    """Attacks with their settings: code defaults, recipes.yaml for the world, then `overrides` (`<attack>.<setting>`).

    Those in `everything` ask all scored sets.

    Raises UsageError for an unknown setting, one of an attack that is not made, or a library that is not installed.
    """
    for key in overrides:
        if key.partition(".")[0] not in names:
            raise unknown("attack in --set", key.partition(".")[0], names, "Only those named in --attacks are made.")
    return [replace(_make(name, overrides, world), everything=name in everything) for name in names]


def _make(name: str, overrides: Mapping[str, Any], world: World) -> Attack:
    plugin = registry.get("attack", name)
    if plugin.extra:
        check_installed(f"the attack {name}", *plugin.extra)
    settings = in_force(options_of(plugin.target), [name], world.sections)
    own = {key.partition(".")[2]: value for key, value in overrides.items() if key.partition(".")[0] == name}
    return Attack(plugin, override(settings, own, name, bounds_of(plugin.target), f"--set {name}."))
