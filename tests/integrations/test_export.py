"""Exported folders answer as the model did: loaded by plain transformers in a process that cannot import grun_bench."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import PROMPTS, attached, chat_tokenizer, logits_of, right_padded, saved
from conftest import SMALL, Command
from synthetic import result, store
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.dynamic_module_utils import HF_MODULES_CACHE

import grun_bench
from grun_bench.core.errors import ModelError
from grun_bench.integrations.hf.export import export, write_code_folder
from grun_bench.methods import saving
from grun_bench.methods.adapters.base import Adapter
from grun_bench.methods.adapters.guard import Clusters, Guard
from grun_bench.methods.adapters.outside import hand_over
from grun_bench.methods.base import Fitted
from grun_bench.methods.saving import CARD
from grun_bench.models.kv_cache import cache_argument
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, load
from grun_bench.plugin_checks.small_model import small_lm

LAYERS = (0.4, 0.7, 1.0)
CPU = Placement("cpu", "float32")
#: name -> adapter, its options, and requests in sequence
CASES: dict[str, tuple[str, dict[str, Any], int]] = {
    "reft": ("reft", {}, 1),
    "grun": ("grun", {}, 1),
    "grun_linear_requests": ("grun", {"gate": "linear"}, 2),
    "reft_held": ("reft-held", {}, 1),
    "grun_held": ("grun-held", {}, 1),
    "grun_held_requests": ("grun-held", {}, 2),
    "grun_held_reset": ("grun-held", {"reset": True}, 1),
    "guard": ("guard", {}, 2),
}


def edited(case: str, lm: LM | None = None, chat: bool = False) -> tuple[LM, Adapter]:
    """A model, a small one unless another is given, with edits that act visibly."""
    name, options, requests = CASES[case]
    lm = lm or small_lm(tokenizer=chat_tokenizer() if chat else None)
    if chat:
        lm.prompts = type(lm.prompts)(lm.tokenizer, "chat")
    if name == "guard":
        return steered(lm)
    adapter = attached(lm, name, layers=LAYERS, **options)
    for _ in range(requests if requests > 1 else 0):
        adapter.next_stage()
    torch.manual_seed(1)
    with torch.no_grad():
        for key, parameter in adapter.stages.named_parameters():
            if "rotation" not in key:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    hand_over(adapter, lm)
    return lm, adapter


def steered(lm: LM, **options: Any) -> tuple[LM, Adapter]:
    """A model that steers away from some of the prompts, as two requests would have it."""
    adapter = Guard(layer=0.5, threshold=0.1, **options)
    adapter.attach(lm.model)
    width = lm.model.config.hidden_size
    generator = torch.Generator().manual_seed(3)
    for count in (2, 3):
        parts = (torch.randn(shape, generator=generator) for shape in ((count, width), (count, width), (width,)))
        adapter.add(Clusters(*parts))
    hand_over(adapter, lm)
    return lm, adapter


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """transformers keeps copies of the code that it runs: here, and not in the user's cache."""
    before = list(sys.path)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    assert str(tmp_path) not in HF_MODULES_CACHE
    yield
    sys.path[:] = before
    for name in [name for name in sys.modules if name.startswith("transformers_modules")]:
        del sys.modules[name]


def loaded(lm: LM, adapter: Any, folder: Path, **options: Any) -> Any:
    folder.mkdir()
    write_code_folder(lm, adapter, folder)
    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **options).eval()


def lengths(mask: Tensor, ends: Tensor) -> list[int]:
    return mask.cumsum(1).gather(1, ends[:, None])[:, 0].tolist()


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["grun_linear_requests", "grun_held_requests", "guard"])
@torch.no_grad()
def test_the_code_gives_the_same_logits_whole_and_token_by_token(case: str, tmp_path: Path, modules: None) -> None:
    lm, adapter = edited(case)
    model = loaded(lm, adapter, tmp_path / case)
    ids, mask, ends = right_padded(lm)
    told = {"attention_mask": mask, "prompt_lengths": lengths(mask, ends)}
    whole = model(ids, **told).logits
    same(whole[mask.bool()], lm.model(ids, **told).logits[mask.bool()])
    with adapter.disabled():
        assert (whole - lm.model(ids, attention_mask=mask).logits)[mask.bool()].abs().max() > 0.1
    labels = ids.masked_fill((torch.arange(ids.shape[1]) <= ends[:, None]) | ~mask.bool(), -100)
    same(model(ids, attention_mask=mask, labels=labels).logits, whole)
    # an empty cache is a prefill, and a token after a past is one of the answer
    row, end, past = ids[1:2], int(ends[1]), DynamicCache()
    steps = [model(row[:, : end + 1], use_cache=True, **cache_argument(model, past)).logits]
    for place in range(end + 1, int(mask[1].sum())):
        steps.append(model(row[:, place : place + 1], use_cache=True, **cache_argument(model, past)).logits)
    same(torch.cat(steps, 1)[0], whole[1, : int(mask[1].sum())])


@torch.no_grad()
def test_weights_of_another_precision_keep_their_edits(environment: Path, tmp_path: Path, modules: None) -> None:
    lm, adapter = edited("grun", load(SMALL, Placement("cpu", "bfloat16")))
    model = loaded(lm, adapter, tmp_path / "half", torch_dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    ids, mask, ends = right_padded(lm)
    told = {"attention_mask": mask, "prompt_lengths": lengths(mask, ends)}
    same(model(ids, **told).logits[mask.bool()], lm.model(ids, **told).logits[mask.bool()])


@torch.no_grad()
def test_a_chat_says_where_its_prompts_end_and_other_text_is_refused(tmp_path: Path, modules: None) -> None:
    lm, adapter = edited("grun", chat=True)
    model = loaded(lm, adapter, tmp_path / "chat")
    ids = torch.tensor([lm.prompts.prompt("Who?") + lm.prompts.answer("Ada.")])
    same(model(ids).logits, lm.model(ids).logits)
    with pytest.raises(ValueError, match="prompt_lengths"):
        model(torch.tensor([[0, 40, 41]]))
    with pytest.raises(ValueError, match="called without its model"):
        model.model(ids)


@torch.no_grad()
def test_gates_begin_anew_with_a_users_turn(tmp_path: Path, modules: None) -> None:
    lm, adapter = edited("grun_held_reset")
    model = loaded(lm, adapter, tmp_path / "reset")
    ids = torch.tensor([lm.prompts.prompt("And two?", context=[("Who?", "Ada.")])])
    whole = model(ids).logits
    same(whole, lm.model(ids).logits)
    held, _ = edited("grun_held")
    assert (held.model(ids).logits - whole).abs().max() > 0.01
    past, steps = DynamicCache(), []
    for place in range(0, ids.shape[1], 7):
        steps.append(model(ids[:, place : place + 7], use_cache=True, **cache_argument(model, past)).logits)
    same(torch.cat(steps, 1), whole)
    with pytest.raises(ValueError, match="several sequences"):
        model(ids, position_ids=(torch.arange(ids.shape[1]) % 9)[None])


def test_without_its_code_nothing_takes_it_for_the_base(tmp_path: Path) -> None:
    lm, adapter = edited("reft")
    (tmp_path / "x").mkdir()
    write_code_folder(lm, adapter, tmp_path / "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="trust_remote_code"):
        AutoModelForCausalLM.from_pretrained(tmp_path / "x", trust_remote_code=False)


# --- a process without grun_bench -------------------------------------------------------------------------------------

PROGRAM = """
import json, sys
sys.modules["grun_bench"] = None  # importing it is an error
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, given, out = sys.argv[1:]
given, found = torch.load(given), {}
with torch.no_grad():
    for case, (ids, mask, lengths, left, left_mask) in given.items():
        path = f"{folder}/{case}"
        model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True).eval()
        assert AutoTokenizer.from_pretrained(path, trust_remote_code=True)("Who?").input_ids
        options = {"attention_mask": left_mask, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 2}
        texts = [model.generate(left, **options, **more) for more in ({}, {"use_cache": False}, {"num_beams": 3})]
        edited = {"prompt_lengths": lengths} if hasattr(model.config, "edits") else {}
        found[case] = (model(ids, attention_mask=mask, **edited).logits, texts)
torch.save(found, out)
"""


@pytest.mark.whole
@torch.no_grad()
def test_plain_transformers_without_this_package_answers_the_same(environment: Path, tmp_path: Path) -> None:
    given, expected = {}, {}
    for case in [*CASES, "lora"]:
        if case == "lora":
            lm = small_lm()
            lm.origin = {"name": SMALL}
            saved(lm, tmp_path / "saved", "lora")
            lm.model.eval()
            export(tmp_path / "saved", "merged", tmp_path / "out" / case, CPU)
        else:
            lm, adapter = edited(case)
            (tmp_path / "out" / case).mkdir(parents=True)
            write_code_folder(lm, adapter, tmp_path / "out" / case)  # type: ignore[arg-type]
        ids, mask, ends = right_padded(lm)
        prompts = [lm.prompts.prompt(text) for text in ("Who?", "Where does Bo live, and since when?")]
        width = max(map(len, prompts))
        left = torch.tensor([[2] * (width - len(each)) + each for each in prompts])
        left_mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts])
        given[case] = (ids, mask, lengths(mask, ends), left, left_mask)
        told = {} if case == "lora" else {"prompt_lengths": given[case][2]}
        options = {"attention_mask": left_mask, "max_new_tokens": 8, "do_sample": False, "pad_token_id": 2}
        ways: list[dict[str, Any]] = [{}, {"use_cache": False}, {"num_beams": 3}]
        texts = [lm.model.generate(left, **options, **more) for more in ways]
        expected[case] = (lm.model(ids, attention_mask=mask, **told).logits, texts, mask)
    torch.save(given, tmp_path / "given.pt")
    environ = os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "PYTHONPATH": ""}
    arguments = [str(tmp_path / "out"), str(tmp_path / "given.pt"), str(tmp_path / "found.pt")]
    subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True, env=environ, cwd=tmp_path)
    for case, (logits, texts) in torch.load(tmp_path / "found.pt").items():
        theirs, ours, mask = expected[case]
        error = (logits - theirs)[mask.bool()].norm() / theirs[mask.bool()].norm()
        # low-rank updates are added to weights before a product when merged, and after it when not
        assert error < (1e-4 if case == "lora" else 1e-6), case
        assert all(torch.equal(one, other) for one, other in zip(texts, ours, strict=True)), case


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def keep(environment: Path, lm: LM, tmp_path: Path) -> Any:
    """Saves an adapter on the mirror's model as `run --save` does."""

    def kept(name: str, **options: Any) -> Path:
        lm.origin = {"name": SMALL}
        if name == "guard":
            _, adapter = steered(lm, **options)
            told = {"layer": 0.5, "strength": 1.0, "threshold": 0.1, "router": ""} | options
            fitted = Fitted(lm, adapter=adapter, adapter_name=name, options=told)
            saving.save(fitted, name, tmp_path / name)
        else:
            saved(lm, tmp_path / name, name, **options)
        lm.model.eval()
        return tmp_path / name

    return kept


@torch.no_grad()
def test_a_prompt_steers_all_that_follows_it_and_comes_in_one_call(tmp_path: Path, modules: None) -> None:
    """Rows of one batch are steered by different clusters or by none, as in the model that was exported."""
    lm, adapter = edited("guard", chat=True)
    model = loaded(lm, adapter, tmp_path / "guard")
    rows = [torch.tensor([lm.prompts.prompt(text) + lm.prompts.answer("Ada.")]) for text in PROMPTS]
    moved = []
    for ids in rows:
        whole = model(ids).logits
        same(whole, lm.model(ids).logits)
        with adapter.disabled():
            moved.append(bool((whole - lm.model(ids).logits).abs().max() > 1e-3))
    assert any(moved) and not all(moved)
    end = len(lm.prompts.prompt(PROMPTS[0]))
    past = DynamicCache()
    model(rows[0][:, :end], use_cache=True, **cache_argument(model, past))
    with pytest.raises(ValueError, match="give a prompt in one call"):
        model(rows[0][:, end:], prompt_lengths=[2], use_cache=True, **cache_argument(model, past))


def test_a_router_that_is_a_model_of_its_own_stays_where_it_is_served(
    command: Command, keep: Any, lm: LM, tmp_path: Path
) -> None:
    pytest.importorskip("sentence_transformers", reason="the extra `sentences` is not installed")
    from sentence_models import write_model

    write_model(tmp_path / "router", lm.tokenizer)
    folder = keep("guard", router=str(tmp_path / "router"))
    said = command("export", folder, "--to", "hf", "--out", tmp_path / "out")
    assert said.code == 2 and "Serve the folder of --save with grun_bench.load" in said.err, said.err


@pytest.mark.parametrize(
    ("adapter", "to", "parts"),
    [
        ("grun", "merged", ["cannot be merged", "--to hf"]),
        ("grun-held", "peft", ["cannot be merged", "--to hf"]),
        ("guard", "merged", ["cannot be merged", "--to hf"]),
        ("lora", "hf", ["no code is needed", "--to merged or --to peft"]),
        ("full", "peft", ["the weights themselves were changed", "--to merged"]),
        ("lora", "gguf", ["--to 'gguf'", "choose from", "merged"]),
    ],
)
def test_a_form_that_a_method_has_not_is_refused_with_those_it_has(
    command: Command, keep: Any, lm: LM, tmp_path: Path, adapter: str, to: str, parts: list[str]
) -> None:
    if adapter == "full":
        lm.origin = {"name": SMALL}
        saving.save(Fitted(lm), "full+ga", tmp_path / "full")
        folder = tmp_path / "full"
    else:
        folder = keep(adapter)
    said = command("export", folder, "--to", to, "--out", tmp_path / "out")
    assert said.code == 2 and all(part in said.err for part in parts), said.err
    assert not (tmp_path / "out").exists()


@torch.no_grad()
def test_export_writes_lora_for_peft(command: Command, keep: Any, lm: LM, hub: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    folder = keep("lora")
    expected = logits_of(lm)
    said = command("export", folder, "--to", "peft", "--out", tmp_path / "out")
    assert said.code == 0 and "AutoPeftModelForCausalLM" in said.out, said.err
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == SMALL
    base = AutoModelForCausalLM.from_pretrained(hub / SMALL)
    lm.model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    assert torch.equal(logits_of(lm), expected)


def test_export_of_a_run_names_the_command_that_keeps_its_model(command: Command, tmp_path: Path) -> None:
    own = result("grun+npo", seed=3, settings={"lr": 0.001, "layers": [0.5, 1.0]})
    store([own], tmp_path)
    said = command("export", own.run_id, "--to", "hf", "--out", tmp_path / "out", "--output", tmp_path)
    assert said.code == 2
    told = "run --unlearner grun+npo --task letters --model org/small --seed 3 --protocol grun-bench"
    assert (
        told in said.err
        and "--set lr=0.001 --set 'layers=[0.5, 1.0]'" in said.err
        and f"--save model --output {tmp_path}" in said.err
    )


def test_a_misspelt_folder_of_a_saved_model_is_told_the_one_beside_it(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders alone that hold one are named, and all who take one name them."""
    monkeypatch.chdir(tmp_path)
    for name in ("unlearned", "unlearnt-notes"):
        Path(name).mkdir()
    Path("unlearned", CARD).write_text("{}")
    own = result("grun+npo")
    store([own], tmp_path / "results")
    to = ["--to", "hf", "--out", "out"]
    for ask in (["export", "unlearnt", *to], ["attack", own.run_id, "--saved", "unlearnt"]):
        said = command(*ask, "--output", "results")
        assert said.code == 2 and "unlearnt: no such folder; near it is unlearned." in said.err
    with pytest.raises(ModelError, match=r"no such folder; near it is unlearned\."):
        grun_bench.load("unlearnt")
    said = command("export", "nothing", *to, "--output", "results")
    assert said.code == 2 and said.err.startswith("error: unknown run 'nothing'") and "unlearned" not in said.err


def test_export_replaces_nothing(command: Command, keep: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    said = command("export", keep("grun"), "--to", "hf", "--out", tmp_path / "out")
    assert said.code == 2 and "there is something already" in said.err


def test_a_disk_that_is_full_is_an_error_that_leaves_nothing(command: Command, keep: Any, tmp_path: Path) -> None:
    """safetensors has an error of its own where no more can be written."""
    folder = keep("grun")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        said = command("export", folder, "--to", "hf", "--out", tmp_path / "full" / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said.code == 1 and "could not be written" in said.err and said.err.count("\n") == 1
    assert list((tmp_path / "full").iterdir()) == []
