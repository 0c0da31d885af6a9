"""Protocols, retain logs and imported logs from the command line to the leaderboard."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from scipy.stats import ks_2samp
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from grun_bench import cli
from grun_bench.results.record import load_records
from grun_bench.results.result import Result
from grun_bench.results.store import read_result, result_files

SHARED = Path(os.environ.get("GRUN_BENCH_SHARED", Path(__file__).parents[3] / "shared"))
LOGS = SHARED / "reference" / "openunlearning_logs"
TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)
WORDS = (
    "who where when is was born Ada Bo Cy Di in Oslo Rome Lima Nice system user assistant You are a helpful assistant."
)
SETS = {"forget": 4, "retain": 3, "real_authors": 2, "world_facts": 2}
SHORT = {"forget": "forget", "retain": "retain", "real_authors": "ra", "world_facts": "wf"}

Command = Callable[..., tuple[int, str, str]]


def rows_of(name: str) -> list[dict[str, Any]]:
    people, places = ("Ada", "Bo", "Cy", "Di"), ("Oslo", "Rome", "Lima", "Nice")
    return [
        {
            "question": f"where was {people[n]} born",
            "paraphrased_question": f"where is {people[n]}",
            "answer": f"in {places[(n + list(SETS).index(name)) % 4]}",
            "paraphrased_answer": f"{people[n]} in {places[(n + list(SETS).index(name)) % 4]}",
            "perturbed_answer": [f"in {place}" for place in places],
        }
        for n in range(SETS[name])
    ]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate(["<unk>", "<s>", "</s>", *dict.fromkeys(WORDS.split())])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A random chat model `org/chat`, one without a template `org/plain`, and a task `toy.yaml` on files."""
    root = tmp_path_factory.mktemp("toy")
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    for name, template in (("chat", TEMPLATE), ("plain", None)):
        model.save_pretrained(root / "org" / name)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(root / "org" / name)
    tokenizer.chat_template = TEMPLATE
    for name in SETS:
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows_of(name)))
    task = {
        "version": 1,
        "description": "toy",
        "forget": [str(root / "forget.jsonl")],
        "retain": [str(root / "retain.jsonl")],
        "score": {name: str(root / f"{name}.jsonl") for name in SETS},
        "metrics": ["forget_quality", "model_utility", "probability", "rougeL_recall", "truth_ratio"],
        "headline": ["forget_quality", "model_utility", "forget_probability"],
        "finetune": {"lr": 1e-3, "epochs": 1, "batch_size": 2},
        "max_new_tokens": 6,
    }
    (root / "toy.yaml").write_text(yaml.safe_dump(task))
    return root


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Command:
    """The program in this process: exit code, stdout, stderr; its lines are wide enough not to be broken."""
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["grun-bench", *map(str, arguments)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return (done.value.code, *capsys.readouterr())

    return run


def run_none(command: Command, folder: Path, *options: object, model: str = "chat") -> tuple[int, str, str]:
    target = folder / "org" / model
    return command(
        "run", "--unlearner", "none", "--task", folder / "toy.yaml", "--target", target, "--output", "out", *options
    )


def log_of(rows: Callable[[str], list[dict[str, Any]]] = rows_of, shift: float = 0.0) -> dict[str, Any]:
    """A log in OpenUnlearning's format; its losses are made up."""
    log: dict[str, Any] = {}

    def losses(count: int, base: float) -> dict[str, Any]:
        values = {str(n): base + shift + n / 7 for n in range(count)}
        return {index: {"avg_loss": loss, "prob": math.exp(-loss)} for index, loss in values.items()}

    for name, short in SHORT.items():
        table = rows(name)
        log[f"{short}_Q_A_Prob"] = {"agg_value": 0.5, "value_by_index": losses(len(table), 1.0)}
        if name in ("forget", "retain"):
            log[f"{short}_Q_A_PARA_Prob"] = {"agg_value": 0.5, "value_by_index": losses(len(table), 1.1)}
        wrong = {
            index: {key: [value] * 2 for key, value in row.items()} for index, row in losses(len(table), 1.4).items()
        }
        log[f"{short}_Q_A_PERT_Prob"] = {"agg_value": 0.5, "value_by_index": wrong}
        texts = {
            str(n): {"input": row["question"], "ground_truth": row["answer"], "generation": row["answer"]}
            for n, row in enumerate(table)
        }
        log[f"{short}_Q_A_ROUGE"] = {"agg_value": 1.0, "value_by_index": texts}
    return log


def only_page() -> str:
    """The leaderboard's one page of one task and model."""
    (path,) = Path("pages/pages").glob("*/*.md")
    return path.read_text()


def saved() -> list[Result]:
    return [read_result(path) for path in result_files(Path("out"))]


# --- a missing reference ----------------------------------------------------------------------------------------------


def test_a_missing_reference_is_null_with_the_reason_and_the_way_out(command: Command, folder: Path) -> None:
    code, out, _ = run_none(command, folder)
    assert code == 0
    assert re.search(r"│ forget quality ↑ +│ +- │", out)
    note = next(line for line in out.splitlines() if line.startswith("forget_quality: none, "))
    assert "no retain model is known" in note
    assert "--retain" in note and "--retain-log" in note
    (result,) = saved()
    assert result.value("forget_quality") is None
    assert "--retain-log" in result.reasons["forget_quality,none"]
    assert result.value("model_utility") is not None and "model_utility,none" not in result.reasons
    assert command("leaderboard", "--results", "out", "--out", "pages")[0] == 0
    page = only_page()
    assert re.search(r"\| \*\*target model\*\* .*\| -<sup>1</sup> \|", page)
    assert re.search(r"^1\. .*--retain-log", page, flags=re.MULTILINE)


# --- protocols --------------------------------------------------------------------------------------------------------


@pytest.mark.whole
def test_rows_of_two_protocols_never_meet_in_one_table(command: Command, folder: Path) -> None:
    assert run_none(command, folder)[0] == 0
    assert run_none(command, folder, "--protocol", "open-unlearning")[0] == 0
    ours, theirs = sorted(saved(), key=lambda result: result.protocol)
    assert (ours.protocol, theirs.protocol) == ("grun-bench", "open-unlearning")
    assert ours.run_id != theirs.run_id
    assert theirs.headline == ["forget_quality_open_unlearning", "model_utility_open_unlearning", "forget_probability"]
    # the template's tail is scored and the ends of turn are hidden: other numbers for the same model and rows
    assert abs(ours.value("forget_probability") - theirs.value("forget_probability")) > 1e-4
    command("leaderboard", "--results", "out", "--out", "pages")
    tables = only_page().split("## Data: ")[1:]
    assert len(tables) == 2
    for table, protocol in zip(tables, ("grun-bench", "open-unlearning"), strict=True):
        assert f"protocol: {protocol};" in table
        headline = table.split("### ")[0]
        assert headline.count("**target model**") == 1


def test_an_unknown_protocol_names_the_near_one(command: Command, folder: Path) -> None:
    code, _, err = run_none(command, folder, "--protocol", "open_unlearning")
    assert code == 2
    assert "open-unlearning" in err
    assert not list(result_files(Path("out")))


# --- retain logs ------------------------------------------------------------------------------------------------------


def test_a_retain_log_is_the_reference_of_forget_quality(command: Command, folder: Path) -> None:
    content = log_of()
    Path("log.json").write_text(json.dumps(content))
    code, out, err = run_none(command, folder, "--protocol", "open-unlearning", "--retain-log", "log.json")
    assert code == 0, err
    assert "retain model" in out, "the log's numbers stand beside the run's"
    (result,) = saved()
    (records,) = Path("out").rglob("*.records.jsonl.bz2")
    assert result.reference["retain_log"]

    def ratio(paraphrased: float, wrong: list[float]) -> float:
        return math.exp(-sum(wrong) / len(wrong)) / (math.exp(-paraphrased) + 1e-10)

    ours = [
        ratio(row.paraphrased.loss, [each.loss for each in row.perturbed]) for row in load_records(records).of("forget")
    ]
    theirs = [
        ratio(
            content["forget_Q_A_PARA_Prob"]["value_by_index"][index]["avg_loss"],
            content["forget_Q_A_PERT_Prob"]["value_by_index"][index]["avg_loss"],
        )
        for index in "0123"
    ]
    expected = ks_2samp(ours, theirs)
    assert result.value("forget_quality_open_unlearning") == pytest.approx(expected.pvalue, abs=1e-12)
    assert result.value("forget_quality_D_open_unlearning") == pytest.approx(expected.statistic, abs=1e-12)


@pytest.mark.long
def test_a_retain_log_of_the_other_protocol_is_refused(command: Command, folder: Path) -> None:
    Path("log.json").write_text(json.dumps(log_of()))
    code, _, err = run_none(command, folder, "--retain-log", "log.json")
    assert code == 2
    assert "protocol open-unlearning, this run under grun-bench" in err
    assert "--protocol open-unlearning" in err
    tofu = {"eval_log.json": {}}
    Path("tofu.json").write_text(json.dumps(tofu))
    assert run_none(command, folder, "--retain-log", "tofu.json")[0] == 2
    assert not list(result_files(Path("out")))


def test_a_retain_log_of_other_rows_is_refused(command: Command, folder: Path) -> None:
    def other(name: str) -> list[dict[str, Any]]:
        return [row | {"answer": "in Nice or not"} for row in rows_of(name)]

    Path("log.json").write_text(json.dumps(log_of(other)))
    code, _, err = run_none(command, folder, "--protocol", "open-unlearning", "--retain-log", "log.json")
    assert code == 2
    assert "row 0 answers 'in Nice or not' there" in err
    assert not list(result_files(Path("out")))


@pytest.mark.parametrize(("content", "message"), [("{", "log.json"), ("[]", "not a log"), ('{"a": 1}', "not a log")])
def test_what_is_no_log_is_refused(command: Command, folder: Path, content: str, message: str) -> None:
    Path("log.json").write_text(content)
    code, _, err = run_none(command, folder, "--protocol", "open-unlearning", "--retain-log", "log.json")
    assert code == 2
    assert message in err
    assert "Traceback" not in err


# --- importing --------------------------------------------------------------------------------------------------------


def import_log(command: Command, log: Path, unlearner: str, model: str, *options: object) -> tuple[int, str, str]:
    given = ("--format", "open-unlearning", "--task", "tofu_forget10", "--model", model, "--unlearner", unlearner)
    return command("import", log, *given, "--output", "out", *options)


@pytest.mark.long
@pytest.mark.skipif(not LOGS.is_dir(), reason=f"no published logs at {LOGS} (set GRUN_BENCH_SHARED)")
def test_published_target_and_retain_rows_share_a_table(command: Command) -> None:
    """Both models' tables hold the numbers that their logs state."""
    names = ("Llama-3.2-1B-Instruct", "Llama-3.1-8B-Instruct")
    for name in names:
        full, retain = LOGS / f"tofu_{name}_full_evals_forget10.json", LOGS / f"tofu_{name}_retain90.json"
        model = f"open-unlearning/tofu_{name}_full"
        assert import_log(command, full, "none", model, "--retain-log", retain)[0] == 0
        assert import_log(command, retain, "retain", model)[0] == 0
    assert command("leaderboard", "--results", "out", "--out", "pages")[0] == 0
    assert len(list(Path("pages/pages").glob("*/*.md"))) == 2
    for name in names:
        page = Path(f"pages/pages/tofu_forget10/open-unlearning__tofu_{name}_full.md").read_text()
        table = page.split("### ")[0]
        assert "protocol: open-unlearning;" in table
        lines = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"
        ]
        *rows, least = [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]
        assert [row["unlearner"] for row in rows] == ["**target model**", "**retain model**"]
        assert least["unlearner"] == "<sub>least difference seen</sub>"
        runs = page.split("### Runs and cost")[1].split("### ")[0]
        assert runs.count("| imported (OpenUnlearning) |") == len(rows)
        shown = {
            "model utility ↑": "model_utility",
            "forget extraction strength ↓": "extraction_strength",
            "forget probability ↓": "forget_Q_A_Prob",
        }
        for row, log in zip(rows, (f"{name}_full_evals_forget10", f"{name}_retain90"), strict=True):
            stated = json.loads((LOGS / f"tofu_{log}.json").read_text())
            for column, key in shown.items():
                assert row[column].split(" <sub>")[0] == f"{stated[key]['agg_value']:.3f}", key
        quality = json.loads((LOGS / f"tofu_{name}_full_evals_forget10.json").read_text())["forget_quality"][
            "agg_value"
        ]
        assert [row["forget quality ↑"] for row in rows] == [f"{quality:.1e}", "1.000"]


def test_an_imported_row_says_where_it_is_from(command: Command, folder: Path) -> None:
    Path("log.json").write_text(json.dumps(log_of()))
    code, out, _ = import_log(command, Path("log.json"), "none", "org/model")
    assert code == 0
    (result,) = saved()
    assert result.imported is not None and result.imported.tool == "OpenUnlearning"
    assert "log.json of OpenUnlearning" in out and result.imported.sha256[:12] in out
    assert result.value("forget_probability") == pytest.approx(
        sum(math.exp(-1 - n / 7) for n in range(4)) / 4, rel=1e-12
    )


def test_a_log_is_held_against_the_rows_of_its_task(command: Command) -> None:
    """A log of a few rows is of any task that has so many."""
    Path("log.json").write_text(json.dumps(log_of()))
    code, _, err = import_log(command, Path("log.json"), "none", "org/model")
    assert code == 0
    for name, count in (("forget", 400), ("retain", 400), ("real_authors", 100), ("world_facts", 117)):
        there = len(rows_of(name))
        assert f"log.json: its set '{name}' has {there} rows, and tofu_forget10's has {count}: if it is of" in err
    # the last row of forget01's 40 has the number 39
    for last, code in ((39, 0), (40, 2)):
        data = log_of()
        for part in data.values():
            if isinstance(part.get("value_by_index"), dict) and "3" in part["value_by_index"]:
                part["value_by_index"][str(last)] = part["value_by_index"].pop("3")
        Path("other.json").write_text(json.dumps(data))
        asked = [
            "--format",
            "open-unlearning",
            "--task",
            "tofu_forget01",
            "--model",
            "org/model",
            "--unlearner",
            "none",
        ]
        found, _, err = command("import", Path("other.json"), *asked, "--output", "others")
        assert found == code, err
        assert ("is no log of tofu_forget01: its set 'forget' has a row 40" in err) == (code == 2)


def test_an_import_with_a_retain_log_of_other_rows_is_refused(command: Command) -> None:
    def other(name: str) -> list[dict[str, Any]]:
        return [row | {"answer": "in Nice or not"} for row in rows_of(name)]

    Path("log.json").write_text(json.dumps(log_of()))
    Path("retain.json").write_text(json.dumps(log_of(other)))
    code, _, err = import_log(command, Path("log.json"), "none", "org/model", "--retain-log", "retain.json")
    assert code == 2
    assert "row 0 answers" in err
    assert not Path("out").exists() or not saved()
