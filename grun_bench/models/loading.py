"""Models by name, ready to use: what is loaded has to be what its folder or its commit of the Hub says."""

from __future__ import annotations

import json
import platform
import re
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file

from grun_bench.core.environment import cache_folder
from grun_bench.core.errors import ModelError
from grun_bench.core.given import no_device
from grun_bench.core.patches import any_generation_config, no_bars, quiet
from grun_bench.core.progress import say
from grun_bench.models.devices import absent
from grun_bench.models.lm import LM, usual_prompts
from grun_bench.models.maps import DeviceMap, first_device, read_map
from grun_bench.models.memory import empty_model
from grun_bench.models.places import check_whole, identity, locate, not_loaded, source_of
from grun_bench.models.quantised import quantisation, settled
from grun_bench.models.trial import not_numbers, obstacle, unreadable

#: what to do with an adapter in place of a model
MERGE = (
    "merge it into its base with peft, and give the folder that comes of "
    "`AutoPeftModelForCausalLM.from_pretrained(DIR).merge_and_unload().save_pretrained(OUT)`, with the tokenizer in it."
)
#: what transformers calls the dtype that it loads a model in
DTYPE = "dtype" if int(transformers.__version__.split(".")[0]) >= 5 else "torch_dtype"
#: what `platform.machine` calls processors whose instructions torch tells apart as below
_X86 = ("x86_64", "AMD64")


@dataclass(frozen=True)
class Placement:
    """Where and how models run: `device` is a torch device, `dtype` one of float32, bfloat16, float16."""

    device: str
    dtype: str
    trust_remote_code: bool = False
    #: how accelerate spreads a model from there on: `auto`, or part -> device, cpu or disk; None: all is on the device
    device_map: DeviceMap | None = None
    #: what the base's weights are rounded to when they are loaded (see `quantised`); empty: they are not
    quantise: str = ""

    @classmethod
    def choose(
        cls,
        device: str,
        dtype: str,
        trust_remote_code: bool = False,
        device_map: DeviceMap | None = None,
        quantise: str = "",
    ) -> Placement:
        """`auto` is CUDA where there is one, and bfloat16 where CUDA computes in it. Raises ModelError."""
        name = device
        if device_map is not None:
            if device != "auto":
                raise ModelError(f"--device {device}: --device-map says where a model goes; leave one of them out.")
            device_map = read_map(device_map)
            name = device = "auto" if device_map == "auto" else first_device(device_map)
        if device == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            found = torch.device(name)
        except RuntimeError:  # it names two dozen, most of which no build has
            raise no_device(device) from None
        if said := absent(str(found)):
            raise ModelError(f"--device {device}: torch {torch.__version__} has none here ({said}).")
        if dtype == "auto":
            dtype = "bfloat16" if found.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
        if quantise:
            quantisation(quantise, dtype)  # what it needs is missed before anything is trained
        return cls(str(found), dtype, trust_remote_code, device_map, quantise)

    @property
    def where(self) -> str:
        """The device, or how the model is spread from there on: what decides the order of sums."""
        return self.device if self.device_map is None else f"{self.device} {json.dumps(self.device_map)}"

    @property
    def emulated(self) -> str | None:
        """Why this dtype is slow here, in words; None where it is not known to be, as on processors with AVX-512."""
        if self.dtype == "float32" or torch.device(self.device).type != "cpu" or platform.machine() not in _X86:
            return None
        if torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2"):
            return None
        return f"this processor has no instructions for {self.dtype}: --dtype float32 is several times as fast."

    @property
    def whole(self) -> Placement:
        """As the base is before its weights are rounded."""
        return replace(self, quantise="")


def load(name: str, placement: Placement) -> LM:
    """Load a model and its tokenizer.

    Raises ModelError with every place looked at, with what its folder lacks, or with why it cannot be scored.
    """
    place = locate(name)
    source, revision = source_of(place)
    options: dict[str, Any] = {"trust_remote_code": placement.trust_remote_code, **revision}
    part = ""
    offloaded = _offload_folder() if placement.device_map is not None else None
    moved = placement.device_map is None and not placement.quantise
    try:
        if find_adapter_config_file(source, **revision):
            raise ModelError(f"model {name} is an adapter of PEFT: {MERGE}")
        if isinstance(place, Path):
            check_whole(place)
        part = ": its tokenizer"
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        part = ""
        # what is missing or too much is said below, and it is an error
        with no_bars(), quiet("transformers"), quiet("accelerate"):
            model, report = AutoModelForCausalLM.from_pretrained(
                source,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **{DTYPE: getattr(torch, placement.dtype)},
                **_placing(placement, offloaded),
                **options,
            )
    except ModelError:
        raise
    except Exception as error:  # whatever strangers' files make of a foreign library
        raise not_loaded(name, error, part) from None
    if reason := _unlike_checkpoint(model, report) or settled(model):
        raise ModelError(f"model {name}: {reason}.")
    if placement.emulated:
        _say_once(placement.emulated)
    # what weights were written to goes with them
    model.offloaded = offloaded
    origin = identity(name, place) | ({"quantised": placement.quantise} if placement.quantise else {})
    return ready((model.to(placement.device) if moved else model).eval(), tokenizer, origin)


@cache
def _say_once(text: str) -> None:
    """A run loads several models."""
    say(text)


def without_weights(name: str, placement: Placement) -> LM:
    """A model's shape, on the device `meta`, with its tokenizer. Raises ModelError as `load` does."""
    place = locate(name)
    source, revision = source_of(place)
    options: dict[str, Any] = {"trust_remote_code": placement.trust_remote_code, **revision}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = empty_model(AutoConfig.from_pretrained(source, **options), placement.dtype)
    except Exception as error:  # whatever strangers' files make of a foreign library
        raise not_loaded(name, error) from None
    return LM(model, tokenizer, usual_prompts(tokenizer), {"name": name})


def _offload_folder() -> TemporaryDirectory[str]:
    """A folder for weights that lie in files and have another dtype there than the checkpoint's. Raises ModelError."""
    folder = cache_folder() / "offloaded"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(dir=folder, ignore_cleanup_errors=True)
    except OSError as error:
        raise ModelError(f"{folder}: weights cannot be put there ({error.strerror}); set GRUN_BENCH_CACHE.") from None


def _placing(placement: Placement, offloaded: TemporaryDirectory[str] | None) -> dict[str, Any]:
    """What `from_pretrained` is told of where weights go, and in how many bits."""
    options: dict[str, Any] = {}
    if offloaded is not None:
        options |= {"device_map": placement.device_map, "offload_folder": offloaded.name}
    if placement.quantise:
        if placement.device_map is None:
            options["device_map"] = {"": placement.device}
        options["quantization_config"] = quantisation(placement.quantise, placement.dtype)
    return options


def _unlike_checkpoint(model: PreTrainedModel, report: dict[str, Any]) -> str | None:
    """Why a model is not that of its checkpoint, by what transformers reports of loading it; None where it is."""
    kind, known = type(model).__name__, {_layerless(name) for name in model.state_dict()}
    if other := sorted(report["mismatched_keys"]):
        name, has, wants = other[0]
        sizes = [" x ".join(map(str, size)) for size in (has, wants)]
        return f"{name} has another size in the checkpoint ({sizes[0]}) than by config.json ({sizes[1]})"
    if missing := sorted(report["missing_keys"]):
        return f"its checkpoint lacks {_named(missing)}, and {kind} would have them at random"
    unused = sorted(report["unexpected_keys"])
    if left := [name for name in unused if _layerless(name) in known]:
        return f"config.json has fewer layers than the checkpoint, which has {_named(left)}: see num_hidden_layers"
    if unused:
        say(f"{model.config.name_or_path}: {kind} leaves {_named(unused)} of the checkpoint unused.")
    return None


def _layerless(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def _named(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more weights" if len(names) > 3 else "")


def ready(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, origin: dict[str, Any]) -> LM:
    """A model with its tokenizer, prompts and origin. Raises ModelError where it cannot be scored."""
    lm = LM(model, tokenizer, usual_prompts(tokenizer), origin)
    if reason := not_numbers(model) or unreadable(lm):
        raise ModelError(f"model {origin['name']}: {reason}.")
    if reason := obstacle(model):
        kind = f"{type(model).__name__} of transformers {transformers.__version__}"
        raise ModelError(f"model {origin['name']}: {kind} cannot be scored here: {reason}.")
    return lm


def write_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model with its tokenizer as a folder that `load` reads; weights as safetensors."""
    with no_bars(), any_generation_config():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
