"""A limit of time for work on what strangers made. No torch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from grun_bench.core.errors import GrunBenchError

#: seconds between two tries to end a block
AGAIN = 0.5


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Within this block, which is ended with a GrunBenchError after so many seconds; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    over = False

    def end(number: int, frame: Any) -> None:
        if not over:
            raise GrunBenchError(f"stopped after {seconds:.0f} seconds, which is more than such records take.")

    before = signal.signal(signal.SIGALRM, end)
    # again and again: what is raised in a callback of the garbage collector, or in a destructor, is lost
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
