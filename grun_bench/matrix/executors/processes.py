"""Runs in processes of this machine, each with a device of its own where there are several."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from types import TracebackType

from grun_bench.core.environment import cores, for_children
from grun_bench.core.progress import say
from grun_bench.matrix.cell import Cell, Status
from grun_bench.matrix.executors import EVERY

#: seconds that a run has to end its step and keep a checkpoint once it is to stop
GRACE = 60.0


@dataclass
class Processes:
    """Up to `jobs` processes, begun when they are needed and kept until the end: loading torch takes seconds."""

    jobs: int
    owner: str
    _workers: list[_Worker] = field(default_factory=list)

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        busy = sum(worker.cell is not None for worker in self._workers)
        for worker in self._workers:
            worker.stop() if error is not None else worker.release()
        if busy:
            say(f"stopping {busy} runs; what is being trained keeps a checkpoint.")
        for worker in self._workers:
            worker.wait()

    def run(self, cells: Sequence[Cell], tick: Callable[[], None]) -> None:
        waiting = deque(cells)
        while waiting or any(worker.cell for worker in self._workers):
            for worker in self._idle(len(waiting)):
                worker.begin(waiting.popleft())
            wait([worker.connection for worker in self._workers if worker.cell], EVERY)
            for worker in self._workers:
                worker.look()
            self._workers = [worker for worker in self._workers if worker.is_alive]
            tick()

    def _idle(self, wanted: int) -> list[_Worker]:
        """As many idle workers as are wanted and there may be."""
        idle = [worker for worker in self._workers if not worker.cell]
        taken = {worker.number for worker in self._workers}
        free = [number for number in range(self.jobs) if number not in taken]
        new = [_Worker.start(number, self.owner, self.jobs) for number in free[: max(0, wanted - len(idle))]]
        self._workers += new
        return [*idle, *new][:wanted]


@dataclass
class _Worker:
    """A process that makes one run after another; `cell` is the one that it is at."""

    number: int
    owner: str
    process: subprocess.Popen[bytes]
    connection: Connection
    cell: Cell | None = None
    is_alive: bool = True

    @classmethod
    def start(cls, number: int, owner: str, of: int) -> _Worker:
        ours, its = Pipe()
        threads = {"OMP_NUM_THREADS": str(max(1, cores() // of))} if of > 1 else {}
        process = subprocess.Popen(
            [sys.executable, "-m", "grun_bench.matrix.executors.worker", str(its.fileno()), str(number)],
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            env=threads | for_children(),
            start_new_session=True,  # Ctrl-C is for us, who stop it
        )
        its.close()
        return cls(number, owner, process, ours)

    def begin(self, cell: Cell) -> None:
        self.cell = cell
        with suppress(BrokenPipeError):  # it is gone, which `look` finds
            self.connection.send((cell, self.owner))

    def look(self) -> None:
        """Whether it is done with its cell, or ended."""
        if self.cell is None or not self.connection.poll():
            return
        try:
            self.connection.recv()
        except (EOFError, ConnectionResetError):
            code = self.process.wait()
            if not self.cell.status().settled(self.owner):  # it left no word
                reason = f"its process ended {_how(code)}"
                self.cell.write(Status(state="failed", reason=reason, owner=self.owner))
            self.is_alive = False
        self.cell = None

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def release(self) -> None:
        with suppress(BrokenPipeError):
            self.connection.send(None)

    def wait(self) -> None:
        try:
            self.process.wait(GRACE)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            self.process.kill()
            self.process.wait()


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}"
    memory = ", as the system does where memory runs out" if -code == signal.SIGKILL else ""
    return f"by {signal.Signals(-code).name}{memory}"
