"""Models by name: folders, mirrors, the Hub."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from grun_bench.core import environment as env
from grun_bench.core.cache import KEY_FILE
from grun_bench.core.errors import ModelError
from grun_bench.core.patches import no_bars
from grun_bench.models.lm import LM, usual_prompts
from grun_bench.models.trial import obstacle

#: what transformers calls the dtype that it loads a model in
DTYPE = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"


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


def locate(name: str, hint: str = "") -> Path | str:
    """A folder given as a path or found in a mirror; else the name, for the Hub.

    Raises ModelError for what is neither, with `hint` saying what else may be named.
    """
    given = Path(name).expanduser()
    if given.is_dir():
        return given
    for mirror in env.mirrors():
        if (mirror / name).is_dir():
            return mirror / name
    if given.is_absolute() or name.startswith(".") or name.count("/") != 1:
        raise ModelError(f"model {name}: no such folder, and a Hub id is <org>/<name>{hint}.")
    return name


def load(name: str, placement: Placement) -> LM:
    """Load a model and its tokenizer.

    Raises ModelError with every place looked at, with what its folder lacks, or with why it cannot be scored.
    """
    place = locate(name)
    if isinstance(place, Path) and not any(place.glob("*.safetensors")) and not any(place.glob("pytorch_model*.bin")):
        raise ModelError(f"model folder {place} holds no weights (*.safetensors or pytorch_model*.bin).")
    options: dict[str, Any] = {"trust_remote_code": placement.trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **options)
        with no_bars():
            model = AutoModelForCausalLM.from_pretrained(place, **{DTYPE: getattr(torch, placement.dtype)}, **options)
    except (OSError, ValueError) as error:
        looked = [str(mirror / name) for mirror in env.mirrors()] if isinstance(place, str) else []
        where = "".join(f"\n  {path} (GRUN_BENCH_HUB)" for path in looked) + f"\n  {place}"
        raise ModelError(f"model {name} could not be loaded: {str(error).splitlines()[0]}\nLooked in:{where}") from None
    return ready(model.to(placement.device).eval(), tokenizer, identity(name, place, model))


def ready(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, origin: dict[str, Any]) -> LM:
    """A model with its tokenizer, prompts and origin. Raises ModelError where it cannot be scored."""
    if reason := obstacle(model):
        kind = f"{type(model).__name__} of transformers {transformers.__version__}"
        raise ModelError(f"model {origin['name']}: {kind} cannot be scored here: {reason}.")
    return LM(model, tokenizer, usual_prompts(tokenizer), origin)


def write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model with its tokenizer as a folder that `load` reads; weights as safetensors."""
    with no_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


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
