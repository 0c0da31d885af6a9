"""The frozen trunk: what the first decoder blocks give, computed once where nothing that is trained can change it.

An adapter that acts from some block on leaves the blocks before it as they were, so their output for a sequence is the
same in every epoch. It is kept by sequence, without padding (attention is causal and padding on the right, so what
stands beside a sequence in a batch changes nothing but the order of floating-point sums), and a forward pass that is
given it skips those blocks. All else of the pass (masks, positions, later blocks, hooks, the head) is the model's own.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from grun_bench.data import Batch, Encoded, collate
from grun_bench.env import cache_folder
from grun_bench.errors import UsageError
from grun_bench.models import LM, calling, current_call, decoder_layers, evaluating
from grun_bench.progress import bar, say

#: bytes of states that are kept in memory; more go to a file in the cache folder, which is gone with the run
MEMORY_LIMIT = 4 * 2**30
#: relative difference of two passes in training mode from which on they are random, not only rounded otherwise
RANDOM = 1e-3


class _Reached(Exception):
    """A pass has come to the end of the trunk."""

    def __init__(self, output: Any) -> None:
        self.output = output


class Trunk:
    """The first `count` decoder blocks of a model, and what they give for the sequences that are kept."""

    def __init__(self, lm: LM, count: int) -> None:
        self._lm, self._blocks = lm, decoder_layers(lm.model)[:count]
        self._places: dict[tuple[int, ...], slice] = {}
        self._kept = torch.empty(0)
        #: whether a block's output is a tuple, as in older versions of transformers
        self._tuple = False

    @property
    def size(self) -> int:
        """Bytes of kept states."""
        return self._kept.nbytes

    def states(self, batch: Batch) -> Tensor:
        """(batch, length, hidden) output of the last block, before an adapter acts on it; zero at padding.

        Sequences that are not kept are computed now, together.
        """
        lengths = batch.attention_mask.sum(1).tolist()
        rows = [tuple(ids[:length]) for ids, length in zip(batch.input_ids.tolist(), lengths, strict=True)]
        missing = [number for number, ids in enumerate(rows) if ids not in self._places]
        if len(missing) == len(rows):
            return self._run(batch.input_ids, batch.attention_mask)
        states = self._kept.new_zeros(*batch.input_ids.shape, self._kept.shape[1])
        for number, ids in enumerate(rows):
            if ids in self._places:
                states[number, : len(ids)] = self._kept[self._places[ids]]
        states = states.to(batch.input_ids.device)
        if missing:
            states[missing] = self._run(batch.input_ids[missing], batch.attention_mask[missing])
        return states

    def is_random(self, sequence: Encoded) -> bool:
        """Whether two passes in training mode differ: by dropout, or anything else that is drawn."""
        batch = collate([sequence], self._lm.pad_id).to(self._lm.device)
        devices = [self._lm.device] if self._lm.device.type == "cuda" else []
        with evaluating(self._lm.model), torch.random.fork_rng(devices):
            self._lm.model.train()
            first, second = (self._run(batch.input_ids, batch.attention_mask).float() for _ in range(2))
        return bool((first - second).abs().max() > RANDOM * first.abs().max())

    def keep(self, sequences: Iterable[Encoded], batch_size: int) -> None:
        """Compute the states of these sequences and keep them. Raises UsageError when there is no room.

        They are computed in groups that depend on nothing else, so that a resumed training has the same to the bit.
        """
        rows = sorted({_ids(each): each for each in sequences}.items(), key=lambda row: (len(row[0]), row[0]))
        if not rows:
            return
        used = 0
        with evaluating(self._lm.model), bar("computing the frozen layers' states", len(rows)) as advance:
            for start in range(0, len(rows), batch_size):
                part = rows[start : start + batch_size]
                batch = collate([each for _, each in part], self._lm.pad_id).to(self._lm.device)
                states = self._run(batch.input_ids, batch.attention_mask)
                if not used:
                    self._kept = _room(sum(len(ids) for ids, _ in rows), states)
                for (ids, _), values in zip(part, states, strict=True):
                    self._places[ids] = slice(used, used + len(ids))
                    self._kept[self._places[ids]] = values[: len(ids)].cpu()
                    used += len(ids)
                advance(len(part))

    @torch.no_grad()
    def _run(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The output of the trunk's last block for a batch; later blocks do not run."""

        def stop(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            raise _Reached(output)

        handle = self._blocks[-1].register_forward_hook(stop, prepend=True)
        try:
            with calling(None):
                self._lm.model(input_ids=ids, attention_mask=mask, use_cache=False)
        except _Reached as reached:
            self._tuple = isinstance(reached.output, tuple)
            return reached.output[0] if self._tuple else reached.output
        finally:
            handle.remove()
        raise TypeError(f"{type(self._lm.model).__name__} does not run its decoder blocks as modules.")

    @contextmanager
    def skipping(self) -> Iterator[None]:
        """Within this block, a pass that is given the trunk's output does not run the trunk. Hooks of its last block,
        an adapter's among them, act on that output."""
        own = [vars(block).get("forward") for block in self._blocks]
        for block in self._blocks:
            block.forward = partial(self._forward, block.forward)
        try:
            yield
        finally:
            for block, forward in zip(self._blocks, own, strict=True):
                del block.forward
                if forward is not None:
                    block.forward = forward

    def _forward(self, own: Any, *args: Any, **kwargs: Any) -> Any:
        call = current_call()
        if call is None or call.trunk is None:
            return own(*args, **kwargs)
        return (call.trunk,) if self._tuple else call.trunk


@contextmanager
def frozen_trunk(lm: LM, count: int, uses: Iterable[Encoded], batch_size: int) -> Iterator[Trunk | None]:
    """The trunk of `count` blocks, with the states of all sequences that are used more than once.

    None, with a message, where something in it is random in training; None where `count` is 0.
    """
    counted, sequences = Counter[tuple[int, ...]](), {}
    for each in uses:
        counted[_ids(each)] += 1
        sequences[_ids(each)] = each
    if not count or not sequences:
        yield None
        return
    trunk = Trunk(lm, count)
    if trunk.is_random(next(iter(sequences.values()))):
        say(f"the first {count} layers are not kept: something in them is random in training, as dropout is.")
        yield None
        return
    trunk.keep((sequences[ids] for ids, times in counted.items() if times > 1), batch_size)
    with trunk.skipping():
        yield trunk


def _ids(sequence: Encoded) -> tuple[int, ...]:
    return (*sequence.prompt, *sequence.answer)


def _room(tokens: int, like: Tensor) -> Tensor:
    """(tokens, hidden) on the CPU, of the dtype of `like`: in memory, or mapped to a file that has no name any more."""
    hidden, size = like.shape[-1], tokens * like.shape[-1] * like.element_size()
    if size <= MEMORY_LIMIT:
        return torch.empty(tokens, hidden, dtype=like.dtype)
    folder = cache_folder() / "trunk"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(folder).free < size:
            raise OSError("no space left on device")
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            kept = torch.from_file(file.name, shared=True, size=tokens * hidden, dtype=like.dtype)
    except OSError as error:
        raise UsageError(
            f"the frozen layers' states take {size / 2**30:.1f} GiB, which {folder} cannot hold ({error}); set "
            "GRUN_BENCH_CACHE to a folder that can, or add --no-trunk-cache."
        ) from None
    say(f"the frozen layers' states take {size / 2**30:.1f} GiB; they lie in a file in {folder} until the run ends.")
    return kept.view(tokens, hidden)
