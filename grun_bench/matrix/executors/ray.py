"""Runs as tasks of Ray, on the cluster that RAY_ADDRESS or Ray itself knows of, else on one of this machine.

A task whose node or process dies is tried elsewhere, and goes on from its checkpoint where the cache is shared.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from grun_bench.core.errors import GrunBenchError, UsageError, unknown
from grun_bench.core.progress import say
from grun_bench.core.signals import STOPS
from grun_bench.matrix.cell import Cell, Status
from grun_bench.matrix.executors import EVERY
from grun_bench.matrix.work import environment, work

#: how often a run is tried again whose node or process died
RETRIES = 5
#: seconds that runs have to end a step and keep a checkpoint once they are to stop
GRACE = 60.0
#: what Ray itself counts; anything else are resources that a cluster has names for
COUNTED = ("num_cpus", "num_gpus", "memory")
#: what a cluster lists that is asked for by those names, or not at all
_OTHERWISE = ("CPU", "GPU", "memory", "object_store_memory")


@dataclass
class Ray:
    """`jobs` is how many run at a time, None for as many as there is room for; `resources` are what each takes."""

    jobs: int | None
    resources: Mapping[str, Any]
    owner: str
    _running: dict[Any, Cell] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UsageError without Ray, and for resources that are no numbers."""
        _ray()
        if odd := [key for key, value in self.resources.items() if not isinstance(value, int | float)]:
            raise UsageError(f"--resource {odd[0]}={self.resources[odd[0]]}: Ray counts resources; write a number.")

    def __enter__(self) -> Ray:
        """Raises UsageError for a resource that the cluster does not have: Ray would wait for it for ever."""
        handlers = {each: signal.getsignal(each) for each in STOPS}
        try:
            _ray().init(log_to_driver=False, logging_level="warning")
        except (ConnectionError, RuntimeError) as error:
            raise GrunBenchError(f"--cluster ray: {error}") from None
        finally:
            for each, handler in handlers.items():
                signal.signal(each, handler)  # Ray has its own, under which nothing says how to go on
        known = [*COUNTED, *(name for name in _ray().cluster_resources() if name not in _OTHERWISE)]
        if odd := [name for name in self.resources if name not in known]:
            _ray().shutdown()
            raise unknown("--resource", odd[0], known, "These are Ray's own, and what this cluster has.")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray = _ray()
        if self._running:
            for task in self._running:
                ray.cancel(task)
            say(f"stopping {len(self._running)} runs; what is being trained keeps a checkpoint.")
            ray.wait(list(self._running), num_returns=len(self._running), timeout=GRACE)
        ray.shutdown()

    def run(self, cells: Sequence[Cell], tick: Callable[[], None]) -> None:
        ray = _ray()
        remote, variables = ray.remote(work).options(max_retries=RETRIES, **self._options()), environment()
        waiting = deque(cells)
        while waiting or self._running:
            while waiting and len(self._running) < (self.jobs or len(cells)):
                cell = waiting.popleft()
                self._running[remote.remote(cell, self.owner, variables)] = cell
            over, _ = ray.wait(list(self._running), num_returns=len(self._running), timeout=EVERY)
            for task in over:
                self._end(task, self._running.pop(task))
            tick()

    def _options(self) -> dict[str, Any]:
        """A processor, and where the cluster has them a device, unless it is said otherwise."""
        usual = {"num_cpus": 1, "num_gpus": 1 if _ray().cluster_resources().get("GPU") else 0}
        counted = {key: value for key, value in self.resources.items() if key in COUNTED}
        own = {key: value for key, value in self.resources.items() if key not in COUNTED}
        return {**usual, **counted, "resources": own}

    def _end(self, task: Any, cell: Cell) -> None:
        try:
            _ray().get(task)
        except _ray().exceptions.RayError as error:
            if not cell.status().settled(self.owner):
                reason = str(error).strip().partition("\n")[0]
                cell.write(Status(state="failed", reason=f"{type(error).__name__}: {reason}", owner=self.owner))


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError("--cluster ray needs Ray: pip install 'grun-bench[ray]'") from None
    return ray
