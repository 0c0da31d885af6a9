"""Where the prompts of a plain call end, and the refusal where that cannot be known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor
from transformers import Cache

from grun_bench.core.errors import UsageError
from grun_bench.models.batch import IGNORED

_ADVICE = (
    "The edits of this model depend on where each prompt ends. Pass prompt_lengths=[...], how many tokens of each row "
    f"are prompt (0: it ends in another call), or labels that are {IGNORED} on the prompt. generate() needs neither."
)
NO_PADDING = "attention_mask is not (batch, length), so it does not tell padding"


def refuse(reason: str) -> NoReturn:
    """Raises UsageError with what to pass."""
    raise UsageError(f"where the prompt ends is not known: {reason}. {_ADVICE}")


def cache_among(values: Iterable[Any]) -> Cache | None:
    """The cache among arguments or outputs, by its type: transformers have more than one name for it."""
    return next((value for value in values if isinstance(value, Cache)), None)


@dataclass(frozen=True)
class Seen:
    """What a plain call is given: its arguments by name.

    The prompts' ends are (rows,) int64 columns of this call, -1 where a row's prompt ends in another one.
    """

    given: Mapping[str, Any]

    @property
    def whole(self) -> Tensor:
        """Token ids (rows, width) or embeddings (rows, width, hidden)."""
        ids = self.given.get("input_ids")
        return self.given["inputs_embeds"] if ids is None else ids

    def past(self) -> int:
        """How many columns came before in earlier calls."""
        if (columns := self.given.get("cache_position")) is not None:
            return int(columns[0])
        if (cache := cache_among(self.given.values())) is not None:
            return int(cache.get_seq_length())
        tuples = self.given.get("past_key_values")
        return tuples[0][0].shape[2] if tuples else 0

    def attended(self) -> Tensor:
        """(rows, width) bool, False on padding. Raises UsageError where the mask is of another kind."""
        rows, width = self.whole.shape[:2]
        mask, positions = self.given.get("attention_mask"), self.given.get("position_ids")
        if mask is None:
            mask = torch.ones(rows, width, device=self.whole.device)
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            refuse(NO_PADDING)
        attended = mask[:, -width:].bool()
        if positions is not None and ((positions == 0) & attended).sum(1).max() > 1:
            refuse("a row holds several sequences")
        return attended

    def of_sequences(self, ends: Sequence[int]) -> Tensor | None:
        """From the ends of whole sequences, of which this call has a part; None: it has no end.

        Every sequence may have several rows, as in beam search.
        """
        past, (rows, width) = self.past(), self.whole.shape[:2]
        if past > max(ends):
            return None
        if len(set(ends)) == 1:
            ends = ends[:1]
        if rows % len(ends):
            refuse(f"{rows} rows came of {len(ends)} prompts")
        columns = [end - past if 0 <= end - past < width else -1 for end in ends for _ in range(rows // len(ends))]
        return torch.tensor(columns, device=self.whole.device)

    def of_lengths(self, lengths: Any) -> Tensor:
        """From the number of tokens that are prompt."""
        attended = self.attended()
        counts = torch.as_tensor(lengths, device=attended.device)
        whole_numbers = not (counts.is_floating_point() or counts.dtype == torch.bool)
        if not whole_numbers or counts.shape not in ((), attended.shape[:1]):
            raise UsageError(f"prompt_lengths: a whole number for each of {len(attended)} rows, or one for all.")
        counts = counts.expand(len(attended))[:, None]
        if bool(((counts < 0) | (counts > attended.sum(1, keepdim=True))).any()):
            raise UsageError(f"prompt_lengths: from 0 to a row's number of tokens; got {counts[:, 0].tolist()}.")
        ends = ((attended.cumsum(1) == counts) & attended).long().argmax(1)
        return ends.where(counts[:, 0] > 0, -1)

    def of_labels(self, labels: Tensor) -> Tensor:
        """From the first token that has a label."""
        scored = labels != IGNORED
        ends = scored.long().argmax(1) - 1
        before = self.attended().gather(1, ends.clamp(min=0)[:, None])[:, 0] & (ends >= 0)
        starts = scored & ~torch.nn.functional.pad(scored, (1, 0))[:, :-1]
        wrong = (~before | (starts.sum(1) != 1)).nonzero()[:, 0].tolist()
        if wrong:
            refuse(f"in row {wrong[0]} of labels no single answer follows a prompt that is {IGNORED}")
        return ends

    def of_start(self, start: Sequence[int]) -> Tensor:
        """From the last time that a row has the tokens with which answers start."""
        ids, size = self.given.get("input_ids"), len(start)
        if not size or ids is None or ids.shape[1] < size:
            refuse("nothing says it")
        self.attended()
        windows = (ids.unfold(1, size, 1) == torch.tensor(start, device=ids.device)).all(-1)
        missing = (~windows.any(1)).nonzero()[:, 0].tolist()
        if missing:
            refuse(f"row {missing[0]} has no turn of the assistant, as the chat template begins one")
        return ids.shape[1] - 1 - windows.flip(1).long().argmax(1)
