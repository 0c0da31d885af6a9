"""Models that are made here and kept in the cache: `tiny`, and target and retain models fine-tuned from a base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from grun_bench.core import processes
from grun_bench.core.cache import cached_folder, digest, is_cached
from grun_bench.core.errors import Refused
from grun_bench.methods import tiny
from grun_bench.methods.checkpoints import Checkpoint, checkpoint_of, forget_checkpoints
from grun_bench.methods.finetune import finetune
from grun_bench.methods.trained_weights import training_dtype
from grun_bench.models.devices import UNCHANGEABLE
from grun_bench.models.lm import LM, usual_prompts
from grun_bench.models.loading import Placement, load, write_model
from grun_bench.models.names import TINY
from grun_bench.models.places import content_of, locate, name_of
from grun_bench.models.protocols import CLEAN, identity, prompts_under
from grun_bench.tasks.task import FineTuning

#: of the cache
_KIND = "models"


def tiny_tokenizer(lore: bool = False) -> PreTrainedTokenizerBase:
    """The embedded model's tokenizer, trained on first use.

    Kept apart, because target and retain model must have the same and newer tokenizers libraries break ties of merges
    differently every time.
    """
    key = {"tokenizer": tiny.settings(lore)}
    folder = cached_folder(_KIND, key, lambda folder: tiny.tokenizer(lore).save_pretrained(folder))
    return AutoTokenizer.from_pretrained(folder)


def tiny_without_weights(lore: bool = False) -> LM:
    """The embedded model's shape with its tokenizer; nothing is trained, and nothing kept."""
    key = {"tokenizer": tiny.settings(lore)}
    tokens = tiny_tokenizer(lore) if is_cached(_KIND, key) else tiny.tokenizer(lore)
    return LM(tiny.untrained(tokens).to("meta"), tokens, usual_prompts(tokens), {"name": TINY})


#: makes a model, which it goes on training where a killed process was
Make = Callable[[Checkpoint], tuple[PreTrainedModel, PreTrainedTokenizerBase]]


def _made(key: Mapping[str, Any], device: str, make: Make) -> Path:
    """The folder of the model that `make` makes, where it is not there; of several processes all make it together."""
    name = digest(key)[:20]
    checkpoint = checkpoint_of(name, device)
    together = processes.count() > 1 and not processes.only_first(lambda: is_cached(_KIND, key))
    made = make(checkpoint) if together else None

    def kept() -> Path:
        folder = cached_folder(_KIND, key, lambda folder: write_model(*(made or make(checkpoint)), folder))
        forget_checkpoints(name)
        return folder

    return processes.only_first(kept)


def _tiny_key(exclude: str | None, lore: bool, seed: int = 0, epochs: int = tiny.EPOCHS) -> dict[str, Any]:
    return tiny.settings(lore) | {"exclude": exclude, "epochs": epochs} | ({"seed": seed} if seed else {})


def tiny_is_made(exclude: str | None, lore: bool = False) -> bool:
    """Whether the embedded model of these rows is in the cache."""
    return is_cached(_KIND, _tiny_key(exclude, lore))


def load_tiny(
    exclude: str | None, placement: Placement, lore: bool = False, seed: int = 0, epochs: int = tiny.EPOCHS
) -> LM:
    """The embedded model, built on first use: the target model, or the retain model without a forget set.

    Another seed or number of epochs makes one that knows the same from another start, or only half of it.
    """
    key = _tiny_key(exclude, lore, seed, epochs)

    def build(checkpoint: Checkpoint) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return tiny.build(exclude, seed, epochs, lore=lore, tokens=tiny_tokenizer(lore), checkpoint=checkpoint)

    # it takes a minute of one process, and has the same bits then
    lm = load(str(processes.only_first(lambda: _made(key, "cpu", build))), placement)
    told = {key: value for key, value in lm.origin.items() if key in ("sha256", "quantised")}
    lm.origin = {"name": TINY, "trained_without": exclude, "lore": lore} | told
    return lm


@dataclass(frozen=True)
class FineTuned:
    """The base model, all weights fine-tuned on question-answer pairs on first use; called, it is loaded.

    The pairs are put as the protocol puts them, or into a task's own `template`; of `private` ones the cache's key has
    the hash. `role` names it.
    """

    base: str
    role: str
    pairs: Sequence[tuple[str, str]]
    recipe: FineTuning
    seed: int
    placement: Placement
    protocol: str = CLEAN
    private: bool = False
    template: str | None = None

    def is_made(self) -> bool:
        """Whether it is in the cache."""
        return is_cached(_KIND, self._key())

    def _key(self) -> dict[str, Any]:
        key = {
            "base": content_of(locate(self.base)),
            "pairs": digest(list(self.pairs)) if self.private else list(self.pairs),
            "finetune": self.recipe.model_dump(),
            "seed": self.seed,
            "dtype": training_dtype(self.placement.dtype),
        }
        if self.protocol != CLEAN:
            key["protocol"] = identity(self.protocol)
        if self.template:
            key["template"] = self.template
        return key

    def _make(self, checkpoint: Checkpoint) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self.placement.device_map is not None:
            raise Refused(f"the {self.role} of {self.base} is yet to be fine-tuned, but {UNCHANGEABLE['device_map']}.")
        lm = load(str(locate(self.base)), self.placement.whole)
        lm.prompts = prompts_under(self.protocol, lm, self.template)
        finetune(lm, self.pairs, self.recipe, self.seed, f"fine-tuning the {self.role}", checkpoint)
        return lm.model, lm.tokenizer

    def __call__(self) -> LM:
        folder = _made(self._key(), self.placement.device, self._make)
        lm = load(str(folder), self.placement)
        name = name_of(self.base, locate(self.base))
        own = {"name": name, "finetuned": self.role, "cache": f"models/{folder.name}"}
        lm.origin = lm.origin | own | self.recipe.model_dump()
        return lm
