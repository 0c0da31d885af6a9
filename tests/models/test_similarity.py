"""Similarity is a cosine of embeddings, made where a task asks for it, and null with a reason where it cannot be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from conftest import SMALL, TASK, Command
from sentence_models import write_model
from transformers import PreTrainedTokenizerBase

from grun_bench.core.errors import MissingReference
from grun_bench.metrics.similarity import MODEL, SAME, same_meaning, similarity
from grun_bench.metrics.trust import faithfulness
from grun_bench.models import similarity as made
from grun_bench.models.sentences import load_sentences
from grun_bench.results.record import Continuation, Generation, Record, Records, load_records
from grun_bench.results.store import read_result, result_files

pytest.importorskip("sentence_transformers", reason="the extra `sentences` is not installed")


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    folder = tmp_path_factory.mktemp("mirror")
    write_model(folder / MODEL, tokenizer)
    return folder


def said(written: str, name: str = "forget", **fields: object) -> Record:
    generation = Generation(written) if written else None
    return Record(name, 0, "q", Continuation("Two and two?"), generation=generation, **fields)  # type: ignore[arg-type]


def test_it_is_the_cosine_with_the_answer_and_of_samples_the_largest(mirror: Path) -> None:
    sentences = load_sentences(str(mirror / MODEL))
    rows = [said("Two and two?"), said("Where was it?"), said("", samples=["Where was it?", "Two and two?"])]
    rows += [said("Two and two?", name="retain"), said("")]
    found = made.with_similarity(Records(rows), {"forget"}, sentences)
    answer, other = sentences.embed(["Two and two?", "Where was it?"])
    assert found[0].scores["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert found[1].scores["similarity"] == pytest.approx(float(answer @ other), abs=1e-5)
    assert found[2].scores["similarity"] == found[0].scores["similarity"]
    assert not found[3].scores and not found[4].scores
    assert list(similarity(found[:3])) == [row.scores["similarity"] for row in found[:3]]
    with pytest.raises(MissingReference, match=r"grun-bench\[sentences\]"):
        similarity(found[:4])


def test_as_alike_as_a_paraphrase_is_the_same_meaning() -> None:
    rows = [said("a", scores={"similarity": value}) for value in (0.829, 0.83, 1.0)]
    assert list(same_meaning(rows)) == [0, 1, 1]


def test_on_tofu_it_tells_paraphrases_from_wrong_answers_better_than_rouge(shared: Path) -> None:
    """The published model on a few rows: a wrong answer is TOFU's, with the same words but another fact."""
    places = [Path(each) for each in os.environ.get("GRUN_BENCH_HUB", "").split(":") if each]
    folder = next((each / MODEL for each in places if (each / MODEL).is_dir()), None)
    rows = shared / "hub" / "locuslab" / "TOFU" / "forget10_perturbed.json"
    if folder is None or not rows.exists():
        pytest.skip(f"{MODEL} is in no mirror (GRUN_BENCH_HUB), or {rows} is not there")
    sentences = load_sentences(str(folder))
    right, wrong = [], []
    for row in [json.loads(line) for line in rows.read_text().splitlines()[:24]]:
        answer, paraphrase, *others = sentences.embed(
            [row["answer"], row["paraphrased_answer"], *row["perturbed_answer"]]
        )
        right.append(float(answer @ paraphrase))
        wrong += [float(answer @ other) for other in others]
    assert faithfulness(right, wrong) > 0.93
    told = sum(value >= SAME for value in right) / len(right) + sum(value < SAME for value in wrong) / len(wrong)
    assert told / 2 > 0.8


@pytest.mark.whole
@pytest.mark.parametrize("there", [True, False])
def test_a_task_that_lists_it_has_it_or_the_reason(
    hub: Path, mirror: Path, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setenv("GRUN_BENCH_HUB", f"{hub}:{mirror}" if there else str(hub))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made.judge.cache_clear()
    task = tmp_path / "alike.yaml"
    task.write_text(
        yaml.safe_dump(TASK | {"metrics": ["probability", "similarity"], "headline": ["forget_similarity"]})
    )
    run = command("run", "--unlearner", "none", "--task", task, "--model", SMALL, "--output", tmp_path / "results")
    made.judge.cache_clear()
    assert run.code == 0, run.err
    (path,) = (each for each in result_files(tmp_path / "results") if each.parent.name == "none")
    result = read_result(path)
    rows = load_records(path.with_name(result.records.file)).of("forget")  # type: ignore[union-attr]
    if there:
        values = [row.scores["similarity"] for row in rows]
        assert result.value("forget_similarity") == pytest.approx(sum(values) / len(values))
    else:
        assert result.value("forget_similarity") is None and not any(row.scores for row in rows)
        assert MODEL in str(result.reason("forget_similarity")) and "no similarity:" in run.err


@pytest.mark.whole
def test_other_tasks_load_no_embedding_model(hub: Path, command: Command, tmp_path: Path) -> None:
    made.judge.cache_clear()
    run = command(
        "run", "--unlearner", "none", "--task", hub / "small.yaml", "--model", SMALL, "--output", tmp_path / "results"
    )  # fmt: skip
    assert run.code == 0 and made.judge.cache_info().currsize == 0
