"""Train: request after request, or on a growing forget set, going on from where a killed training was."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from grun_bench.core import environment as env
from grun_bench.core.errors import Diverged, PluginError, Refused
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.checkpoints import Checkpoint, checkpoint_of
from grun_bench.methods.monitor import Monitor
from grun_bench.models.divergence import Target
from grun_bench.models.lm import LM
from grun_bench.models.protocols import prompts_under
from grun_bench.runs.inputs import Inputs, Method


@dataclass(frozen=True)
class Trained:
    """The model after the last request, or the `error` that ended the training; `origin` is what it began from."""

    fitted: Fitted | None
    origin: dict[str, Any]
    error: str | None = None


def fit(
    inputs: Inputs,
    method: Method,
    run_id: str | None = None,
    monitor: Monitor | None = None,
    between: Callable[[Fitted], None] | None = None,
    target: Target | None = None,
    told: Callable[..., None] | None = None,
) -> Trained:
    """The model that a method makes of the target model, of which `target` keeps what it says.

    `between` gets what each request but the last left. `told(terms, before=steps)` is called after each step with the
    loss terms of all steps of the request, and how many those before it took. With `run_id` a killed training goes on
    from where it was.
    """
    origin: dict[str, Any] = {}
    requests, seconds = inputs.data.requests(method.unlearner), 0.0
    history: list[dict[str, float]] = []
    growing = inputs.data.growing
    context = replace(_context(inputs, origin, monitor, target), stages=1 if growing else len(requests))
    checkpoints = checkpoints_of(inputs, method, run_id) if run_id else [None] * len(requests)
    try:
        for left, rows, checkpoint in zip(reversed(range(len(requests))), requests, checkpoints, strict=True):
            of_this = partial(told, before=len(history)) if told else None
            fitted = method.unlearner.fit(replace(context, forget=rows, checkpoint=checkpoint, told=of_this))
            if not isinstance(fitted, Fitted):
                raise PluginError(f"unlearner {method.name}: fit() gave a {type(fitted).__name__}, and no Fitted.")
            # a model that was there already: attacks train it on the protocol's prompts too
            fitted.lm.prompts = prompts_under(inputs.config.protocol, fitted.lm, inputs.task.prompt)
            seconds, history = seconds + fitted.seconds, history + fitted.history
            if between and left:
                between(fitted)
                env.reset_peak_memory()
            if not growing:
                goes_on = partial(_model_of, fitted)
                context = replace(context, stage=context.stage + 1, previous=fitted, load_target=goes_on)
            elif left:
                del fitted  # each begins with the target model, and no two are there at once
    except Diverged as error:
        return Trained(None, origin, str(error))
    fitted.seconds, fitted.history = seconds, history
    return Trained(fitted, origin)


def _context(inputs: Inputs, origin: dict[str, Any], monitor: Monitor | None, target: Target | None) -> FitContext:
    """What all requests have; what is loaded leaves its origin in `origin`, and the target model what it says."""

    def noting(load_model: Callable[[], LM], target: Target | None = None) -> Callable[[], LM]:
        def noted() -> LM:
            lm = load_model()
            lm.prompts = prompts_under(inputs.config.protocol, lm, inputs.task.prompt)
            origin.update(lm.origin)
            if target is not None:
                target.keep(lm)
            env.reset_peak_memory()
            return lm

        return noted

    def refuse() -> LM:
        raise Refused(inputs.models.no_retain or "there is no target model.")

    return FitContext(
        forget=inputs.data.pairs("forget"),
        retain=inputs.data.pairs("retain"),
        load_target=noting(inputs.models.target or refuse, target),
        load_retain_model=noting(inputs.models.retain or refuse),
        seed=inputs.config.seed,
        trunk_cache=inputs.config.trunk_cache,
        monitor=monitor,
    )


def _model_of(fitted: Fitted) -> LM:
    return fitted.lm


def checkpoints_of(inputs: Inputs, method: Method, run_id: str) -> list[Checkpoint]:
    """Where the trainings of a row go on from, request after request.

    What decides the row and the bits of its weights tells them apart. They stay until its last attack is filed.
    """
    config = inputs.config
    decisive = {"plugins": plugins_of(inputs), "trunk_cache": config.trunk_cache, "eval_every": config.eval_every}
    stages = range(len(inputs.data.requests(method.unlearner)))
    device = inputs.session.placement.where
    return [checkpoint_of(f"{run_id}-{stage}", device, **decisive) for stage in stages]


def plugins_of(inputs: Inputs) -> list[str]:
    """SHA-256 of the plugin files that the run was given."""
    roots = inputs.session.include
    plugins = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*.py"))]
    return sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in plugins)
