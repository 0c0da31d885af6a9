"""One run of a sweep in this process: what it prints goes to its log, and what became of it beside that."""

from __future__ import annotations

import datetime
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from grun_bench.core.errors import GrunBenchError, Refused
from grun_bench.core.raised import trace_of
from grun_bench.core.signals import Stopped, stopping
from grun_bench.matrix.cell import Cell, Status
from grun_bench.runs.front import run_config

#: what other machines must know of the environment that a sweep was begun in
PASSED_ON = (
    *("GRUN_BENCH_", "HF_", "TOKENIZERS_", "OMP_NUM_THREADS"),
    # where trackers file what they are sent, without keys
    *("WANDB_MODE", "WANDB_PROJECT", "WANDB_ENTITY", "WANDB_DIR", "WANDB_BASE_URL", "TENSORBOARD_LOGGING_DIR"),
    *("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "TRACKIO_DIR", "TRACKIO_PROJECT", "TRACKIO_SPACE_ID"),
)


def environment() -> dict[str, str]:
    """The variables of this process that a run elsewhere is to have too."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


def work(cell: Cell, owner: str, variables: Mapping[str, str] | None = None) -> bool:
    """Make the row of a cell, unless it is done or another command is at it, and say what became of it.

    Returns whether this process can go on with another run: not after an error that nobody expected. A signal to stop
    leaves the cell waiting and is passed on.
    """
    os.environ.update(variables or {})
    status = cell.status()
    if status.state == "done" or (status.state == "running" and status.owner != owner):
        return True
    start = time.monotonic()
    with cell.running(owner), _logged(cell):
        found, fit = _made(cell)
        cell.write(found.model_copy(update={"owner": owner, "seconds": round(time.monotonic() - start, 1)}))
    return fit


def _made(cell: Cell) -> tuple[Status, bool]:
    """What became of it, and whether this process is as it was. Passes signals to stop on."""
    try:
        with stopping():
            row = run_config(cell.config).cell
    except (KeyboardInterrupt, Stopped) as stopped:
        cell.write(Status(reason=f"stopped by {str(stopped) or 'Ctrl-C'}; it goes on from its last checkpoint"))
        raise
    except GrunBenchError as error:
        trace = trace_of(error)
        print(f"{trace}error: {error}", file=sys.stderr)
        return Status(state="refused" if isinstance(error, Refused) else "failed", reason=str(error)), not trace
    except Exception as error:
        traceback.print_exc()
        return Status(state="failed", reason=f"{type(error).__name__}: {error}"), False
    place = row.path.relative_to(cell.config.output).as_posix()
    if row.result.status != "ok":
        return Status(state="failed", reason=f"{row.result.status}: {row.result.error}", result=place), True
    return Status(state="done", result=place), True


@contextmanager
def _logged(cell: Cell) -> Iterator[None]:
    """Within this block whatever this process prints goes to the end of the cell's log, C libraries' lines too."""
    with ExitStack() as stack:
        log = stack.enter_context(Path(cell.log).open("a", encoding="utf-8", buffering=1))
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        print(f"--- {cell} on {platform.node()}, process {os.getpid()}, {now}", file=log)
        for number in (1, 2):
            stack.callback(_restored, os.dup(number), number)
            os.dup2(log.fileno(), number)
        stack.enter_context(redirect_stdout(log))
        stack.enter_context(redirect_stderr(log))
        yield


def _restored(kept: int, number: int) -> None:
    os.dup2(kept, number)
    os.close(kept)
