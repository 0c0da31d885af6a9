"""The way in to a tuning: what can be refused by name is refused, then torch is loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grun_bench.core import processes, registry
from grun_bench.core.calls import working
from grun_bench.core.libraries import check_installed
from grun_bench.runs.config import RunConfig
from grun_bench.runs.early import check_searched
from grun_bench.runs.front import check, loaded

if TYPE_CHECKING:
    from grun_bench.tuning.tune import Tuning


@working()
def tune(config: RunConfig, trials: int) -> Tuning:
    """Search the settings of an unlearner: see `grun_bench.tuning.tune.tune`."""
    processes.refuse("tune")
    check_installed("tune", "optuna", "tune")
    with registry.including(config.include):
        check_searched(config.unlearner)
    check(config)
    with loaded(from_hub=bool(config.model or config.target_model)):
        from grun_bench.tuning.tune import tune as search

        return search(config, trials)
