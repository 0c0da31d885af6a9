"""Several processes that make one run together, as `torchrun` and `accelerate launch` start them.

Each goes the whole way of the run. They divide what takes time (rows of batches in training and in scoring, and the
weights that `methods/divided.py` divides) and tell each other what came of it; all else each does by itself, and gets
the same. What is decided by files or by the clock the first decides and tells the others, for who went another way than
they would wait for them without end. Only the first speaks and writes.

No torch until they are joined.
"""

from __future__ import annotations

import atexit
import datetime
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from grun_bench.core.errors import GrunBenchError, UsageError

T = TypeVar("T")
Key = TypeVar("Key")

#: what the launcher says of a process
_SAID = ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT")
#: how long one waits for the others, who may score for hours or wait for a lock: one that ended is noticed at once
_PATIENCE = datetime.timedelta(days=7)
#: seconds in which processes that fail alike fail, and in which they read that the first did
_TOGETHER, _READ = 10, 2


@dataclass
class _Joined:
    """`store` is where they leave words for each other, even when one of them fails."""

    store: Any
    #: whether what is being done is the first's alone, so that there are no others
    alone: bool = False


_joined: _Joined | None = None


def announced() -> int:
    """The processes that a launcher started for one run, this one among them; 1 where there is no launcher."""
    return int(os.environ["WORLD_SIZE"]) if all(os.environ.get(name) for name in _SAID) else 1


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if announced() > 1 else 0


def first() -> bool:
    """Whether this is the process that speaks and writes."""
    return rank() == 0


def writes() -> bool:
    """Whether this process writes files: one that works by itself, and the first of several that work together."""
    return count() == 1 or first()


def count() -> int:
    """The processes that share the work at hand."""
    return 1 if _joined is None or _joined.alone else announced()


def refuse(what: str) -> None:
    """Raises UsageError where there are several processes, for what is no run of theirs together."""
    if announced() > 1:
        raise UsageError(
            f"{what} in {announced()} processes: torchrun is for one run of one model, by `run` or `attack`; start "
            f"{what} by itself."
        )


def join(device: str, spread: bool = False) -> None:
    """Meet the other processes, if there are any; from here on they work together.

    `device` is what the run was asked to run on; each process takes a GPU of its own. Raises UsageError where there are
    not enough, for a model that is to be `spread` over them, and for a launcher that started one in the place of many.
    """
    global _joined
    if announced() == 1:
        _check_accelerate()
    if announced() == 1 or _joined is not None:
        return
    if spread:
        raise UsageError(
            f"--device-map in {announced()} processes: each has a device of its own, and one process spreads a model "
            "over several; start one, or leave --device-map out."
        )
    import torch
    from torch import distributed

    gpus = torch.cuda.device_count() if device != "cpu" else 0
    if gpus:
        _take_gpu(device, gpus)
    store, number, size = next(distributed.rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if gpus else "gloo"
    distributed.init_process_group(backend, store=store, rank=number, world_size=size, timeout=_PATIENCE)
    _joined = _Joined(distributed.PrefixStore("grun-bench", store))
    atexit.register(distributed.destroy_process_group)


def _check_accelerate() -> None:
    """`accelerate launch --cpu` (1.15) says where processes are to meet, and starts one: others it leaves to MPI."""
    if os.environ.get("ACCELERATE_USE_CPU") == "True" and os.environ.get("MASTER_ADDR"):
        raise UsageError(
            "accelerate launch --cpu starts one process, whatever --num_processes says: start them by `accelerate "
            "launch --multi_gpu --num_processes N -m grun_bench run ... --device cpu`, or by torchrun."
        )


def _take_gpu(device: str, gpus: int) -> None:
    import torch

    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device not in ("auto", "cuda"):
        raise UsageError(f"--device {device}: each process takes a GPU of its own; leave it out.")
    if here > gpus:
        raise UsageError(f"{here} processes on this machine, which has {gpus} GPUs: start {gpus}, or add --device cpu.")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))


def only_first(work: Callable[[], T]) -> T:
    """What `work` gives in the first process, which does it alone, for all of them; so is what it raises that is
    expected to go wrong."""
    if count() == 1:
        return work()
    from torch import distributed

    told: list[Any] = [None, None]
    if first():
        try:
            with _by_itself():
                told[0] = work()
        except (GrunBenchError, OSError) as error:
            told[1] = error
    mine = told[0]
    distributed.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise told[1]
    given: T = mine if first() else told[0]
    return given


@contextmanager
def _by_itself() -> Iterator[None]:
    if _joined is None:
        yield
        return
    before, _joined.alone = _joined.alone, True
    try:
        yield
    finally:
        _joined.alone = before


def from_first(value: T) -> T:
    """What the first process has, where the others may have something else, as after drawing at random on a GPU."""
    return only_first(lambda: value)


def own(items: Sequence[T]) -> Sequence[T]:
    """Those of the items that this process does, every so-manieth; the others do the others."""
    return items[rank() :: count()] if count() > 1 else items


def merged(found: Mapping[Key, T]) -> dict[Key, T]:
    """What all processes found, each for its own keys."""
    if count() == 1:
        return dict(found)
    from torch import distributed

    parts: list[Any] = [None] * count()
    distributed.all_gather_object(parts, dict(found))
    return {key: value for part in parts for key, value in part.items()}


def most(*numbers: int) -> list[int]:
    """The largest of each number that any process has."""
    if count() == 1:
        return list(numbers)
    import torch
    from torch import distributed

    values = torch.tensor(numbers)
    distributed.all_reduce(values, distributed.ReduceOp.MAX)
    return [int(value) for value in values]


# --- when one of them fails -------------------------------------------------------------------------------------------


def to_tell(message: str) -> str | None:
    """What a process that ends with an error says: nothing where the first says it too, and else who it is."""
    if announced() == 1 or _joined is None:
        # what is wrong before they meet is wrong for all on a machine
        return message if first() or os.environ.get("LOCAL_RANK") == "0" else None
    try:
        _joined.store.set(f"failed/{rank()}", message)
        if first():
            # the store may end with this process: whoever fails alike reads it before
            _appears(*(f"read/{number}" for number in range(1, announced())), seconds=_READ)
            return message
        if _appears("failed/0", seconds=_TOGETHER):
            said = _joined.store.get("failed/0").decode()
            _joined.store.set(f"read/{rank()}", "")
            if said == message:
                return None
    except RuntimeError:  # the first is gone
        pass
    return message if first() else f"process {rank() + 1} of {announced()}: {message}"


def _appears(*keys: str, seconds: float) -> bool:
    """Whether these are in the store within some seconds. (The store's own wait writes warnings of its own.)"""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if _joined is not None and _joined.store.check(list(keys)):
            return True
        time.sleep(0.05)
    return False


def failed_elsewhere(error: BaseException) -> str | None:
    """Why the others are gone, where an error, or the launcher's signal, comes of that; None where it does not."""
    if _joined is None or not first():
        return None
    from torch import distributed

    try:
        failed = [number for number in range(1, announced()) if _joined.store.check([f"failed/{number}"])]
    except RuntimeError:
        failed = []
    if failed:
        return f"process {failed[0] + 1} of {announced()} failed, as it says; this one ends with it."
    if isinstance(error, distributed.DistError) or "gloo" in str(error):
        return f"one of the {announced()} processes of this run ended without a word; the others end with it."
    return None
