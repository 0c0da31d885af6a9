"""Progress on stderr: lines where it is no terminal, and one bar at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from grun_bench.core import progress


def test_lines_say_what_begins_and_what_came_of_it(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.bar("training", 3) as advance:
        for loss in (3.0, 2.0, 1.0):
            advance(loss=loss)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "training: 3 steps"
    assert len(lines) == 2 and lines[1].startswith("training: 3/3 in ") and lines[1].endswith("loss 1")


def test_a_bar_within_a_bar_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.bar("outer", 1), progress.bar("inner", 1) as advance:
        advance(loss=1.0)
    with pytest.raises(KeyError), progress.bar("broken", 1):
        raise KeyError
    with progress.bar("next", 1):
        pass
    said = capfd.readouterr().err
    assert "inner" not in said and "outer: 1 steps" in said and "next: 1 steps" in said


def test_nothing_to_do_is_not_said(capfd: pytest.CaptureFixture[str]) -> None:
    with progress.bar("gradients", 0):
        pass
    assert capfd.readouterr().err == ""


def test_another_thread_has_a_bar_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with progress.bar("theirs", 1):
            pass

    with progress.bar("mine", 1), ThreadPoolExecutor(1) as threads:
        threads.submit(work).result()
    assert "theirs: 1 steps" in capfd.readouterr().err


def test_what_is_said_is_not_marked_up(capfd: pytest.CaptureFixture[str]) -> None:
    progress.say("[bold]a[/bold] " + "long " * 50)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "[bold]a[/bold] " + "long " * 50 + "\n")


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there is no pseudo-terminal")
def test_a_terminal_sees_a_bar_with_values() -> None:
    code = (
        "from grun_bench.core.progress import bar, waiting\n"
        "with waiting('loading'):\n    pass\n"
        "with bar('training', 2) as advance:\n    advance(loss=0.5)\n    advance(loss=0.25)\n"
    )
    ours, theirs = os.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # the end of a pseudo-terminal
            while part := os.read(ours, 4096):
                shown += part
    os.close(ours)
    assert process.returncode == 0
    assert b"training" in shown and b"2/2" in shown and b"loss 0.25" in shown
