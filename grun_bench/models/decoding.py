"""Greedy decoding of many rows, which draft their next tokens from their own text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from grun_bench.models.head import kind_of
from grun_bench.models.kv_cache import KeyValues, Slots
from grun_bench.models.limits import Limits
from grun_bench.models.passes import Passes
from grun_bench.models.work import Scored

#: input tokens of a decoding step that cost little more than one, because reading the weights takes longer
FREE_TOKENS = {"cpu": 8, "cuda": 128}
#: decoding steps before the rows of a batch are chosen anew
ROUND = 16
#: a draft is what followed the last occurrence of this many tokens, and its longest
NGRAM, LONGEST_DRAFT = 2, 15
#: columns that a round adds at most
WITH_DRAFTS = ROUND * (1 + LONGEST_DRAFT)


@dataclass(frozen=True)
class Ending:
    """When a generation ends: after a token of `stops`, or after `length` tokens."""

    stops: frozenset[int]
    length: int

    def cut(self, tokens: list[int]) -> tuple[list[int], bool]:
        """The tokens as far as they belong to the generation, and whether it ends with them."""
        tokens = tokens[: self.length]
        end = next((index for index, token in enumerate(tokens) if token in self.stops), None)
        return tokens if end is None else tokens[: end + 1], end is not None or len(tokens) == self.length


@dataclass
class Decoding:
    """A generation under way: the tokens known so far, of which all but the last are in `past`.

    `number` is the Work's, `scored` gets the generation when it ends; `position` is the position id of the last token;
    `past` is a single row, None while the decoder's batch has it.

    It is its own drafter: `draft` gives what followed the last occurrence of the present NGRAM of tokens.
    """

    number: int
    scored: Scored
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
        """The tokens after the prompt."""
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


class Decoder:
    """A queue of generations, taken on in batches of the shortest, which pad each other little."""

    def __init__(self, passes: Passes, limits: Limits, ending: Ending) -> None:
        self.queue: list[Decoding] = []
        self._passes, self._limits, self.ending = passes, limits, ending
        self._free = FREE_TOKENS[kind_of(passes.device)]

    def decode(self) -> Iterator[int]:
        """Take rows from the queue for some steps; yield the numbers of those that end, put the rest back."""
        rows = self._pick()
        # a draft that turns out wrong leaves a gap
        longest = 0 if self._passes.gapless else min(LONGEST_DRAFT, max(0, self._free // len(rows) - 1))
        room = ROUND * (1 + longest)
        slots = self._limits.attempt(partial(Slots, [row.past for row in rows if row.past], room), len(rows))
        if slots is None:
            self.queue += rows
            return
        for row in rows:
            row.past = None
        for _ in range(ROUND):
            drafts = [row.draft(min(longest, self.ending.length - len(row.generated) - 1)) for row in rows]
            argmax = self._limits.attempt(partial(self._step, rows, drafts, slots), len(rows))
            if argmax is None:
                break
            self._verify(rows, drafts, argmax, slots)
            for place in reversed(range(len(rows))):
                if self._finished(row := rows[place]):
                    row.scored.generated = row.generated
                    yield row.number
                    slots.drop(place)
                    rows[place] = rows[-1]
                    rows.pop()
            if not rows:
                break
        for place, row in enumerate(rows):
            row.past = slots.take(place).compact(self._passes.gapless)
        self.queue += rows

    def _pick(self) -> list[Decoding]:
        """The rows of the next decoding batch, out of the queue."""
        self.queue.sort(key=lambda row: len(row.tokens))
        rows, self.queue = self.queue[: self._limits.rows], self.queue[self._limits.rows :]
        return rows

    def _step(self, rows: Sequence[Decoding], drafts: Sequence[list[int]], slots: Slots) -> list[int]:
        """The argmax after each row's last token and after each token of its draft."""
        tokens = [[row.tokens[-1], *draft] for row, draft in zip(rows, drafts, strict=True)]
        positions = [range(row.position, row.position + len(given)) for row, given in zip(rows, tokens, strict=True)]
        argmax = self._passes.head.argmax(self._passes.run(tokens, positions, slots).states)
        self._passes.counts.row_steps += len(rows)
        return argmax

    def _verify(
        self, rows: Sequence[Decoding], drafts: Sequence[list[int]], argmax: Sequence[int], slots: Slots
    ) -> None:
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
            self._passes.counts.decoded_tokens += right + 1
        columns = torch.arange(1 + max(map(len, drafts)), device=self._passes.device)
        slots.advance(columns < torch.tensor(kept, device=self._passes.device))

    def _finished(self, row: Decoding) -> bool:
        return row.tokens[-1] in self.ending.stops or len(row.generated) >= self.ending.length
