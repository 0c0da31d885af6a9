"""Folders that hold no whole model, or another one than it seems: one line that names what is wrong, no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import FORGET, RETAIN, SMALL, Command
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from grun_bench.methods.finetune import finetune
from grun_bench.models.lm import LM, Prompts
from grun_bench.plugin_checks.small_model import byte_tokenizer
from grun_bench.results.store import result_files
from grun_bench.tasks.task import FineTuning

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"
WEIGHTS = "model.safetensors"


def _write(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def _truncate(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1000])


def _json(name: str, **changes: object) -> Callable[[Path], object]:
    """Changes what a JSON file says; None takes the key away."""

    def change(folder: Path) -> None:
        said = json.loads((folder / name).read_text()) | changes
        (folder / name).write_text(json.dumps({key: value for key, value in said.items() if value is not None}))

    return change


def _weights(edit: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        edit(tensors)
        save_file(tensors, folder / WEIGHTS, {"format": "pt"})

    return change


def _without(part: str) -> Callable[[Path], object]:
    def leave_out(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if part in name]:
            del tensors[name]

    return _weights(leave_out)


def _not_a_number(name: str) -> Callable[[Path], object]:
    return _weights(lambda tensors: tensors[name][200].fill_(float("nan")))


def _as_pickle(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    _truncate("pytorch_model.bin")(folder)


def _without_a_shard(folder: Path) -> None:
    names = dict.fromkeys(load_file(folder / WEIGHTS), "model-00001-of-00002.safetensors")
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    index = {"metadata": {}, "weight_map": names | {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _adapter(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": SMALL, "peft_type": "LORA"}))
    save_file({"base_model.model.lm_head.lora_A.weight": torch.zeros(2, 2)}, folder / "adapter_model.safetensors")


def _of_fewer_tokens(folder: Path) -> None:
    _json("config.json", vocab_size=100)(folder)
    _weights(lambda each: each.update({name: each[name][:100] for name in each if each[name].shape[0] > 200}))(folder)


TEMPLATES = [{"name": "one", "template": "{{ messages }}"}, {"name": "two", "template": "{{ messages }}"}]
#: what is done to the folder of a whole model, and what the line has to name
BROKEN = {
    "truncated weights": (_truncate(WEIGHTS), [WEIGHTS]),
    "empty weights": (_write(WEIGHTS, b""), [WEIGHTS]),
    "truncated pickled weights": (_as_pickle, ["could not be loaded"]),
    "a shard that is missing": (_without_a_shard, ["model-00002-of-00002.safetensors"]),
    "a pointer as weights": (_write(WEIGHTS, POINTER), [WEIGHTS, "git-lfs"]),
    "a pointer as tokenizer": (_write("tokenizer.json", POINTER), ["tokenizer.json", "git-lfs"]),
    "a pointer as configuration": (_write("config.json", POINTER), ["config.json", "git-lfs"]),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), ["config.json", "no whole model"]),
    "a configuration that is no JSON": (_write("config.json", "{"), ["config.json"]),
    "an architecture that nobody knows": (_json("config.json", model_type="nonesuch"), ["nonesuch"]),
    "a broken tokenizer": (_write("tokenizer.json", '{"version": 3}'), ["tokenizer"]),
    "a quantised checkpoint without its package": (
        _json("config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
        ["could not be loaded"],
    ),
    "weights of another size": (_json("config.json", intermediate_size=96), ["mlp", "size"]),
    "no head": (_without("lm_head"), ["lm_head.weight", "lacks"]),
    "fewer layers than configured": (_without("layers.5."), ["model.layers.5.", "lacks"]),
    "more layers than configured": (_json("config.json", num_hidden_layers=4), ["layers.4.", "num_hidden_layers"]),
    "an embedding that is not a number": (_not_a_number("model.embed_tokens.weight"), ["embed_tokens", "not numbers"]),
    "an adapter of PEFT": (_adapter, ["adapter", "merge"]),
    "a template that is broken": (_json("tokenizer_config.json", chat_template="{% for"), ["chat template"]),
    "a template that fails": (_json("tokenizer_config.json", chat_template="{{ messages[7].x.y }}"), ["chat template"]),
    "templates without a default": (_json("tokenizer_config.json", chat_template=TEMPLATES), ["chat template"]),
    "no end of sequence": (_json("tokenizer_config.json", eos_token=None), ["end of sequence", "eos_token"]),
    "a tokenizer of more tokens than the model": (_of_fewer_tokens, ["tokenizer", "100"]),
}  # fmt: skip


@pytest.fixture
def folder(hub: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(hub / SMALL, tmp_path / "model"))


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_folder_is_one_line(command: Command, hub: Path, folder: Path, kind: str) -> None:
    damage, parts = BROKEN[kind]
    damage(folder)
    out = folder.parent / "results"
    said = command("run", "--unlearner", "none", "--task", hub / "small.yaml", "--target", folder, "--output", out)
    assert said.code == 2, said.err
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    assert "Traceback" not in said.err
    for part in [f"{folder.parent.name}/{folder.name}", *parts]:
        assert part in said.err, said.err
    assert not list(result_files(out))


def test_a_padding_token_that_the_model_does_not_have_is_not_used(make_lm: Callable[..., LM]) -> None:
    """Llama 2's tokenizer with a [PAD] of its own, as many have it: what fills batches up changes no weight."""

    def trained(tokens: PreTrainedTokenizerBase) -> LM:
        lm = make_lm()
        lm.tokenizer, lm.prompts = tokens, Prompts(tokens, "qa")
        finetune(lm, [*FORGET, *RETAIN], FineTuning(lr=1e-2, epochs=1, batch_size=4), 0, "training")
        return lm

    other = byte_tokenizer()
    other.add_special_tokens({"pad_token": "[PAD]"})
    assert other.pad_token_id == len(byte_tokenizer())
    one, two = trained(byte_tokenizer()), trained(other)
    for name, weight in one.model.state_dict().items():
        assert torch.equal(weight, two.model.state_dict()[name]), name


@pytest.mark.long
def test_a_retain_model_with_another_tokenizer_is_refused_with_the_row(
    command: Command, hub: Path, folder: Path
) -> None:
    _json("tokenizer.json", **_of_merged_letters(folder / "tokenizer.json"))(folder)
    out, models = folder.parent / "results", ["--target", SMALL, "--retain", folder]
    said = command("run", "--unlearner", "none", "--task", hub / "small.yaml", "--output", out, *models)
    assert said.code == 2 and "Traceback" not in said.err
    (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert "row 0 of 'forget'" in line and "tokenizer" in line
    # the retain model's own row is right, and no other is there
    assert [path.parent.name for path in result_files(out)] == ["retain"]


def _of_merged_letters(path: Path) -> dict[str, object]:
    """A tokenizer's model in which two letters that go together are one token, in place of a byte of no text here."""
    model = json.loads(path.read_text())["model"]
    vocabulary = {{"Ā": "an"}.get(letter, letter): number for letter, number in model["vocab"].items()}
    return {"model": model | {"vocab": vocabulary, "merges": ["a n"]}}
