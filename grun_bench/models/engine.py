"""The engine: scores continuations of prompts and generates greedily, each token of a sequence computed once.

What it saves against one padded pass per metric:

* the part that all prompts begin with (the template's head) is computed once, each prompt once, and its candidate
  answers run on its keys and values as one tree, in which answers that begin alike share what they have in common;
* batches hold sequences of like length and are limited by tokens, not by rows;
* the vocabulary head sees only the positions that predict an answer token, a few at a time;
* where the model's argmax equals the reference answer from its first token on, that prefix *is* the greedy generation:
  decoding starts at the first mismatch, on the keys and values that scoring has left;
* finished rows leave the decoding batch at once and others take their places; a step adds to the batch's keys and
  values in place, and query heads that share a key head read it where it lies;
* while so few rows are left that a pass costs the same for more tokens, a row drafts its next tokens from its own text
  and the pass verifies them (prompt lookup decoding, Saxena 2023; verification as in speculative decoding, Leviathan et
  al. 2023, arXiv 2211.17192, greedy case).

Each has its file: `tree`, `limits`, `head`, `decoding`, `kv_cache`. None of it changes a number beyond the noise of
floating-point sums. Where rows outgrow a model's window, padding is moved out of them before more tokens follow, and
neither trees nor drafts are used (`windows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel

from grun_bench.core.errors import ModelError
from grun_bench.models.decoding import WITH_DRAFTS, Decoder, Decoding, Ending
from grun_bench.models.devices import device_of
from grun_bench.models.head import Statistics, TokenScores
from grun_bench.models.kv_cache import KeyValues
from grun_bench.models.limits import Limits
from grun_bench.models.passes import Passes, Prefill
from grun_bench.models.tree import Tree
from grun_bench.models.windows import counts_columns, overfills, own_window
from grun_bench.models.work import Counts, Scored, Work


class Engine:
    """Runs Works through one model.

    `hidden` is a token that attention never sees as a key, None for none. Positions of scored sequences count all
    tokens, positions of generations only the visible ones, as `generate` does; so the two agree, and generation can go
    on from scoring, for prompts without a hidden token. `stops` are the tokens that end a generation, `batch_size` the
    rows of a batch, None for what fits. `counts`, where given, gets the costs added.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        stops: Iterable[int],
        max_new_tokens: int,
        batch_size: int | None = None,
        hidden: int | None = None,
        counts: Counts | None = None,
    ) -> None:
        self._model, self._hidden = model, hidden
        self._ending = Ending(frozenset(stops), max_new_tokens)
        self.counts = Counts() if counts is None else counts
        self.limits = Limits.of(device_of(model), batch_size)

    @torch.no_grad()
    def run(self, works: Sequence[Work]) -> Iterator[tuple[int, Scored]]:
        """Yield (index, what it gave) as works are done, in an order of the engine's choosing.

        Of several processes each yields works of its own (see `Limits.own_parts`).

        Raises torch.OutOfMemoryError where a single work does not fit.
        """
        if not works:
            return
        passes = Passes(self._model, self.counts)
        passes.gapless = self._outgrows_window(passes, works)
        decoder = Decoder(passes, self.limits, self._ending)
        scorer = Scorer(passes, self.limits, decoder, works, self._hidden)
        order = sorted(range(len(works)), key=lambda number: len(works[number].prompt))
        for part in self.limits.own_parts([len(works[number].prompt) - scorer.shared for number in order]):
            self.limits.fit(scorer.score, order[part])
            yield from scorer.finished(order[part])
            while len(decoder.queue) >= self.limits.rows:
                yield from scorer.finished(decoder.decode())
        while decoder.queue:
            yield from scorer.finished(decoder.decode())

    def _outgrows_window(self, passes: Passes, works: Sequence[Work]) -> bool:
        """Whether the model has a window that is shorter than the columns that the works may take."""
        new = self._ending.length if any(work.generate for work in works) else 0
        prompt = max(len(work.prompt) for work in works)
        answer = max((len(each) for work in works for each in work.continuations), default=0)
        if (longest := prompt + max(answer, new)) > (window := own_window(self._model) or longest):
            raise ModelError(
                f"{type(self._model).__name__} of transformers {transformers.__version__} keeps its window of {window} "
                f"tokens in a cache of its own alone, and rows here have up to {longest}: transformers 5 is needed."
            )
        tree = max(sum(map(len, work.continuations)) for work in works)
        columns = prompt + max(tree, new + WITH_DRAFTS)
        if overfills(self._model, columns):
            self.limits.rows = 1  # by itself a row has no columns but its own
            return True
        return counts_columns(passes, columns)


@dataclass
class Group:
    """Works that run together: their numbers, the past after their prompts, what they gave and, by place in the group,
    the generations that have begun."""

    numbers: list[int]
    works: list[Work]
    past: KeyValues
    scored: list[Scored]
    begun: dict[int, Decoding] = field(default_factory=dict)


@dataclass
class Item:
    """Continuations of the work at a place of its group, by their indices, that run as one row."""

    place: int
    indices: list[int]
    tree: Tree


class Readings:
    """What is read off the distributions after the nodes of trees that run together, and where it is written.

    `following` are for every node the tokens that may come next, `moments` whether those of its distribution are asked
    for.
    """

    def __init__(self) -> None:
        self.following: list[list[int]] = []
        self.moments: list[bool] = []
        self._parts: list[tuple[TokenScores, list[int], list[int], bool]] = []

    def add(self, item: Item, work: Work, scored: Scored) -> None:
        """Ask for the tokens of an item's continuations from the second on."""
        start = len(self.following)
        self.following += [[] for _ in item.tree.tokens]
        self.moments += [False] * len(item.tree.tokens)
        for index, path in zip(item.indices, item.tree.paths, strict=True):
            rows, moments = [start + node for node in path], work.moments and index == 0
            tokens = work.continuations[index][1:]
            columns = [self._column(row, token) for row, token in zip(rows, tokens, strict=True)]
            for row in rows if moments else ():
                self.moments[row] = True
            self._parts.append((scored.continuations[index], rows, columns, moments))

    def _column(self, row: int, token: int) -> int:
        tokens = self.following[row]
        if token not in tokens:
            tokens.append(token)
        return tokens.index(token)

    def write(self, statistics: Statistics) -> None:
        """Write what was found, of `following` and `moments`, where it belongs."""
        for scores, rows, columns, moments in self._parts:
            statistics.write(scores, rows, columns, 1, moments)


class Scorer:
    """Scores the continuations of works, and begins their generations with what scoring shows of them; the decoder goes
    on with those."""

    def __init__(
        self, passes: Passes, limits: Limits, decoder: Decoder, works: Sequence[Work], hidden: int | None
    ) -> None:
        self._passes, self._limits, self._decoder, self._works = passes, limits, decoder, works
        self._hidden = hidden
        self._scored: dict[int, Scored] = {}
        self._prefill = Prefill(passes, works, hidden)
        #: whether the continuations of a work run as one row
        self._branching = passes.takes_trees(works)

    @property
    def shared(self) -> int:
        """How many tokens all prompts begin with alike."""
        return len(self._prefill.shared)

    def finished(self, numbers: Iterable[int]) -> Iterator[tuple[int, Scored]]:
        """What these works gave, by number, without those whose generations are under way."""
        for number in numbers:
            scored = self._scored[number]
            if scored.generated is not None or not self._works[number].generate:
                yield number, scored

    def score(self, numbers: list[int]) -> None:
        """Score the continuations of a batch of works; finish their generations or queue them."""
        works = [self._works[number] for number in numbers]
        prompts = self._prefill.run(works, generating=False)
        gates = {layer: logits.tolist() for layer, logits in prompts.gates.items()}
        scored = [Scored(gates={layer: row[place] for layer, row in gates.items()}) for place in range(len(works))]
        past = prompts.past.compact(inner=True) if self._passes.gapless else prompts.past
        group = Group(numbers, works, past, scored)
        self._first_tokens(group, prompts.states)
        items = sorted(self._items(works), key=lambda item: len(item.tree.tokens))
        for part in self._limits.parts([len(item.tree.tokens) for item in items]):
            self._limits.fit(lambda chunk: self._continue(group, chunk), items[part])
        self._regenerate(group)
        self._scored.update(zip(numbers, scored, strict=True))
        self._decoder.queue += group.begun.values()

    def _first_tokens(self, group: Group, states: Tensor) -> None:
        """Score the first token of every continuation, and begin the generations that scoring cannot go on with."""
        wide = max(1, max(len(work.continuations) for work in group.works))
        targets = self._passes.padded([[tokens[0] for tokens in work.continuations] for work in group.works], wide)
        moments = torch.tensor([work.moments for work in group.works], device=self._passes.device)
        statistics = self._passes.head.statistics(states, targets, moments)
        for place, (work, scored) in enumerate(zip(group.works, group.scored, strict=True)):
            for index in range(len(work.continuations)):
                scored.continuations.append(TokenScores())
                statistics.write(scored.continuations[-1], [place], [index], 0, work.moments and index == 0)
            if self._reusable(work) and not (work.continuations and len(work.continuations[0]) > 1):
                self._begin(group, place, [statistics.argmax[place]], group.past, place)

    def _reusable(self, work: Work) -> bool:
        """Whether the work's generation has the same past as its scoring."""
        return work.generate and self._prefill.same_past(work.prompt)

    def _items(self, works: Sequence[Work]) -> Iterator[Item]:
        """What runs as one row: all continuations of a work, or each of them. Those of one token are scored already."""
        for place, work in enumerate(works):
            long = [index for index, tokens in enumerate(work.continuations) if len(tokens) > 1]
            for indices in [long] if self._branching and long else [[index] for index in long]:
                yield Item(place, indices, Tree.of(work.continuations[index] for index in indices))

    def _continue(self, group: Group, items: list[Item]) -> None:
        """Score the rest of continuations: their tokens from the second on."""
        starts = [len(group.works[item.place].prompt) for item in items]
        run = self._passes.run(
            [item.tree.tokens for item in items],
            [[start + depth for depth in item.tree.depths] for start, item in zip(starts, items, strict=True)],
            group.past.take([item.place for item in items]),
            hidden=self._hidden,
            trees=[item.tree for item in items],
        )
        readings = Readings()
        for item in items:
            readings.add(item, group.works[item.place], group.scored[item.place])
        targets = self._passes.padded(readings.following, max(map(len, readings.following)))
        moments = torch.tensor(readings.moments, device=self._passes.device)
        readings.write(self._passes.head.statistics(run.states, targets, moments))
        for row, item in enumerate(items):
            work = group.works[item.place]
            if item.indices[0] == 0 and self._reusable(work):
                argmax = group.scored[item.place].continuations[0].argmax
                self._begin(group, item.place, _greedy_prefix(work.continuations[0], argmax), run.past, row)

    def _regenerate(self, group: Group) -> None:
        """Begin the generations whose prompts have other positions than in scoring, from a pass of their own."""
        places = [place for place, work in enumerate(group.works) if work.generate and not self._reusable(work)]
        if places:
            run = self._prefill.run([group.works[place] for place in places], generating=True)
            for row, (place, token) in enumerate(zip(places, self._passes.head.argmax(run.states), strict=True)):
                self._begin(group, place, [token], run.past, row)

    def _begin(self, group: Group, place: int, known: list[int], past: KeyValues, row: int) -> None:
        """A generation starts with the tokens `known`; `past` has at least the prompt and all of them but the last."""
        known, ended = self._decoder.ending.cut(known)
        if ended:
            group.scored[place].generated = known
            return
        prompt = list(group.works[place].prompt)
        position = self._prefill.visible(prompt) + len(known) - 1
        past = past.take([row])
        # what was scored after the mismatch is no part of the generation: only as many visible columns stay
        past.visible[0, past.visible[0].cumsum(0) > position] = 0
        past = past.compact(self._passes.gapless)
        group.begun[place] = Decoding(
            group.numbers[place], group.scored[place], prompt + known, len(prompt), position, past
        )


def _greedy_prefix(tokens: Sequence[int], argmax: Sequence[int]) -> list[int]:
    """The greedy generation as far as scoring `tokens` shows it: up to the first mismatch, with what came instead."""
    for index, (token, best) in enumerate(zip(tokens, argmax, strict=True)):
        if token != best:
            return [*tokens[:index], best]
    return list(tokens)
