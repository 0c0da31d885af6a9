"""How methods are trained and attacks made: the settings of a pair's training, and the defaults of recipes.yaml."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import yaml

from grun_bench.core.errors import UsageError, unknown
from grun_bench.core.settings import LATER, Count, NotNegative, Positive, Share, at_least, one_of
from grun_bench.methods.optimisers import OPTIMISERS, USUAL
from grun_bench.methods.trained_weights import WAYS

#: what a recipe says of few rows and of other models holds unless one of these is set: who sets them means them
MEANT = {"least_steps": {"epochs", "batch_size", "steps"}, "lr_width": {"lr"}}
#: the setting that names a recipe, and the one that is in force where none is named
RECIPE, DEFAULT = "recipe", "default"


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
    #: AdamW, or bitsandbytes' with its means in 8 bits, in paged memory, or both (see `optimisers`)
    optimiser: Annotated[str, one_of(*OPTIMISERS), LATER] = USUAL
    #: optimiser steps, the epochs going on until then; 0: as many as the epochs make
    steps: Annotated[int, at_least(0), LATER] = 0
    #: optimiser steps at the least: of few rows batches are smaller, and where single rows are not enough the epochs go
    #: on; a rate is chosen for a number of steps, and few rows make few. 0: as many as epochs and batch_size make
    least_steps: Annotated[int, at_least(0), LATER] = 0
    #: the hidden size of the models that lr was chosen on; on others it goes with 1 / width, as Adam's rates for hidden
    #: weights do (arXiv 2203.03466, table 3). 0: lr as it is
    lr_width: Annotated[int, at_least(0), LATER] = 0
    decay: Annotated[str, one_of("linear", "cosine", "constant"), LATER] = "linear"
    #: whether the first of n warm-up steps has a rate of 0, as in Hugging Face's schedules, or of 1/n
    warmup_from_zero: Annotated[bool, LATER] = False
    #: what cross-entropies are means over: the tokens of the answers of one set, their sums over each `sequence`, or
    #: the tokens of the objective's answers and the retain answers together, `pooled`
    mean_over: Annotated[str, one_of("tokens", "sequences", "pooled"), LATER] = "tokens"
    #: the retain row beside a forget row: the next of shuffled passes, or one of its own for the whole training
    partner: Annotated[str, one_of("shuffled", "fixed"), LATER] = "shuffled"
    #: the refusal or alternate of a forget row: any each epoch, one of its own, or one after another
    others: Annotated[str, one_of("random", "fixed", "each"), LATER] = "random"
    #: where the trained tokens begin: at the answer, or at the "Answer:" before it, where the prompt has that
    trained_from: Annotated[str, one_of("answer", "tag"), LATER] = "answer"
    #: of plain texts: tokens kept, and the share of them that is the prompt, at whose last token edits sit
    text_length: Annotated[int, at_least(2)] = 512
    text_prompt: Share = 0.0

    def batch_of(self, rows: int) -> int:
        """The forget rows of a batch where the set has so many."""
        batches = math.ceil(self.least_steps * self.accumulate / self.epochs)  # of an epoch
        return min(self.batch_size, max(1, (rows - 1) // (batches - 1))) if batches > 1 else self.batch_size

    def epochs_over(self, rows: int) -> int:
        """The epochs that are begun over so many forget rows: as many as `steps` or `least_steps` take."""
        batches = math.ceil(rows / self.batch_of(rows))
        if self.steps:
            return math.ceil(self.steps * self.accumulate / batches)
        return max(self.epochs, math.ceil(self.least_steps * self.accumulate / batches))

    def rate(self, width: int) -> float:
        """The learning rate on a model of this hidden size."""
        return self.lr * self.lr_width / width if self.lr_width else self.lr


def in_force(defaults: Mapping[str, Any], names: Sequence[str], sections: Sequence[str]) -> dict[str, Any]:
    """Defaults with what recipes.yaml says of `names` in place of them: of later names, then of later sections, wins.

    `names` are those of plugins and pairs, `sections` those of the file's parts that are in force. Raises KeyError for
    a section that it does not have.
    """
    settings, known = dict(defaults), read_recipes()
    for section in sections:
        for name in names:
            settings |= known[section].get(name, {})
    return settings


def section_of(recipe: str, family: str | None, pair: str) -> str:
    """The section of a named recipe for a task of a family. Raises UsageError where that does not have the pair."""
    known = [key for key in read_recipes() if "/" in key]
    named = {key.partition("/")[0] for key in known}
    if recipe not in named:
        raise unknown("recipe", recipe, [DEFAULT, *named])
    families = [key.partition("/")[2] for key in known if key.startswith(f"{recipe}/")]
    if family not in families:
        raise UsageError(
            f"--recipe {recipe}: it is for tasks of the families {', '.join(families)}, and this one is of "
            f"{family or 'none'}: its file says which, as in family: {families[0]}."
        )
    section = f"{recipe}/{family}"
    if pair not in (pairs := [name for name in read_recipes()[section] if "+" in name]):
        raise UsageError(f"--recipe {recipe}: there is none of {pair} for {family}, but of {', '.join(pairs)}.")
    return section


@cache
def read_recipes() -> dict[str, dict[str, dict[str, Any]]]:
    """Section of recipes.yaml -> name of a plugin or pair -> settings. Not to be changed."""
    return yaml.safe_load(Path(__file__).with_name("recipes.yaml").read_text(encoding="utf-8"))
