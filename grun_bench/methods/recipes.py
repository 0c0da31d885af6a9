"""How methods are trained and attacks made: the settings of a pair's training, and the defaults of recipes.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml

from grun_bench.core.settings import Count, NotNegative, Positive, Share, at_least, one_of
from grun_bench.methods.trained_weights import WAYS


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a pair is trained. `forget_weight` and `retain_weight` scale the terms; `retain` names the retain term."""

    lr: Positive = 1e-5
    epochs: Count = 10
    batch_size: Count = 32
    weight_decay: NotNegative = 0.0
    warmup: Share = 0.0
    clip: Positive = 1.0
    accumulate: Count = 1
    #: gradient checkpointing: less memory, for a second forward pass of what is trained
    checkpointing: bool = False
    forget_weight: NotNegative = 1.0
    retain_weight: NotNegative = 1.0
    retain: str | None = None
    #: what weights of a model below float32 are kept in (see `trained_weights`); no setting of a model in float32
    trained_as: Annotated[str, one_of(*WAYS)] = WAYS[0]
    #: of plain texts: tokens kept, and the share of them that is the prompt, at whose last token edits sit
    text_length: Annotated[int, at_least(2)] = 512
    text_prompt: Share = 0.0


def in_force(defaults: Mapping[str, Any], names: Sequence[str], sections: Sequence[str]) -> dict[str, Any]:
    """Defaults with what recipes.yaml says of `names` in place of them: of later names, then of later sections, wins.

    `names` are those of plugins and pairs, `sections` those of the file's parts that are in force. Raises KeyError for
    a section that it does not have.
    """
    recipes = yaml.safe_load(Path(__file__).with_name("recipes.yaml").read_text(encoding="utf-8"))
    settings = dict(defaults)
    for section in sections:
        for name in names:
            settings |= recipes[section].get(name, {})
    return settings
