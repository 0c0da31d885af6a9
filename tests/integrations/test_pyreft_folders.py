"""Folders in pyreft's format without pyreft: there and back, and what is none is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import saved, whole_logits
from conftest import SMALL, Said
from torch import Tensor

import grun_bench
from grun_bench.core.errors import ModelError, UsageError
from grun_bench.integrations.pyreft import export_pyreft, import_pyreft
from grun_bench.methods import saving
from grun_bench.methods.base import Fitted
from grun_bench.models.lm import LM

LAYERS = [1, 3, 5]
MLP = {"gate": "mlp", "gate_widths": [256, 64]}


@pytest.fixture
def exported(make_lm: Callable[..., LM], tmp_path: Path) -> Callable[..., Path]:
    """Writes an adapter with visible weights in pyreft's format."""

    def write(name: str, **options: Any) -> Path:
        saved(make_lm(), tmp_path / "saved", name, rank=3, layers=LAYERS, **options)
        (folder,) = export_pyreft(tmp_path / "saved", tmp_path / "theirs")
        return folder

    return write


@pytest.mark.parametrize(("name", "options"), [("reft", {}), ("grun", {"gate": "linear"}), ("grun", MLP)])
def test_there_and_back(
    environment: Path,
    make_lm: Callable[..., LM],
    exported: Callable[..., Path],
    tmp_path: Path,
    name: str,
    options: dict[str, Any],
) -> None:
    import_pyreft([exported(name, **options)], SMALL, tmp_path / "ours")
    expected, plain = whole_logits(grun_bench.load(tmp_path / "saved", base=make_lm())), whole_logits(make_lm())
    assert (whole_logits(grun_bench.load(tmp_path / "ours")) - expected).abs().max() < 1e-5
    assert (expected - plain).abs().max() > 0.1


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("exploded"),))


def test_a_pickle_with_code_is_refused(
    environment: Path, exported: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = exported("grun", **MLP)
    torch.save({"weight": Bomb()}, next(folder.glob("*.bin")))
    with pytest.raises(ModelError, match="not a file of tensors"):
        import_pyreft([folder], SMALL, tmp_path / "ours")
    assert not (tmp_path / "exploded").exists() and not (tmp_path / "ours").exists()


def _config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return edit


def _tensor(name: str, value: Tensor) -> Callable[[Path], Any]:
    def edit(folder: Path) -> None:
        path = next(folder.glob("*.bin"))
        torch.save(torch.load(path) | {name: value}, path)

    return edit


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json"),
        (lambda folder: (folder / "config.json").write_text("{}"), "not what pyreft writes"),
        (
            _config(lambda config: config.update(intervention_types=["<class 'pyreft.interventions.Noreft'>"] * 3)),
            "Noreft",
        ),
        (_config(lambda config: config["representations"][0].__setitem__(1, "mlp_output")), "mlp_output"),
        (lambda folder: next(folder.glob("*layer_3*.bin")).unlink(), "layer 3"),
        (_tensor("rotate_layer", torch.ones(32, 3)), "orthonormal"),
        (_tensor("bias", torch.ones(2)), "not an edit"),
    ],
)
def test_what_is_no_such_folder_is_refused(
    environment: Path, exported: Callable[..., Path], tmp_path: Path, spoil: Callable[[Path], Any], said: str
) -> None:
    folder = exported("reft")
    spoil(folder)
    with pytest.raises(ModelError, match=said):
        import_pyreft([folder], SMALL, tmp_path / "ours")


def test_the_command_converts_both_ways(
    command: Callable[..., Said], exported: Callable[..., Path], tmp_path: Path
) -> None:
    folder = exported("grun", **MLP)
    said = command("convert", folder, "--base", SMALL, "--out", tmp_path / "ours")
    assert said.code == 0 and "grun_bench.load" in said.out
    assert command("convert", tmp_path / "ours", "--out", tmp_path / "back").code == 0
    assert {file.name for file in (tmp_path / "back").iterdir()} == {file.name for file in folder.iterdir()}
    assert command("convert", tmp_path / "ours", "--out", tmp_path / "back").code == 2
    assert command("convert", folder, "--out", tmp_path / "no").code == 2


def test_other_adapters_have_no_place_in_pyreft(lm: LM, tmp_path: Path) -> None:
    saving.save(Fitted(lm), "none", tmp_path / "whole")
    with pytest.raises(ModelError, match="edits of hidden states only"):
        export_pyreft(tmp_path / "whole", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    saved(lm, tmp_path / "reft", "reft")
    with pytest.raises(UsageError, match="something already"):
        export_pyreft(tmp_path / "reft", tmp_path / "out")
