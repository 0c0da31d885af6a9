"""What is known of a run of a sweep: its files say it, to whoever asks, and no dead process is taken for a live one."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grun_bench.matrix import cell as cells
from grun_bench.matrix.cell import Cell, Status
from grun_bench.matrix.grid import Grid
from grun_bench.matrix.sweep import Plan
from grun_bench.runs.config import RunConfig
from grun_bench.terminal.sweep import _table


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell.of(RunConfig("npo", "tofu_forget10", output=tmp_path))


def gone() -> int:
    """The number of a process that is over."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_it_waits_until_something_is_said(cell: Cell) -> None:
    assert cell.status() == Status()
    cell.folder.mkdir()
    (cell.folder / f"{cell.name}.json").write_text("{")
    assert cell.status().state == "waiting" and cell.status().reason


def test_the_log_of_a_run_that_was_interrupted_is_named(cell: Cell, capsys: pytest.CaptureFixture[str]) -> None:
    cell.write(Status(state="running", host=platform.node(), pid=gone()))
    plan = Plan.of(Grid(unlearners=("npo",)), cell.config)
    (own,) = plan.cells

    def log() -> str:
        (found,) = _table(plan, {own: Status(reason="ended before it was done")}).columns[-1].cells
        return str(found)

    assert log() == ""
    own.log.write_text("begun")
    assert log().endswith(own.log.name)


def test_done_is_what_has_a_result(cell: Cell, tmp_path: Path) -> None:
    cell.write(Status(state="done", result="a.json"))
    assert cell.status().state == "waiting" and "a.json is gone" in cell.status().reason
    (tmp_path / "a.json").write_text("")
    assert cell.status().state == "done"


def test_it_runs_within_the_block_and_shows_it(cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "BEAT", 0.02)
    with cell.running("me"):
        status = cell.status()
        assert (status.state, status.owner, status.pid) == ("running", "me", os.getpid())
        file = cell.folder / f"{cell.name}.json"
        os.utime(file, (0, 0))
        end = time.monotonic() + 10
        while cell.status().state != "running":
            assert time.monotonic() < end
            time.sleep(0.02)


def test_dead_processes_do_not_run(cell: Cell) -> None:
    here, file = platform.node(), cell.folder / f"{cell.name}.json"
    cell.write(Status(state="running", host=here, pid=gone()))
    assert cell.status().state == "waiting" and "ended" in cell.status().reason
    cell.write(Status(state="running", host="another", pid=gone()))
    assert cell.status().state == "running"  # its numbers are not ours
    os.utime(file, (time.time() - 2 * cells.DEAD,) * 2)
    assert cell.status().state == "waiting"
