"""Bases in four bits: their products are those of the weights as they come back, and what is trained is beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from bitsandbytes.functional import dequantize_4bit
from conftest import Said
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

import grun_bench
from grun_bench.core.errors import ModelError, Refused
from grun_bench.methods.adapters.full import Full
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.make import make_unlearner
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, load
from grun_bench.models.quantised import count, quantised_linears
from grun_bench.plugin_checks.small_model import FORGET, RETAIN, logits
from grun_bench.results.result import Result
from grun_bench.tasks.world import PUBLISHED

#: transformers 4 knows none of bitsandbytes' versions that work on processors
OLD = transformers.__version__.startswith("4.")
new = pytest.mark.skipif(OLD, reason="transformers 4 loads no model in four bits on processors")


@pytest.fixture(scope="module")
def folder(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random Llama whose rows are whole blocks."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, initializer_range=0.2, eos_token_id=1, **sizes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    folder = tmp_path_factory.mktemp("base") / "small"
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    return folder


def in_four_bits(folder: Path, code: str = "nf4", dtype: str = "float32") -> LM:
    return load(str(folder), Placement("cpu", dtype, quantise=code))


@new
@pytest.mark.parametrize("code", ["nf4", "fp4"])
def test_a_base_in_four_bits_is_that_of_its_weights_as_they_come_back(code: str, folder: Path) -> None:
    lm, plain = in_four_bits(folder, code), load(str(folder), Placement("cpu", "float32"))
    linears = quantised_linears(lm.model)
    assert len(linears) == 3 * 7
    before = logits(plain)
    for name, module in plain.model.named_modules():
        rounded = lm.model.get_submodule(name)
        if rounded in linears:
            back = dequantize_4bit(rounded.weight.data, rounded.weight.quant_state)
            assert not torch.equal(back, module.weight)
            module.weight.data = back
    torch.testing.assert_close(logits(lm), logits(plain), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits(lm), before, atol=1e-2)
    # two weights to a byte
    assert sum(map(count, lm.model.parameters())) == plain.model.num_parameters()
    assert sum(2 * each.weight.nbytes for each in linears) == sum(
        each.in_features * each.out_features for each in linears
    )


def fitted(adapter: str, target: Callable[[], LM]) -> Fitted:
    unlearner = make_unlearner(f"{adapter}+npo", {"epochs": 2, "batch_size": 3, "lr": 1e-2}, PUBLISHED)
    return unlearner.fit(FitContext(FORGET, RETAIN, load_target=target, load_retain_model=target, seed=0))


@new
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", ["lora", "reft", "grun", "grun-held"])
def test_an_adapter_is_trained_in_full_precision_and_the_base_stays(adapter: str, dtype: str, folder: Path) -> None:
    before = in_four_bits(folder, dtype=dtype).model.state_dict()
    made = fitted(adapter, lambda: in_four_bits(folder, dtype=dtype))
    assert made.adapter is not None
    assert {each.dtype for each in made.adapter.trainable_parameters()} == {torch.float32}
    after = {name.replace("base_layer.", ""): value for name, value in made.lm.model.state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert made.history[-1]["forget"] < made.history[0]["forget"]


@new
def test_the_base_itself_is_not_trained(folder: Path) -> None:
    with pytest.raises(Refused, match=r"four bits.*train an adapter"):
        Full().attach(in_four_bits(folder).model)


@new
def test_rows_that_are_no_whole_blocks_are_refused(make_lm: Callable[..., LM], tmp_path: Path) -> None:
    lm = make_lm()
    for part in (lm.model, lm.tokenizer):
        part.save_pretrained(tmp_path / "small")
    with pytest.raises(ModelError, match="32 long, which in four bits must be a multiple of 64"):
        in_four_bits(tmp_path / "small")


@new
@pytest.mark.whole
def test_a_run_in_four_bits_says_so_and_its_model_comes_back(
    command: Callable[..., Said], hub: Path, folder: Path, tmp_path: Path
) -> None:
    asked = ["run", "--task", hub / "small.yaml", "--model", folder, "--output", tmp_path / "results", "--json"]
    done = command(
        *asked, "--unlearner", "lora+npo", "--quantise", "nf4", "--set", "epochs=1", "--save", tmp_path / "out"
    )
    assert done.code == 0, done.err
    result = Result.model_validate_json(done.out)
    assert {"quantised": "nf4", "adapter_dtype": "float32", "dtype": "float32"}.items() <= result.hardware.items()
    assert result.target["quantised"] == "nf4"
    # rows of other arithmetic are other rows, made from the same fine-tuned models
    plain = Result.model_validate_json(command(*asked, "--unlearner", "none").out)
    rounded = Result.model_validate_json(command(*asked, "--unlearner", "none", "--quantise", "nf4").out)
    assert plain.run_id != rounded.run_id and plain.target["sha256"] == rounded.target["sha256"]
    assert result.cost.parameters - result.cost.trainable_parameters == plain.cost.parameters
    # saved beside the base in four bits, it is loaded beside it
    assert quantised_linears(grun_bench.load(tmp_path / "out").model)
    refused = command(*asked, "--unlearner", "full+npo", "--quantise", "nf4")
    assert refused.code == 2 and "four bits" in refused.err and "lora, reft, grun" in refused.err
    assert command(*asked, "--unlearner", "lora+npo", "--quantise", "nf5").code == 2


@pytest.mark.skipif(not OLD, reason="transformers 5 loads models in four bits")
def test_an_old_transformers_is_named() -> None:
    with pytest.raises(ModelError, match="--quantise needs transformers 5; 4"):
        Placement.choose("cpu", "float32", quantise="nf4")
