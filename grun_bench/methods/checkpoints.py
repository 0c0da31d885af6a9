"""Checkpoints of a training under way: what a killed one goes on from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch

from grun_bench.core import environment as env
from grun_bench.core import processes
from grun_bench.core.cache import digest
from grun_bench.core.files import part_of, remove
from grun_bench.core.progress import say

#: seconds of training between two checkpoints, and how many times longer it must be than writing one takes
EVERY, TIMES = 60.0, 20
#: what tells trainings of one name apart that end with other weights on every machine
DECISIVE = "decisive"
#: what a checkpoint's bits hang on, in words, and how a run comes to have what a checkpoint was made with
_NAMES = {"threads": "threads", "commit": "the code of commit", "packages": "packages"}
_AGAIN = {"threads": "OMP_NUM_THREADS={}", "commit": "git checkout {}"}


class Stateful(Protocol):
    """What a checkpoint keeps a part of: an optimiser, a module, a `RandomState`. States are plain data and tensors."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class RandomState:
    """torch's random numbers on all devices."""

    def state_dict(self) -> dict[str, Any]:
        return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        torch.set_rng_state(state["cpu"])
        torch.cuda.set_rng_state_all(state["cuda"])


class Checkpoint:
    """The latest state of one training, a file that is there whole or not at all.

    The path must tell all that decides the training apart. It is read as tensors and plain data, so it runs no code.
    """

    def __init__(self, path: Path, made: Mapping[str, Any] = {}, siblings: str = "") -> None:
        self.path = path
        #: what decides the bits of weights beside the settings, and a pattern of checkpoints of this name under others
        self._made, self._siblings = made, siblings
        #: of training before this process went on with it
        self.seconds = 0.0
        self._start = self._written = time.monotonic()
        self._writing = 0.0

    def begin(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any] | None:
        """The state to go on from; None where there is none, or none of a training that `fits`. Training begins now."""
        state = None
        if not self.path.exists():
            if processes.first() and (told := next(filter(None, map(self._told, self._others())), None)):
                say(told)
        else:
            try:
                # each of several processes takes its part out of the file
                mapped = processes.count() > 1
                kept = torch.load(self.path, map_location="cpu", weights_only=True, mmap=mapped)
                if not (isinstance(kept, dict) and fits(kept)):
                    raise ValueError("it is of another training")
                state, self.seconds = kept, float(kept["seconds"])
            except Exception as error:  # whatever bytes it holds, it must not be in the way
                reason = str(error).strip().partition("\n")[0][:80] or type(error).__name__
                say(f"{self.path} cannot be used ({reason}): training begins anew.")
        self._start = self._written = time.monotonic()
        return state

    def _others(self) -> list[Path]:
        """Checkpoints of this name under another number of threads or the like."""
        return sorted(self.path.parent.glob(self._siblings)) if self._siblings else []

    def _told(self, other: Path) -> str | None:
        """Why another checkpoint is not gone on from, and what would; None where it is of another training."""
        try:
            made = torch.load(other, map_location="cpu", weights_only=True, mmap=True).get("made", {})
        except Exception:  # whatever bytes it holds, it must not be in the way
            return None
        differ = [key for key in self._made if made.get(key) != self._made[key]]
        if not made or DECISIVE in differ:
            return None
        pairs = [(_NAMES.get(key, key), _short(made.get(key)), _short(self._made[key])) for key in differ]
        words = ", ".join(f"{name} {theirs}, not {own}" for name, theirs, own in pairs)
        ways = [_AGAIN[key].format(_short(made.get(key))) for key in differ if key in _AGAIN]
        on = f"; to go on from it: {', '.join(ways)}" if len(ways) == len(differ) else ""
        return f"{other} is of this training, but with {words}: training begins anew{on}."

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Keep the state if it is time to."""
        if processes.only_first(lambda: time.monotonic() - self._written >= max(EVERY, TIMES * self._writing)):
            self.write(state())

    def write(self, state: dict[str, Any]) -> bool:
        """Keep the state; says so and gives False where it cannot be written: training goes on without."""
        return processes.only_first(lambda: self._write(state))

    def _write(self, state: dict[str, Any]) -> bool:
        now = time.monotonic()
        try:
            with part_of(self.path) as part:
                with part.open("xb") as file:
                    kept = {"seconds": self.seconds + now - self._start, "made": dict(self._made)}
                    torch.save(state | kept, file)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(self.path)
            return True
        except (OSError, RuntimeError) as error:  # torch has its own error for a full disk
            say(f"no checkpoint was written to {self.path.parent} ({error}); training goes on.")
            return False
        finally:
            self._written = time.monotonic()
            self._writing = self._written - now

    def remove(self) -> None:
        """What came of the training is kept elsewhere."""
        if processes.writes():
            remove(self.path)


def checkpoint_of(name: str, device: str, **decisive: Any) -> Checkpoint:
    """Where a training goes on from. `name` and `decisive` tell apart what decides it; what decides bits is added."""
    made = {DECISIVE: digest(decisive)} | _flat(_bits(device))
    return Checkpoint(Path(f"{place_of(name, device, **decisive)}.pt"), made, f"{name}-{'[0-9a-f]' * 8}.pt")


def place_of(name: str, device: str, **decisive: Any) -> Path:
    """A path without an ending for what is kept of something under way; it is told apart as in `checkpoint_of`."""
    return _folder() / f"{name}-{digest(_bits(device) | decisive)[:8]}"


def _bits(device: str) -> dict[str, Any]:
    """What decides the bits of weights beside settings and data."""
    return {"packages": env.packages(), "commit": _commit(), "hardware": env.hardware() | {"device": device}}


def _flat(bits: Mapping[str, Any]) -> dict[str, Any]:
    return {"commit": bits["commit"], "packages": digest(bits["packages"]), **bits["hardware"]}


@cache
def _commit() -> str | None:
    """That of the code as it was loaded: another may be checked out while it runs."""
    commit: str | None = env.git_state()["commit"]
    return commit


def _short(value: Any) -> str:
    """A commit or a hash by its beginning."""
    return str(value)[:8]


def forget_checkpoints(name: str) -> None:
    """Remove the checkpoints of all trainings of this name: what came of one is kept elsewhere."""
    for path in _folder().glob(f"{name}-*.pt"):
        remove(path)


def _folder() -> Path:
    return env.cache_folder() / "checkpoints"
