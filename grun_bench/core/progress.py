"""Progress bars on stderr; plain lines when stderr is not a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from grun_bench.core import processes
from grun_bench.core.escaping import lines

#: whether a bar is being shown: one within it would tear it apart, and shows nothing
_shown: ContextVar[bool] = ContextVar("shown", default=False)
#: whether the person who waits wants to be told nothing (`--quiet`)
_quiet: ContextVar[bool] = ContextVar("quiet", default=False)
#: seconds between the plain lines
PLAIN_EVERY = 30.0


@contextmanager
def quiet() -> Iterator[None]:
    """Nothing is said, and no bar shown, while this block runs; errors are, for they are not told here."""
    before = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(before)


def silent() -> bool:
    """Whether this process is to say nothing."""
    return _quiet.get() or not processes.first()


def say(text: str) -> None:
    """One line on stderr for the person who waits."""
    if not silent():
        print(lines(text), file=sys.stderr, flush=True)


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """A line with a spinner while something of a few seconds has no steps to count; nothing without a terminal."""
    if silent() or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console  # takes a moment, and not every command shows something

    with Console(stderr=True).status(f"{text} ..."):
        yield


def duration(seconds: float) -> str:
    """A time in words, as exact as a guess is: seconds below two minutes, minutes below two hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _values(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


@contextmanager
def bar(label: str, total: int) -> Iterator[Callable[..., None]]:
    """A bar over `total` steps. Yields `advance(steps=1, **values)`; the values (losses) are shown behind the bar.

    A bar within another one shows nothing, nor does one without steps. Both kinds say how long the rest takes if it
    goes on as it went.
    """
    if _shown.get() or silent() or not total:
        yield lambda steps=1, **values: None
        return
    before = _shown.set(True)
    try:
        yield from _bar(label, total) if sys.stderr.isatty() else _plain(label, total)
    finally:
        _shown.reset(before)


def _bar(label: str, total: int) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, values="")

        def advance(steps: int = 1, **values: float) -> None:
            progress.update(task, advance=steps, values=_values(values))

        yield advance


def _plain(label: str, total: int) -> Iterator[Callable[..., None]]:
    start = last = time.monotonic()
    done, latest = 0, ""
    say(f"{label}: {total} steps")

    def advance(steps: int = 1, **values: float) -> None:
        nonlocal done, last, latest
        done += steps
        latest = _values(values)
        if time.monotonic() - last > PLAIN_EVERY and done < total:
            last = time.monotonic()
            left = (last - start) / done * (total - done) if done else 0.0
            say(f"{label}: {done}/{total}{f', {duration(left)} left' if done else ''} {latest}".rstrip())

    yield advance
    say(f"{label}: {done}/{total} in {time.monotonic() - start:.0f} s {latest}")
