"""The contract of unlearners: what one may use, what it gives back, and what it must say of itself."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from grun_bench.methods.adapters.base import Adapter
from grun_bench.methods.checkpoints import Checkpoint
from grun_bench.methods.monitor import Monitor
from grun_bench.models.lm import LM


@dataclass
class FitContext:
    """What an unlearner may use: the training rows, the models and the seed.

    A row is a pair of question and answer; of a plain text the question is empty.

    Where requests come one after another, `forget` is the `stage`-th (from 0) of `stages`, `load_target` gives the
    model that the request before left, and `previous` is all that it left; None at the first.
    """

    forget: Sequence[tuple[str, str]]
    retain: Sequence[tuple[str, str]]
    load_target: Callable[[], LM]
    load_retain_model: Callable[[], LM]
    seed: int
    stage: int = 0
    stages: int = 1
    previous: Fitted | None = None
    #: whether what frozen first layers give is computed once and kept
    trunk_cache: bool = True
    #: where a killed training goes on from; one training's
    checkpoint: Checkpoint | None = None
    #: evaluation during training
    monitor: Monitor | None = None
    #: gets the loss terms of all steps so far, after each step
    told: Callable[[Sequence[Mapping[str, float]]], None] | None = None

    def seconds_since(self, start: float) -> float:
        """Seconds of training since `start` (of `time.perf_counter`), with those before the checkpoint gone on from."""
        return time.perf_counter() - start + (self.checkpoint.seconds if self.checkpoint else 0.0)


@dataclass
class Fitted:
    """An unlearned model and what it took.

    `adapter` (with its name and options) is what was trained beside the model; None when the model itself was changed.
    `trainable` counts what any request so far trained. `state` is what the unlearner goes on with at the next one.
    `adjusted` are the settings that its training had otherwise than they were given, and how: few rows or a model of
    another size can want that.
    """

    lm: LM
    trainable: int = 0
    seconds: float = 0.0
    #: of what frozen first layers gave
    trunk_bytes: int = 0
    #: loss terms of each optimiser step
    history: list[dict[str, float]] = field(default_factory=list)
    adapter: Adapter | None = None
    adapter_name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    state: Any = None
    adjusted: dict[str, Any] = field(default_factory=dict)


class Unlearner(ABC):
    """The contract of methods that are not adapter x objective. Options are keyword parameters of the constructor."""

    #: False when seeds do not change the result
    seeded = True
    #: what it puts beside the model, with `save` and `load`; None for what changes the model itself
    beside: type[Adapter] | None = None
    #: False when what it makes cannot be saved as a folder
    savable = True
    #: True when it trains or changes the model's own weights
    changes_model = False
    #: False for models that are what they are, whatever is asked to be forgotten in which order
    sequential = True

    @property
    def settings(self) -> dict[str, Any]:
        """All settings in force, for the result file."""
        return {}

    @property
    def every_setting(self) -> dict[str, Any]:
        """The same with those that a result does not say where they are at their defaults."""
        return dict(self.settings)

    @property
    def has_strength(self) -> bool:
        """Whether what it makes can be had weaker and stronger (see `strength`): weights can always be mixed."""
        return self.beside is None or self.beside.has_strength

    @abstractmethod
    def fit(self, context: FitContext) -> Fitted:
        """Make the unlearned model. Raises Diverged when a loss is not finite."""
