"""Runs as jobs of Slurm, submitted as arrays by submitit.

The command stays and watches its jobs. One that reaches its time limit is asked to stop before, keeps a checkpoint and
is queued again; one that is preempted is queued again by Slurm itself. Ctrl-C cancels what is left.
"""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from grun_bench.core.errors import GrunBenchError, UsageError, unknown
from grun_bench.core.progress import say
from grun_bench.core.signals import Stopped
from grun_bench.matrix.cell import Cell, Status
from grun_bench.matrix.executors import EVERY
from grun_bench.matrix.work import work

#: minutes that a run has before it is stopped and queued again, unless `time` says otherwise, and how often that may be
MINUTES, TIMES = 240, 20
#: seconds before the limit at which submitit has Slurm ask a job to stop
ASKED = 90
#: the least minutes: what is left of fewer goes by in loading torch and models, and the job is queued again as it was
LEAST = 5
#: jobs of one array; Slurm's own default allows 1,000
ARRAY = 1000
#: seconds between two looks at the queue, and how long what a job wrote may take to be seen here once it is gone
LOOK, LATE = 3.0, 20.0
#: seconds that cancelled jobs have to end a step and keep a checkpoint
GRACE = 60.0

#: an option in the help of sbatch
_OPTION = re.compile(r"--([a-z][a-z-]+)")


@dataclass
class Slurm:
    """`jobs` is how many run at a time, None for as many as there is room for; `resources` are options of sbatch."""

    jobs: int | None
    resources: Mapping[str, Any]
    owner: str
    #: by the id of their job, what is not known to be over
    _cells: dict[str, Cell] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises UsageError without submitit, without Slurm, for an option that sbatch does not have, and for a limit
        of time that is no number of minutes, or too short to come further in."""
        minutes = self.resources.get("time", MINUTES)
        if not isinstance(minutes, int):
            raise UsageError(f"--resource time={minutes}: write minutes as a whole number.")
        if minutes < LEAST:
            raise UsageError(
                f"--resource time={minutes}: a run is asked to stop {ASKED} s before its limit, and has to load torch "
                f"and its models, and take a step, before that; with less than {LEAST} minutes it would be queued "
                "again and again without coming further."
            )
        _submitit()
        self._check_options()

    def _check_options(self) -> None:
        """Raises UsageError for the first option that sbatch does not take; its help names most, but not all.

        With --help beside it nothing is submitted, and an option that is unknown is refused as ever.
        """
        known = _OPTION.findall(_ask("sbatch", "--help") or "")
        for option, value in self._options().items():
            said = f"--{option}" if value is True else f"--{option}={value}"
            if known and option not in known and _ask("sbatch", said, "--help") is None:
                raise unknown("--resource", option, set(known), "It is an option of sbatch.")

    def _options(self) -> dict[str, Any]:
        """The resources as sbatch calls them."""
        return {key.replace("_", "-"): value for key, value in self.resources.items()}

    @property
    def _name(self) -> str:
        return f"grun-bench-{self.owner}"

    def __enter__(self) -> Slurm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._cells:
            _ask("scancel", "--name", self._name)
            say(f"cancelled {len(self._cells)} jobs; what is being trained keeps a checkpoint.")
            end = time.monotonic() + GRACE
            while self._queued() and time.monotonic() < end:
                time.sleep(EVERY)

    def run(self, cells: Sequence[Cell], tick: Callable[[], None]) -> None:
        for start in range(0, len(cells), ARRAY):
            self._submit(cells[start : start + ARRAY])
        looked, gone = time.monotonic(), dict.fromkeys(self._cells, 0.0)
        while self._cells:
            time.sleep(EVERY)
            tick()
            if time.monotonic() - looked < LOOK:
                continue
            looked, queued = time.monotonic(), self._queued()
            for job, cell in list(self._cells.items()):
                gone[job] = 0.0 if job in queued else gone[job] or looked
                if self._is_over(job, cell, bool(gone[job]) and looked - gone[job] > LATE) and job not in queued:
                    del self._cells[job]

    def _submit(self, cells: Sequence[Cell]) -> None:
        submitit = _submitit()
        options = {key: value for key, value in self._options().items() if key != "time"}
        cpus = options.get("cpus-per-task")
        slurm = submitit.SlurmExecutor(cells[0].folder / "slurm", max_num_timeout=TIMES)
        slurm.update_parameters(
            job_name=self._name,
            time=self.resources.get("time", MINUTES),
            signal_delay_s=ASKED,
            array_parallelism=self.jobs or len(cells),
            # srun does not take it over from sbatch
            srun_args=[f"--cpus-per-task={cpus}"] if cpus else [],
            additional_parameters={"requeue": True} | options,
        )
        try:
            with slurm.batch():
                jobs = [slurm.submit(Run(cell, self.owner)) for cell in cells]
        except submitit.core.utils.FailedJobError as error:
            raise GrunBenchError(f"sbatch refused the runs: {error}") from None
        for job, cell in zip(jobs, cells, strict=True):
            cell.write(Status(reason=f"Slurm's job {job.job_id} is queued"))
            self._cells[job.job_id] = cell

    def _queued(self) -> set[str]:
        """The ids of the jobs that wait or run. Those are taken for there whose state Slurm does not say just now."""
        said = _ask("squeue", "--noheader", "--array", "--format=%i", "--name", self._name)
        return set(said.split()) if said is not None else set(self._cells)

    def _is_over(self, job: str, cell: Cell, late: bool) -> bool:
        """Whether nothing more comes of a job that is not queued; without a word of it that is a failure, in time."""
        settled = cell.status().settled(self.owner)
        if late and not settled:
            logs = cell.folder / "slurm" / f"{job}_0_log.err"
            cell.write(Status(state="failed", reason=f"Slurm's job {job} ended; see {logs}", owner=self.owner))
        return late or settled


@dataclass
class Run:
    """What a job does, as submitit takes it; it may be begun many times."""

    cell: Cell
    owner: str

    def __call__(self) -> None:
        queue_again, asked = signal.getsignal(signal.SIGUSR2), []

        def stop(number: int, frame: object) -> None:
            asked.append(number)
            signal.raise_signal(signal.SIGTERM)  # which what is being trained keeps a checkpoint for

        signal.signal(signal.SIGUSR2, stop)
        try:
            work(self.cell, self.owner)
        except Stopped:
            # of SIGTERM alone: it was cancelled, or preempted, and Slurm itself queues it again
            if asked and callable(queue_again):
                queue_again(signal.SIGUSR2, None)

    def checkpoint(self) -> Any:
        """What is queued again at the limit of time: the same, for all there is to go on from is in files."""
        return _submitit().helpers.DelayedSubmission(self)


def _ask(*command: str) -> str | None:
    """What a command of Slurm says; None where it fails, as it does while the controller is busy."""
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else None


def _submitit() -> Any:
    try:
        import submitit
    except ImportError:
        raise UsageError("--cluster slurm needs submitit: pip install 'grun-bench[slurm]'") from None
    if submitit.SlurmExecutor.affinity() <= 0:
        raise UsageError("--cluster slurm: there is no srun here; begin the sweep where jobs are submitted.")
    return submitit
