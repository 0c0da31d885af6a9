"""Cards of saved models: read by the Hub's own library, and no file that is saved has a path of this machine."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from attaching import logits_of, saved
from conftest import SMALL, Command
from huggingface_hub import ModelCard, metadata_load
from synthetic import result as synthetic_result
from torch import Tensor
from transformers import PreTrainedModel

import grun_bench
from grun_bench.core.errors import ModelError
from grun_bench.integrations.hf.export import export
from grun_bench.integrations.pyreft import export_pyreft
from grun_bench.methods import saving
from grun_bench.methods.base import Fitted
from grun_bench.methods.cards import EVAL_RESULTS, README, licence_of, write_card
from grun_bench.methods.saving import CARD, read_card
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, load
from grun_bench.results.result import Result
from grun_bench.runs.config import RunConfig
from grun_bench.runs.run import run

CPU = Placement("cpu", "float32")


def values(card: ModelCard) -> dict[tuple[str, str | None], float]:
    return {(each.metric_type, each.dataset_config): each.metric_value for each in card.data.eval_results or []}


def of_result(result: Result) -> dict[tuple[str, str | None], float]:
    """The numbers that a card has: the headline's, without attack and under the worst variant of each."""
    found = {}
    for text, value in result.results[result.task].items():
        metric, _, where = text.partition(",")
        if value is not None and ":" not in where and metric in result.headline:
            found[metric, None if where == "none" else where] = value
    return found


@pytest.mark.whole
def test_the_card_of_a_run_has_its_numbers_and_says_what_is_not_erased(
    environment: Path, hub: Path, results: Path, tmp_path: Path
) -> None:
    shutil.copytree(results, tmp_path / "results")
    task, overrides, folder = str(hub / "small.yaml"), {"epochs": 1}, tmp_path / "model"
    config = RunConfig("grun+npo", task, tmp_path / "results", model=SMALL, overrides=overrides, save=folder)
    made = run(config).result
    card = ModelCard.load(folder / README)
    assert values(card) == of_result(made)
    assert (card.data.base_model, card.data.library_name, card.data.datasets) == (
        SMALL,
        "grun-bench",
        ["locuslab/TOFU"],
    )
    assert "No attack with access to the weights was made on it." in card.text
    # an attack that is made later is in the card too
    attacked = run(replace(config, attacks="strip,prefill")).result
    card = ModelCard.load(folder / README)
    assert values(card) == of_result(attacked) and ("forget_probability", "strip") in values(card)
    stripped = f"{attacked.value('forget_probability', 'strip'):.4g}"
    assert f"strip: {stripped}" in card.text and "takes it off, which is the attack `strip`" in card.text
    for told in (attacked.run_id, attacked.dataset_hash, "4 rows", "grun_bench.load('model')", "not known here"):
        assert told in card.text
    check_entries(folder, attacked)


def check_entries(folder: Path, result: Result) -> None:
    """`.eval_results` as the Hub's library reads it, where it knows the format."""
    try:
        from huggingface_hub import parse_eval_result_entries
    except ImportError:
        assert not (folder / EVAL_RESULTS).exists()
        return
    entries = parse_eval_result_entries(yaml.safe_load((folder / EVAL_RESULTS / "small.yaml").read_text()))
    expected = {f"small.{metric}": result.value(metric) for metric in result.headline}
    assert {each.task_id: each.value for each in entries} == {k: v for k, v in expected.items() if v is not None}
    assert {(each.dataset_id, each.date) for each in entries} == {("locuslab/TOFU", result.date)}


def test_the_licence_is_that_of_the_bases_own_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRUN_BENCH_HUB", str(tmp_path))
    (tmp_path / "org" / "one").mkdir(parents=True)
    assert licence_of({"name": "org/one"}) is None
    (tmp_path / "org" / "one" / README).write_text("no metadata")
    assert licence_of({"name": "org/one"}) is None
    (tmp_path / "org" / "one" / README).write_text("---\nlicense: apache-2.0\n---\n")
    assert licence_of({"name": "org/one"}) == "apache-2.0"


def test_names_from_strangers_are_no_markup_and_metadata_is_whole(lm: LM, tmp_path: Path) -> None:
    lm.origin = {"name": "org/<b>|x: [y](z)"}
    saving.save(Fitted(lm), "full+ga", tmp_path / "model")
    row = synthetic_result("full+ga", settings={"note": "a | b\n# c: <i>"})
    write_card(tmp_path / "model", read_card(tmp_path / "model"), row)
    text = (tmp_path / "model" / README).read_text().partition("\n---\n")[2]
    assert "<b>" not in text.replace("\\<b", "") and "\n# c" not in text and "<i>" not in text.replace("\\<i", "")
    assert metadata_load(tmp_path / "model" / README)["model-index"][0]["name"] == "full+ga on org/<b>|x: [y](z)"
    assert values(ModelCard.load(tmp_path / "model" / README)) == of_result(row)


# --- no path of this machine ------------------------------------------------------------------------------------------


def check_no_paths(folder: Path, *places: Path) -> None:
    """No file of a folder, weights included, has one of these paths, or that of the home folder."""
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for place in (*places, Path.home()):
            assert str(place).encode() not in content, (path, place)
    (plain := places[0] / "plain").write_text("")  # and who may read their folder may read them
    assert {path.stat().st_mode for path in folder.rglob("*") if path.is_file()} == {plain.stat().st_mode}


def loaded_as_said(card: ModelCard) -> PreTrainedModel:
    """What a card's code loads."""
    said: dict[str, Any] = {}
    exec(re.search(r"```python\n(.*?)```", card.text, flags=re.DOTALL)[1], said)
    return said["model"].eval()


def generated(model: PreTrainedModel) -> Tensor:
    return model.generate(torch.tensor([[1, 70, 71, 72]]), do_sample=False, max_new_tokens=8, pad_token_id=0)


@pytest.mark.long
@pytest.mark.parametrize("adapter", ["grun", "lora", "reft-held", "full"])
@pytest.mark.parametrize("base", ["mirror", "folder", "fine-tuned"])
def test_no_saved_file_has_a_path_of_this_machine(
    environment: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str, base: str
) -> None:
    """Neither the folder of --save nor one that was exported, and the base is found again all the same."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work" / "here").mkdir(parents=True)
    lm, folder = of_base(base, hub, environment, tmp_path), tmp_path / "work" / "here" / "model"
    if adapter == "full":
        saving.save(Fitted(lm), "full+ga", folder)
    else:
        saved(lm, folder, adapter, **({"layers": [2, 4]} if "lora" not in adapter else {}))
        lm.model.eval()
    check_no_paths(folder, tmp_path, hub, environment)
    assert torch.equal(logits_of(grun_bench.load(folder)), logits_of(lm))
    assert (folder / README).read_text().count("library_name") == 1
    if adapter == "grun":
        export_pyreft(folder, tmp_path / "work" / "pyreft")
        check_no_paths(tmp_path / "work" / "pyreft", tmp_path, hub, environment)
    for form in {"lora": ["merged", "peft"], "full": ["merged"]}.get(adapter, ["hf"]):
        export(folder, form, tmp_path / "work" / form, CPU)
        check_no_paths(tmp_path / "work" / form, tmp_path, hub, environment)
        card = ModelCard.load(tmp_path / "work" / form / README)
        assert card.data.library_name == ("peft" if form == "peft" else "transformers")
        assert f"from_pretrained('{form}" in card.text and "grun_bench.load" not in card.text
        # no card says that an adapter can be taken off files that have none
        assert ("takes it off" in card.text) == (form != "merged")
        own_base = (tmp_path / "work" / form / "base").exists()
        assert ("without its base" in card.text) == (form == "peft" and not own_base)
        assert ("and the base that it is on" in card.text) == own_base
        if form != "peft" or own_base:
            monkeypatch.chdir(tmp_path / "work")
            assert torch.equal(generated(loaded_as_said(card)), generated(grun_bench.load(folder).model))


def of_base(kind: str, hub: Path, cache: Path, tmp_path: Path) -> LM:
    if kind == "mirror":
        return load(SMALL, CPU)
    if kind == "folder":
        shutil.copytree(hub / SMALL, tmp_path / "home" / "mine")
        return load(str(tmp_path / "home" / "mine"), CPU)
    made = cache / "models" / tmp_path.name
    shutil.copytree(hub / SMALL, made, dirs_exist_ok=True)
    (made / "key.json").write_text("{}")
    lm = load(str(made), CPU)
    lm.origin |= {"name": SMALL, "finetuned": "target model", "cache": f"models/{tmp_path.name}"}
    return lm


@pytest.mark.long
def test_what_peft_is_told_of_the_base(environment: Path, hub: Path, tmp_path: Path) -> None:
    """One of the Hub by id and commit, another by its hash; and one that was made here comes with what is exported."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    lm = of_base("fine-tuned", hub, environment, tmp_path)
    saved(lm, tmp_path / "lora", "lora")
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == f"sha256-{lm.origin['sha256']}"
    written = export(tmp_path / "lora", "peft", tmp_path / "out", CPU)
    assert "PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(" in written.loads
    told = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == "base"
    expected = logits_of(grun_bench.load(tmp_path / "lora"))
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "base")
    lm.model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    assert torch.equal(logits_of(lm), expected)
    of_hub = load(SMALL, CPU)
    of_hub.origin = {"name": SMALL, "revision": "0" * 40}
    saved(of_hub, tmp_path / "hub", "lora")
    told = json.loads((tmp_path / "hub" / "adapter_config.json").read_text())
    assert (told["base_model_name_or_path"], told["revision"]) == (SMALL, "0" * 40)


def test_a_base_that_is_nowhere_is_asked_for(environment: Path, hub: Path, tmp_path: Path, command: Command) -> None:
    lm = of_base("folder", hub, environment, tmp_path)
    saved(lm, tmp_path / "work" / "here" / "model", "lora")
    lm.model.eval()
    expected, folder = logits_of(lm), tmp_path / "other" / "model"
    (tmp_path / "work" / "here").rename(tmp_path / "other")
    (tmp_path / "home").rename(tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere" / "mine"
    with pytest.raises(ModelError, match=r"base=FOLDER") as told:
        grun_bench.load(folder)
    assert read_card(folder).base["sha256"] in str(told.value)
    assert torch.equal(logits_of(grun_bench.load(folder, base=moved)), expected)
    said = command("export", folder, "--to", "merged", "--out", tmp_path / "merged", "--base", moved)
    assert said.code == 0, said.err
    (moved / "config.json").write_text((moved / "config.json").read_text() + " ")
    with pytest.raises(ModelError, match="is not the model that the adapter was trained on"):
        grun_bench.load(folder, base=str(moved))
    assert json.loads((folder / CARD).read_text())["base"] == lm.origin
