"""Signals that ask a process to stop: Ctrl-C, SIGTERM and SIGHUP, with which Slurm and others warn before they kill."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from grun_bench.core import processes

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """The process was asked to stop by a signal, whose name it bears.

    As KeyboardInterrupt, no `except Exception` catches it. Exit code 128 + its number, as of what dies of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextmanager
def stopping() -> Iterator[None]:
    """Within this block SIGTERM and SIGHUP raise Stopped, as Ctrl-C raises KeyboardInterrupt."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handled(stop, STOPS[1:]):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], Any], signals: Sequence[int]) -> Iterator[dict[int, Any]]:
    """Within this block `handler` gets these signals; yields who got them before.

    Those that are ignored, as under nohup, still are. Nothing changes in a thread that is not the first.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {each: found for each in signals if (found := signal.getsignal(each)) not in (None, signal.SIG_IGN)}
    for each in before:
        signal.signal(each, handler)
    try:
        yield before
    finally:
        for each, found in before.items():
            signal.signal(each, found)


class Postponed:
    """A signal that came while something was done that is better done whole; true when one came."""

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self.before: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.arrived)

    def __str__(self) -> str:
        return signal.Signals(self.arrived[0]).name

    def note(self, number: int, frame: FrameType | None) -> None:
        """A handler: the first signal waits; who presses Ctrl-C again will not.

        SIGTERM comes twice at once to a job that Slurm preempts, to its step and by way of srun; SIGKILL comes after.
        """
        self.arrived.append(number)
        if len(self.arrived) > 1 and number == signal.SIGINT:
            self.deliver()

    def agree(self) -> None:
        """Where several processes work together, what came to one came to all: they stop at the same place."""
        (number,) = processes.most(*(self.arrived[:1] or [0]))
        self.arrived = self.arrived or [number] * bool(number)

    def deliver(self) -> None:
        """Hand the signal to who got such signals before, which may raise or end the process."""
        arrived, self.arrived = self.arrived, []
        for number in arrived[:1]:
            if callable(self.before[number]):
                self.before[number](number, None)
            else:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)


@contextmanager
def postponed() -> Iterator[Postponed]:
    """Within this block a signal waits for `deliver`, or for the block's end."""
    waiting = Postponed()
    try:
        with _handled(waiting.note, STOPS) as waiting.before:
            yield waiting
    finally:
        waiting.deliver()
