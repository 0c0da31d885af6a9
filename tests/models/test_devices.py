"""Models spread by accelerate give what they give on one device: records, trained adapters, what is saved and loaded.

Here the parts that are elsewhere lie in files or behind accelerate's hooks in host memory; their layers have no weights
between calls, as those of a model that is larger than its device.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from conftest import Said

from grun_bench.core.errors import ModelError, Refused, UsageError
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.saving import load_fitted, save
from grun_bench.models import loading
from grun_bench.models.devices import device_of, is_offloaded, is_spread
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, load
from grun_bench.models.maps import first_device, placed, read_map
from grun_bench.models.scoring import ScoringSettings, score
from grun_bench.plugin_checks.small_model import FORGET, RETAIN, logits, two_sets
from grun_bench.results.result import Result
from grun_bench.tasks.world import PUBLISHED

#: some blocks in files, before, between and after such as are here; and the vocabulary head
PARTS = {
    "model.embed_tokens": "cpu",
    "model.layers.0": "disk",
    "model.layers.1": "cpu",
    "model.layers.2": "cpu",
    "model.layers.3": "disk",
    "model.layers.4": "disk",
    "model.layers.5": "cpu",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}


@pytest.fixture(scope="module")
def folder(make_lm: Callable[..., LM], tmp_path_factory: pytest.TempPathFactory) -> Path:
    lm, folder = make_lm(), tmp_path_factory.mktemp("base") / "small"
    for part in (lm.model, lm.tokenizer):
        part.save_pretrained(folder)
    return folder


def whole(folder: Path, dtype: str = "float32") -> LM:
    return load(str(folder), Placement("cpu", dtype))


def in_files(folder: Path, dtype: str = "float32") -> LM:
    return load(str(folder), Placement.choose("auto", dtype, device_map=PARTS))


def in_memory(folder: Path, dtype: str = "float32") -> LM:
    lm = whole(folder, dtype)
    cpu_offload(lm.model, execution_device=torch.device("cpu"))
    return lm


SPREAD = pytest.mark.parametrize("spread", [in_files, in_memory])


@pytest.mark.long
@SPREAD
def test_a_spread_model_is_scored_as_a_whole_one(spread: Callable[[Path], LM], folder: Path) -> None:
    lm, settings = spread(folder), ScoringSettings(8)
    assert is_spread(lm.model) and is_offloaded(lm.model) and lm.device.type == "cpu"
    assert not is_spread(whole(folder).model)
    assert list(score(lm, two_sets(), settings)) == list(score(whole(folder), two_sets(), settings))


def fitted(adapter: str, load_target: Callable[[], LM], **settings: object) -> Fitted:
    recipe = {"epochs": 2, "batch_size": 3, "lr": 1e-2} | settings
    unlearner = make_unlearner(f"{adapter}+npo", recipe, PUBLISHED)
    return unlearner.fit(FitContext(FORGET, RETAIN, load_target=load_target, load_retain_model=load_target, seed=0))


def trained(fitted: Fitted) -> list[torch.Tensor]:
    assert fitted.adapter is not None
    return [each.detach().clone() for each in fitted.adapter.trainable_parameters()]


@pytest.mark.long
@SPREAD
@pytest.mark.parametrize("adapter", ["lora", "reft", "grun", "grun-held"])
def test_an_adapter_trained_on_a_spread_base_is_that_of_a_whole_one(
    spread: Callable[[Path], LM], adapter: str, folder: Path, tmp_path: Path
) -> None:
    dtype = "float64" if adapter == "lora" else "float32"
    one, other = (fitted(adapter, partial(way, folder, dtype)) for way in (whole, spread))
    assert is_offloaded(other.lm.model)
    here, there = (torch.cat([each.flatten() for each in trained(way)]) for way in (one, other))
    # sums in the backward pass depend on where weights begin in memory, and Adam divides by gradients of nearly 0: on
    # some processors one weight of LoRA in thousands is then a thousandth of a step away
    away = (here - there).abs() > 1e-6 + 1e-4 * there.abs()
    assert away.double().mean() <= (1e-3 if adapter == "lora" else 0)
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(one.lm), logits(other.lm), rtol=1e-3, atol=1e-3)
    # onto either base, the saved one is what was trained
    save(other, f"{adapter}+npo", tmp_path / "saved")
    for way in (whole, spread):
        again = load_fitted(tmp_path / "saved", Placement("cpu", dtype), way(folder, dtype))
        assert all(map(torch.equal, trained(again), trained(other)))
        torch.testing.assert_close(logits(again.lm), logits(other.lm), rtol=1e-3, atol=1e-3)


@pytest.mark.long
def test_checkpointing_brings_weights_back_for_the_backward_pass(folder: Path) -> None:
    target = partial(in_files, folder, "float64")
    one, other = (fitted("lora", target, dropout=0.0, checkpointing=on) for on in (False, True))
    for here, there in zip(trained(one), trained(other), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-6)


def test_what_trains_the_base_itself_is_refused_and_names_what_shards_it(folder: Path) -> None:
    with pytest.raises(Refused, match="FSDP under torchrun"):
        fitted("full", lambda: in_files(folder))


def test_maps_are_read_from_files_and_said_in_short(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"": "disk"}')
    assert read_map(str(tmp_path / "map.json")) == {"": "disk"}
    assert placed(in_files(folder).model) == {
        "cpu": ["model.embed_tokens", "model.layers.1-2", "model.layers.5", "model.norm", "model.rotary_emb"],
        "disk": ["model.layers.0", "model.layers.3-4", "lm_head"],
    }
    assert placed(whole(folder).model) is None
    assert first_device({"a": "disk", "b": 1}) == "cuda:1" and first_device({"": "cpu"}) == "cpu"
    assert device_of(in_files(folder).model.lm_head).type == "cpu"


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("nowhere.json", UsageError, "auto, or a JSON file"),
        ({}, UsageError, "a map is"),
        ({"": True}, UsageError, "write a device"),
        ({"": "cuda:99"}, ModelError, "not here"),
    ],
)
def test_what_is_no_map_of_this_machine_is_refused(given: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        read_map(given)  # type: ignore[arg-type]


def test_a_device_and_a_map_are_not_both_said() -> None:
    with pytest.raises(ModelError, match="leave one of them out"):
        Placement.choose("cpu", "float32", device_map="auto")


@pytest.mark.whole
def test_a_run_on_a_spread_base_files_the_row_of_a_whole_one(
    command: Callable[..., Said], hub: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "map.json").write_text(json.dumps(PARTS))
    asked = ["run", "--task", hub / "small.yaml", "--target", folder, "--retain-model", folder, "--json"]
    asked += ["--unlearner", "reft+npo", "--set", "epochs=1", "--attacks", "prefill,int4"]
    spread = command(
        *asked, "--device-map", tmp_path / "map.json", "--output", tmp_path / "spread", "--save", tmp_path / "x"
    )
    assert spread.code == 0, spread.err
    plain = command(*asked, "--output", tmp_path / "whole")
    assert plain.code == 0, plain.err
    one, other = map(Result.model_validate_json, (spread.out, plain.out))
    assert one.run_id == other.run_id and one.records == other.records
    assert one.hardware["device_map"]["disk"] == ["model.layers.0", "model.layers.3-4", "lm_head"]
    assert "device_map" not in other.hardware
    assert one.attacks["prefill"].variants == other.attacks["prefill"].variants
    # nothing changes weights that lie in files
    assert not one.attacks["int4"].variants and other.attacks["int4"].variants
    refused = command(*asked, "--unlearner", "full+npo", "--device-map", "auto")
    assert refused.code == 2 and "FSDP under torchrun" in refused.err


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="asks Linux for an x86's flags")
def test_a_dtype_that_the_processor_has_no_instructions_for_is_said_once(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """AVX-512 is the least with which products of 16 bits are computed as such, as Linux lists it."""
    slow = "avx512f" not in Path("/proc/cpuinfo").read_text().split()
    loading._say_once.cache_clear()  # a test before this one may have heard it
    for dtype in ("float32", "bfloat16", "float16", "bfloat16"):
        load(str(folder), Placement.choose("cpu", dtype))
    said = [line for line in capsys.readouterr().err.splitlines() if "no instructions" in line]
    assert [word for line in said for word in ("bfloat16", "float16") if f" {word}:" in line] == (
        ["bfloat16", "float16"] if slow else []
    )
