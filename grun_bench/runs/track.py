"""A run in experiment trackers (`--track`): its settings, the loss terms of each step as it is made, and its values.

Texts never go there, of whichever data: what is sent are names, settings of the method, and numbers. What was sent is
noted in the folder of results, `.track/<run id>.<tracker>.json`, before it is sent: a run that was killed goes on in
the same run of the tracker, and no step is there twice. Of several processes the first tracks.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

import grun_bench
from grun_bench.core import processes
from grun_bench.core.errors import GrunBenchError, UsageError, first_line
from grun_bench.core.files import write_whole
from grun_bench.core.progress import say, silent
from grun_bench.core.strict_json import read_if_there
from grun_bench.integrations.trackers import tracker_names
from grun_bench.models.names import for_others
from grun_bench.results.result import Result
from grun_bench.runs.filing import place_of
from grun_bench.runs.inputs import Inputs

#: beside the tasks in a folder of results; hidden, so that no reader of results looks into it
FOLDER = ".track"
#: what all runs are filed under, where the tracker's own variable names nothing else
PROJECT = "grun-bench"
#: the curve of a result over the steps of its training
TRAINING = "training"
#: what a run is called, also as a folder: no way out of the one that it is in
_NAME = r"^([^/\\.][^/\\]*)?$"
#: seconds between two sendings during a training
EVERY = 1.0


class Sent(BaseModel):
    """What a tracker has of a run, which it knows as `run`.

    `steps` training steps, what was measured up to step `measured`, and final values whose SHA-256 is `values`, in so
    many `batches`.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    run: str = Field(default="", pattern=_NAME)
    steps: int = Field(default=0, ge=0)
    measured: int = Field(default=-1, ge=-1)
    values: str = ""
    batches: int = Field(default=0, ge=0)


@dataclass
class Tracker:
    """One tracker. It is started when there is something to send; one that fails later is told of once and left."""

    name: str
    config: Mapping[str, Any]
    place: Path
    results: Path
    sent: Sent
    _running: Any = None
    _over: bool = False

    def start(self) -> None:
        """Begin the run, or go on with it. Raises UsageError where the tracker cannot be started."""
        if self._running is not None or self._over:
            return
        from accelerate.state import PartialState
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        fresh = not self.sent.run
        name = self.sent.run or f"{self.config['unlearner']}-{self.config['run_id']}-{secrets.token_hex(3)}"
        try:
            with _unheard():
                PartialState()  # what the trackers' logger asks for; it meets the processes that are joined already
                self._running = _MAKERS[self.name](LOGGER_TYPE_TO_CLASS[self.name], name, self)
                self._running.main_process_only = False  # no other process has one
                self._running.start()
                if fresh and self.name in ("tensorboard", "mlflow"):
                    self._running.store_init_configuration(dict(self.config))
        except Exception as error:
            raise UsageError(f"--track {self.name}: it could not be started: {first_line(error)}") from error
        self.sent.run = self._running.tracker.info.run_id if self.name == "mlflow" else name
        self._note()
        say(f"tracked by {self.name} as {name}{_shown(self)}")

    def step(self, step: int, terms: Mapping[str, float]) -> None:
        """Send the loss terms of a training step, unless it has them."""
        if step > self.sent.steps:
            self.sent.steps = step
            values = {f"train/{name}": value for name, value in terms.items()}
            self._send(values | {"train/loss": sum(terms.values())}, step)

    def measured(self, step: int, values: Mapping[str, float | None]) -> None:
        """Send what was measured at a step of the training, unless it has that."""
        if step > self.sent.measured:
            self.sent.measured = step
            self._send({f"curve/{name}": value for name, value in values.items() if value is not None}, step)

    def result(self, result: Result) -> None:
        """Send what it lacks of a filed row: of its training, and its values if they are not those that it has."""
        curve = result.curves.get(TRAINING)
        points = {point.at: point.values for point in curve.points} if curve else {}
        history = zip(*result.history.values(), strict=True)
        for step, terms in enumerate(({}, *(dict(zip(result.history, each, strict=True)) for each in history))):
            self.step(step, terms)
            if step in points:
                self.measured(step, points[step])
        values = values_of(result)
        told = hashlib.sha256(json.dumps([result.status, values]).encode()).hexdigest()
        if values and told != self.sent.values:
            self.sent.values, self.sent.batches = told, self.sent.batches + 1
            # after all that is there: some trackers take no step twice
            self._send(values, max(self.sent.steps, self.sent.measured, 0) + self.sent.batches)

    def finish(self) -> None:
        """End it: what waits to be sent is sent."""
        if self._running is None:
            return
        self._guarded(_ENDERS.get(self.name, self._running.finish))
        self._running = None

    def _send(self, values: Mapping[str, float], step: int) -> None:
        self._note()
        self.start()
        if self._running is not None:
            self._guarded(lambda: self._running.log(dict(values), step=step))

    def _guarded(self, work: Callable[[], Any]) -> None:
        """A tracker that fails ends no training."""
        try:
            with _unheard():
                work()
        except Exception as error:
            say(f"{self.name} failed ({first_line(error)}); the run goes on without it.")
            self._running, self._over = None, True

    def _note(self) -> None:
        if self.sent.run:
            with suppress(GrunBenchError):
                write_whole(self.place, self.sent.model_dump_json() + "\n")


def values_of(result: Result) -> dict[str, float]:
    """The numbers of a result: each metric without attack, and under each attack its worst variant."""
    return {
        f"attack/{key.attack}/{key.metric}" if key.attack else f"final/{key.metric}": value
        for key, value in result.worst_values()
    }


@contextmanager
def _unheard() -> Iterator[None]:
    """Within this block nothing goes to stdout, which is for results alone."""
    with redirect_stdout(StringIO()):
        yield


# --- each tracker's own -----------------------------------------------------------------------------------------------


def _tensorboard(kind: Any, name: str, tracker: Tracker) -> Any:
    return kind(name, str(_events(tracker)))


def _events(tracker: Tracker) -> Path:
    return Path(os.environ.get("TENSORBOARD_LOGGING_DIR") or tracker.results / FOLDER / "tensorboard")


def _wandb(kind: Any, name: str, tracker: Tracker) -> Any:
    # what the program prints has answers in it, which are nobody's but the user's
    settings = {"console": "off", "save_code": False, "silent": silent()}
    named = {"id": name.replace("+", "-"), "name": name, "resume": "allow", "reinit": "create_new"}
    project = os.environ.get("WANDB_PROJECT") or PROJECT
    return kind(project, config=dict(tracker.config), settings=settings, **named)


def _trackio(kind: Any, name: str, tracker: Tracker) -> Any:
    project = os.environ.get("TRACKIO_PROJECT") or PROJECT
    return kind(project, name=name, config=dict(tracker.config), resume="allow")


def _end_trackio() -> None:
    """By the package itself, which else ends it again as the process ends, and says so on stdout."""
    import trackio

    trackio.finish()


def _mlflow(kind: Any, name: str, tracker: Tracker) -> Any:
    return kind(PROJECT, run_id=tracker.sent.run or None, run_name=name, nested_run=True)


_MAKERS: dict[str, Callable[[Any, str, Tracker], Any]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
    "mlflow": _mlflow,
}

_ENDERS = {"trackio": _end_trackio}


def _shown(tracker: Tracker) -> str:
    """What shows it."""
    shown = {
        "tensorboard": f": tensorboard --logdir {_events(tracker)}",
        "trackio": f": trackio show --project {os.environ.get('TRACKIO_PROJECT') or PROJECT}",
    }
    return shown.get(tracker.name, "")


# --- the run ----------------------------------------------------------------------------------------------------------


@dataclass
class Track:
    """The trackers of a run, and when they were last told of its training."""

    trackers: Sequence[Tracker]
    _told: float = -EVERY

    def trained(self, history: Sequence[Mapping[str, float]], before: int = 0) -> None:
        """Called after every step with all of a training so far, which came after `before` steps of others."""
        if time.monotonic() - self._told < EVERY:
            return
        for each in self.trackers:
            for number in range(max(0, each.sent.steps - before), len(history)):
                each.step(before + number + 1, history[number])
        self._told = time.monotonic()

    def measured(self, step: int, values: Mapping[str, float | None]) -> None:
        for each in self.trackers:
            each.measured(step, values)


@contextmanager
def tracked(inputs: Inputs) -> Iterator[tuple[Inputs, Callable[[Result], None]]]:
    """The inputs with what hears of the training, if the run is tracked, and what is to be called with its result.

    Raises UsageError where a tracker cannot be started, before anything is made. A row that is filed already is sent
    from its file, as far as it was not.
    """
    names = tracker_names(inputs.config.track)
    if not names:
        yield inputs, lambda result: None
        return
    path = place_of(inputs, inputs.method)
    anew = inputs.config.overwrite or not path.exists()
    trackers = [_tracker(inputs, name, path, anew) for name in names] if processes.first() else []

    def start() -> None:
        for each in trackers if anew else []:
            each.start()

    def send(result: Result) -> None:
        for each in trackers:
            each.result(result)

    processes.only_first(start)
    try:
        yield replace(inputs, track=Track(trackers)) if trackers else inputs, send
    finally:
        for each in trackers:
            each.finish()


def _tracker(inputs: Inputs, name: str, path: Path, anew: bool) -> Tracker:
    """A tracker, with what it has of the row; of one that is made `anew` after it was whole it has nothing."""
    place = path.parents[3] / FOLDER / f"{path.stem}.{name}.json"
    sent = Sent()
    with suppress(UsageError):
        sent = read_if_there(place, Sent, sent)
    return Tracker(name, _config(inputs, path), place, path.parents[3], Sent() if anew and sent.values else sent)


def _config(inputs: Inputs, path: Path) -> dict[str, Any]:
    """What was asked for, in words and numbers; nothing of it is a text of the data."""
    config, method = inputs.config, inputs.method
    said = {
        **{"run_id": path.stem, "task": inputs.task.name, "model": inputs.models.name, "unlearner": method.name},
        **{"seed": config.seed, "protocol": config.protocol, "limit": config.limit},
        **{"dataset": inputs.session.world.name, "dataset_hash": inputs.data.sha256},
        **{"device": inputs.session.placement.device, "dtype": inputs.session.placement.dtype},
        **{"quantise": config.quantise, "processes": processes.announced(), "grun_bench": grun_bench.__version__},
        "result": path.relative_to(path.parents[3]).as_posix(),
        **{f"settings.{key}": value for key, value in method.unlearner.settings.items()},
    }
    return {key: _plain(value) for key, value in said.items() if value not in (None, "")}


def _plain(value: Any) -> bool | int | float | str:
    """As every tracker takes it; no place of this machine."""
    if isinstance(value, str):
        return for_others(value)
    return value if isinstance(value, bool | int | float) else json.dumps(value, default=str)
