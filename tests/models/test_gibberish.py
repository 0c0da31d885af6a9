"""Fluency is what a classifier says of the answers, and null with a reason where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from conftest import SMALL, TASK, Command
from scipy.stats import hmean
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerBase, pipeline

from grun_bench.core.errors import MissingReference, ModelError
from grun_bench.metrics.texts import CLASSIFIER, fluency
from grun_bench.models import fluency as made
from grun_bench.models.fluency import LENGTH, load_classifier, with_fluency
from grun_bench.results.record import Continuation, Generation, Record, Records, load_records
from grun_bench.results.store import read_result, result_files


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    """A mirror with a small random classifier of four classes under the published name."""
    folder = tmp_path_factory.mktemp("mirror")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(tokenizer), initializer_range=0.4, num_labels=4, **sizes)
        BertForSequenceClassification(config).save_pretrained(folder / CLASSIFIER)
    tokenizer.save_pretrained(folder / CLASSIFIER)
    return folder


def said(written: str, index: int = 0, name: str = "forget") -> Record:
    return Record(name, index, "q", Continuation("a"), generation=Generation(written))


def test_it_is_the_first_class_of_a_plain_pipeline(mirror: Path) -> None:
    folder = str(mirror / CLASSIFIER)
    texts = ["Two and two?", "  qwzx vbn  ", "word " * 40, "", *(f"Number {each} is here." for each in range(40))]
    rows = [*map(said, texts, range(len(texts))), said("Two", name="retain")]
    found = with_fluency(Records(rows), {"forget"}, load_classifier(folder))
    plain = pipeline("text-classification", folder, top_k=None, truncation=True, max_length=LENGTH)
    for row in found.of("forget"):
        labels = {each["label"]: each["score"] for each in plain([row.generation.text.strip()])[0]}  # type: ignore[union-attr]
        assert row.scores["fluency"] == pytest.approx(labels["LABEL_0"], abs=1e-5)
    assert list(fluency(found.of("forget"))) == [row.scores["fluency"] for row in found.of("forget")]
    with pytest.raises(MissingReference, match=CLASSIFIER):
        fluency(found.of("retain"))


def test_what_is_no_classifier_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (CLASSIFIER, str(tmp_path)):
        with pytest.raises(ModelError):
            load_classifier(name)


@pytest.mark.whole
@pytest.mark.parametrize("there", [True, False])
def test_the_utility_score_has_it_or_the_reason(
    hub: Path, mirror: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setenv("GRUN_BENCH_HUB", f"{hub}:{mirror}" if there else str(hub))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made.classifier.cache_clear()
    task = tmp_path / "useful.yaml"
    metrics = ["utility_score", "model_utility_open_unlearning"]
    task.write_text(yaml.safe_dump(TASK | {"metrics": metrics, "headline": metrics}))
    run = command("run", "--unlearner", "none", "--task", task, "--model", SMALL, "--output", tmp_path / "results")
    made.classifier.cache_clear()
    assert run.code == 0, run.err
    (path,) = (each for each in result_files(tmp_path / "results") if each.parent.name == "none")
    result = read_result(path)
    rows = load_records(path.with_name(result.records.file)).of("forget")  # type: ignore[union-attr]
    if there:
        fluent = sum(row.scores["fluency"] for row in rows) / len(rows)
        utility = result.value("model_utility_open_unlearning")
        assert result.value("utility_score") == pytest.approx(hmean([fluent, utility]))
    else:
        assert result.value("utility_score") is None and not any(row.scores for row in rows)
        assert CLASSIFIER in str(result.reason("utility_score")) and "no fluency:" in run.err
        assert CLASSIFIER in run.out
