"""Data sets -> validated rows -> token batches that know where each prompt ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORED = -100


@dataclass(frozen=True)
class Encoded:
    """One sequence as token ids, tokenised apart: the prompt (not scored) and the answer with its end of sequence."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences.

    `input_ids`, `attention_mask`, `labels`: (batch, length) int64; labels are -100 outside the answer.
    `prompt_end`: (batch,) int64, the index of the last prompt token, where GRUN and ReFT edit.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor
    prompt_end: Tensor

    def to(self, device: torch.device | str) -> Batch:
        return Batch(
            *(tensor.to(device) for tensor in (self.input_ids, self.attention_mask, self.labels, self.prompt_end))
        )

    @property
    def scored(self) -> Tensor:
        """(batch, length) bool: the positions whose next token is scored (one before each answer token)."""
        return torch.nn.functional.pad(self.labels[:, 1:] != IGNORED, (0, 1), value=False)

    @property
    def targets(self) -> Tensor:
        """(scored,) int64: the answer tokens, in the order of `scored` positions, row by row."""
        return self.labels[self.labels != IGNORED]


def collate(sequences: Sequence[Encoded], pad_id: int) -> Batch:
    """Right-pad sequences to the longest of them."""
    width = max(len(sequence) for sequence in sequences)
    input_ids = torch.full((len(sequences), width), pad_id)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    for row, sequence in enumerate(sequences):
        start, end = len(sequence.prompt), len(sequence)
        input_ids[row, :end] = torch.tensor(sequence.prompt + sequence.answer)
        attention_mask[row, :end] = 1
        labels[row, start:end] = torch.tensor(sequence.answer)
    return Batch(input_ids, attention_mask, labels, torch.tensor([len(sequence.prompt) - 1 for sequence in sequences]))


def collate_prompts(prompts: Sequence[list[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Left-pad prompts for generation: (input_ids, attention_mask), each (batch, length) int64."""
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.tensor([[pad_id] * (width - len(prompt)) + prompt for prompt in prompts])
    attention_mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return input_ids, attention_mask


def common_length(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all sequences begin with alike."""
    rows = [tuple(sequence) for sequence in sequences]
    first, last = min(rows, default=()), max(rows, default=())
    pairs = zip(first, last, strict=False)
    return next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(first), len(last)))
