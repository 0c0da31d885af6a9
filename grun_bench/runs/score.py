"""Ask a model what the task asks: records, what they took, and metric values of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from grun_bench.attacks.base import Answers, Subject
from grun_bench.core import environment as env
from grun_bench.core import registry
from grun_bench.core.errors import Inapplicable, UsageError
from grun_bench.methods.base import Fitted
from grun_bench.metrics._common import AUGMENT, NEEDS_RETAIN
from grun_bench.metrics.evaluate import Value, evaluate
from grun_bench.metrics.similarity import MODEL
from grun_bench.metrics.texts import CLASSIFIER
from grun_bench.models.divergence import KL, Target
from grun_bench.models.finite import check_finite
from grun_bench.models.fluency import classifier, with_fluency
from grun_bench.models.lm import LM
from grun_bench.models.protocols import prompts_under
from grun_bench.models.quantised import count
from grun_bench.models.sampling import sampled_records
from grun_bench.models.scoring import ScoringSettings, score
from grun_bench.models.similarity import judge, with_similarity
from grun_bench.results.record import Records
from grun_bench.results.result import Cost
from grun_bench.runs.data import entities, rewordings
from grun_bench.runs.inputs import Inputs
from grun_bench.tasks.roles import known_roles

if TYPE_CHECKING:
    from grun_bench.integrations.lm_eval.measures import Measured


@dataclass(frozen=True)
class Asked:
    """What a model answered: its records, and how lm-eval's measures were run (None where it was asked none)."""

    records: Records
    measured: Measured | None = None

    @property
    def answers(self) -> Answers:
        """The records, with the reasons why measures have none."""
        return Answers(self.records, self.measured.missing if self.measured else {})


def subject_of(inputs: Inputs, fitted: Fitted, seed: int | None = None) -> Subject:
    """An unlearned model with all that it is asked; `seed` is that of attacks, None for the run's own."""
    config, sets = inputs.config, inputs.task.sets
    gradients_of = _sets_of(inputs, "gradients")
    return Subject(
        fitted.lm,
        inputs.data.examples(),
        inputs.data.pairs("forget"),
        inputs.data.pairs("retain"),
        config.seed if seed is None else seed,
        fitted.adapter,
        tuple(inputs.task.measures),
        sets=sets,
        scoring=ScoringSettings(
            inputs.task.max_new_tokens, config.scoring_batch_size, config.protocol, gradients_of=gradients_of
        ),
        rewordings=partial(rewordings, inputs.task, inputs.session.world, config.limit),
        entities=partial(entities, inputs.task, inputs.session.world, config.limit),
        references=partial(_references, inputs),
    )


def _references(inputs: Inputs) -> tuple[LM, LM]:
    """The target and the retain model, asked as the run asks. Raises Inapplicable where one is not there."""
    models = inputs.models
    if models.target is None or models.retain is None:
        raise Inapplicable(models.no_retain or "there is no target model.")
    loaded = models.target(), models.retain()
    for lm in loaded:
        lm.prompts = prompts_under(inputs.config.protocol, lm, inputs.task.prompt)
    return loaded


def target_of(inputs: Inputs) -> Target | None:
    """What is to be kept of the target model's answers for metrics that compare with it; None where none does."""
    examples = [row for row in inputs.data.examples() if row.set in _sets_of(inputs, "divergence")]
    return Target(examples, inputs.config.protocol) if examples else None


def _sets_of(inputs: Inputs, option: str) -> frozenset[str]:
    """The scored sets of whose rows metrics with an option read more than scoring gives by itself."""
    asked = [plugin for name in inputs.metrics if getattr(plugin := registry.get("metric", name), option)]
    roles = [role for plugin in asked for role in known_roles(plugin.roles or plugin.over)]
    return frozenset(inputs.task.sets.of(*roles))


def ask(inputs: Inputs, subject: Subject) -> Asked:
    """What a subject answers to all that it is asked. Raises Diverged where that is not finite."""
    config = inputs.config
    if subject.samples:
        answers = sampled_records(subject.lm, subject.examples, subject.samples, subject.seed, subject.scoring)
        return Asked(_compared(inputs, answers))
    records = _compared(inputs, score(subject.lm, subject.examples, subject.scoring))
    for record in records:
        record.scores.update(subject.scores.get((record.set, record.index), {}))
    if not subject.measures:
        return Asked(records)
    from grun_bench.integrations.lm_eval import measures  # takes seconds

    measured = measures.run(
        subject.lm,
        {name: inputs.task.measures[name] for name in subject.measures},
        inputs.session.world,
        batch_size=config.scoring_batch_size,
        limit=config.limit,
        limits=subject.limits,
        form=subject.form,
    )
    return Asked(Records([*records, *measured.records]), measured)


def _compared(inputs: Inputs, records: Records) -> Records:
    """The records with how alike and how fluent the answers are, of the sets for which a metric asks that."""
    asked = _sets_of(inputs, "sentences")
    if asked and (sentences := judge(MODEL)):
        records = with_similarity(records, asked, sentences)
    asked = _sets_of(inputs, "classifier")
    if asked and (clean := classifier(CLASSIFIER)):
        records = with_fluency(records, asked, clean)
    return records


def ask_fitted(inputs: Inputs, fitted: Fitted, target: Target | None = None) -> tuple[Asked, Cost]:
    """What an unlearned model answers, how far it is from its target where that was kept, and what all this took.

    Raises Diverged where any of it is not finite.
    """
    training_peak = env.peak_memory() if fitted.trainable else None
    env.reset_peak_memory()
    start = time.perf_counter()
    asked = ask(inputs, subject_of(inputs, fitted))
    divergences = target.divergences(fitted.lm) if target else {}
    for record in asked.records:
        if (record.set, record.index) in divergences:
            record.scores[KL] = divergences[record.set, record.index]
    check_finite(asked.records, fitted.lm.model.dtype)
    cost = Cost(
        trainable_parameters=fitted.trainable,
        parameters=sum(map(count, fitted.lm.model.parameters())),
        trunk_bytes=fitted.trunk_bytes,
        training_seconds=round(fitted.seconds, 3),
        scoring_seconds=round(time.perf_counter() - start, 3),
        training_peak_bytes=training_peak,
        scoring_peak_bytes=env.peak_memory(),
    )
    return asked, cost


def check_same_tokens(records: Records, reference: Records) -> None:
    """Raises UsageError, with the first row, where the retain model's tokenizer cuts answers otherwise.

    What a token costs does not compare then, and every comparison with the retain model is of that.
    """
    others = {(row.set, row.index): row.answer.logprobs for row in reference}
    for row in records:
        ours, theirs = row.answer.logprobs, others.get((row.set, row.index))
        if ours and theirs and len(ours) != len(theirs):
            raise UsageError(
                f"the answer of row {row.index} of '{row.set}' has {len(ours)} tokens here and {len(theirs)} for the "
                "retain model: give one with the same tokenizer, since their losses a token do not compare."
            )


def total(costs: Sequence[Cost]) -> Cost:
    """The costs of all requests: what was trained and how long is in the last, scoring adds up, memory is the most."""

    def most(name: str) -> int | None:
        return max((value for cost in costs if (value := getattr(cost, name)) is not None), default=None)

    peaks = {name: most(name) for name in ("training_peak_bytes", "scoring_peak_bytes")}
    return costs[-1].model_copy(update={"scoring_seconds": round(sum(c.scoring_seconds for c in costs), 3), **peaks})


def values_of(
    inputs: Inputs, answers: Answers, reference: Records | None, metrics: Sequence[str], reason: str
) -> dict[str, Value]:
    """Metric values of answers; with `reason`, if any, in front of what is missing because there is no reference.

    Where there are no records at all, it is in front of everything.
    """
    values = evaluate(answers.records, reference, metrics, inputs.task.sets)
    for measure, why in answers.missing.items():
        for key in {f"{measure}_{metric}" for metric in metrics} & set(values):
            values[key] = _explain(values[key], why)
    for role, file in inputs.task.own.items():
        if file.made:
            why = f"nothing that {file.made.by} wrote could stand, as its file says."
            unwritten = [key for key in values if key.startswith(f"{role}_") and AUGMENT in str(values[key].reason)]
            values |= {key: _explain(values[key], why) for key in unwritten}
    concerned = (key for key, value in values.items() if not len(answers.records) or NEEDS_RETAIN in str(value.reason))
    return values | {key: _explain(values[key], reason) for key in concerned if reason}


def _explain(value: Value, reason: str) -> Value:
    """A missing value with the run's own reason in front."""
    return value if value.value is not None else replace(value, reason=f"{reason} ({value.reason})")
