"""What holds of every call that loads, trains or scores a model: one thread at a time, and no plugin ends the program.

No torch.
"""

from __future__ import annotations

import os
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from grun_bench.core.errors import PluginError
from grun_bench.core.progress import say

_busy = threading.RLock()


def _free() -> None:
    """A forked process has none of the threads that may have been at work."""
    global _busy
    _busy = threading.RLock()


os.register_at_fork(after_in_child=_free)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within this block no other thread of this process is in such a block: it waits for this one.

    transformers (5.24) loads in one thread alone: in several it loses weights, from then on for the whole process; and
    seeds, numbers of threads and switches of the Hub are the process's. A block within a block of one thread is no
    other.
    """
    busy = _busy
    if not busy.acquire(blocking=False):
        say("another thread is loading, training or scoring a model; waiting for it.")
        busy.acquire()
    try:
        yield
    finally:
        busy.release()


@contextmanager
def no_exit() -> Iterator[None]:
    """Within this block code of others that ends the program is a PluginError that says where it did."""
    try:
        yield
    except SystemExit as ended:
        # how the libraries that print end the program when nobody reads on
        if isinstance(ended.__context__, BrokenPipeError):
            raise
        raise PluginError(f"{ended_at(ended)}. A plugin gives something back, or raises an error.") from ended


def ended_at(ended: SystemExit) -> str:
    """Where the program was to end, and with which code."""
    last = traceback.extract_tb(ended.__traceback__)[-1]
    return f"the program was ended (SystemExit: {ended.code}) by {last.filename}, line {last.lineno}, in {last.name}"


@contextmanager
def working() -> Iterator[None]:
    """Both, for what is called from Python."""
    with one_thread(), no_exit():
        yield
