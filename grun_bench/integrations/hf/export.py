"""A saved unlearned model as a folder that plain transformers, or PEFT, loads with the same answers.

- `merged`: all in the weights, for `full`, `lora` and methods that leave a whole model: for transformers, for servers
  that run the weights with kernels of their own, and for lm-eval;
- `peft`: LoRA beside its base, in PEFT's format;
- `hf`: what edits hidden states while the model runs cannot be in the weights. The folder has the base's weights, the
  edits, and `modeling_edited.py` (for `guard` also `modeling_steered.py`), which transformers runs with
  `trust_remote_code=True`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel

from grun_bench.core.cache import KEY_FILE
from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.core.files import check_empty, part_of, readable_as
from grun_bench.core.patches import any_generation_config, no_bars
from grun_bench.integrations.hf.forms import Form
from grun_bench.methods.adapters.base import Adapter
from grun_bench.methods.adapters.grun import Grun
from grun_bench.methods.adapters.guard import Guard
from grun_bench.methods.adapters.held import EveryPosition
from grun_bench.methods.adapters.reft import Edit, Reft
from grun_bench.methods.adapters.state import BESIDE
from grun_bench.methods.base import Fitted
from grun_bench.methods.cards import write_card_of_form
from grun_bench.methods.saving import load_fitted
from grun_bench.models.bases import is_made, is_of_hub, name_for_others, without_places
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, write_model

_CODE = Path(__file__).with_name("modeling_edited.py")
_STEERED = _CODE.with_name("modeling_steered.py")
_PACKAGED = f"{__package__}.{_CODE.stem}"
#: what the code's base is called in it, until it is written for another
_BASE, _TYPE = ("LlamaForCausalLM", "LlamaConfig"), "edited-llama"


#: in a folder for PEFT, the base that is nowhere else
_OWN_BASE = "base"
#: what exported folders are loaded with -> the library that has it
_LIBRARIES = {
    "AutoModelForCausalLM": "transformers",
    "AutoPeftModelForCausalLM": "peft",
    "PeftModel": "peft",
}


@dataclass(frozen=True)
class Exported:
    """A folder that was written: how it is loaded, and what whoever loads it must know."""

    folder: Path
    loads: str
    notes: tuple[str, ...] = ()


def export(folder: Path, to: Form, out: Path, placement: Placement, base: str | None = None) -> Exported:
    """Write the model that `run --save` left in `folder` as the folder `out`, whole or not at all, with its card.

    `base` says where its base is, where that is not found by itself.

    Raises UsageError where it has no such form, with the one that it has, or where something else is at `out`;
    ModelError as `grun_bench.load` does; GrunBenchError where it cannot be written.
    """
    check_empty(out, "--out")
    fitted = load_fitted(folder, placement, base)
    adapter = fitted.adapter
    forms = _forms(adapter)
    if to not in forms:
        raise UsageError(f"--to {to}: {_why(fitted)} Use --to {' or --to '.join(forms)}." if forms else _why(fitted))
    fill, exported = _WRITERS[to](fitted, folder, out)
    try:
        with part_of(out) as part:
            part.mkdir()
            fill(part)
            _name(fitted, to, folder, part, exported)
            readable_as(part)
            if out.exists():
                out.rmdir()
            part.replace(out)
    except (OSError, SafetensorError) as error:  # safetensors says a full disk so
        raise GrunBenchError(f"{out} could not be written: {getattr(error, 'strerror', '') or error}.") from error
    return exported


def _name(fitted: Fitted, to: Form, folder: Path, part: Path, exported: Exported) -> None:
    """Put names in the place of this machine's paths, and the saved model's card beside."""
    origin = fitted.lm.origin
    with_base = to == "peft" and is_made(origin)
    if with_base:
        without_places(part, _OWN_BASE)
    else:
        without_places(part, name_for_others(origin), origin.get("revision"))
    notes = "".join(f"\n\n{note[0].upper()}{note[1:]}" for note in exported.notes)
    loads = exported.loads.replace(str(exported.folder), exported.folder.name)
    write_card_of_form(folder, part, to, f"```python\n{_imports(loads)}\n\nmodel = {loads}\n```{notes}", with_base)


def _imports(loads: str) -> str:
    """The lines that bring what a call loads with, by library."""
    found = [name for name in _LIBRARIES if re.search(rf"\b{name}\b", loads)]
    return "\n".join(f"from {_LIBRARIES[name]} import {name}" for name in found)


def _forms(adapter: Adapter | None) -> list[Form]:
    if adapter is None or adapter.changes_model:
        return ["merged"]
    if adapter.merges:
        return ["merged", "peft"]
    return ["hf"] if isinstance(adapter, Reft) or (isinstance(adapter, Guard) and not adapter.router) else []


def _why(fitted: Fitted) -> str:
    name = fitted.adapter_name
    if fitted.adapter is None or fitted.adapter.changes_model:
        return "the weights themselves were changed, so plain transformers loads them."
    if fitted.adapter.merges:
        return f"{name} can be added to the weights, so no code is needed."
    if isinstance(fitted.adapter, Guard) and fitted.adapter.router:
        return (
            f"what steers it is {fitted.adapter.router}, a model of its own beside this one, which no folder that "
            "transformers loads can carry. Serve the folder of --save with grun_bench.load, as examples/serve.py does, "
            "or unlearn with the model's own states as the router (--set router=)."
        )
    if isinstance(fitted.adapter, (Reft, Guard)):
        return f"{name} edits hidden states while the model runs, which no weights do: it cannot be merged."
    return f"{name} cannot be carried by a folder of its own: share the folder of --save, which grun_bench.load reads."


# --- in the weights ---------------------------------------------------------------------------------------------------

Writer = Callable[[Fitted, Path, Path], tuple[Callable[[Path], None], Exported]]


def _merged(fitted: Fitted, folder: Path, out: Path) -> tuple[Callable[[Path], None], Exported]:
    loads = f"AutoModelForCausalLM.from_pretrained({str(out)!r})"
    note = "what it unlearned is in the weights: any server, lm-eval's `hf` and quantisers take it as any other model."
    # with an adapter that merges, save_pretrained is its own
    return lambda part: write_model(fitted.lm.model, fitted.lm.tokenizer, part), Exported(out, loads, (note,))


def _peft(fitted: Fitted, folder: Path, out: Path) -> tuple[Callable[[Path], None], Exported]:
    origin, notes = fitted.lm.origin, []
    own = is_made(origin)
    loads = f"AutoPeftModelForCausalLM.from_pretrained({str(out)!r})"
    if own:
        within = str(out / _OWN_BASE)
        loads = f"PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({within!r}), {str(out)!r})"
        notes.append(f"its base, fine-tuned from {origin.get('name')}, is the folder {_OWN_BASE} in it.")
    elif not is_of_hub(origin):
        notes.append(f"its base is the folder {origin.get('name')}: give it as PeftModel.from_pretrained(base, ...).")

    def fill(part: Path) -> None:
        for file in ("adapter_model.safetensors", "adapter_config.json"):
            shutil.copyfile(folder / file, part / file)
        fitted.lm.tokenizer.save_pretrained(part)
        if own:
            source = Path(fitted.lm.model.config.name_or_path)
            shutil.copytree(source, part / _OWN_BASE, ignore=shutil.ignore_patterns(KEY_FILE))

    notes.append("an adapter beside the weights can be taken off by whoever has the folder.")
    return fill, Exported(out, loads, tuple(notes))


# --- beside the weights -----------------------------------------------------------------------------------------------


def _hf(fitted: Fitted, folder: Path, out: Path) -> tuple[Callable[[Path], None], Exported]:
    lm, adapter = fitted.lm, fitted.adapter
    assert isinstance(adapter, (Reft, Guard))  # noqa: S101  (`_forms` says so)
    base = type(lm.model).__name__
    if not hasattr(transformers, base):
        raise UsageError(f"--to hf: its base, a {base}, brings code of its own, which this folder cannot carry too.")
    notes = ["its code is modeling_edited.py: give trust_remote_code=True to the tokenizer and to lm-eval too."]
    notes.append("the edits lie beside the weights: whoever has the folder can take them off.")
    if isinstance(adapter, Guard) or adapter.edits_prompt_end:
        notes.append(
            "generate() knows where a prompt ends; other calls must be told, as modeling_edited.py says. lm-eval's "
            "`hf` tells it by the chat template alone (--apply_chat_template)."
        )
    notes.append(
        "servers that run weights with kernels of their own (vLLM, llama.cpp) would leave the edits out, and "
        "refuse the folder: use one that runs transformers' own code."
    )
    loads = f"AutoModelForCausalLM.from_pretrained({str(out)!r}, trust_remote_code=True)"
    return lambda part: write_code_folder(lm, adapter, part), Exported(out, loads, tuple(notes))


def write_code_folder(lm: LM, adapter: Reft | Guard, folder: Path) -> None:
    """Fill a folder with the base's weights, the edits, the code that makes them, and the tokenizer."""
    model, name = lm.model, lm.model.config.model_type
    state = {key: value for key, value in model.state_dict().items() if not key.startswith(BESIDE)}
    with no_bars(), any_generation_config():
        edits = _edits(adapter) if isinstance(adapter, Reft) else _clusters(adapter)
        PreTrainedModel.save_pretrained(model, folder, state_dict=state | edits)
    lm.tokenizer.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_bytes())
    code, kind = (_CODE.stem, "Edited") if isinstance(adapter, Reft) else (_STEERED.stem, "Steered")
    config |= {
        "architectures": [f"{kind}ForCausalLM"],
        "auto_map": {"AutoConfig": f"{code}.EditedConfig", "AutoModelForCausalLM": f"{code}.{kind}ForCausalLM"},
        # a type of its own: without its code no program takes the folder for the plain base
        "model_type": f"edited-{name}",
        "edits": _description(lm, adapter) if isinstance(adapter, Reft) else _steering(lm, adapter),
    }
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    text = _CODE.read_text(encoding="utf-8").replace(_TYPE, f"edited-{name}")
    for theirs, own in zip(_BASE, (type(model).__name__, type(model.config).__name__), strict=True):
        text = text.replace(theirs, own)
    (folder / _CODE.name).write_text(text, encoding="utf-8")
    if isinstance(adapter, Guard):
        steered = _STEERED.read_text(encoding="utf-8")
        # in the folder the two lie beside each other, and there is no package
        (folder / _STEERED.name).write_text(steered.replace(_PACKAGED, f".{_CODE.stem}"), encoding="utf-8")


def _clusters(adapter: Guard) -> dict[str, Tensor]:
    """The tensors of what steers, by the names that they have in the exported model."""
    state = adapter.requests.state_dict().items()
    return {f"clusters.{name}_bits": value.detach().cpu().contiguous().view(torch.int32) for name, value in state}


def _steering(lm: LM, adapter: Guard) -> dict[str, Any]:
    """What the code must know beside the tensors: nothing is edited but what is steered."""
    counts = [len(each.vectors) for each in adapter.clusters]
    return {
        **{"rank": 0, "blocks": [], "gate": None, "requests": 0, "factor": 1.0, "every_position": False},
        **{"answer_start": list(lm.prompts.answer_start), "turn_start": None},
        "steering": {
            **{"block": adapter.first_layer, "clusters": counts},
            **{"strength": adapter.strength, "threshold": adapter.threshold},
        },
    }


def _edits(adapter: Reft) -> dict[str, Tensor]:
    """The tensors of the edits, by the names that they have in the exported model."""
    found: dict[str, Tensor] = {}
    for number, stage in enumerate(adapter.stages):
        for layer, edit in stage.items():  # type: ignore[operator]
            found |= {f"edits.{number}.{layer}.{name}": tensor for name, tensor in _tensors(edit).items()}
    return found


def _tensors(edit: Edit) -> dict[str, Tensor]:
    parts = {"source": edit.source} | ({"gate": edit.gate} if edit.gate is not None else {})
    state = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    rotation = edit.rotation.weight.detach().float().contiguous()
    return state | {"rotation_bits": rotation.view(torch.int32)}


def _description(lm: LM, adapter: Reft) -> dict[str, Any]:
    """What the code must know beside the tensors."""
    gates = isinstance(adapter, Grun)
    widths = list(adapter.gate_widths) if isinstance(adapter, Grun) and adapter.gate == "mlp" else []
    start = getattr(adapter.stages, "turn_start", None)
    return {
        "rank": adapter.rank,
        "blocks": sorted(int(layer) for layer in adapter.edits),
        "gate": widths if gates else None,
        "requests": len(adapter.stages),
        "factor": adapter.factor if isinstance(adapter, Grun) else 1.0,
        "every_position": isinstance(adapter, EveryPosition),
        "answer_start": list(lm.prompts.answer_start),
        "turn_start": None if start is None else start.tolist(),
    }


_WRITERS: dict[Form, Writer] = {"merged": _merged, "peft": _peft, "hf": _hf}
