"""Pools of models that know a forget set and of models that never saw it, and what each answers: for `meta-eval`.

Models are kept in the cache, answers in a folder: a killed call goes on where it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from grun_bench.core.errors import UsageError
from grun_bench.core.progress import say
from grun_bench.methods.base import Fitted
from grun_bench.results.filed import save_records
from grun_bench.results.record import Records, load_records
from grun_bench.results.result import RECORDS_ENDS
from grun_bench.runs.config import RunConfig
from grun_bench.runs.inputs import Inputs, resolve
from grun_bench.runs.score import ask, subject_of
from grun_bench.runs.session import Session
from grun_bench.tasks.sets import ScoredSets


@dataclass(frozen=True)
class Member:
    """A model of a pool: whether the forget set was in its training, its seed, and the share of the epochs it had."""

    knows: bool
    seed: int
    share: float

    @property
    def name(self) -> str:
        return f"{'with' if self.knows else 'without'}-seed{self.seed}-{self.share:g}"


@dataclass(frozen=True)
class Pools:
    """What the models of both pools answered, and of which task, model and data that is."""

    task: str
    model: str
    dataset: str
    dataset_hash: str
    protocol: str
    limit: int | None
    sets: ScoredSets
    #: the task's
    metrics: Sequence[str]
    answers: dict[Member, Records]

    def of(self, knows: bool) -> list[Records]:
        """The answers of one pool, in its order."""
        return [records for member, records in self.answers.items() if member.knows == knows]


def make_pools(config: RunConfig, folder: Path, seeds: Sequence[int], shares: Sequence[float]) -> Pools:
    """Both pools: of each seed and share of the epochs a model with and one without the forget set.

    Raises UsageError for a model that is not trained here, so that there is no other like it.
    """
    session = Session.of(config)
    with session.in_force():
        inputs = resolve(config, session)
        if inputs.models.member is None:
            raise UsageError(
                f"meta-eval: {inputs.models.name} is not trained here, so there are no pools of it; give --model a "
                "base that the task fine-tunes, or leave it out for the toy model."
            )
        members = [Member(knows, seed, share) for knows, seed, share in product((True, False), seeds, shares)]
        answers = dict(_answers(inputs, folder, members))
    return Pools(
        inputs.task.name,
        inputs.models.name,
        inputs.session.world.name,
        inputs.data.sha256,
        config.protocol,
        config.limit,
        inputs.task.sets,
        inputs.metrics,
        answers,
    )


def _answers(inputs: Inputs, folder: Path, members: Sequence[Member]) -> Iterator[tuple[Member, Records]]:
    """What each member answers, read where it is kept."""
    own = folder / "pools" / inputs.run_id(inputs.target)
    for number, member in enumerate(members, 1):
        place = own / f"{member.name}.json"  # no such file: records lie beside one in folders of results
        file = place.with_name(place.stem + RECORDS_ENDS[0])
        if not file.exists():
            say(f"pool: {member.name}, {number} of {len(members)}")
            place.parent.mkdir(parents=True, exist_ok=True)
            save_records(place, _asked(inputs, member))
        yield member, load_records(file)


def _asked(inputs: Inputs, member: Member) -> Records:
    make = inputs.models.member
    if make is None:
        raise UsageError(f"{inputs.models.name} is not trained here.")
    lm = make(member.knows, member.seed, member.share)
    return ask(inputs, subject_of(inputs, Fitted(lm))).records
