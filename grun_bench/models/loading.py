"""Models by name -> LM: mirrors, Hub, the embedded `tiny`, and target and retain models fine-tuned from a base."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from grun_bench.core import environment as env
from grun_bench.core.cache import KEY_FILE, cached_folder
from grun_bench.core.errors import ModelError
from grun_bench.methods import tiny
from grun_bench.methods.loop import Schedule, optimise
from grun_bench.models.batch import collate
from grun_bench.models.forward import LM, Prompts, forward
from grun_bench.tasks.task import FineTuning

#: the embedded model's name on the command line
TINY = "tiny"


@dataclass(frozen=True)
class Placement:
    """Where and how models run: `device` is a torch device, `dtype` one of float32, bfloat16, float16."""

    device: str
    dtype: str
    trust_remote_code: bool = False

    @classmethod
    def choose(cls, device: str, dtype: str, trust_remote_code: bool = False) -> Placement:
        """`auto` is CUDA where there is one, and bfloat16 where CUDA computes in it. Raises ModelError."""
        try:
            found = torch.device(
                "cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device
            )
            torch.empty(0, device=found)
        except (RuntimeError, AssertionError) as error:
            raise ModelError(f"--device {device}: {str(error).splitlines()[0]}") from None
        if dtype == "auto":
            dtype = "bfloat16" if found.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
        return cls(str(found), dtype, trust_remote_code)


def locate(name: str) -> Path | str:
    """A folder given as a path or found in a mirror; else the name, for the Hub. Raises ModelError."""
    given = Path(name).expanduser()
    if given.is_dir():
        return given
    for mirror in env.mirrors():
        if (mirror / name).is_dir():
            return mirror / name
    if given.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise ModelError(f"model {name}: no such folder, and a Hub id is <org>/<name>; the embedded model is '{TINY}'.")
    return name


def load(name: str, placement: Placement) -> LM:
    """Load a model and its tokenizer. Raises ModelError with every place looked at, or with what its folder lacks."""
    place = locate(name)
    if isinstance(place, Path) and not any(place.glob("*.safetensors")) and not any(place.glob("pytorch_model*.bin")):
        raise ModelError(f"model folder {place} holds no weights (*.safetensors or pytorch_model*.bin).")
    options = {"trust_remote_code": placement.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        model = AutoModelForCausalLM.from_pretrained(place, torch_dtype=getattr(torch, placement.dtype), **options)
    except (OSError, ValueError) as error:
        looked = [str(mirror / name) for mirror in env.mirrors()] if isinstance(place, str) else []
        where = "".join(f"\n  {path} (GRUN_BENCH_HUB)" for path in looked) + f"\n  {place}"
        raise ModelError(f"model {name} could not be loaded: {str(error).splitlines()[0]}\nLooked in:{where}") from None
    if not takes_caches(model):
        raise ModelError(
            f"model {name}: {type(model).__name__} of transformers {transformers.__version__} keeps keys and values in "
            "an old form that cannot be scored here; newer versions do not (README, Other environments)."
        )
    style = "chat" if tokenizer.chat_template else "qa"
    return LM(model.to(placement.device).eval(), tokenizer, Prompts(tokenizer, style), identity(name, place, model))


def takes_caches(model: PreTrainedModel) -> bool:
    """Whether the model takes keys and values as a cache object, as all do in newer versions of transformers."""
    return getattr(model, "_supports_cache_class", True)


def identity(name: str, place: Path | str, model: PreTrainedModel) -> dict[str, Any]:
    """What a result says of a model: its name, and the Hub's commit or the SHA-256 of the folder's weights."""
    if isinstance(place, str):
        return {"name": name, "revision": getattr(model.config, "_commit_hash", None)}
    return {"name": folder_name(place) if Path(name).is_dir() else name, "sha256": weights_sha256(place)}


def folder_name(path: Path) -> str:
    """The <org>/<name> that the last two parts of a folder's path make."""
    return "/".join(path.resolve().parts[-2:])


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the names and contents of a model folder's weights, configuration and tokenizer."""
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".json", ".model") and path.name != KEY_FILE:
            with path.open("rb") as file:
                total.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def tiny_tokenizer(lore: bool = False) -> PreTrainedTokenizerBase:
    """The embedded model's tokenizer, trained on first use.

    Kept apart, because target and retain model must have the same and newer tokenizers libraries break ties of merges
    differently every time.
    """
    key = {"tokenizer": tiny.settings(lore)}
    folder = cached_folder("models", key, lambda folder: tiny.tokenizer(lore).save_pretrained(folder))
    return AutoTokenizer.from_pretrained(folder)


def load_tiny(exclude: str | None, placement: Placement, lore: bool = False) -> LM:
    """The embedded model, built on first use: the target model, or the retain model without a forget set."""
    key = tiny.settings(lore) | {"exclude": exclude}

    def build(folder: Path) -> None:
        model, tokenizer = tiny.build(exclude, lore=lore, tokens=tiny_tokenizer(lore))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    lm = load(str(cached_folder("models", key, build)), placement)
    lm.origin = {"name": TINY, "sha256": lm.origin["sha256"], "trained_without": exclude, "lore": lore}
    return lm


def load_finetuned(
    base: str, role: str, pairs: Sequence[tuple[str, str]], recipe: FineTuning, seed: int, placement: Placement
) -> LM:
    """The base model, all weights fine-tuned on question-answer pairs on first use; `role` names it."""
    place = locate(base)
    source = weights_sha256(place) if isinstance(place, Path) else base
    key = {
        "base": source,
        "pairs": list(pairs),
        "finetune": recipe.model_dump(),
        "seed": seed,
        "dtype": placement.dtype,
    }

    def build(folder: Path) -> None:
        # small steps are lost on bfloat16 weights: they stay in float32 while the arithmetic is in bfloat16
        lm = load(base, replace(placement, dtype="float32"))
        finetune(lm, pairs, recipe, seed, f"fine-tuning the {role}", placement.dtype)
        lm.model.to(getattr(torch, placement.dtype)).save_pretrained(folder)
        lm.tokenizer.save_pretrained(folder)

    folder = cached_folder("models", key, build)
    lm = load(str(folder), placement)
    name = folder_name(place) if isinstance(place, Path) else base
    cached = f"models/{folder.name}"
    lm.origin = {"name": name, "sha256": lm.origin["sha256"], "finetuned": role, "cache": cached} | recipe.model_dump()
    return lm


def finetune(
    lm: LM, pairs: Sequence[tuple[str, str]], recipe: FineTuning, seed: int, label: str, dtype: str = "float32"
) -> None:
    """Full fine-tuning on answers, in place: AdamW, linear decay, token-mean cross-entropy, arithmetic in `dtype`."""
    sequences = [lm.prompts.encode(question, answer) for question, answer in pairs]
    rng = random.Random(seed)
    batches = []
    for _ in range(recipe.epochs):
        order = rng.sample(sequences, len(sequences))
        batches += [order[start : start + recipe.batch_size] for start in range(0, len(order), recipe.batch_size)]

    def loss(group: list[Any]) -> dict[str, torch.Tensor]:
        batch = collate(group, lm.pad_id).to(lm.device)
        # one block a pass: autocast keeps the weights' casts until its block ends, and they change with every step
        with torch.autocast(lm.device.type, getattr(torch, dtype), enabled=dtype != "float32"):
            logits = forward(lm.model, batch).logits
        return {"loss": torch.nn.functional.cross_entropy(logits.float(), batch.targets)}

    torch.manual_seed(seed)
    lm.model.train()
    schedule = Schedule(recipe.lr, weight_decay=recipe.weight_decay, warmup=recipe.warmup)
    optimise(lm.model.parameters(), batches, loss, schedule, label)
    lm.model.eval()
