"""Where the runs of a sweep are made, a file each: processes of this machine, Slurm, Ray.

An executor gets cells and returns when every one of them ran; what became of each it leaves to `matrix.work`, which
runs in the process that it finds for it. `tick` is called about every second, and raises what is to end it all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol

from grun_bench.core.errors import UsageError, unknown
from grun_bench.matrix.cell import Cell

#: seconds between two looks at what became of the runs
EVERY = 1.0


class Executor(Protocol):
    """Used as a context: left with an exception, it stops what it began."""

    def __enter__(self) -> Executor: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def run(self, cells: Sequence[Cell], tick: Callable[[], None]) -> None:
        """Make the rows of these cells, and return when nobody is at them any more."""
        ...


def executor(cluster: str | None, jobs: int | None, resources: Mapping[str, Any], owner: str) -> Executor:
    """The executor of this name, None for processes of this machine.

    `jobs` is how many runs are made at a time, None for what the cluster gives (one here); `resources` what each gets
    of a cluster. Raises UsageError for an unknown name, and for what is not installed.
    """
    if cluster is None:
        from grun_bench.matrix.executors.processes import Processes

        if resources:
            raise UsageError(f"--resource {next(iter(resources))}: it is asked of a cluster; add --cluster.")
        return Processes(jobs or 1, owner)
    from grun_bench.matrix.executors.ray import Ray
    from grun_bench.matrix.executors.slurm import Slurm

    known: dict[str, Callable[..., Executor]] = {"slurm": Slurm, "ray": Ray}
    if cluster not in known:
        raise unknown("--cluster", cluster, known)
    return known[cluster](jobs, resources, owner)
