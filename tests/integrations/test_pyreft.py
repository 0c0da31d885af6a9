"""Adapters in pyreft's format: the same logits as pyreft's own model, both ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import right_padded, saved, whole_logits
from conftest import SMALL
from torch import Tensor, nn

import grun_bench
from grun_bench.integrations.pyreft import export_pyreft, import_pyreft
from grun_bench.models.forward import decoder_layers
from grun_bench.models.lm import LM

pyreft = pytest.importorskip("pyreft", reason="the extra `pyreft` is not installed")

LAYERS = [1, 3, 5]
#: GRUN's official classes -> how their gates are made, written from its description
GATES: dict[str, Callable[[int], nn.Module]] = {
    "GatedLoreftIntervention_Linear": lambda hidden: nn.Linear(hidden, 1),
    "GatedLoreftIntervention": lambda hidden: nn.Sequential(
        nn.Linear(hidden, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 1)
    ),
    "GatedLoreftIntervention_MLP5layer": lambda hidden: nn.Sequential(
        *(nn.Linear(hidden, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU()),
        *(nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 1)),
    ),
}


class Gated(pyreft.LoreftIntervention):
    """pyreft's LoReFT with a gate, and the state dict of GRUN's official classes."""

    def __init__(self, gate: nn.Module, **options: Any) -> None:
        super().__init__(**options)
        self.gate_func = gate

    def forward(self, base: Tensor, source: Any = None, subspaces: Any = None) -> Tensor:
        shift = torch.matmul(self.learned_source(base) - self.rotate_layer(base), self.rotate_layer.weight.T)
        return (base + shift * torch.sigmoid(self.gate_func(base))).to(base.dtype)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        gate = {f"gate_func.{name}": value for name, value in self.gate_func.state_dict().items()}
        return super().state_dict() | gate

    def load_state_dict(self, state: dict[str, Tensor], *args: Any, **kwargs: Any) -> None:
        gate = {name.split("gate_func.")[1]: value for name, value in state.items() if "gate_func." in name}
        self.gate_func.load_state_dict(gate)
        super().load_state_dict(state)


def pyreft_model(lm: LM, gate: Callable[[int], nn.Module] | None, rank: int = 3, seed: int = 3) -> Any:
    """pyreft's own model with edits of all LAYERS, drawn at random and large."""
    options = {"embed_dim": 32, "low_rank_dimension": rank, "dtype": torch.float32}
    places = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in LAYERS:
            intervention = Gated(gate(32), **options) if gate else pyreft.LoreftIntervention(**options)
            nn.init.normal_(intervention.learned_source.weight, 0, 0.5)
            nn.init.normal_(intervention.learned_source.bias, 0, 2.0)
            place = {"layer": layer, "component": "block_output", "low_rank_dimension": rank}
            places.append(place | {"intervention": intervention})
    return pyreft.get_reft_model(lm.model, pyreft.ReftConfig(representations=places))


@torch.no_grad()
def logits_of_pyreft(theirs: Any, lm: LM) -> Tensor:
    ids, mask, end = right_padded(lm)
    locations = [[[int(position)] for position in end]] * len(LAYERS)
    inputs = {"input_ids": ids, "attention_mask": mask}
    _, edited = theirs(inputs, unit_locations={"sources->base": (None, locations)})
    return edited.logits[mask.bool()]


def fill(theirs: Any, folder: Path) -> None:
    """The weights of a folder into pyreft's model, file by file as its loader does."""
    for key, file in zip(
        theirs.interventions, json.loads((folder / "config.json").read_text())["sorted_keys"], strict=True
    ):
        state = torch.load(folder / f"intkey_{file}.bin", weights_only=True)
        theirs.interventions[key].load_state_dict(state)


@pytest.mark.parametrize(
    ("name", "options", "gate"),
    [
        ("reft", {}, None),
        ("grun", {"gate": "linear"}, "GatedLoreftIntervention_Linear"),
        ("grun", {"gate": "mlp"}, "GatedLoreftIntervention"),
        ("grun", {"gate": "mlp", "gate_widths": [1024, 512, 256, 64]}, "GatedLoreftIntervention_MLP5layer"),
    ],
)
def test_exported_adapters_have_the_same_logits_in_pyreft(
    make_lm: Callable[..., LM], tmp_path: Path, name: str, options: dict[str, Any], gate: str | None
) -> None:
    lm = make_lm()
    saved(lm, tmp_path / "saved", name, layers=LAYERS, rank=3, **options)
    assert export_pyreft(tmp_path / "saved", tmp_path / "out") == [tmp_path / "out"]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["intervention_types"] == [f"<class 'pyreft.interventions.{gate or 'LoreftIntervention'}'>"] * 3
    theirs = pyreft_model(base := make_lm(), GATES[gate] if gate else None)
    before = logits_of_pyreft(theirs, base)
    fill(theirs, tmp_path / "out")
    after = logits_of_pyreft(theirs, base)
    assert (after - whole_logits(lm)).abs().max() < 1e-5 < 0.1 < (after - before).abs().max()


def test_pyreft_itself_loads_an_exported_folder(make_lm: Callable[..., LM], tmp_path: Path) -> None:
    """`ReftModel.load` makes W and b in bfloat16 whatever was saved, so on a model in bfloat16."""
    lm = make_lm(dtype=torch.bfloat16)
    saved(lm, tmp_path / "saved", "reft", layers=LAYERS, rank=3)
    export_pyreft(tmp_path / "saved", tmp_path / "out")
    base = make_lm(dtype=torch.bfloat16)
    theirs = pyreft.ReftModel.load(str(tmp_path / "out"), base.model)
    assert torch.equal(logits_of_pyreft(theirs, base), whole_logits(lm))


@pytest.fixture
def official(make_lm: Callable[..., LM], tmp_path: Path) -> Callable[..., Path]:
    """A folder as GRUN's official code leaves it: its file names and class names; pyvene writes the configuration."""

    def write(gate: str | None, seed: int = 3, folder: str = "theirs") -> Path:
        theirs = pyreft_model(make_lm(), GATES[gate] if gate else None, seed=seed)
        out = tmp_path / folder
        theirs.save(str(out))
        if gate:
            text = (out / "config.json").read_text()
            for old, layer in zip(list(theirs.interventions), LAYERS, strict=True):
                new = f"layer.{layer}.comp.block_output.unit.pos.nunit.1#0"
                (out / f"intkey_{old}.bin").rename(out / f"intkey_{new}.bin")
                text = text.replace(old, new)
            text = text.replace(str(Gated), f"<class 'pyreft.interventions.{gate}'>")
            (out / "config.json").write_text(text)
        return out

    return write


@pytest.mark.parametrize("gate", [None, *GATES])
def test_imported_folders_have_pyrefts_logits(
    environment: Path, make_lm: Callable[..., LM], official: Callable[..., Path], tmp_path: Path, gate: str | None
) -> None:
    import_pyreft([official(gate)], SMALL, tmp_path / "ours")
    lm = grun_bench.load(tmp_path / "ours")
    expected = logits_of_pyreft(pyreft_model(base := make_lm(), GATES[gate] if gate else None), base)
    plain = whole_logits(make_lm())
    assert (whole_logits(lm) - expected).abs().max() < 1e-5 < 0.1 < (expected - plain).abs().max()


def test_modules_of_a_sequence_go_both_ways(
    environment: Path, make_lm: Callable[..., LM], official: Callable[..., Path], tmp_path: Path
) -> None:
    """n modules with the factor c n + d, against the sum written out over pyreft's interventions."""
    gate = "GatedLoreftIntervention_Linear"
    folders = [official(gate, seed, f"request{seed}") for seed in (1, 2)]
    import_pyreft(folders, SMALL, tmp_path / "ours", stage_factor=[0.5, 0.25])
    lm, base = grun_bench.load(tmp_path / "ours"), make_lm()
    modules = [pyreft_model(make_lm(), GATES[gate], seed=seed).interventions for seed in (1, 2)]
    ids, mask, end = right_padded(base)

    def hook(number: int) -> Callable[..., Any]:
        def edit(block: nn.Module, args: Any, output: Any) -> Any:
            states = output[0] if isinstance(output, tuple) else output
            rows = torch.arange(len(end))
            place = states[rows, end]
            changes = [list(each.values())[number](place) - place for each in modules]
            states[rows, end] = place + (0.5 * 2 + 0.25) * sum(changes)
            return (states, *output[1:]) if isinstance(output, tuple) else states

        return edit

    for number, layer in enumerate(LAYERS):
        decoder_layers(base.model)[layer].register_forward_hook(hook(number))
    with torch.no_grad():
        expected = base.model(input_ids=ids, attention_mask=mask).logits[mask.bool()]
    assert (whole_logits(lm) - expected).abs().max() < 1e-4
    again = export_pyreft(tmp_path / "ours", tmp_path / "back")
    assert [place.name for place in again] == ["request1", "request2"]
    for place, folder in zip(again, folders, strict=True):
        assert {file.name for file in place.iterdir()} == {file.name for file in folder.iterdir()}
        for file in place.glob("*.bin"):
            ours, theirs = (torch.load(each / file.name, weights_only=True) for each in (place, folder))
            assert set(ours) == set(theirs)
            for name in ours:
                torch.testing.assert_close(ours[name], theirs[name], atol=1e-6, rtol=0)
