"""Models that are made here and kept in the cache: `tiny`, and target and retain models fine-tuned from a base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from grun_bench.core.cache import cached_folder, digest
from grun_bench.methods import tiny
from grun_bench.methods.checkpoints import Checkpoint, checkpoint_of, forget_checkpoints
from grun_bench.methods.finetune import finetune
from grun_bench.methods.trained_weights import training_dtype
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, load, write_model
from grun_bench.models.places import content_of, locate, name_of
from grun_bench.models.protocols import CLEAN, identity, prompts_under
from grun_bench.tasks.task import FineTuning
from grun_bench.tasks.world import TINY


def tiny_tokenizer(lore: bool = False) -> PreTrainedTokenizerBase:
    """The embedded model's tokenizer, trained on first use.

    Kept apart, because target and retain model must have the same and newer tokenizers libraries break ties of merges
    differently every time.
    """
    key = {"tokenizer": tiny.settings(lore)}
    folder = cached_folder("models", key, lambda folder: tiny.tokenizer(lore).save_pretrained(folder))
    return AutoTokenizer.from_pretrained(folder)


def _made(key: Mapping[str, Any], device: str, make: Callable[[Path, Checkpoint], None]) -> Path:
    """The folder that `make` fills with a model, which it goes on training where a killed process was."""
    name = digest(key)[:20]
    folder = cached_folder("models", key, lambda folder: make(folder, checkpoint_of(name, device)))
    forget_checkpoints(name)
    return folder


def load_tiny(
    exclude: str | None, placement: Placement, lore: bool = False, seed: int = 0, epochs: int = tiny.EPOCHS
) -> LM:
    """The embedded model, built on first use: the target model, or the retain model without a forget set.

    Another seed or number of epochs makes one that knows the same from another start, or only half of it.
    """
    key = tiny.settings(lore) | {"exclude": exclude, "epochs": epochs} | ({"seed": seed} if seed else {})

    def build(folder: Path, checkpoint: Checkpoint) -> None:
        tokens = tiny_tokenizer(lore)
        model, tokenizer = tiny.build(exclude, seed, epochs, lore=lore, tokens=tokens, checkpoint=checkpoint)
        write_model(model, tokenizer, folder)

    lm = load(str(_made(key, "cpu", build)), placement)
    lm.origin = {"name": TINY, "sha256": lm.origin["sha256"], "trained_without": exclude, "lore": lore}
    return lm


def load_finetuned(
    base: str,
    role: str,
    pairs: Sequence[tuple[str, str]],
    recipe: FineTuning,
    seed: int,
    placement: Placement,
    protocol: str = CLEAN,
    private: bool = False,
    template: str | None = None,
) -> LM:
    """The base model, all weights fine-tuned on question-answer pairs on first use; `role` names it.

    The pairs are put as the protocol puts them, or into a task's own `template`; of `private` ones the cache's key has
    the hash.
    """
    place = locate(base)
    key = {
        "base": content_of(place),
        "pairs": digest(list(pairs)) if private else list(pairs),
        "finetune": recipe.model_dump(),
        "seed": seed,
        "dtype": training_dtype(placement.dtype),
    }
    if protocol != CLEAN:
        key["protocol"] = identity(protocol)
    if template:
        key["template"] = template

    def build(folder: Path, checkpoint: Checkpoint) -> None:
        lm = load(str(place), placement)
        lm.prompts = prompts_under(protocol, lm, template)
        finetune(lm, pairs, recipe, seed, f"fine-tuning the {role}", checkpoint)
        write_model(lm.model, lm.tokenizer, folder)

    folder = _made(key, placement.device, build)
    lm = load(str(folder), placement)
    own = {"name": name_of(base, place), "finetuned": role, "cache": f"models/{folder.name}"}
    lm.origin = lm.origin | own | recipe.model_dump()
    return lm
