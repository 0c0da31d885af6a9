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

None of it changes a number beyond the noise of floating-point sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from grun_bench.models.batch import common_length
from grun_bench.models.forward import calling
from grun_bench.models.head import Head, TokenScores, kind_of
from grun_bench.models.kernels import fast_kernels
from grun_bench.models.kv_cache import KeyValues, Slots, cache_argument

T = TypeVar("T")
#: continuations that run as one row: the place of their work in its group, and their indices
Item = tuple[int, list[int]]

#: tokens of a forward pass and rows of a decoding batch to begin with where nothing is said, by kind of device: on CPUs
#: what suits their caches (more is no faster), on GPUs more than most hold, halved until it fits
TOKENS = {"cpu": 1024, "cuda": 2**18}
ROWS = {"cpu": 64, "cuda": 1024}
#: input tokens of a decoding step that cost little more than one, because reading the weights takes longer
FREE_TOKENS = {"cpu": 8, "cuda": 128}
#: decoding steps before the rows of a batch are chosen anew
ROUND = 16
#: a draft is what followed the last occurrence of this many tokens, and its longest
NGRAM, LONGEST_DRAFT = 2, 15


@dataclass(frozen=True)
class Work:
    """One prompt and what is wanted of it.

    `continuations` are scored token by token; `generate` asks for the greedy generation, which is the faster the longer
    it agrees with the first continuation. `moments` asks for `TokenScores.means` and `.deviations` of the first one.
    """

    prompt: Sequence[int]
    continuations: Sequence[Sequence[int]] = ()
    generate: bool = False
    moments: bool = False


@dataclass
class Result:
    """What a Work gave; `gates` are gate logits by layer, empty for models without gates."""

    continuations: list[TokenScores] = field(default_factory=list)
    generated: list[int] | None = None
    gates: dict[int, float] = field(default_factory=dict)


@dataclass
class Counts:
    """Costs: tokens through the decoder (padding included), rows through the vocabulary head, row-steps of decoding
    (one per row and pass) and tokens that decoding passes gave."""

    forward_tokens: int = 0
    head_rows: int = 0
    row_steps: int = 0
    decoded_tokens: int = 0


@dataclass
class Limits:
    """How much runs at once: input tokens of a pass, rows of a pass. Halved when memory runs out."""

    tokens: int
    rows: int

    @classmethod
    def of(cls, device: torch.device, batch_size: int | None) -> Limits:
        """`batch_size` rows, or with None what suits the kind of device."""
        kind = kind_of(device)
        return cls(TOKENS[kind], ROWS[kind]) if batch_size is None else cls(2**31, batch_size)

    def halve(self) -> None:
        self.tokens, self.rows = max(1, self.tokens // 2), max(1, self.rows // 2)


@dataclass
class Pass:
    """A forward pass: `states` (chosen positions, hidden) for the Head, the keys and values after it with their mask,
    gate logits by layer."""

    states: Tensor
    cache: DynamicCache
    visible: Tensor
    gates: dict[int, Tensor]

    @property
    def past(self) -> KeyValues:
        """The past of a pass that goes on from here."""
        return KeyValues.of(self.cache, self.visible)


@dataclass
class Group:
    """Works that run together: their numbers, the past after their prompts, their results and, by place in the group,
    the generations that have begun."""

    numbers: list[int]
    works: list[Work]
    past: KeyValues
    results: list[Result]
    rows: dict[int, Row] = field(default_factory=dict)


@dataclass
class Row:
    """A generation under way: the tokens known so far, of which all but the last are in `past` (None while it decodes).

    `number` is the Work's; `position` the position id of the last token.

    The row is its own drafter: `draft` gives what followed the last occurrence of the present NGRAM of tokens.
    """

    number: int
    tokens: list[int]
    prompt_length: int
    position: int
    past: KeyValues | None
    _after: dict[tuple[int, ...], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index in range(NGRAM, len(self.tokens)):
            self._after[tuple(self.tokens[index - NGRAM : index])] = index

    @property
    def generated(self) -> list[int]:
        return self.tokens[self.prompt_length :]

    def draft(self, length: int) -> list[int]:
        """Up to `length` tokens that may follow."""
        source = self._after.get(tuple(self.tokens[-NGRAM:]))
        if source is None:
            return []
        # a copy that reaches its own beginning goes on with what it has copied: a loop
        period = len(self.tokens) - source
        return [self.tokens[source + step % period] for step in range(length)]

    def accept(self, token: int) -> None:
        """The next token is known."""
        self._after[tuple(self.tokens[-NGRAM:])] = len(self.tokens)
        self.tokens.append(token)


@dataclass
class Tree:
    """Continuations of one prompt, with one node for what several begin with alike.

    `tokens` and `depths` (how many nodes lie between the prompt and it) are the nodes', in the order of the
    continuations, each after its parent. `paths` are the nodes of each continuation's tokens but its last, which
    nothing has to follow; the first path's nodes are the first ones.
    """

    tokens: list[int]
    depths: list[int]
    paths: list[list[int]]

    @classmethod
    def of(cls, continuations: Iterable[Sequence[int]]) -> Tree:
        tree, known = cls([], [], []), {}
        for continuation in continuations:
            path, node = [], -1
            for depth, token in enumerate(continuation[:-1]):
                node = known.setdefault((node, token), len(tree.tokens))
                if node == len(tree.tokens):
                    tree.tokens.append(token)
                    tree.depths.append(depth)
                path.append(node)
            tree.paths.append(path)
        return tree

    @property
    def branches(self) -> bool:
        """Whether there are nodes that neither follow nor precede one another."""
        return len(self.tokens) > max(map(len, self.paths))

    def lineage(self, width: int) -> Tensor:
        """(width, width) bool: whether a node (row) descends from another (column) or is it; false beyond the nodes."""
        lineage = torch.zeros(width, width, dtype=torch.bool)
        for path in (torch.tensor(path, dtype=torch.long) for path in self.paths):
            lineage[path[:, None], path] = torch.ones(len(path), len(path), dtype=torch.bool).tril()
        return lineage


class Engine:
    """Runs Works through one model.

    `hidden` is a token that attention never sees as a key, None for none. Positions of scored sequences count all
    tokens, positions of generations only the visible ones, as `generate` does; so the two agree, and generation can go
    on from scoring, for prompts without a hidden token. `stops` are the tokens that end a generation.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        stops: Iterable[int],
        max_new_tokens: int,
        batch_size: int | None = None,
        hidden: int | None = None,
    ) -> None:
        self.model, self.device = model, model.device
        self.stops, self.max_new_tokens, self.hidden = frozenset(stops), max_new_tokens, hidden
        self.counts = Counts()
        self.limits = Limits.of(self.device, batch_size)
        self._free = FREE_TOKENS[kind_of(self.device)]

    @torch.no_grad()
    def run(self, works: Sequence[Work]) -> Iterator[tuple[int, Result]]:
        """Yield (index, result) as works are done, in an order of the engine's choosing."""
        if not works:
            return
        self._head = Head(self.model)
        self._works = works
        self._results: dict[int, Result] = {}
        self._queue: list[Row] = []
        prompts = [work.prompt for work in works]
        # what all prompts begin with; each has at least one token of its own
        self._prefix = list(prompts[0][: min(common_length(prompts), min(map(len, prompts)) - 1)])
        self._prefixes: dict[bool, KeyValues] = {}
        self._branching = self._takes_trees()
        order = sorted(range(len(works)), key=lambda number: len(works[number].prompt))
        for part in self._parts([len(works[number].prompt) - len(self._prefix) for number in order]):
            self._fit(self._score, order[part])
            for number in order[part]:
                if not works[number].generate or self._results[number].generated is not None:
                    yield number, self._results[number]
            while len(self._queue) >= self.limits.rows:
                yield from self._decode()
        while self._queue:
            yield from self._decode()

    # ---- batches and passes

    def _parts(self, lengths: Sequence[int]) -> Iterator[slice]:
        """Cut ascending lengths into batches within the limits, padding included."""
        start = 0
        while start < len(lengths):
            end = start + 1
            while end < len(lengths) and end - start < self.limits.rows:
                if lengths[end] * (end - start + 1) > self.limits.tokens:
                    break
                end += 1
            yield slice(start, end)
            start = end

    def _fit(self, run: Callable[[list[T]], None], items: list[T]) -> None:
        """Run a batch; out of memory, halve the limits and run it in two parts. A failed `run` must leave no trace."""
        try:
            return run(items)
        except torch.OutOfMemoryError:
            if len(items) == 1:
                raise
        # outside the handler, so that the failed pass's tensors are free
        self._shrink()
        half = len(items) // 2
        self._fit(run, items[:half])
        self._fit(run, items[half:])

    def _shrink(self) -> None:
        self.limits.halve()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _forward(
        self,
        rows: Sequence[Sequence[int]],
        positions: Sequence[Sequence[int]],
        past: KeyValues | Slots | None,
        *,
        last: int | None = None,
        prompt_end: Tensor | None = None,
        hidden: int | None = None,
        trees: Sequence[Tree] = (),
    ) -> Pass:
        """Run rows of token ids, padded on the right, after `past`; keep the states at each row's `last` positions
        (None: at all). With `trees`, a token sees the past and the nodes that it descends from."""
        width = max(map(len, rows))
        ids = self._padded(rows, width)
        lengths = torch.tensor([[len(row)] for row in rows], device=self.device)
        column = torch.arange(width, device=self.device)[None]
        present = column < lengths
        wanted = present if last is None else present & (column >= lengths - last)
        visible = present if hidden is None else present & (ids != hidden)
        mask = visible.long() if past is None else torch.cat([past.visible, visible.long()], 1)
        attended = self._tree_mask(trees, mask, width) if any(tree.branches for tree in trees) else mask
        cache = DynamicCache() if past is None else past.cache()
        with calling(prompt_end) as call, self._head.keeping(wanted) as kept, fast_kernels(self.model):
            output = self.model(
                input_ids=ids,
                attention_mask=attended,
                position_ids=self._padded(positions, width),
                use_cache=True,
                **cache_argument(self.model, cache),
            )
        self.counts.forward_tokens += ids.numel()
        self.counts.head_rows += len(kept[0])
        states = kept[0] if self._head.plain else output.logits
        return Pass(states, cache, mask, call.gates)

    def _tree_mask(self, trees: Sequence[Tree], visible: Tensor, width: int) -> Tensor:
        """The mask of trees of up to `width` nodes, added to attention's logits: (rows, 1, width, columns)."""
        seen = visible.bool()[:, None].repeat(1, width, 1)
        seen[:, :, -width:] &= torch.stack([tree.lineage(width) for tree in trees]).to(self.device)
        nought = torch.zeros((), dtype=self.model.dtype, device=self.device)
        return nought.where(seen, torch.finfo(self.model.dtype).min)[:, None]

    def _takes_trees(self) -> bool:
        """Whether the works have trees and the model sees them as they are.

        Models treat masks of their own making differently, so a trial decides: a branch beside another has to give what
        it gives alone. A sliding window counts columns, of which a tree has more than each of its branches is long.
        """
        if all(len(work.continuations) < 2 for work in self._works):
            return False
        longest = max(len(work.prompt) + sum(map(len, work.continuations)) for work in self._works)
        if longest > (getattr(self.model.config, "sliding_window", None) or longest):
            return False
        past = self._forward([[1, 2, 3]], [range(3)], None, last=0).past
        tree, alone = Tree.of([[4, 5, 6, 7, 8, 1], [5, 6, 1]]), Tree.of([[5, 6, 1]])
        try:
            states = [
                self._forward([each.tokens], [[3 + depth for depth in each.depths]], past, trees=[each]).states[-2:]
                for each in (tree, alone)
            ]
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError):
            return False
        branch, expected = (each.float() for each in states)
        tolerance = 1e-3 if self.model.dtype == torch.float32 else 3e-2
        return bool((branch - expected).abs().max() <= tolerance * expected.abs().max())

    def _padded(self, rows: Sequence[Sequence[int]], width: int) -> Tensor:
        return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device)

    # ---- prompts

    def _positions(self, prompt: Sequence[int], generating: bool) -> list[int]:
        """Position ids of a prompt: its columns, or when generating the visible tokens before, and 1 at hidden ones."""
        if not generating:
            return list(range(len(prompt)))
        positions, seen = [], 0
        for token in prompt:
            positions.append(1 if token == self.hidden else seen)
            seen += token != self.hidden
        return positions

    def _prefill(self, works: Sequence[Work], generating: bool) -> Pass:
        """Run the prompts of works; states at their last tokens: (works, hidden)."""
        start = len(self._prefix)
        return self._forward(
            [work.prompt[start:] for work in works],
            [self._positions(work.prompt, generating)[start:] for work in works],
            self._prefix_past(generating).take([0] * len(works)) if start else None,
            last=1,
            prompt_end=torch.tensor([len(work.prompt) - start - 1 for work in works], device=self.device),
            hidden=self.hidden,
        )

    def _prefix_past(self, generating: bool) -> KeyValues:
        """Keys and values of what all prompts begin with, computed once."""
        if generating not in self._prefixes:
            positions = self._positions(self._prefix, generating)
            self._prefixes[generating] = self._forward(
                [self._prefix], [positions], None, last=0, hidden=self.hidden
            ).past
        return self._prefixes[generating]

    # ---- scoring

    def _score(self, numbers: list[int]) -> None:
        """Score the continuations of a batch of works; finish their generations or queue them."""
        works = [self._works[number] for number in numbers]
        prompts = self._prefill(works, generating=False)
        gates = {layer: logits.tolist() for layer, logits in prompts.gates.items()}
        results = [Result(gates={layer: row[place] for layer, row in gates.items()}) for place in range(len(works))]
        group = Group(numbers, works, prompts.past, results)
        self._first_tokens(group, prompts.states)
        items = self._items(works)
        trees = [Tree.of(_tokens(group, item)) for item in items]
        pairs = sorted(zip(items, trees, strict=True), key=lambda pair: len(pair[1].tokens))
        for part in self._parts([len(tree.tokens) for _, tree in pairs]):
            self._fit(lambda chunk: self._continue(group, chunk), pairs[part])
        self._regenerate(group)
        self._results.update(zip(numbers, results, strict=True))
        self._queue += group.rows.values()

    def _first_tokens(self, group: Group, states: Tensor) -> None:
        """Score the first token of every continuation, and begin the generations that scoring cannot go on with."""
        wide = max(1, max(len(work.continuations) for work in group.works))
        targets = self._padded([[tokens[0] for tokens in work.continuations] for work in group.works], wide)
        moments = torch.tensor([work.moments for work in group.works], device=self.device)
        statistics = self._head.statistics(states, targets, moments)
        for place, (work, result) in enumerate(zip(group.works, group.results, strict=True)):
            for index in range(len(work.continuations)):
                result.continuations.append(TokenScores())
                statistics.write(result.continuations[-1], [place], [index], 0, work.moments and index == 0)
            if self._reusable(work) and not (work.continuations and len(work.continuations[0]) > 1):
                self._begin(group, place, [statistics.argmax[place]], group.past, place)

    def _reusable(self, work: Work) -> bool:
        """Whether the work's generation has the same past as its scoring."""
        return work.generate and self.hidden not in work.prompt

    def _items(self, works: Sequence[Work]) -> list[Item]:
        """What runs as one row: all continuations of a work, or each of them. Those of one token are scored already."""
        items = []
        for place, work in enumerate(works):
            long = [index for index, tokens in enumerate(work.continuations) if len(tokens) > 1]
            items += [(place, long)] if self._branching and long else [(place, [index]) for index in long]
        return items

    def _continue(self, group: Group, chunk: list[tuple[Item, Tree]]) -> None:
        """Score the rest of continuations: their tokens from the second on."""
        trees = [tree for _, tree in chunk]
        starts = [len(group.works[place].prompt) for (place, _), _ in chunk]
        positions = [[start + depth for depth in tree.depths] for start, tree in zip(starts, trees, strict=True)]
        past = group.past.take([place for (place, _), _ in chunk])
        run = self._forward([tree.tokens for tree in trees], positions, past, hidden=self.hidden, trees=trees)
        # what may follow each node, and whether the moments of its distribution are asked for
        following: list[dict[int, int]] = [{} for tree in trees for _ in tree.tokens]
        moments = [False] * len(following)
        parts, start = [], 0
        for (place, indices), tree in chunk:
            for index, path in zip(indices, tree.paths, strict=True):
                rows, next_tokens = [start + node for node in path], group.works[place].continuations[index][1:]
                pairs = zip(rows, next_tokens, strict=True)
                columns = [following[row].setdefault(token, len(following[row])) for row, token in pairs]
                wanted = group.works[place].moments and index == 0
                for row in rows if wanted else ():
                    moments[row] = True
                parts.append((group.results[place].continuations[index], rows, columns, wanted))
            start += len(tree.tokens)
        targets = self._padded([list(each) for each in following], max(map(len, following)))
        statistics = self._head.statistics(run.states, targets, torch.tensor(moments, device=self.device))
        for scores, rows, columns, wanted in parts:
            statistics.write(scores, rows, columns, 1, wanted)
        for row, ((place, indices), _) in enumerate(chunk):
            if indices[0] == 0 and self._reusable(group.works[place]):
                known = _greedy_prefix(
                    group.works[place].continuations[0], group.results[place].continuations[0].argmax
                )
                self._begin(group, place, known, run.past, row)

    def _regenerate(self, group: Group) -> None:
        """Begin the generations whose prompts have other positions than in scoring, from a pass of their own."""
        places = [place for place, work in enumerate(group.works) if work.generate and not self._reusable(work)]
        if places:
            run = self._prefill([group.works[place] for place in places], generating=True)
            for row, (place, token) in enumerate(zip(places, self._head.argmax(run.states), strict=True)):
                self._begin(group, place, [token], run.past, row)

    # ---- generation

    def _begin(self, group: Group, place: int, known: list[int], past: KeyValues, row: int) -> None:
        """A generation starts with the tokens `known`; `past` has at least the prompt and all of them but the last."""
        known = known[: self.max_new_tokens]
        end = next((index for index, token in enumerate(known) if token in self.stops), None)
        if end is not None or len(known) == self.max_new_tokens:
            group.results[place].generated = known if end is None else known[: end + 1]
            return
        prompt = list(group.works[place].prompt)
        visible = sum(token != self.hidden for token in prompt)
        past = past.take([row])
        # what was scored after the mismatch is no part of the generation: only as many visible columns stay
        past.visible[0, past.visible[0].cumsum(0) > visible + len(known) - 1] = 0
        position = visible + len(known) - 1
        group.rows[place] = Row(group.numbers[place], prompt + known, len(prompt), position, past.compact())

    def _decode(self) -> Iterator[tuple[int, Result]]:
        """Take rows from the queue for some steps; yield what gets finished, put the rest back."""
        rows = self._pick()
        longest = min(LONGEST_DRAFT, max(0, self._free // len(rows) - 1))
        slots = self._unless_full(rows, partial(Slots, [row.past for row in rows], ROUND * (1 + longest)))
        if slots is None:
            self._queue += rows
            return
        for row in rows:
            row.past = None
        for _ in range(ROUND):
            drafts = [row.draft(min(longest, self.max_new_tokens - len(row.generated) - 1)) for row in rows]
            argmax = self._unless_full(rows, partial(self._step, rows, drafts, slots))
            if argmax is None:
                break
            self._verify(rows, drafts, argmax, slots)
            for place in reversed(range(len(rows))):
                if self._finished(row := rows[place]):
                    self._results[row.number].generated = row.generated
                    yield row.number, self._results[row.number]
                    slots.drop(place)
                    rows[place] = rows[-1]
                    rows.pop()
            if not rows:
                break
        for place, row in enumerate(rows):
            row.past = slots.take(place)
        self._queue += rows

    def _pick(self) -> list[Row]:
        """The rows of the next decoding batch, out of the queue: the shortest, which pad each other little."""
        self._queue.sort(key=lambda row: len(row.tokens))
        rows, self._queue = self._queue[: self.limits.rows], self._queue[self.limits.rows :]
        return rows

    def _unless_full(self, rows: Sequence[Row], run: Callable[[], T]) -> T | None:
        """What `run` gives; None, with the limits halved, when memory runs out for several rows."""
        try:
            return run()
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        self._shrink()
        return None

    def _step(self, rows: Sequence[Row], drafts: Sequence[list[int]], slots: Slots) -> list[int]:
        """The argmax after each row's last token and after each token of its draft."""
        tokens = [[row.tokens[-1], *draft] for row, draft in zip(rows, drafts, strict=True)]
        positions = [range(row.position, row.position + len(given)) for row, given in zip(rows, tokens, strict=True)]
        argmax = self._head.argmax(self._forward(tokens, positions, slots).states)
        self.counts.row_steps += len(rows)
        return argmax

    def _verify(self, rows: Sequence[Row], drafts: Sequence[list[int]], argmax: Sequence[int], slots: Slots) -> None:
        """Accept the argmax after each row's last token and after each draft token that was right; hide the rest."""
        kept, place = [], 0
        for row, draft in zip(rows, drafts, strict=True):
            answers = argmax[place : place + len(draft) + 1]
            place += len(draft) + 1
            right = 0
            while True:
                row.accept(answers[right])
                if self._finished(row) or right == len(draft) or draft[right] != answers[right]:
                    break
                right += 1
            row.position += right + 1
            kept.append([right + 1])
            self.counts.decoded_tokens += right + 1
        columns = torch.arange(1 + max(map(len, drafts)), device=self.device)
        slots.advance(columns < torch.tensor(kept, device=self.device))

    def _finished(self, row: Row) -> bool:
        return row.tokens[-1] in self.stops or len(row.tokens) - row.prompt_length >= self.max_new_tokens


def _tokens(group: Group, item: Item) -> list[Sequence[int]]:
    """The continuations of an item."""
    return [group.works[item[0]].continuations[index] for index in item[1]]


def _greedy_prefix(tokens: Sequence[int], argmax: Sequence[int]) -> list[int]:
    """The greedy generation as far as scoring `tokens` shows it: up to the first mismatch, with what came instead."""
    for index, (token, best) in enumerate(zip(tokens, argmax, strict=True)):
        if token != best:
            return [*tokens[:index], best]
    return list(tokens)
