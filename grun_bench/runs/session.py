"""What all steps of one run share: its world, where it computes, and what is in force while it runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from grun_bench.core import registry
from grun_bench.core.environment import cpu_threads
from grun_bench.methods import tiny
from grun_bench.models.loading import Placement
from grun_bench.models.names import TINY
from grun_bench.runs.config import RunConfig
from grun_bench.runs.own import own_world
from grun_bench.tasks.world import PUBLISHED, TOY, World


@dataclass(frozen=True)
class Session:
    """`include` are plugin files and folders; `threads` are the CPU threads that numbers are made with, None for those
    that torch has."""

    world: World
    placement: Placement
    include: tuple[Path, ...] = ()
    threads: int | None = None

    @classmethod
    def of(cls, config: RunConfig, placement: Placement | None = None) -> Session:
        """The session that a run asks for. Raises ModelError for a device that is not there."""
        world = world_of(config)
        asked = (config.device, config.dtype, config.trust_remote_code, config.device_map, config.quantise)
        placement = placement or Placement.choose(*asked)
        return cls(world, placement, config.include, tiny.THREADS if world is TOY else None)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Within this block plugins are found and threads are as the session says; after it all is as before."""
        with registry.including(self.include), cpu_threads(self.threads), _torchs_own(), _libraries_frozen():
            yield


@contextmanager
def _torchs_own() -> Iterator[None]:
    """Within this block gradients are taken, wherever it is called; what plugins set for all of torch ends with it."""
    dtype = torch.get_default_dtype()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.set_default_dtype(dtype)


@contextmanager
def _libraries_frozen() -> Iterator[None]:
    """Within this block a search for reference cycles, after which a model's memory is free, passes over what was there
    before: transformers alone has a million objects, which take half a second."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def world_of(config: RunConfig) -> World:
    """The world that a run is in, by its model or its own rows. Raises DataError or UsageError as `own_world` does."""
    if config.forget:
        return own_world(config)
    return TOY if (config.model or TINY) == TINY and config.target_model is None else PUBLISHED
