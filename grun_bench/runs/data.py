"""The rows of a run: what is trained on, request by request, and what is scored."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from operator import add
from typing import Any, Literal

from grun_bench.attacks.base import Entities, Rewordings, no_entities, no_rewordings
from grun_bench.core.cache import digest
from grun_bench.core.errors import DataError, Inapplicable, UsageError
from grun_bench.methods.base import Unlearner
from grun_bench.models.scoring import Example
from grun_bench.tasks.chats import changed, question_of
from grun_bench.tasks.dataset import Row, Rows, Source, joined, training_pair
from grun_bench.tasks.passages import continuation
from grun_bench.tasks.roles import ROLES
from grun_bench.tasks.sets import PAIR, ScoredSets
from grun_bench.tasks.task import ScoredData, Task
from grun_bench.tasks.world import World

#: a training row: (question, answer), or ("", text)
Pair = tuple[str, str]


@dataclass(frozen=True)
class Data:
    """Training sets by name, each in its parts, and scored sets by name, in the task's order.

    With `staged` the parts of the forget set are requests that come one after another, or with `growing` forget sets
    each of which has the parts before it too. `told` is what the task says of
    scored sets, `shots` the rows that stand before their questions, where there are such; `learnt` what the target and
    the retain model are made on, where that is not the training sets.
    """

    training: Mapping[str, Sequence[Rows]]
    scored: Mapping[str, Rows]
    sets: ScoredSets
    staged: bool
    told: Mapping[str, ScoredData] = field(default_factory=dict)
    shots: Mapping[str, Rows] = field(default_factory=dict)
    learnt: Mapping[str, Sequence[Rows]] = field(default_factory=dict)
    growing: bool = False

    @cached_property
    def sha256(self) -> str:
        """One hash over all rows."""
        parts = [part.sha256 for rows in self.training.values() for part in rows]
        others = [
            *self.scored.values(),
            *self.shots.values(),
            *(part for rows in self.learnt.values() for part in rows),
        ]
        return digest([*parts, *(rows.sha256 for rows in others)])

    def pairs(self, name: str) -> list[Pair]:
        """The rows of a training set."""
        return [pair for part in self.training[name] for pair in _pairs(part)]

    def made_on(self, model: Literal["target", "retain"]) -> list[Pair]:
        """The rows that a model is made on: the training sets, for the retain model that alone which is kept."""
        if model in self.learnt:
            return [pair for part in self.learnt[model] for pair in _pairs(part)]
        return [*(self.pairs("forget") if model == "target" else []), *self.pairs("retain")]

    def requests(self, unlearner: Unlearner) -> list[list[Pair]]:
        """The forget rows as they are asked for: all at once, or one request of the task after another."""
        if not (self.staged and unlearner.sequential):
            return [self.pairs("forget")]
        parts = [_pairs(part) for part in self.training["forget"]]
        return list(accumulate(parts, add)) if self.growing else parts

    def examples(self) -> list[Example]:
        """What a model is asked, set after set, in the order of their roles."""
        return [
            self._asked(_example(name, self.scored[name].origin, number, row, self._whole(name)))
            for name in self.sets.of(*ROLES)
            for number, row in zip(self.scored[name].numbers, self.scored[name].rows, strict=True)
        ]

    def _whole(self, name: str) -> bool:
        return name in self.told and self.told[name].whole

    def _asked(self, example: Example) -> Example:
        """An example as its set is asked."""
        told = self.told.get(example.set)
        if told is None:
            return example
        shots = tuple(_pairs(self.shots[example.set])) if example.set in self.shots else ()
        return replace(
            example, context=shots, prompt=told.prompt, max_new_tokens=told.max_new_tokens, until=tuple(told.until)
        )

    def provenance(self) -> dict[str, dict[str, Any]]:
        """What a result says of every set: where its rows come from, how many there are, and their hashes."""
        rows = {f"train:{name}": parts for name, parts in self.training.items()}
        rows |= {name: [part] for name, part in self.scored.items()}
        rows |= {f"learnt:{name}": parts for name, parts in self.learnt.items()}
        rows |= {f"before:{name}": [part] for name, part in self.shots.items()}
        return {
            key: {
                "sources": [part.origin for part in parts],
                "rows": sum(len(part.rows) for part in parts),
                "sha256": [part.sha256 for part in parts],
            }
            for key, parts in rows.items()
        }


def _example(name: str, origin: str, number: int, row: Row, whole: bool) -> Example:
    """A scored row as what a model is asked: its question, or the beginning of its text, or nothing of a whole text."""
    if whole and row.get("text") is None:
        raise DataError(
            f"{origin}, row {number}: '{name}' is of whole texts, and it has none (columns: {{text: ...}})."
        )
    if whole:
        return Example(name, number, "", row["text"])
    if row.get("question") is None:
        try:
            beginning, join, rest = continuation(row["text"])
        except ValueError as error:
            raise DataError(f"{origin}, row {number}: {error}, which nothing goes on from; take it out.") from None
        return Example(name, number, beginning, rest, join=join)
    question, other = question_of(row), row.get("paraphrased_question")
    return Example(
        set=name,
        index=number,
        question=question,
        answer=row["answer"],
        paraphrased_answer=row.get("paraphrased_answer"),
        perturbed_answers=tuple(row.get("perturbed_answer") or ()),
        # of a conversation it is the user's last turn that is put in other words
        paraphrased_question=other and changed(question, lambda _: other),
    )


def read_data(task: Task, world: World, limit: int | None) -> Data:
    """The first `limit` rows of every source (of every request's) of a task.

    Raises DataError where rows cannot be had or break the schema, with what the task says to do about it, or where a
    row is in two sets that it cannot be in, and UsageError where requests leave rows out.
    """

    def rows(sources: Sequence[Source], needed: tuple[str, ...] | None = None) -> list[Rows]:
        try:
            return [world.rows(source, needed, limit) for source in sources]
        except UsageError as error:
            access = [task.access[data] for data in {source.data for source in sources} & task.access.keys()]
            raise type(error)("\n".join([str(error), *access])) from None

    training = {name: rows(parts) for name, parts in task.sources.items()}
    scored = {name: rows([source], task.needed(name))[0] for name, source in task.scored.items()}
    if task.ranges:
        (name,), (trained,) = task.sets.of("forget"), task.whole_forget
        forget = task.scored[name]
        scored[name] = joined(rows(task.requests(forget), task.needed(name)))
        if limit is None:
            _check_covered(task, trained, rows([trained])[0], training["forget"])
            _check_covered(task, forget, rows([forget])[0], [scored[name]])
    # a few rows, and all of them: with fewer it would be another question
    shots = {name: world.rows(source, PAIR) for name, source in task.shots.items()}
    told = {name: each for name, each in task.score.items() if isinstance(each, ScoredData)}
    learnt = {name: rows(parts) for name, parts in task.learning.items()}
    data = Data(training, scored, task.sets, bool(task.stages), told, shots, learnt, task.growing)
    _check_apart(data)
    return data


def _check_covered(task: Task, source: Source, whole: Rows, parts: Sequence[Rows]) -> None:
    """Raises UsageError when a forget set has rows that are in no request."""
    count, covered = len(whole.rows), sum(len(part.rows) for part in parts)
    if count != covered:
        raise UsageError(f"{task.name}: the stages hold {covered} of the {count} rows of {source}.")


def _pairs(part: Rows) -> list[Pair]:
    return [training_pair(row) for row in part.rows]


def _check_apart(data: Data) -> None:
    """Raises DataError where a row is both to be forgotten and to be kept, or scored as one that no model has seen.

    Such a row is trained against itself, the retain model knows it, and what is compared with it means nothing.
    """
    sets = {f"train:{name}": parts for name, parts in data.training.items()}
    sets |= {name: [rows] for name, rows in data.scored.items()}
    sets |= {f"learnt:{name}": parts for name, parts in data.learnt.items()}
    forgotten = {"train:forget", *data.sets.of("forget")}
    held_out = {*data.sets.of("holdout")}
    _check_disjoint(sets, forgotten, sets.keys() - forgotten - {"learnt:target"})
    _check_disjoint(sets, held_out, {"train:retain", *(f"learnt:{name}" for name in data.learnt)} - held_out)


def _check_disjoint(sets: Mapping[str, Sequence[Rows]], ours: Collection[str], others: Collection[str]) -> None:
    """Raises DataError where a row of one of our sets is in one of the others too."""
    places = {pair: place for name in ours for pair, place in _places(name, sets[name])}
    for name in others if places else ():
        twice = [(places[pair], place) for pair, place in _places(name, sets[name]) if pair in places]
        if twice:
            raise DataError(
                f"{twice[0][0]} is also {twice[0][1]}, and so are {len(twice) - 1} more rows: take them out of one of "
                "the two, as in <data set>[40:]."
            )


def _places(name: str, parts: Sequence[Rows]) -> Iterator[tuple[Pair, str]]:
    for part in parts:
        for pair, number in zip(_pairs(part), part.numbers, strict=True):
            yield pair, f"row {number} of the set {name} ({part.origin})"


def rewordings(task: Task, world: World, limit: int | None, attack: str) -> Rewordings:
    """What a task's data have for an attack that asks in other words, row by row as its scored sets.

    Raises Inapplicable where there is nothing, or it cannot be had, or has other rows than the set.
    """
    wordings = task.wordings(attack)
    if not wordings:
        return no_rewordings(attack)
    found = {}
    for name, sources in wordings.items():
        rows: dict[tuple[str, int], Row] = {}
        for scored, source in sources.items():
            try:
                its, new = world.rows(task.scored[scored], PAIR, limit), world.rows(source, ("question",), limit)
            except DataError as error:
                raise Inapplicable(f"the wording '{name}' cannot be had: {error}") from None
            if len(its.rows) != len(new.rows):
                raise Inapplicable(f"{source} has {len(new.rows)} rows for the {len(its.rows)} of '{scored}'.")
            rows |= {(scored, number): row for number, row in zip(its.numbers, new.rows, strict=True)}
        found[name] = rows
    return found


def entities(task: Task, world: World, limit: int | None) -> Entities:
    """What a task's data name as the part of an answer that must be known, of the scored rows that they have.

    A row is known by its question. Raises Inapplicable where there is nothing, or it cannot be had.
    """
    if not task.entities:
        return no_entities()
    found: dict[tuple[str, int], str] = {}
    for name, source in task.spans.items():
        try:
            its, named = world.rows(task.scored[name], PAIR, limit), world.rows(source, (*PAIR, "entity"))
        except DataError as error:
            raise Inapplicable(f"the entities of '{name}' cannot be had: {error}") from None
        by_question = {row["question"]: row["entity"] for row in named.rows}
        known = zip(its.numbers, (row.get("question") for row in its.rows), strict=True)
        found |= {(name, number): by_question[question] for number, question in known if question in by_question}
    return found
