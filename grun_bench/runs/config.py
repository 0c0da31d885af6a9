"""What the user asked for. It imports nothing, so that the command line can make it before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: where rows are filed unless another folder is given
RESULTS = Path("leaderboards/results")


@dataclass(frozen=True)
class RunConfig:
    """One run, as it was asked for; nothing in it is looked up yet.

    `model` None is the embedded `tiny` (or `target`, where given). `overrides` are settings of the unlearner by name,
    and of attacks as `<attack>.<setting>`. `batch_size` is how many sequences are scored at once, None what fits.
    """

    unlearner: str
    task: str
    output: Path = RESULTS
    model: str | None = None
    target: str | None = None
    retain: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    limit: int | None = None
    protocol: str = "grun-bench"
    retain_log: Path | None = None
    seed: int = 0
    save: Path | None = None
    #: `all` or names with commas between; empty for none
    attacks: str = ""
    trunk_cache: bool = True
    eval_every: int | None = None
    overwrite: bool = False
    trust_remote_code: bool = False
    include: tuple[Path, ...] = ()
