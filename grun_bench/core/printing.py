"""Stdout, which is for results alone: nothing else gets in between where a program reads it. No torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from io import StringIO
from pathlib import Path

#: what is to be printed once the block is over that keeps stdout for it; None where nothing keeps it
_kept: ContextVar[list[str] | None] = ContextVar("kept", default=None)


class Closed(StringIO):
    """In the place of a stdout that was closed before the program began: it knows what could not be written."""


def put(text: str) -> None:
    """Print what was asked for, as it is; within `results_alone` at its end."""
    kept = _kept.get()
    if kept is None:
        print(text, end="")
    else:
        kept.append(text)


@contextmanager
def results_alone() -> Iterator[None]:
    """Within this block whatever is printed goes to stderr, also by plugins and programs that they start.

    What is `put` is printed at its end.
    """
    kept: list[str] = []
    before = _kept.set(kept)
    try:
        with ExitStack() as stack:
            sys.stdout.flush()
            stack.callback(_restored, os.dup(1))
            os.dup2(2, 1)
            stack.enter_context(redirect_stdout(sys.stderr))
            yield
    finally:
        _kept.reset(before)
        print(*kept, sep="", end="")


def _restored(stdout: int) -> None:
    os.dup2(stdout, 1)
    os.close(stdout)


@contextmanager
def open_streams() -> Iterator[None]:
    """Within this block streams that were closed before the program began (`>&-`) are there.

    Else the next file that is opened would be taken for stdout by whatever prints, and what is for stderr would go to
    stdout, for that is what `print` takes None for.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    with ExitStack() as stack:
        if sys.stdout is None:
            stack.enter_context(redirect_stdout(Closed()))
        if sys.stderr is None:
            nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(redirect_stderr(nowhere))
        yield
