"""`tuning.jsonl`: every trial of a tuning, a line each, and which of them was chosen. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from grun_bench.core.files import write_whole
from grun_bench.core.strict_json import JSON_BYTES, checked, json_lines, parse_json
from grun_bench.core.untrusted import pieces, refuse

#: the file of a tuning in its folder
FILE = "tuning.jsonl"
#: what trials may be judged on where their settings are to make rows: a part of the training rows, or others like them
UNSCORED = ("validation of ", "sibling of ")

#: the share of the target model's utility that must be kept, or the divergence from it that there may be, in nats
KEPT, NEAR = 0.95, 0.01
#: strengths are equal that differ by less than one in so many
GRAIN = 1000

RULE = (
    f"First, utility on rows held out at least {100 * KEPT:.0f} % of the target model's (where no row can be held out, "
    f"a KL divergence from it of at most {NEAR:g} nats a token on neutral texts); of those trials the least extraction "
    f"strength under prefill, to {len(str(GRAIN)) - 1} decimals; of equals the least seconds of training. Where no "
    "trial keeps so much, the one that keeps most."
)


class Trial(BaseModel):
    """One trial: what it was of, the settings that were tried beside the defaults, and what came of them.

    `on` is what it was judged on, `validation of tofu_forget10`, and `seed` that of unlearning. `state`: `pruned` was
    ended in the middle because it was worse than others were by then. `utility` is that of the validation rows that
    were to be kept, `whole` the target model's, and `divergence` the KL divergence from that on neutral texts, where
    there are no such rows. `extraction_strength` is of the rows that were to be forgotten, under `attack` ("" where
    that asks none of them), `seconds` of training.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    trial: int
    state: Literal["ok", "pruned", "diverged"]
    unlearner: str
    task: str
    model: str
    on: str
    seed: int
    settings: dict[str, Any]
    utility: float | None = None
    whole: float | None = None
    divergence: float | None = None
    extraction_strength: float | None = None
    attack: str = ""
    seconds: float | None = None
    run_id: str | None = None
    admitted: bool = False
    chosen: bool = False


def write_trials(path: Path, trials: Sequence[Trial]) -> None:
    """Write all trials of a tuning. Raises GrunBenchError where it cannot be saved."""
    lines = (json.dumps(each.model_dump(), ensure_ascii=False, allow_nan=False) for each in trials)
    write_whole(path, "".join(f"{line}\n" for line in lines))


def read_trials(path: Path) -> list[Trial]:
    """All trials of a tuning, read strictly. Raises UsageError, with the place, for what is none, or of several."""
    found = [
        checked(Trial, parse_json(line, place), place) for line, place in json_lines(pieces(path, JSON_BYTES), path)
    ]
    if len({(each.unlearner, each.task, each.model, each.on, each.seed) for each in found}) != 1:
        refuse(path, "must be of one tuning")
    return found
