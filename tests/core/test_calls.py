"""Calls that load, train or score: one thread at a time, and no plugin ends the program."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Event

import pytest
from forking import ended, forked

import grun_bench
from grun_bench.core.calls import one_thread, plugins_told
from grun_bench.core.errors import GrunBenchError, PluginError


def test_threads_work_one_after_another_and_who_waits_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    inside, begun, seen = Event(), Event(), []

    def work() -> None:
        begun.set()
        with one_thread(), one_thread():  # a block within a block waits for nobody
            seen.append(inside.is_set())

    with ThreadPoolExecutor(1) as pool:
        with one_thread():
            inside.set()
            found = pool.submit(work)
            begun.wait()
            with pytest.raises(TimeoutError):
                found.result(timeout=0.2)
            inside.clear()
        found.result(timeout=60)
    assert seen == [False]
    assert capfd.readouterr().err == "another thread is loading, training or scoring a model; waiting for it.\n"


@pytest.mark.parametrize(
    "call",
    [
        partial(grun_bench.run, "no-such+unlearner", "tofu_forget10"),
        partial(grun_bench.evaluate, None, None, "tofu_forget10"),
        partial(grun_bench.load, "no-such-folder"),
        partial(grun_bench.push_to_hub, "no-such-folder", "org/name"),
    ],
    ids=lambda call: call.func.__name__,
)
def test_what_is_called_from_python_is_called_by_one_thread_at_a_time(call: Callable[[], object]) -> None:
    """Each fails at once, but not before it is its turn."""
    with ThreadPoolExecutor(1) as pool:
        with one_thread():
            found = pool.submit(call)
            with pytest.raises(TimeoutError):
                found.result(timeout=1)
        assert isinstance(found.exception(timeout=120), GrunBenchError)


def test_a_forked_process_waits_for_no_thread_of_its_parent() -> None:
    def work() -> None:
        with one_thread():
            pass

    with ThreadPoolExecutor(1) as pool, one_thread():
        assert ended(pool.submit(forked, work).result()) == 0


def test_what_ends_the_program_is_told_with_its_place() -> None:
    with (
        pytest.raises(PluginError, match=r"\(SystemExit: 3\) by .*test_calls\.py, line \d+, in test_what_"),
        plugins_told(),
    ):
        raise SystemExit(3)
    with pytest.raises(SystemExit), plugins_told():
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904
    with pytest.raises(KeyboardInterrupt), plugins_told():
        raise KeyboardInterrupt
