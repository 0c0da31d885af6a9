"""Experiment trackers that a run can be followed in (`--track`): their names, and whether they are installed. No torch.

The layer that speaks to them is accelerate's (`accelerate.tracking`), which is kept for more trackers than these.
"""

from __future__ import annotations

from importlib.util import find_spec

from grun_bench.core.errors import UsageError, unknown
from grun_bench.core.given import listed

#: tracker -> the packages that one of which it needs
TRACKERS = {
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "trackio": ("trackio",),
    "mlflow": ("mlflow",),
}


def tracker_names(names: str) -> list[str]:
    """The trackers of a text with commas between, each once. Raises UsageError for one that is unknown or missing."""
    wanted = list(dict.fromkeys(listed("--track", names)))
    for name in wanted:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if not any(map(find_spec, TRACKERS[name])):
            raise UsageError(f"--track {name}: it is not installed: pip install {TRACKERS[name][0]}")
    return wanted
