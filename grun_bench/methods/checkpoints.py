"""Checkpoints of a training under way: what a killed one goes on from."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch

from grun_bench.core.progress import say

#: seconds of training between two checkpoints, and how many times longer it must be than writing one takes
EVERY, TIMES = 60.0, 20


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

    def __init__(self, path: Path) -> None:
        self.path = path
        #: of training before this process went on with it
        self.seconds = 0.0
        self._start = self._written = time.monotonic()
        self._writing = 0.0

    def begin(self) -> dict[str, Any] | None:
        """The state to go on from, None where there is none. Training begins now."""
        state = None
        if self.path.exists():
            try:
                state = torch.load(self.path, map_location="cpu", weights_only=True)
                self.seconds = state["seconds"]
            except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, LookupError, TypeError) as error:
                say(f"{self.path} cannot be read ({str(error).splitlines()[0][:80]}): training begins anew.")
        self._start = self._written = time.monotonic()
        return state

    def offer(self, state: Callable[[], dict[str, Any]]) -> None:
        """Keep the state if it is time to. Where it cannot be written, training goes on without, with a message."""
        now = time.monotonic()
        if now - self._written < max(EVERY, TIMES * self._writing):
            return
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with part.open("wb") as file:
                    torch.save(state() | {"seconds": self.seconds + now - self._start}, file)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(self.path)
            finally:
                part.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:  # torch has its own error for a full disk
            say(f"no checkpoint was written to {self.path.parent} ({error}); training goes on.")
        self._written = time.monotonic()
        self._writing = self._written - now

    def remove(self) -> None:
        """The training is over and what came of it saved; what killed ones left of the file goes too."""
        for path in (self.path, *self.path.parent.glob(f".{self.path.name}.*.part")):
            path.unlink(missing_ok=True)
