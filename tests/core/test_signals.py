"""Signals to stop: they raise, may wait for the end of what is done whole, and stay ignored where they were."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from grun_bench.core.signals import STOPS, Stopped, postponed, stopping


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """With Python's own handlers, which a process in the background lacks; as before afterwards."""
    before = {each: signal.getsignal(each) for each in STOPS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_raises_what_its_exit_code_tells(number: int, code: int) -> None:
    with pytest.raises(Stopped, match=signal.Signals(number).name) as stopped, stopping():
        send(number)
    assert stopped.value.exit_code == code
    assert not isinstance(stopped.value, Exception)  # what goes on after a failed run does not go on


def test_a_signal_waits_and_ctrl_c_again_does_not() -> None:
    done = []
    with pytest.raises(Stopped), stopping(), postponed() as stop:
        for _ in range(2):  # as of a job that Slurm preempts: to its step, and by way of srun
            send(signal.SIGTERM)
        done.append("whole")
        assert stop and str(stop) == "SIGTERM"
        stop.deliver()
        done.append("never")
    assert done == ["whole"]
    with pytest.raises(Stopped), stopping():
        with postponed():
            send(signal.SIGHUP)
            done.append("to the end of the block")
        done.append("never")
    with pytest.raises(KeyboardInterrupt), postponed():
        send(signal.SIGINT)
        send(signal.SIGINT)
        done.append("never")
    assert done == ["whole", "to the end of the block"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_is_ignored_still_is() -> None:
    """As under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stopping(), postponed() as stop:
        send(signal.SIGHUP)
        assert not stop
