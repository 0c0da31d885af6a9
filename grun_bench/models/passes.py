"""The engine's forward passes: rows of token ids, padded, after keys and values that are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from grun_bench.models.batch import common_length
from grun_bench.models.devices import device_of
from grun_bench.models.forward import calling
from grun_bench.models.head import Head
from grun_bench.models.kernels import fast_kernels
from grun_bench.models.kv_cache import KeyValues, Slots, cache_argument
from grun_bench.models.tree import Tree
from grun_bench.models.work import Counts, Work


@dataclass
class Pass:
    """What a forward pass gave.

    `states` (chosen positions, hidden) are for the Head, `cache` holds the keys and values after the pass, `visible`
    (rows, columns) is their mask, `gates` are gate logits (rows,) by layer.
    """

    states: Tensor
    cache: DynamicCache
    visible: Tensor
    gates: dict[int, Tensor]

    @property
    def past(self) -> KeyValues:
        """The past of a pass that goes on from here."""
        return KeyValues.of(self.cache, self.visible)


class Passes:
    """Runs rows of token ids through one model. `counts` gets the costs added; `head` is the model's.

    `gapless` says that a row's tokens must lie side by side in keys and values, since a window counts the columns.
    """

    def __init__(self, model: PreTrainedModel, counts: Counts) -> None:
        self.model, self.device, self.counts = model, device_of(model), counts
        self.head = Head(model)
        self.gapless = False

    def run(
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
        """Run rows of token ids, padded on the right, after `past`.

        The states at each row's `last` positions are kept (None: at all). `positions` are the position ids of the rows,
        `prompt_end` (rows,) the columns where adapters edit, None for nowhere, `hidden` a token that attention never
        sees as a key. With `trees`, a token sees the past and the nodes that it descends from.
        """
        width = max(map(len, rows))
        ids = self.padded(rows, width)
        lengths = torch.tensor([[len(row)] for row in rows], device=self.device)
        column = torch.arange(width, device=self.device)[None]
        present = column < lengths
        wanted = present if last is None else present & (column >= lengths - last)
        visible = present if hidden is None else present & (ids != hidden)
        mask = visible.long() if past is None else torch.cat([past.visible, visible.long()], 1)
        attended = self._tree_mask(trees, mask, width) if any(tree.branches for tree in trees) else mask
        cache = DynamicCache() if past is None else past.cache()
        with calling(prompt_end) as call, self.head.keeping(wanted) as kept, fast_kernels(self.model):
            output = self.model(
                input_ids=ids,
                attention_mask=attended,
                position_ids=self.padded(positions, width),
                use_cache=True,
                **cache_argument(self.model, cache),
            )
        self.counts.forward_tokens += ids.numel()
        self.counts.head_rows += len(kept[0])
        states = kept[0] if self.head.plain else output.logits
        return Pass(states, cache, mask, call.gates)

    def padded(self, rows: Sequence[Sequence[int]], width: int) -> Tensor:
        """Rows of numbers as one tensor (rows, width), zeros at the right."""
        return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device)

    def _tree_mask(self, trees: Sequence[Tree], visible: Tensor, width: int) -> Tensor:
        """The mask of trees of up to `width` nodes, added to attention's logits: (rows, 1, width, columns)."""
        seen = visible.bool()[:, None].repeat(1, width, 1)
        seen[:, :, -width:] &= torch.stack([tree.lineage(width) for tree in trees]).to(self.device)
        nought = torch.zeros((), dtype=self.model.dtype, device=self.device)
        return nought.where(seen, torch.finfo(self.model.dtype).min)[:, None]

    def takes_trees(self, works: Sequence[Work]) -> bool:
        """Whether the works have trees and the model sees them as they are.

        Models treat masks of their own making differently, so a trial decides: a branch beside another has to give what
        it gives alone.
        """
        if self.gapless or all(len(work.continuations) < 2 for work in works):
            return False
        past = self.run([[1, 2, 3]], [range(3)], None, last=0).past
        tree, alone = Tree.of([[4, 5, 6, 7, 8, 1], [5, 6, 1]]), Tree.of([[5, 6, 1]])
        try:
            states = [
                self.run([each.tokens], [[3 + depth for depth in each.depths]], past, trees=[each]).states[-2:]
                for each in (tree, alone)
            ]
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError):
            return False
        return alike(*states)


def alike(given: Tensor, expected: Tensor) -> bool:
    """Whether states differ by no more than the noise of their precision."""
    tolerance = 1e-3 if expected.dtype == torch.float32 else 3e-2
    given, expected = given.float(), expected.float()
    return bool((given - expected).abs().max() <= tolerance * expected.abs().max())


class Prefill:
    """Runs the prompts of works; what all of them begin with is run once, where the model allows it, and each has a
    token of its own.

    Positions of prompts that are scored count all tokens; of prompts that are generated from only the visible ones, as
    `generate` does, with 1 at hidden ones. So the two agree for prompts without the token `hidden`.
    """

    def __init__(self, passes: Passes, works: Sequence[Work], hidden: int | None) -> None:
        prompts = [work.prompt for work in works]
        # where states of a prompt's first tokens depend on all of it, nothing is kept for another that begins alike
        alike = 0 if getattr(passes.model, "reads_whole_prompts", False) else common_length(prompts)
        self.shared = list(prompts[0][: min(alike, min(map(len, prompts)) - 1)])
        self._passes, self._hidden = passes, hidden
        self._pasts: dict[bool, KeyValues] = {}

    def run(self, works: Sequence[Work], *, generating: bool) -> Pass:
        """The pass of the works' prompts, with the states at their last tokens: (works, hidden)."""
        start = len(self.shared)
        return self._passes.run(
            [work.prompt[start:] for work in works],
            [self._positions(work.prompt, generating)[start:] for work in works],
            self._past(generating).take([0] * len(works)) if start else None,
            last=1,
            prompt_end=torch.tensor([len(work.prompt) - start - 1 for work in works], device=self._passes.device),
            hidden=self._hidden,
        )

    def same_past(self, prompt: Sequence[int]) -> bool:
        """Whether a generation from this prompt has the same past as its scoring."""
        return self._hidden not in prompt

    def visible(self, prompt: Sequence[int]) -> int:
        """How many tokens of a prompt attention sees."""
        return sum(token != self._hidden for token in prompt)

    def _positions(self, prompt: Sequence[int], generating: bool) -> list[int]:
        if not generating:
            return list(range(len(prompt)))
        positions, seen = [], 0
        for token in prompt:
            positions.append(1 if token == self._hidden else seen)
            seen += token != self._hidden
        return positions

    def _past(self, generating: bool) -> KeyValues:
        """Keys and values of what all prompts begin with, computed once."""
        if generating not in self._pasts:
            positions = self._positions(self.shared, generating)
            self._pasts[generating] = self._passes.run(
                [self.shared], [positions], None, last=0, hidden=self._hidden
            ).past
        return self._pasts[generating]
