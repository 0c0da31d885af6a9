"""What holds of every call that loads, trains or scores a model: one thread at a time, plugins told apart.

No torch.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from grun_bench.core import processes
from grun_bench.core.errors import GrunBenchError, PluginError
from grun_bench.core.progress import say
from grun_bench.core.raised import of_plugin, place_of

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
def plugins_told() -> Iterator[None]:
    """Within this block what a plugin raises, or that it ends the program, is a PluginError that says where it did.

    What it raised is the error's cause.
    """
    try:
        yield
    except SystemExit as ended:
        # how the libraries that print end the program when nobody reads on
        if isinstance(ended.__context__, BrokenPipeError):
            raise
        raise PluginError(f"{ended_at(ended)}. A plugin gives something back, or raises an error.") from ended
    except (GrunBenchError, BrokenPipeError):
        raise
    except Exception as error:
        # where another process of this run failed, all others do
        if processes.failed_elsewhere(error) is None and (told := of_plugin(error)):
            raise told from error
        raise


def ended_at(ended: SystemExit) -> str:
    """Where the program was to end, and with which code."""
    return f"the program was ended (SystemExit: {ended.code}) by {place_of(ended)}"


@contextmanager
def working() -> Iterator[None]:
    """Both, for what is called from Python."""
    with one_thread(), plugins_told():
        yield
