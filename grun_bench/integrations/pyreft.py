"""GRUN and ReFT adapters in pyreft's folder format, both ways.

A folder of pyreft holds `config.json` and, for each edited layer, `intkey_<key>.bin`: a pickled dict of tensors with
`weight` and `bias` of W h + b, `rotate_layer`, the (hidden, rank) matrix R^T, and for GRUN's official code
(renjie3/GRUN @ b59fd78) `gate_func.*`. That code knows three gates, told apart by the name of the intervention's class:
`GatedLoreftIntervention_Linear`, `GatedLoreftIntervention` (hidden -> 256 -> 64 -> 1) and
`GatedLoreftIntervention_MLP5layer` (hidden -> 1024 -> 512 -> 256 -> 64 -> 1). It loads no gates of other widths.

Modules of requests in sequence are one folder each, as that code has them: `request1`, `request2`, ...
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from grun_bench.core.errors import GrunBenchError, ModelError, UsageError, first_line
from grun_bench.core.files import check_empty
from grun_bench.methods.adapters.base import load_tensors
from grun_bench.methods.adapters.grun import Grun, make_gate
from grun_bench.methods.adapters.reft import Edit, Reft
from grun_bench.methods.saving import Saved, check_new, read_card, write_folder
from grun_bench.models.bases import beside
from grun_bench.models.lm import Style
from grun_bench.models.names import folder_of, hub_id
from grun_bench.models.places import identity

#: class name -> the layer's key in file names: plain pyreft with today's pyvene, and GRUN's code with its own copy
PLAIN_KEY = "layer_{}_comp_block_output_unit_pos_nunit_1#0"
GATED_KEY = "layer.{}.comp.block_output.unit.pos.nunit.1#0"
PLAIN = "LoreftIntervention"
#: class name -> widths of its gate
GATED: dict[str, tuple[int, ...]] = {
    "GatedLoreftIntervention_Linear": (),
    "GatedLoreftIntervention": (256, 64),
    "GatedLoreftIntervention_MLP5layer": (1024, 512, 256, 64),
}


def export_pyreft(folder: str | Path, out: str | Path) -> list[Path]:
    """Write a saved `grun` or `reft` adapter in pyreft's format; returns the folders written, one for each request.

    `ReftModel.load(folder, model)` of pyreft 0.1.0 reads one of `reft` (on a bfloat16 model: it always makes W and b
    in bfloat16), GRUN's official code one of `grun`. Raises ModelError when the folder holds no such adapter,
    UsageError when something else is at `out`.
    """
    folder, out = Path(folder), Path(out)
    saved = read_card(folder)
    if saved.adapter not in ("reft", "grun"):
        raise ModelError(f"{folder}: pyreft has edits of hidden states only, and this is {saved.adapter or 'a model'}.")
    check_empty(out)
    stages = _read_edits(folder, saved)
    places = [out] if len(stages) == 1 else [out / f"request{number}" for number in range(1, len(stages) + 1)]
    try:
        for place, edits in zip(places, stages, strict=True):
            place.mkdir(parents=True, exist_ok=True)
            _write(place, edits)
    except OSError as error:
        raise GrunBenchError(f"{out} could not be written: {error.strerror or error}.") from error
    return places


def import_pyreft(
    folders: Sequence[str | Path], base: str, out: str | Path, prompts: Style = "qa", stage_factor: Sequence[float] = ()
) -> None:
    """Turn adapters in pyreft's format into a saved model that `grun_bench.load(out)` reads.

    `base` names the model that they were trained on. Several folders are the modules of requests in sequence, combined
    as `grun` does, with its `stage_factor`. `prompts` is `qa`, the template of GRUN's official code, or `chat`.

    Raises ModelError for files that are not such adapters (pickles are read as tensors alone and run no code),
    UsageError when something else is at `out`.
    """
    out = Path(out)
    check_new(out)
    read = [_read(Path(folder)) for folder in folders]
    if len({kind for kind, _ in read}) != 1:
        shown = ", ".join(map(str, folders))
        raise ModelError(f"{shown}: the modules of one sequence have the same layers, rank and gate.")
    kind = read[0][0]
    options: dict[str, Any] = {"rank": kind.rank, "layers": sorted(kind.layers)}
    adapter: Reft
    if kind.widths is None:
        if len(read) > 1:
            raise UsageError("requests in sequence have gates; one folder without gates can be read.")
        name, adapter = "reft", Reft(**options)
    else:
        options |= {"gate": "mlp", "gate_widths": list(kind.widths)} if kind.widths else {"gate": "linear"}
        options |= {"stage_factor": list(stage_factor)} if stage_factor else {}
        name, adapter = "grun", Grun(**options)
    for _, edits in read:
        adapter.stages.append(nn.ModuleDict({str(layer): edit for layer, edit in edits.items()}))
    origin = _origin(base)
    origin |= beside(folder_of(base) or Path("/nowhere"), out, origin)
    saved = Saved(unlearner=f"{name} from pyreft", adapter=name, options=options, base=origin, prompts=prompts)
    write_folder(saved, out, adapter.save)


def _origin(base: str) -> dict[str, Any]:
    """What a saved model says of its base: a folder by the SHA-256 of its weights, else the name."""
    if place := folder_of(base):
        return identity(base, place)
    # of which commit of the Hub it was nobody said
    return {"name": hub_id(base)[0] if "/" in base else base}


# --- writing ----------------------------------------------------------------------------------------------------------


def _read_edits(folder: Path, saved: Saved) -> list[dict[int, Edit]]:
    """The edits of a saved adapter, by request and layer."""
    tensors = load_tensors(folder / "adapter.safetensors")
    stages: dict[int, dict[int, dict[str, Tensor]]] = {}
    for key, tensor in tensors.items():
        stage, layer, part = key.split(".", 2)
        stages.setdefault(int(stage), {}).setdefault(int(layer), {})[part] = tensor
    widths = None
    if saved.adapter == "grun":
        widths = tuple(saved.options["gate_widths"]) if saved.options["gate"] == "mlp" else ()
    return [{layer: _edit(parts, widths) for layer, parts in sorted(stages[stage].items())} for stage in sorted(stages)]


def _edit(parts: dict[str, Tensor], widths: tuple[int, ...] | None) -> Edit:
    edit = _blank(parts["source.weight"], widths)
    edit.load_state_dict(parts)
    return edit


def _blank(weight: Tensor, widths: tuple[int, ...] | None) -> Edit:
    """An edit whose W has the shape and dtype of `weight`; `widths` None is without a gate."""
    rank, hidden = weight.shape
    gate = None if widths is None else make_gate(hidden, widths, weight.dtype)
    return Edit(hidden, rank, weight.dtype, gate)


def _widths(edit: Edit) -> tuple[int, ...] | None:
    """The widths of an edit's gate, () for a linear one; None without a gate."""
    if edit.gate is None:
        return None
    return tuple(layer.out_features for layer in edit.gate.modules() if isinstance(layer, nn.Linear))[:-1]


def _write(folder: Path, edits: dict[int, Edit]) -> None:
    first = next(iter(edits.values()))
    rank, hidden = first.source.weight.shape
    name, key = PLAIN, PLAIN_KEY
    if first.gate is not None:
        widths = _widths(first)
        name = next((name for name, known in GATED.items() if known == widths), "GatedLoreftIntervention")
        key = GATED_KEY
    config = {
        "intervention_constant_sources": [True] * len(edits),
        "intervention_dimensions": [hidden] * len(edits),
        "intervention_types": [f"<class 'pyreft.interventions.{name}'>"] * len(edits),
        "mode": "parallel",
        "representations": [[layer, "block_output", "pos", 1, rank, *[None] * 9] for layer in edits],
        "sorted_keys": [key.format(layer) for layer in edits],
    }
    for layer, edit in edits.items():
        torch.save(_state(edit), folder / f"intkey_{key.format(layer)}.bin")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _state(edit: Edit) -> dict[str, Tensor]:
    """The tensors of an edit under pyreft's names."""
    state = {name: tensor.detach().clone() for name, tensor in edit.source.state_dict().items()}
    if edit.gate is not None:
        state |= {f"gate_func.{name}": tensor.detach().clone() for name, tensor in edit.gate.state_dict().items()}
    return state | {"rotate_layer": edit.rotation.weight.detach().clone()}


# --- reading ----------------------------------------------------------------------------------------------------------


class Kind(NamedTuple):
    """What the modules of one sequence have alike: the widths of the gate (None without one), edited layers, rank."""

    widths: tuple[int, ...] | None
    layers: tuple[int, ...]
    rank: int


def _read(folder: Path) -> tuple[Kind, dict[int, Edit]]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
        names = [str(name).split("'")[1].rpartition(".")[2] for name in config["intervention_types"]]
        places = [(int(place[0]), place[1:4]) for place in config["representations"]]
        keys = config.get("sorted_keys") or [None] * len(places)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}; pyreft's folders hold a config.json.") from None
    except (ValueError, KeyError, TypeError, IndexError):
        raise ModelError(f"{path}: not what pyreft writes.") from None
    if len(set(names)) != 1 or names[0] not in {PLAIN, *GATED}:
        raise ModelError(
            f"{path}: interventions of {', '.join(sorted(set(names)))}; known are {', '.join((PLAIN, *GATED))}."
        )
    edits = {}
    for (layer, where), key in zip(places, keys, strict=True):
        if where != ["block_output", "pos", 1]:
            raise ModelError(f"{path}: edits of {where}; known are those of a block's output at one position.")
        edits[layer] = _read_edit(_file(folder, layer, key))
    kinds = {Kind(_widths(edit), tuple(edits), edit.source.out_features) for edit in edits.values()}
    if len(kinds) != 1:
        raise ModelError(f"{path}: its edits differ in rank or gate.")
    return kinds.pop(), edits


def _file(folder: Path, layer: int, key: str | None) -> Path:
    names = [key, GATED_KEY.format(layer), PLAIN_KEY.format(layer)]
    files = [folder / f"intkey_{name}.bin" for name in names if name]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise ModelError(f"{folder}: no file of layer {layer} ({files[0].name}).")
    return found


def _read_edit(path: Path) -> Edit:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path}: not a file of tensors ({first_line(error)[:120]}).") from None
    try:
        gate = {
            name.removeprefix("gate_func."): value for name, value in state.items() if name.startswith("gate_func.")
        }
        maps = sorted((name for name in gate if name.endswith("weight")), key=lambda name: (len(name), name))
        edit = _blank(state["weight"], tuple(gate[name].shape[0] for name in maps[:-1]) if gate else None)
        edit.source.load_state_dict({name: state[name] for name in ("weight", "bias")})
        if edit.gate is not None:
            edit.gate.load_state_dict(gate)
        rotation = state["rotate_layer"].float()
        identity = torch.eye(rotation.shape[1])
        if not torch.allclose(rotation.T @ rotation, identity, atol=1e-3):
            raise ModelError(f"{path}: the columns of rotate_layer are not orthonormal.")
        edit.rotation.weight = rotation
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: not an edit as pyreft saves it ({' '.join(str(error).split())[:120]}).") from None
    return edit
