"""Target and retain model made at once, on first use: the target in a process of its own.

`python -m grun_bench.runs.beside` is that process; it gets the run on its standard input.
"""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import replace
from threading import Thread
from typing import IO

from grun_bench.core import processes, registry
from grun_bench.core.environment import for_children
from grun_bench.core.errors import GrunBenchError
from grun_bench.core.progress import say, waiting
from grun_bench.core.signals import Stopped, stopping
from grun_bench.runs.config import RunConfig
from grun_bench.runs.filing import filed, place_of
from grun_bench.runs.inputs import Inputs, resolve
from grun_bench.runs.session import Session


@contextmanager
def target_beside(inputs: Inputs) -> Iterator[None]:
    """Within this block, which makes the retain model's row, the target model is made too; it is there at the end.

    Only where both are to be made and there are cores or devices for two. Whoever makes the target model later makes it
    if this could not: it is the same, for neither knows of the other.
    """
    if not _pays(inputs):
        yield
        return
    process = _started(replace(inputs.config, device=inputs.models.beside or "auto"))
    teller = Thread(target=copy_context().run, args=(_tell, process.stderr), daemon=True)
    teller.start()
    try:
        yield
        with waiting("making the target model"):
            process.wait()
            teller.join()
    finally:
        if process.poll() is None:  # it keeps a checkpoint
            process.send_signal(signal.SIGTERM)
            process.wait()


def _pays(inputs: Inputs) -> bool:
    models = inputs.models
    if processes.count() > 1 or None in (models.beside, models.target, models.retain):
        return False
    return filed(inputs, inputs.oracle, place_of(inputs, inputs.oracle)) is None and models.to_make()


def _started(config: RunConfig) -> subprocess.Popen[bytes]:
    """The process that makes the target model of a run."""
    process = subprocess.Popen(
        [sys.executable, "-m", "grun_bench.runs.beside"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=for_children(),
        start_new_session=True,  # Ctrl-C is for us, who stop it
    )
    control = registry.control("target")
    plain = replace(config, unlearner=control, overrides={}, attacks="", strengths=(), save=None, eval_every=None)
    if process.stdin:
        with process.stdin as stdin:
            stdin.write(pickle.dumps(plain))
    return process


def _tell(lines: IO[bytes] | None) -> None:
    """Say what the process says; a bar of ours stays whole."""
    for line in lines or ():
        say(line.decode(errors="replace").rstrip("\n"))


def main() -> None:
    """Make the target model of the run on the standard input. Exit code 1 where it cannot be made."""
    config: RunConfig = pickle.load(sys.stdin.buffer)
    try:
        session = Session.of(config)
        with stopping(), session.in_force():
            target = resolve(config, session).models.target
            if target is not None:
                target()
    except Stopped as stopped:
        sys.exit(stopped.exit_code)
    except GrunBenchError as error:
        say(f"error: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
