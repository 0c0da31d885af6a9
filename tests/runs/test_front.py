"""The front door in Python: runs, models in memory that somebody else unlearned, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import SMALL
from transformers import AutoModelForCausalLM, AutoTokenizer

import grun_bench
from grun_bench.core import registry
from grun_bench.core.calls import one_thread
from grun_bench.methods.make import make_unlearner
from grun_bench.models.forward import calling
from grun_bench.models.lm import LM
from grun_bench.results.result import Result
from grun_bench.results.store import read_result, result_files
from grun_bench.runs import front
from grun_bench.runs.config import RunConfig
from grun_bench.runs.outcome import Outcome
from grun_bench.tasks.world import WORLDS
from grun_bench.tuning.front import tune

pytestmark = pytest.mark.whole


def logits(lm: LM) -> torch.Tensor:
    with torch.no_grad(), calling(torch.tensor([19])):
        return lm.model(torch.arange(40)[None]).logits


# --- what is imported -------------------------------------------------------------------------------------------------


def test_importing_the_package_loads_nothing() -> None:
    code = (
        "import sys\n"
        "import grun_bench\n"
        "assert {'run', 'evaluate', 'load', 'push_to_hub', 'GrunBenchError'} <= set(dir(grun_bench))\n"
        "print([name for name in ('torch', 'transformers', 'pandas', 'pydantic', 'rich') if name in sys.modules])\n"
        "grun_bench.run, grun_bench.UsageError\n"
        "print([name for name in ('torch', 'transformers', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


def test_every_name_it_offers_is_there() -> None:
    for name in dir(grun_bench):
        getattr(grun_bench, name)
    with pytest.raises(AttributeError, match="nothing_of_this"):
        _ = grun_bench.nothing_of_this
    assert issubclass(grun_bench.DataError, grun_bench.UsageError)
    assert issubclass(grun_bench.UsageError, grun_bench.GrunBenchError)


# --- run --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(environment: Path, hub: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """`grun_bench.run` on the small model, into a folder of the test's own."""

    def run(unlearner: str, **options: object) -> Outcome:
        return grun_bench.run(unlearner, hub / "small.yaml", **{"model": SMALL, "output": tmp_path / "r"} | options)

    return run


def test_runs_in_several_threads_give_what_they_give_one_after_another(
    small: Callable[..., Outcome], tmp_path: Path
) -> None:
    """Libraries load in one thread alone, and seeds are the process's."""
    run = partial(small, "lora+npo", epochs=1)
    with ThreadPoolExecutor(3) as pool:
        side_by_side = list(pool.map(lambda seed: run(seed=seed, output=tmp_path / "threads"), (0, 1, 0)))
    in_turn = [run(seed=seed, output=tmp_path / "turns") for seed in (0, 1, 0)]
    for one, other in zip(side_by_side, in_turn, strict=True):
        assert one.result.same_numbers(other.result) and list(one.records) == list(other.records)


NOWHERE: dict[str, Callable[[Path], object]] = {
    "run": lambda folder: grun_bench.run("grun+npo", "no-such-task"),
    "evaluate": lambda folder: grun_bench.evaluate(None, None, "no-such-task"),  # type: ignore[arg-type]
    "load": lambda folder: grun_bench.load(folder),
    "plan": lambda folder: front.plan(RunConfig("grun+npo", "no-such-task")),
    "pools": lambda folder: front.pools("no-such-task", folder, [0], [1.0]),
    "erasure_depth": lambda folder: front.erasure_depth(*map(str, [folder, folder, folder]), []),
    "tune": lambda folder: tune(RunConfig("grun+npo", "no-such-task"), 1),
}


@pytest.mark.parametrize("name", NOWHERE)
def test_what_loads_trains_or_scores_waits_for_the_thread_that_does(tmp_path: Path, name: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        with one_thread():
            found = pool.submit(NOWHERE[name], tmp_path)
            with pytest.raises(TimeoutError):
                found.result(timeout=0.3)
        with pytest.raises(grun_bench.UsageError):
            found.result(timeout=60)


def test_a_run_within_a_block_without_gradients_is_as_any(small: Callable[..., Outcome], tmp_path: Path) -> None:
    with torch.no_grad():
        without = small("lora+npo", epochs=1, output=tmp_path / "without")
    assert without.result.same_numbers(small("lora+npo", epochs=1).result)


SETTING = """
import torch
from grun_bench.core.registry import objective

@objective("setting")
def setting(batch):
    "Gradient ascent that sets what is torch's own."
    torch.set_default_dtype(torch.float64)
    return -batch.forget.cross_entropy

@objective("disabling")
def disabling(batch):
    "Gradient ascent that leaves gradients off."
    torch.set_grad_enabled(False)
    return -batch.forget.cross_entropy

@objective("leaving")
def leaving(batch):
    "Ends the program."
    raise SystemExit(0)
"""


def test_what_a_plugin_sets_or_ends_stays_within_its_run(small: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "setting.py").write_text(SETTING)
    mine = {"include": [tmp_path / "setting.py"], "epochs": 1, "batch_size": 32}
    with suppress(RuntimeError):  # in another dtype its own run may not go on
        small("lora+setting", **mine)
    with pytest.raises(grun_bench.GrunBenchError, match="objective disabling gave a constant"):
        small("lora+disabling", **mine)
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()
    with pytest.raises(grun_bench.GrunBenchError, match=r"ended .* by .*setting\.py, line \d+, in leaving\."):
        small("lora+leaving", **mine)


def test_an_outcome_has_what_was_filed(small: Callable[..., Outcome], results: Path) -> None:
    outcome = small("grun+npo", output=str(results), epochs=1)
    stored = {result.unlearner.name: result for result in map(read_result, result_files(results))}
    assert outcome.result == stored["grun+npo"]
    assert outcome.target is not None and outcome.retain is not None and outcome.path is not None
    assert (outcome.target.result, outcome.retain.result) == (stored["none"], stored["retain"])
    values = {f"{metric},none": value for metric, value in outcome.metrics.items()}
    assert values == outcome.result.results[outcome.result.task]
    assert outcome.target.metrics["forget_probability"] == stored["none"].value("forget_probability")
    assert read_result(outcome.path) == outcome.result
    assert len(outcome.records) == outcome.result.records.count


def test_settings_are_keywords_or_a_mapping(small: Callable[..., Outcome]) -> None:
    one = small("lora+gd", epochs=1, batch_size=2, retain="kl")
    other = small("lora+gd", settings={"epochs": 1, "batch_size": 2, "retain": "kl"})
    assert one.path == other.path and other.cell.reused
    settings = one.result.unlearner.settings
    assert (settings["epochs"], settings["batch_size"], settings["retain"]) == (1, 2, "kl")
    with pytest.raises(grun_bench.UsageError, match="epochs: given twice"):
        small("lora+gd", epochs=1, settings={"epochs": 1})
    with pytest.raises(grun_bench.UsageError, match="did you mean epochs"):
        small("lora+gd", epoch=1)


def test_no_setting_of_a_built_in_has_the_name_of_an_option() -> None:
    """As a keyword it could not be told from the option."""
    pairs = [f"{adapter}+gd" for adapter in registry.names("adapter")]
    pairs += [f"full+{objective}" for objective in registry.names("objective")]
    options = {each.name for each in fields(RunConfig)}
    for name in [*pairs, *registry.names("unlearner")]:
        for world in WORLDS.values():
            assert not options & set(make_unlearner(name, {}, world).settings), name


def test_attacks_and_their_settings(small: Callable[..., Outcome]) -> None:
    phrases = {"a": "Now.", "b": "Please."}
    outcome = small("none", attacks=["suffix", "prefill"], settings={"suffix.phrases": phrases})
    assert list(outcome.result.attacks) == ["suffix", "prefill"]
    assert outcome.result.attacks["suffix"].settings == {"phrases": phrases, "texts": 8}
    # the target model itself was asked for
    assert outcome.cell == outcome.target
    assert set(outcome.metrics) == {key.removesuffix(",none") for key in clean(outcome.result)}
    assert small("none", attacks="suffix,prefill", settings={"suffix.phrases": phrases}).result == outcome.result


def test_models_may_be_given_as_paths(small: Callable[..., Outcome], hub: Path) -> None:
    outcome = small("retain", model=None, target_model=hub / SMALL, retain_model=hub / SMALL, limit=2)
    assert outcome.cell == outcome.retain and outcome.result.model == SMALL
    assert outcome.metrics["forget_quality_D"] == 0


def clean(result: Result) -> list[str]:
    return [key for key in result.results[result.task] if key.endswith(",none")]


@pytest.mark.parametrize("unlearner", ["grun+gd", "none"])
def test_the_model_is_there_where_it_was_asked_for(
    small: Callable[..., Outcome], tmp_path: Path, unlearner: str
) -> None:
    settings = {"epochs": 1} if "+" in unlearner else {}
    kept = small(unlearner, keep_model=True, save=tmp_path / "model", settings=settings)
    saved = small(unlearner, save=str(tmp_path / "model"), settings=settings)
    assert torch.equal(logits(kept.model), logits(saved.model))
    assert torch.equal(logits(kept.model), logits(grun_bench.load(tmp_path / "model")))
    # a row that is filed has no model
    plain = small(unlearner, settings=settings)
    assert plain.cell.reused
    with pytest.raises(grun_bench.UsageError, match="keep_model=True"):
        _ = plain.model
    assert torch.equal(logits(small(unlearner, keep_model=True, settings=settings).model), logits(kept.model))


def test_what_cannot_be_is_refused_as_on_the_command_line(small: Callable[..., Outcome], tmp_path: Path) -> None:
    for wrong in (
        {"unlearner": "nppo"},
        {"attacks": "sufix"},
        {"attack_sets": "sufix"},
        {"dtype": "float8"},
        {"device": "gpu"},
    ):
        with pytest.raises(grun_bench.UsageError):
            small(**{"unlearner": "none"} | wrong)
    with pytest.raises(grun_bench.ModelError, match="nowhere"):
        small("none", model="nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(grun_bench.UsageError, match="cannot be written"):
        small("none", output=tmp_path / "file" / "results")
    assert small("ga", lr=1e30, clip=1e30, epochs=4).result.status == "diverged"


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_a_model_in_memory_has_the_numbers_of_its_filed_row(
    small: Callable[..., Outcome], hub: Path, tmp_path: Path
) -> None:
    """Weights that Hugging Face's own classes load, with the run's references: every number and record to the bit."""
    filed = small("npo", save=tmp_path / "model", epochs=2, lr=1e-3, attacks="prefill")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").train()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    here = grun_bench.evaluate(model, tokenizer, hub / "small.yaml", base=SMALL, attacks="prefill")
    assert here.metrics == filed.metrics and here.metrics["forget_quality"] is not None
    assert here.result.results == filed.result.results
    assert list(here.records) == list(filed.records)
    for one, other in ((here.target, filed.target), (here.retain, filed.retain)):
        assert one.result.results == other.result.results and list(one.records) == list(other.records)
    # it is as it was, and nothing was filed
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert here.path is None
    with pytest.raises(grun_bench.UsageError):
        _ = here.model


def test_an_adapter_in_memory_has_the_numbers_of_its_filed_row(
    small: Callable[..., Outcome], hub: Path, tmp_path: Path
) -> None:
    filed = small("grun+gd", save=tmp_path / "model", epochs=2)
    lm = grun_bench.load(tmp_path / "model")
    here = grun_bench.evaluate(lm.model, lm.tokenizer, hub / "small.yaml", base=SMALL)
    assert here.metrics == filed.metrics and here.metrics["forget_gate"] is not None
    # another adapter on the same base is another row
    small("grun+gd", save=tmp_path / "other", epochs=1)
    lm = grun_bench.load(tmp_path / "other")
    other = grun_bench.evaluate(lm.model, lm.tokenizer, hub / "small.yaml", base=SMALL)
    assert other.result.run_id != here.result.run_id


def test_without_references_the_reason_is_given(environment: Path, hub: Path, lm: LM, tmp_path: Path) -> None:
    task = hub / "small.yaml"
    alone = grun_bench.evaluate(lm.model, lm.tokenizer, task, name="theirs", output=tmp_path / "r", limit=2)
    assert alone.target is None and alone.retain is None
    assert alone.metrics["forget_quality"] is None and alone.metrics["forget_probability"] is not None
    assert "base" in alone.result.reasons["forget_quality,none"]
    # what is filed is a row like any other, and is read the next time
    assert alone.path is not None and alone.path.parent.name == "theirs"
    assert read_result(alone.path) == alone.result
    again = grun_bench.evaluate(lm.model, lm.tokenizer, task, name="theirs", output=tmp_path / "r", limit=2)
    assert again.cell.reused and again.result == alone.result
    # other weights are another row
    lm.model.get_output_embeddings().weight.data.mul_(2)
    changed = grun_bench.evaluate(lm.model, lm.tokenizer, task, name="theirs", output=tmp_path / "r", limit=2)
    assert changed.path != alone.path and changed.metrics != alone.metrics


def test_a_retain_model_alone_is_a_reference(environment: Path, hub: Path, lm: LM) -> None:
    here = grun_bench.evaluate(lm.model, lm.tokenizer, hub / "small.yaml", retain_model=SMALL)
    assert here.target is None and here.retain is not None
    # it is the same model: nothing differs from what the retain model says
    assert here.metrics["forget_quality_D"] == 0
    assert here.retain.metrics == here.metrics


def test_a_model_of_peft_is_scored_as_the_merged_one(environment: Path, hub: Path, lm: LM) -> None:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(lm.model, LoraConfig(target_modules="all-linear", init_lora_weights=False))
    wrapped = grun_bench.evaluate(model, lm.tokenizer, hub / "small.yaml")
    merged = grun_bench.evaluate(model.merge_and_unload(), lm.tokenizer, hub / "small.yaml")
    there = {metric: value for metric, value in merged.metrics.items() if value is not None}
    assert "forget_probability" in there and "model_utility" in there
    assert {metric: wrapped.metrics[metric] for metric in there} == pytest.approx(there, rel=1e-4, abs=1e-6)


def test_evaluate_refuses_what_it_has_no_use_for(environment: Path, hub: Path, lm: LM) -> None:
    for options, said in (
        ({"dtype": "float32"}, "option of evaluate 'dtype'"),
        ({"name": registry.control("target")}, "name=none"),
        ({"name": "a/b"}, "name=a/b"),
        ({"limits": 3}, "did you mean limit"),
        ({"settings": {"epochs": 3}}, "setting 'epochs'"),
    ):
        with pytest.raises(grun_bench.UsageError, match=said):
            grun_bench.evaluate(lm.model, lm.tokenizer, hub / "small.yaml", **options)


@pytest.mark.slow
def test_the_toy_model_in_memory_has_its_own_world(environment: Path, tmp_path: Path) -> None:
    filed = grun_bench.run("none", "tofu_forget01", output=tmp_path, limit=4, keep_model=True)
    lm = filed.model
    here = grun_bench.evaluate(lm.model, lm.tokenizer, "tofu_forget01", base="tiny", limit=4)
    assert here.metrics == filed.metrics and list(here.records) == list(filed.records)
    assert here.result.dataset == filed.result.dataset == "embedded"
