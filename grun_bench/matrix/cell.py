"""One run of a sweep, and what is known of it: files in the folder of results, which every process reads and writes.

`<results>/.sweep/<name>.json` says what became of a run, `<name>.log` what it printed. Nothing else is kept: who has
the folder can go on, wherever it runs.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

import grun_bench
from grun_bench.core.cache import digest
from grun_bench.core.errors import UsageError
from grun_bench.core.files import write_whole
from grun_bench.core.strict_json import read_json
from grun_bench.runs.config import RunConfig
from grun_bench.tasks.yaml_files import read_yaml, task_file

#: beside the tasks in a folder of results; hidden, so that no reader of results looks into it
FOLDER = ".sweep"
#: seconds between two signs of life of a run, and after how many without one it is taken for dead
BEAT, DEAD = 5.0, 60.0
#: fields of RunConfig that decide no number: where and how a run is made
_ELSEWHERE = (
    *("output", "device", "scoring_batch_size", "trunk_cache", "save", "keep_model", "overwrite", "eval_every"),
    "track",
)

State = Literal["waiting", "running", "done", "failed", "refused"]
STATES: tuple[State, ...] = ("done", "running", "failed", "refused", "waiting")


class Status(BaseModel):
    """What became of a run: `reason` says why it is as it is, `result` is its file in the folder of results.

    `seconds` are those that it took; `owner` is the command that it runs for, on `host` as process `pid`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    state: State = "waiting"
    reason: str = ""
    result: str = ""
    seconds: float = 0.0
    owner: str = ""
    host: str = ""
    pid: int = 0

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "refused")

    def settled(self, owner: str) -> bool:
        """Whether this command has nothing more to do: it is done, or was tried for it."""
        return self.state == "done" or (self.over and self.owner == owner)


@dataclass(frozen=True)
class Cell:
    """One run of a sweep. All paths in its configuration are absolute."""

    config: RunConfig = field(compare=False)
    key: str

    @classmethod
    def of(cls, config: RunConfig) -> Cell:
        """The cell of a run; the same wherever all that the run was asked for is."""
        config = _absolute(config)
        own = {each.name: getattr(config, each.name) for each in fields(config) if each.name not in _ELSEWHERE}
        task = None if config.forget else read_yaml(task_file(config.task, config.include))
        seen = {name: _stamp(value) for name, value in own.items() if name != "task"}
        return cls(config, digest([own, task, seen, grun_bench.__version__])[:12])

    @property
    def name(self) -> str:
        return f"{self.config.unlearner}-seed{self.config.seed}-{self.key}"

    @property
    def folder(self) -> Path:
        return self.config.output / FOLDER

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @cached_property
    def _file(self) -> Path:
        return self.folder / f"{self.name}.json"

    def __str__(self) -> str:
        config = self.config
        settings = ", ".join(f"{key}={value}" for key, value in config.overrides.items())
        where = config.task or config.forget
        return f"{config.unlearner}{f' ({settings})' if settings else ''}, seed {config.seed} on {where}"

    def status(self) -> Status:
        """What became of it; it waits where that cannot be read, where the result is gone, or who ran it is."""
        if not self._file.exists():
            return Status()
        try:
            status = read_json(self._file, Status)
        except UsageError as error:
            return Status(reason=str(error))
        if status.state == "done" and not (self.config.output / status.result).is_file():
            return Status(reason=f"its result {status.result} is gone")
        if status.state == "running" and not self._alive(status):
            return Status(reason=f"process {status.pid} on {status.host} ended before it was done")
        return status

    def _alive(self, status: Status) -> bool:
        with suppress(OSError):
            if time.time() - self._file.stat().st_mtime < DEAD:
                return status.host != platform.node() or _is_there(status.pid)
        return False

    def write(self, status: Status) -> None:
        """Say what became of it. Raises GrunBenchError where that cannot be written."""
        write_whole(self._file, status.model_dump_json(exclude_defaults=True) + "\n")

    @contextmanager
    def running(self, owner: str) -> Iterator[None]:
        """Within this block it is said to run, in this process, with a sign of life every few seconds."""
        self.write(Status(state="running", owner=owner, host=platform.node(), pid=os.getpid()))
        ended = Event()

        def beat() -> None:
            while not ended.wait(BEAT):
                with suppress(OSError):
                    os.utime(self._file)

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _absolute(config: RunConfig) -> RunConfig:
    """With paths that mean the same in every working directory; names of tasks and models stay names."""
    found = {name: _resolved(getattr(config, name)) for name in (each.name for each in fields(config))}
    found["task"] = str(Path(config.task).resolve()) if config.task.endswith(".yaml") else config.task
    for name in ("model", "target_model", "retain_model"):
        given = getattr(config, name)
        found[name] = str(Path(given).resolve()) if given and Path(given).is_dir() else given
    return replace(config, **found)


def _resolved(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_resolved, value))
    return value.resolve() if isinstance(value, Path) else value


def _stamp(value: Any) -> Any:
    """Sizes and times of the files that a value names, so that a run with others is another."""
    if isinstance(value, tuple):
        return [_stamp(each) for each in value]
    if not isinstance(value, str | Path) or not (path := Path(value)).is_absolute():
        return None
    found = []
    for each in [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]:
        with suppress(OSError):  # what is not there the run itself says
            found.append((each.name, each.stat().st_size, each.stat().st_mtime))
    return found
