"""The frozen trunk: what nothing that is trained can change, computed once.

An adapter that acts from some block on leaves the blocks before it as they were, so their output for a sequence is the
same in every epoch. It is kept by sequence, without padding (attention is causal and padding on the right, so what
stands beside a sequence in a batch changes nothing but the order of floating-point sums), and a forward pass that is
given it skips those blocks.

An adapter that edits the last prompt token only leaves the tokens before it as they were in all blocks. Their keys and
values in the blocks that do run are kept by prompt, what all prompts begin with once, and a pass begins at the last
prompt token. All else of the pass (masks, later blocks, hooks, the head) is the model's own.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from grun_bench.core.environment import cache_folder
from grun_bench.core.errors import UsageError
from grun_bench.core.progress import bar, say
from grun_bench.models.batch import IGNORED, Batch, Encoded, collate, common_length
from grun_bench.models.devices import cuda_devices
from grun_bench.models.forward import Frozen, calling, current_call, decoder_layers, evaluating, wrapped_forwards
from grun_bench.models.kv_cache import KeyValues, cache_argument
from grun_bench.models.lm import LM
from grun_bench.models.passes import Passes
from grun_bench.models.windows import counts_columns, own_window
from grun_bench.models.work import Counts

#: bytes that are kept in memory; more go to a file in the cache folder, which is gone with the run
MEMORY_LIMIT = 4 * 2**30
#: relative difference of two passes in training mode from which on they are random, not only rounded otherwise
RANDOM = 1e-3

#: token ids of a sequence, or of a prompt without its last token
Ids = tuple[int, ...]
#: a sequence: the place of its last prompt token, and its token ids
Key = tuple[int, Ids]


class _Reached(Exception):
    """A pass has come as far as it was meant to."""


class Trunk:
    """The first `count` decoder blocks of a model, and what they give for the sequences that are kept.

    With `prompts`, what later blocks make of a prompt before its last token belongs to it too.
    """

    def __init__(self, lm: LM, count: int, prompts: bool = False) -> None:
        self._lm, self._count, self._blocks = lm, count, decoder_layers(lm.model)
        self._prompts = prompts
        #: whether keys and values of prompts are kept: there are later blocks
        self._later = prompts and count < len(self._blocks)
        self._states, self._keyvalues = _Store(), _Store()
        #: whether a block's output is a tuple, as in older versions of transformers
        self._tuple = False
        #: (heads, dimension) of the keys, then of the values, of each later block
        self._shapes: list[tuple[int, int]] = []

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._states.values.nbytes + self._keyvalues.values.nbytes

    def frozen(self, batch: Batch) -> Frozen:
        """What is frozen of a batch, and what is left to run. What is not kept is computed now, together."""
        ends, lengths = batch.prompt_end.tolist(), batch.attention_mask.sum(1).tolist()
        rows = [tuple(ids[:length]) for ids, length in zip(batch.input_ids.tolist(), lengths, strict=True)]
        states = [self._states.get(key) for key in zip(ends, rows, strict=True)]
        before = [self._keyvalues.get(ids[:end]) for end, ids in zip(ends, rows, strict=True)]
        begins = ends if self._prompts else [0] * len(rows)
        later = self._later and any(begins)
        missing = [row for row, found in enumerate(states) if found is None]
        if missing:
            through = later and any(before[row] is None and begins[row] for row in missing)
            fresh = self._run(batch.input_ids[missing], batch.attention_mask[missing], through)
            for place, row in enumerate(missing):
                states[row] = fresh[0][place, begins[row] : lengths[row]]
                if through and before[row] is None:
                    before[row] = fresh[1][place, : begins[row]]
        device = batch.input_ids.device
        return Frozen(
            _from(batch, begins) if any(begins) else batch,
            pad_sequence([each.to(device) for each in states if each is not None], batch_first=True),
            self._batched([each if each is None else each.to(device) for each in before]) if later else None,
            self._count,
        )

    def is_random(self, sequence: Encoded) -> tuple[bool, bool]:
        """Whether two passes in training mode differ, in the trunk and after it: by dropout, or whatever is drawn."""
        batch = collate([sequence], self._lm.pad_id).to(self._lm.device)
        with evaluating(self._lm.model), torch.random.fork_rng(cuda_devices(self._lm.model)):
            self._lm.model.train()
            passes = [self._run(batch.input_ids, batch.attention_mask, self._later) for _ in range(2)]
        trunk, later = (
            bool((first.float() - second.float()).abs().sum() > RANDOM * first.float().abs().sum())
            for first, second in zip(*passes, strict=True)
        )
        return trunk, later

    def keep(self, sequences: Iterable[Encoded], batch_size: int, prompts: Iterable[Ids] = ()) -> None:
        """Compute what these sequences and prompts give and keep it. Raises UsageError when there is no room.

        They are computed in groups that depend on nothing else, so that a resumed training has the same to the bit.
        """
        keys = dict.fromkeys(map(_key, sequences))
        self._states = _Store({(end, ids): len(ids) - end * self._prompts for end, ids in keys})
        wanted = {ids: len(ids) for ids in prompts if ids and self._later}
        self._keyvalues = _Store(wanted, common_length(list(wanted)))
        # a prompt comes with a sequence that it begins, or is run by itself
        begun = {ids[:end] for end, ids in keys}
        keys |= dict.fromkeys((len(ids), ids) for ids in wanted if ids not in begun)
        rows = sorted(keys, key=lambda key: (len(key[1]), key))
        if not rows:
            return
        with evaluating(self._lm.model), bar("computing what is frozen", len(rows)) as advance:
            for start in range(0, len(rows), batch_size):
                part = rows[start : start + batch_size]
                batch = collate([Encoded(list(ids), []) for _, ids in part], self._lm.pad_id).to(self._lm.device)
                states, keyvalues = self._run(batch.input_ids, batch.attention_mask, bool(wanted))
                if not start:
                    _make_room((self._states, states), (self._keyvalues, keyvalues))
                for (end, ids), of_blocks, of_prompt in zip(part, states, keyvalues, strict=True):
                    self._states.put((end, ids), of_blocks[end * self._prompts : len(ids)])
                    self._keyvalues.put(ids[:end], of_prompt[:end])
                advance(len(part))

    @torch.no_grad()
    def _run(self, ids: Tensor, mask: Tensor, through: bool) -> tuple[Tensor, Tensor]:
        """(batch, length, hidden) output of the trunk's last block; with `through`, (batch, length, numbers) keys and
        values in the blocks after it, else nothing of them. What is not needed for that does not run."""
        outputs: list[Any] = []

        def reached(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            outputs.append(output)
            if not through or len(outputs) == 2:
                raise _Reached

        ends = (self._blocks[self._count - 1], self._blocks[-1])[: 1 + through]
        handles = [block.register_forward_hook(reached, prepend=True) for block in ends]
        cache = DynamicCache() if through else None
        try:
            with calling(None):
                self._lm.model(
                    input_ids=ids, attention_mask=mask, use_cache=through, **cache_argument(self._lm.model, cache)
                )
        except _Reached:
            self._tuple = isinstance(outputs[0], tuple)
            states = outputs[0][0] if self._tuple else outputs[0]
            if cache is None:
                return states, states[..., :0]
            tensors = [each for pair in KeyValues.of(cache, mask).layers[self._count :] for each in pair]
            self._shapes = [(each.shape[1], each.shape[3]) for each in tensors]
            return states, torch.cat([each.transpose(1, 2).flatten(2).to(states.device) for each in tensors], 2)
        finally:
            for handle in handles:
                handle.remove()
        raise TypeError(f"{type(self._lm.model).__name__} does not run its decoder blocks as modules.")

    def _batched(self, rows: Sequence[Tensor | None]) -> KeyValues:
        """The keys and values of prompts, (tokens, numbers) each or None for no token, as a batch."""
        some = next(row for row in rows if row is not None)
        kept = [some[:0] if row is None else row for row in rows]
        visible = pad_sequence([torch.ones(len(row), dtype=torch.long, device=row.device) for row in kept], True)
        parts = pad_sequence(kept, batch_first=True).split([math.prod(shape) for shape in self._shapes], 2)
        tensors = [part.unflatten(2, shape).transpose(1, 2) for part, shape in zip(parts, self._shapes, strict=True)]
        return KeyValues(list(zip(tensors[::2], tensors[1::2], strict=True)), visible)

    @contextmanager
    def skipping(self) -> Iterator[None]:
        """Within this block, a pass that is given the trunk's output does not run the trunk. Hooks of its last block,
        an adapter's among them, act on that output."""
        with wrapped_forwards(self._blocks[: self._count], self._forward):
            yield

    def _forward(self, own: Any, *args: Any, **kwargs: Any) -> Any:
        call = current_call()
        if call is None or call.trunk is None:
            return own(*args, **kwargs)
        return (call.trunk,) if self._tuple else call.trunk


@contextmanager
def frozen_trunk(
    lm: LM, count: int, uses: Iterable[Encoded], batch_size: int, prompts: bool = False
) -> Iterator[Trunk | None]:
    """The trunk of `count` blocks, with what all sequences give that are used more than once, and with `prompts` all
    prompts.

    None, with a message, where something in it is random in training; None where `count` is 0. Prompts are not kept
    where sequences outgrow a window of the model, which would count the padding between them and the rest.
    """
    sequences: dict[Key, Encoded] = {}
    counted, of_prompts = Counter[Key](), Counter[Ids]()
    for each in uses:
        end, ids = key = _key(each)
        sequences[key] = each
        counted[key] += 1
        of_prompts[ids[:end]] += 1
    if not count or not sequences:
        yield None
        return
    prompts = prompts and not _outgrow_window(lm, sequences.values())
    in_trunk, later = Trunk(lm, count, prompts).is_random(next(iter(sequences.values())))
    if in_trunk or later:
        what = f"what the first {count} layers give is" if in_trunk else f"prompts after layer {count} are"
        say(f"{what} not kept: something in the model is random in training, as dropout is.")
    if in_trunk:
        yield None
        return
    trunk = Trunk(lm, count, prompts and not later)
    again = [ids for ids, times in of_prompts.items() if times > 1]
    trunk.keep((sequences[key] for key, times in counted.items() if times > 1), batch_size, again)
    with trunk.skipping():
        yield trunk


@torch.no_grad()
def _outgrow_window(lm: LM, sequences: Iterable[Encoded]) -> bool:
    """Whether the model has a window that is shorter than the columns of sequences and the padding inside them."""
    longest = max(map(len, sequences))
    with evaluating(lm.model):
        counted = counts_columns(Passes(lm.model, Counts()), 2 * longest)
    return counted or longest > (own_window(lm.model) or longest)


def _key(sequence: Encoded) -> Key:
    return len(sequence.prompt) - 1, (*sequence.prompt, *sequence.answer)


def _from(batch: Batch, begins: Sequence[int]) -> Batch:
    """The batch without the first tokens of its rows, as many as `begins` says."""
    first = torch.tensor(begins, device=batch.input_ids.device)[:, None]
    lengths = batch.attention_mask.sum(1, keepdim=True)
    columns = first + torch.arange(int((lengths - first).max()), device=first.device)
    inside, columns = columns < lengths, columns.clamp(max=batch.input_ids.shape[1] - 1)
    return Batch(
        batch.input_ids.gather(1, columns),
        batch.attention_mask.gather(1, columns) * inside,
        batch.labels.gather(1, columns).where(inside, IGNORED),
        batch.prompt_end - first[:, 0],
    )


class _Store:
    """Rows of numbers by sequence, one row a token; the first `common` rows are the same for all and there once."""

    def __init__(self, counts: Mapping[Any, int] = {}, common: int = 0) -> None:
        self._common, self._places, self.rows = common, {}, common
        for key, count in counts.items():
            self._places[key] = slice(self.rows, self.rows + count - common)
            self.rows += count - common
        #: (rows, numbers) on the CPU, given by `_make_room`
        self.values = torch.empty(0)

    def put(self, key: Any, rows: Tensor) -> None:
        """Keep the rows of a sequence; of one that was not announced nothing."""
        if (place := self._places.get(key)) is not None:
            self.values[: self._common] = rows[: self._common].cpu()
            self.values[place] = rows[self._common :].cpu()

    def get(self, key: Any) -> Tensor | None:
        """(tokens, numbers); None for a sequence that is not kept."""
        if (place := self._places.get(key)) is None:
            return None
        return torch.cat([self.values[: self._common], self.values[place]])


def _make_room(*stores: tuple[_Store, Tensor]) -> None:
    """Room for stores whose rows have the size and dtype of a tensor's last dimension: in memory, or mapped to files
    that have no name any more. Raises UsageError when there is none."""
    size = sum(store.rows * like.shape[-1] * like.element_size() for store, like in stores)
    folder = cache_folder() / "trunk"
    try:
        if size > MEMORY_LIMIT:
            folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(folder).free < size:
                raise OSError("no space left on device")
            say(f"what is frozen takes {size / 2**30:.1f} GiB; it lies in a file in {folder} until the run ends.")
        for store, like in stores:
            shape = (store.rows, like.shape[-1])
            if size <= MEMORY_LIMIT or not math.prod(shape):
                store.values = torch.empty(shape, dtype=like.dtype)
                continue
            with tempfile.NamedTemporaryFile(dir=folder) as file:
                mapped = torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=like.dtype)
            store.values = mapped.view(shape)
    except OSError as error:
        raise UsageError(
            f"what is frozen takes {size / 2**30:.1f} GiB, which {folder} cannot hold ({error}); set "
            "GRUN_BENCH_CACHE to a folder that can, or add --no-trunk-cache."
        ) from None
