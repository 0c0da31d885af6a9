"""Published logs: every aggregate of theirs comes out of their rows, and what is no log is refused with the place."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grun_bench.core.errors import UsageError
from grun_bench.integrations.logs.log import SETS, ImportedLog
from grun_bench.integrations.logs.reading import check_reference, read_log
from grun_bench.metrics.evaluate import evaluate
from grun_bench.results.record import Continuation, Record, Records
from grun_bench.tasks.sets import USUAL, USUAL_SETS

SHARED = Path(os.environ.get("GRUN_BENCH_SHARED", Path(__file__).resolve().parents[3] / "shared"))
OPEN_UNLEARNING = SHARED / "reference" / "openunlearning_logs"
TOFU = SHARED / "reference" / "tofu_logs"
needs_logs = pytest.mark.skipif(
    not OPEN_UNLEARNING.is_dir() or not TOFU.is_dir(),
    reason=f"published logs not found in {SHARED / 'reference'} (set GRUN_BENCH_SHARED)",
)

MODELS = ("Llama-3.2-1B-Instruct", "Llama-3.1-8B-Instruct")
RETAIN = {"forget01": "retain99", "forget05": "retain95", "forget10": "retain90"}
FULL = [(MODELS[0], split) for split in RETAIN] + [(MODELS[1], "forget10")]
LOGS = [f"tofu_{model}_full_evals_{split}.json" for model, split in FULL] + [
    f"tofu_{model}_{RETAIN[split]}.json" for model, split in FULL
]


def retain_log(name: str) -> ImportedLog | None:
    """The retain model's log of a target's; None for a retain model's own."""
    match = re.fullmatch(r"(tofu_.*)_full_evals_(forget\d\d)\.json", name)
    if match is None:
        return None
    return read_log(OPEN_UNLEARNING / f"{match[1]}_{RETAIN[match[2]]}.json", "open-unlearning")


# --- OpenUnlearning -------------------------------------------------------------------------------------------------


@pytest.mark.long
@needs_logs
@pytest.mark.parametrize("name", LOGS)
def test_every_aggregate_comes_out_of_the_rows(name: str) -> None:
    log, retain = read_log(OPEN_UNLEARNING / name, "open-unlearning"), retain_log(name)
    published = {
        key: part["agg_value"]
        for key, part in json.loads((OPEN_UNLEARNING / name).read_text()).items()
        if part["agg_value"] is not None
    }
    assert sorted(log.aggregates.values()) == sorted(published.values()), "every published aggregate has a key of ours"
    values = evaluate(log.records, retain and retain.records, log.metrics, USUAL_SETS)
    for key, expected in log.aggregates.items():
        tolerance = 1e-6 if "rouge" in key else 1e-9
        assert values[key].value == pytest.approx(expected, abs=tolerance, rel=0), key
        assert values[key].value == pytest.approx(expected, rel=1e-6), f"{key}: relative, for p-values near nought"


@needs_logs
@pytest.mark.parametrize("name", LOGS)
def test_every_rouge_comes_out_of_the_generated_text(name: str) -> None:
    published = json.loads((OPEN_UNLEARNING / name).read_text())
    records = read_log(OPEN_UNLEARNING / name, "open-unlearning").records
    from grun_bench.metrics import texts

    for short, full in {"forget": "forget", "retain": "retain", "ra": "real_authors", "wf": "world_facts"}.items():
        rows = published[f"{short}_Q_A_ROUGE"]["value_by_index"]
        for metric in ("rouge1_recall", "rougeL_recall", "rougeL_f1"):
            expected = [rows[str(row.index)][metric] for row in records.of(full)]
            assert getattr(texts, metric)(records.of(full)) == pytest.approx(expected, abs=1e-6)


@needs_logs
@pytest.mark.parametrize("name", LOGS)
def test_every_row_of_the_truth_ratio(name: str) -> None:
    from grun_bench.metrics import answers

    published = json.loads((OPEN_UNLEARNING / name).read_text())["forget_truth_ratio"]["value_by_index"]
    rows = read_log(OPEN_UNLEARNING / name, "open-unlearning").records.of("forget")
    found = [answers.truth_ratio_open_unlearning_raw(row, "forget") for row in rows]
    assert found == pytest.approx([published[str(row.index)]["score"] for row in rows], rel=1e-12)
    assert np.exp([answers.log_truth_ratio(row, "forget") for row in rows]) == pytest.approx(found, rel=1e-3)


@needs_logs
def test_numbers_of_the_readme() -> None:
    log = read_log(OPEN_UNLEARNING / LOGS[2], "open-unlearning")
    values = evaluate(log.records, retain_log(LOGS[2]).records, log.metrics, USUAL_SETS)
    assert values["forget_quality_open_unlearning"].value == pytest.approx(3.9055e-22, rel=1e-4)
    assert values["model_utility_open_unlearning"].value == pytest.approx(0.599153, abs=1e-6)
    assert values["forget_truth_ratio_open_unlearning"].value == pytest.approx(0.475564, abs=1e-6)
    assert values["forget_extraction_strength_open_unlearning"].value == pytest.approx(0.706268, abs=1e-6)
    assert values["forget_exact_memorisation"].value == pytest.approx(0.973936, abs=1e-6)


@needs_logs
def test_the_clean_definitions_work_on_an_imported_log_too() -> None:
    """What the log has no rows for is null with a reason; the rest is close to OpenUnlearning's, but not the same."""
    log = read_log(OPEN_UNLEARNING / LOGS[2], "open-unlearning")
    values = evaluate(
        log.records,
        retain_log(LOGS[2]).records,
        ["model_utility", "forget_quality", "truth_ratio", "extraction_strength"],
        USUAL_SETS,
    )
    assert values["model_utility"].value == pytest.approx(log.aggregates["model_utility_open_unlearning"], abs=1e-4)
    assert values["forget_quality"].value == pytest.approx(log.aggregates["forget_quality_open_unlearning"], rel=1e-9)
    assert values["forget_quality_D"].value == pytest.approx(0.35)
    assert values["forget_quality_n"].value == 400
    assert "matches" in values["forget_extraction_strength"].reason


@needs_logs
def test_where_a_log_comes_from() -> None:
    path = OPEN_UNLEARNING / LOGS[0]
    log = read_log(path, "open-unlearning")
    assert (log.tool, log.protocol) == ("OpenUnlearning", "open-unlearning")
    assert log.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert {name: len(log.records.of(name)) for name in (*SETS, "holdout")} == {
        "forget": 40,
        "retain": 400,
        "real_authors": 100,
        "world_facts": 117,
        "holdout": 40,
    }


@needs_logs
def test_a_retain_log_of_another_split_is_refused() -> None:
    target = read_log(OPEN_UNLEARNING / LOGS[2], "open-unlearning").records
    check_reference(target, retain_log(LOGS[2]).records, "log")
    cut = read_log(TOFU / "phi-1.5_retain90.json", "tofu").records
    check_reference(target, cut, "log")
    with pytest.raises(UsageError, match="none of its 300 forget rows is one of this task's 100"):
        check_reference(Records(target.of("forget")[300:]), cut, "log")
    for retain in ("retain95", "retain99"):
        wrong = read_log(OPEN_UNLEARNING / f"tofu_{MODELS[0]}_{retain}.json", "open-unlearning").records
        with pytest.raises(UsageError, match=r"row 0 answers .* there and 'The author's full name is Hsiao"):
            check_reference(target, wrong, "log.json")


# --- locuslab/tofu --------------------------------------------------------------------------------------------------

UTILITY = {"full": 0.522074, "retain90": 0.531991, "retain95": 0.524959}
QUALITY = {("full", "retain90"): (2.19427e-16, 0.34667), ("full", "retain95"): (6.86656e-13, 0.34167)}


@pytest.mark.long
@needs_logs
@pytest.mark.parametrize("name", UTILITY)
def test_tofu_aggregates(name: str) -> None:
    log = read_log(TOFU / f"phi-1.5_{name}.json", "tofu")
    values = evaluate(log.records, None, log.metrics, USUAL_SETS)
    assert values["model_utility"].value == pytest.approx(UTILITY[name], abs=5e-7)
    for key, expected in log.aggregates.items():
        assert values[key].value == pytest.approx(expected, abs=1e-6 if "rouge" in key else 1e-9, rel=0), key
    assert {key.split("_", 1)[0] for key in log.aggregates} == {"forget", "retain", "real", "world"}
    assert len(log.aggregates) == 4 * 3 + 2


@needs_logs
@pytest.mark.parametrize("name", UTILITY)
def test_tofu_rows(name: str) -> None:
    from grun_bench.metrics import answers, texts

    path = TOFU / f"phi-1.5_{name}.json"
    records, published = read_log(path, "tofu").records, json.loads(path.read_text())
    files = (
        "eval_log_forget.json",
        "eval_log.json",
        "eval_real_author_wo_options.json",
        "eval_real_world_wo_options.json",
    )
    for set_name, file in zip(SETS, files, strict=True):
        rows = records.of(set_name)
        assert [row.index for row in rows] == list(range(len(published[file]["generated_text"])))
        for metric in ("rouge1_recall", "rougeL_recall"):
            expected = [published[file][metric][str(row.index)] for row in rows]
            assert getattr(texts, metric)(rows) == pytest.approx(expected, abs=1e-9)
        # theirs is computed in float32 on the device
        found = [math.exp(answers.log_truth_ratio(row, USUAL[set_name][0])) for row in rows]
        assert found == pytest.approx([published[file]["truth_ratio"][str(row.index)] for row in rows], rel=1e-5)


@needs_logs
@pytest.mark.parametrize(("name", "retain"), QUALITY)
def test_tofu_forget_quality(name: str, retain: str) -> None:
    records, reference = (read_log(TOFU / f"phi-1.5_{model}.json", "tofu").records for model in (name, retain))
    values = evaluate(records, reference, ["forget_quality"], USUAL_SETS)
    p, distance = QUALITY[name, retain]
    assert values["forget_quality"].value == pytest.approx(p, rel=1e-5)
    assert values["forget_quality_D"].value == pytest.approx(distance, abs=5e-6)
    own = evaluate(reference, reference, ["forget_quality"], USUAL_SETS)
    assert own["forget_quality"].value == 1


@needs_logs
def test_tofu_tokens_and_sets() -> None:
    log = read_log(TOFU / "phi-1.5_full.json", "tofu")
    assert (log.tool, log.protocol) == ("locuslab/tofu", "tofu")
    assert {name: len(log.records.of(name)) for name in SETS} == {
        "forget": 300,
        "retain": 300,
        "real_authors": 100,
        "world_facts": 117,
    }
    assert log.records.of("forget")[0].answer.tokens == 17


# --- what is no log -------------------------------------------------------------------------------------------------


def small_log() -> dict[str, Any]:
    """An OpenUnlearning log of two rows a set, by hand: P(answer) 1/2 and 1/4."""
    answer = {"0": {"prob": 0.5, "avg_loss": math.log(2)}, "1": {"prob": 0.25, "avg_loss": math.log(4)}}
    wrong = {index: {"prob": [0.25, 0.125], "avg_loss": [math.log(4), math.log(8)]} for index in answer}
    text = {index: {"input": "who?", "ground_truth": "one two", "generation": "one"} for index in answer}
    log: dict[str, Any] = {}
    for short in ("forget", "retain", "ra", "wf"):
        log[f"{short}_Q_A_Prob"] = {"agg_value": 0.375, "value_by_index": answer}
        log[f"{short}_Q_A_PERT_Prob"] = {"agg_value": 0.1875, "value_by_index": wrong}
        log[f"{short}_Q_A_ROUGE"] = {"agg_value": 0.5, "value_by_index": text}
    log["mia_loss"] = {
        "forget": {"value_by_index": {"0": {"score": 1.0}, "1": {"score": 3.0}}},
        "holdout": {"value_by_index": {"0": {"score": 2.0}, "1": {"score": 4.0}}},
        "agg_value": 0.75,
    }
    log["extraction_strength"] = {"agg_value": 0.5, "value_by_index": {"0": {"score": 0.25}, "1": {"score": 0.75}}}
    return json.loads(json.dumps(log))  # parts apart from each other, so that a test can break one alone


def write(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "log.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_small_log_by_hand(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, small_log()), "open-unlearning")
    values = evaluate(log.records, None, log.metrics, USUAL_SETS)
    assert {key: values[key].value for key in log.aggregates} == pytest.approx(log.aggregates)
    assert log.aggregates["mia_loss"] == 0.75
    assert log.aggregates["forget_extraction_strength_open_unlearning"] == 0.5
    first = log.records.of("forget")[0]
    assert (first.question, first.answer.text, first.generation.text) == ("who?", "one two", "one")


def test_a_row_without_tokens_has_no_score_and_is_left_out_as_the_tool_does(tmp_path: Path) -> None:
    content = small_log()
    content["extraction_strength"]["value_by_index"]["1"]["score"] = None
    log = read_log(write(tmp_path, content), "open-unlearning")
    value = evaluate(log.records, None, log.metrics, USUAL_SETS)["forget_extraction_strength_open_unlearning"]
    assert (value.value, value.n) == (0.25, 1)
    assert value.reason == "1 of 2 rows left out, first row 1 of 'forget': the answer has no token before its end."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda log: log.pop("wf_Q_A_Prob"), "wf_Q_A_Prob: missing"),
        (lambda log: log["ra_Q_A_Prob"].pop("value_by_index"), "ra_Q_A_Prob/value_by_index: missing"),
        (lambda log: log["ra_Q_A_Prob"].update(value_by_index=[]), "ra_Q_A_Prob/value_by_index: no rows"),
        (lambda log: log["ra_Q_A_Prob"]["value_by_index"].update(x={}), "a row whose key is not a number"),
        (lambda log: log["ra_Q_A_Prob"].pop("agg_value"), "ra_Q_A_Prob/agg_value: missing"),
        (
            lambda log: log["retain_Q_A_Prob"]["value_by_index"]["1"].pop("avg_loss"),
            "retain_Q_A_Prob row 1: 'avg_loss'",
        ),
        (lambda log: log["retain_Q_A_Prob"]["value_by_index"]["1"].update(prob="x"), "row 1: 'x' is not a number"),
        (lambda log: log["retain_Q_A_PERT_Prob"]["value_by_index"]["0"].update(prob=[0.5]), "2 losses but 1 prob"),
        (lambda log: log["retain_Q_A_PERT_Prob"]["value_by_index"]["0"].update(prob=[]), "not a list of numbers"),
        (lambda log: log["forget_Q_A_ROUGE"]["value_by_index"].pop("1"), "its rows are not those of forget_Q_A_Prob"),
        (
            lambda log: log["forget_Q_A_ROUGE"]["value_by_index"]["1"].pop("generation"),
            "row 1: 'generation' is missing",
        ),
        (lambda log: log["forget_Q_A_ROUGE"]["value_by_index"]["1"].update(generation=3), "row 1: '3' is not a text"),
        (lambda log: log["extraction_strength"]["value_by_index"].pop("1"), "its rows are not those of the answers"),
        (lambda log: log["mia_loss"].pop("holdout"), "mia_loss/holdout: missing"),
    ],
)
def test_a_broken_log_names_file_and_place(tmp_path: Path, change, message: str) -> None:
    content = small_log()
    change(content)
    path = write(tmp_path, content)
    with pytest.raises(UsageError) as error:
        read_log(path, "open-unlearning")
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "format", "message"),
    [
        ("{", "tofu", "not JSON"),
        ("[]", "tofu", "it holds a list, not an object"),
        ({"a": 1}, "tofu", "not a log of the format 'tofu': no 'eval_log.json'."),
        ({"a": 1}, "open-unlearning", "no 'forget_Q_A_Prob'."),
        ({"eval_log.json": {}}, "open-unlearning", "it looks like --format tofu"),
        ({"eval_log.json": {}}, "tofu", "eval_log_forget.json: missing"),
        ({"forget_Q_A_Prob": {}}, "tofu", "it looks like --format open-unlearning"),
    ],
)
def test_not_a_log(tmp_path: Path, content: Any, format: str, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(UsageError) as error:
        read_log(path, format)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_no_file_and_no_format(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_log(tmp_path / "none.json", "tofu")
    with pytest.raises(UsageError, match="did you mean open-unlearning"):
        read_log(tmp_path / "none.json", "openunlearning")


def tofu_small() -> dict[str, Any]:
    """An official log of one row a set."""
    file = {
        "avg_gt_loss": {"0": 0.5},
        "num_token_gt": {"0": 4},
        "generated_text": {"0": ["Question: who?\n", "one", "one two"]},
        "rouge1_recall": {"0": 0.5},
        "rougeL_recall": {"0": 0.5},
        "average_perturb_loss": {"0": [1.0, 2.0]},
        "avg_paraphrased_loss": {"0": 0.75},
        "num_token_paraphrased": {"0": 5},
    }
    names = (
        "eval_log.json",
        "eval_log_forget.json",
        "eval_real_author_wo_options.json",
        "eval_real_world_wo_options.json",
    )
    return {name: copy.deepcopy(file) for name in names}


def test_a_small_tofu_log_by_hand(tmp_path: Path) -> None:
    log = read_log(write(tmp_path, tofu_small()), "tofu")
    values = evaluate(log.records, None, log.metrics, USUAL_SETS)
    assert values["forget_probability"].value == pytest.approx(math.exp(-0.5))
    assert values["forget_truth_ratio"].value == pytest.approx(math.exp(-0.75))
    assert values["world_facts_truth_ratio"].value == pytest.approx(1 - math.exp(-0.75))
    assert values["forget_rougeL_recall"].value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.pop("avg_gt_loss"), "eval_log.json/avg_gt_loss: missing"),
        (lambda file: file.update(avg_gt_loss={"1": 0.5}), "eval_log.json/avg_gt_loss: row 0 is missing"),
        (lambda file: file.update(avg_gt_loss={"0": None}), "row 0: 'None' is not a number"),
        (lambda file: file.update(generated_text={"0": ["one"]}), "not a list of question, generated text and answer"),
        (lambda file: file.update(average_perturb_loss={"0": 1.0}), "row 0: not a list of numbers"),
    ],
)
def test_a_broken_tofu_log(tmp_path: Path, change, message: str) -> None:
    content = tofu_small()
    change(content["eval_log.json"])
    with pytest.raises(UsageError, match=re.escape(message)):
        read_log(write(tmp_path, content), "tofu")


def test_retain_rows_are_compared_by_letters() -> None:
    def records(text: str) -> Records:
        return Records([Record("forget", 3, "", Continuation(text))])

    check_reference(records("It's  Hsiao, yes."), records("it 's Hsiao , yes ."), "log")
    check_reference(records("anything"), records(""), "log")
    with pytest.raises(UsageError, match=r"log\.json: .*row 3 answers 'No' there and 'Yes' here"):
        check_reference(records("Yes"), records("No"), "log.json")
