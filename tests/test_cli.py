"""The command line: what bad input says, exit codes, JSON, listings, reuse, and rows that diverged."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CONFIGS, SMALL, TASK, Said

from grun_bench.models.lm import LM
from grun_bench.results.result import Result
from grun_bench.results.store import read_result, result_files
from grun_bench.tasks import toy_world as world

Command = Callable[..., Said]


def unlearner(name: str, task: str = "tofu_forget10") -> list[str]:
    return ["run", "--unlearner", name, "--task", task]


RUN = unlearner("grun+npo")


def refused(said: Said, *parts: str) -> None:
    """A usage error of one line that holds all the parts, and nothing else."""
    assert said.code == 2, said.err
    assert said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    for part in parts:
        assert part in said.err


# --- bad names and options --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (unlearner("nppo"), ["unlearner 'nppo'", "npo", "grun-bench ls"]),
        (unlearner("grn+npo"), ["adapter 'grn'", "did you mean grun", "'grn+npo'"]),
        (unlearner("grun+mpo"), ["objective 'mpo'", "npo"]),
        (unlearner("NPO"), ["did you mean npo?", "--include-path FILE"]),
        (unlearner("LoRA+npo"), ["did you mean lora?"]),
        (unlearner("npo+lora"), ["did you mean lora+npo?"]),
        (unlearner("lora+bnpo"), ["'bnpo' in the unlearner 'lora+bnpo': did you mean npo, simnpo or dpo? `grun-"]),
        (unlearner("npo,dpo"), ["`grun-bench sweep --unlearner npo,dpo` takes several"]),
        (["sweep", *unlearner("npo,dppo")[1:]], ["unknown unlearner 'dppo'"]),
        (["sweep", "swep.yaml"], ["swep.yaml: no such file; near it is sweep.yaml."]),
        (["sweep", *RUN[1:], "dpo"], ["--unlearner dpo"]),
        ([*RUN, "--attacks", "prefil"], ["attack 'prefil'", "--include-path FILE"]),
        (["test", "mine.py"], ["is a file", "--include-path mine.py", "It has margin."]),
        (unlearner("mine.py"), ["--include-path mine.py"]),
        (["cite", "nppo"], ["did you mean npo", "--include-path FILE"]),
        ([*RUN, "--lr", "1e-3"], ["no such option --lr; did you mean --set lr=1e-3? `grun-bench run --help`"]),
        ([*RUN, "--beta=0.2"], ["did you mean --set beta=0.2?"]),
        ([*RUN, "--learning-rate", "1"], ["did you mean --set lr=1?"]),
        ([*RUN, "--xyzzy", "1"], ["no such option --xyzzy", "--set NAME=VALUE"]),
        (["run", "npo", *RUN[3:]], ["npo: no option is before it. Did you mean --unlearner npo?"]),
        ([*RUN, "--attacks", "prefill", "suffix"], ["Did you mean --attacks prefill,suffix?"]),
        ([*RUN, "--set", "beta", "0.2"], ["Did you mean --set beta=0.2?"]),
        ([*RUN, "--seed", "0,1"], ["whole number; `grun-bench sweep --seeds` takes several"]),
        (["leaderboard", "--output", "x"], ["`grun-bench leaderboard` takes --results"]),
        ([*RUN, "--model", "tiny", "--forget", "x.jsonl"], ["tiny, the toy model, lives", "customers.py"]),
        (unlearner("qqqq"), ["choose from", "grun+npo", "full+gd", "retain"]),
        (unlearner("npo", "tofu_forgt10"), ["task 'tofu_forgt10'", "did you mean tofu_forget10"]),
        ([*RUN, "--modle", "x"], ["--modle", "--model", "--help"]),
        ([*RUN[:3]], ["--task", "--help"]),
        ([*RUN, "--seed", "99999999999999999999"], ["--seed", "4294967295"]),
        (["sweep", *RUN[1:], "--seeds", "0,\N{SUPERSCRIPT TWO}"], ["--seeds", "whole numbers"]),
        (["sweep", *RUN[1:], "--seeds", "99999999999"], ["--seeds", "up to 4294967295"]),
        (["sweep", *RUN[1:], "--seeds", " "], ["--seeds", "whole numbers"]),
        *(
            (arguments, [f"{option} {text}: nothing stands beside one of its commas"])
            for text in ("0.5,,1", ",0.5", "0.5,")
            for option, arguments in (
                ("--strengths", [*RUN, "--strengths", text]),
                ("--columns", [*RUN, "--forget", "x.jsonl", "--columns", text]),
                ("--track", [*RUN, "--track", text]),
                ("--seeds", ["sweep", *RUN[1:], "--seeds", text]),
                ("--seeds", ["meta-eval", "--seeds", text]),
                ("--trained", ["meta-eval", "--trained", text]),
                ("attacks", [*RUN, "--attacks", text]),
            )
        ),
        (["rnu"], ["'rnu'", "'run'"]),
        (["ls", "adaptors"], ["'adaptors'", "did you mean adapters"]),
        ([*RUN, "--set", "epoch=3"], ["setting of grun+npo 'epoch'", "did you mean epochs"]),
        ([*RUN, "--set", "epochs=many"], ["--set epochs=many", "expected int"]),
        ([*RUN, "--set", "epochs"], ["--set epochs", "key=value"]),
        ([*RUN, "--set", "layers=[1"], ["--set layers=[1"]),
        ([*RUN, "--dtype", "float8"], ["--dtype 'float8'", "did you mean float"]),
        ([*RUN, "--device", "gpu"], ["--device gpu: write auto, cpu, cuda (cuda:1 is the second GPU) or mps.\n"]),
        ([*RUN, "--device", "cuda:one"], ["--device cuda:one: write auto, cpu, cuda"]),
        ([*RUN, "--protocol", "open-unlerning"], ["protocol 'open-unlerning'", "did you mean open-unlearning"]),
        ([*RUN, "--batch-size", "0"], ["--batch-size 0", "auto"]),
        ([*RUN, "--limit", "0"], ["--limit", "1"]),
        ([*RUN, "--seed", "one"], ["--seed one: must be a whole number"]),
        ([*RUN, "--include-path", "/no/such/file.py"], ["--include-path /no/such/file.py"]),
        ([*RUN, "--retain", SMALL], [f"--retain-model {SMALL}", "--model"]),
        ([*RUN, "--model", "nowhere"], ["model nowhere", "tiny"]),
        (["show", "0123"], ["run '0123'", "grun-bench ls runs"]),
        (["leaderboard"], ["no results in", "grun-bench run"]),
        (["leaderboard", "--table", "cost"], ["--format is missing"]),
    ],
)  # fmt: skip
def test_bad_names_are_refused_in_one_line(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str], hub: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").touch()
    (tmp_path / "mine.py").write_text('@objective("margin", retain="ce")\ndef margin(batch): ...\n')
    if "nowhere" in arguments:  # the data are looked at first; these are there
        arguments = [str(hub / "small.yaml") if item == "tofu_forget10" else item for item in arguments]
    refused(command(*arguments), *parts)
    assert not list(result_files(tmp_path / "leaderboards" / "results"))


@pytest.mark.parametrize("value", ["1" + 400 * "0", 5000 * "1"])
def test_a_long_value_is_not_said_whole(command: Command, value: str) -> None:
    for option in (["--set", f"lr={value}"], ["--seed", value]):
        said = command(*RUN, *option)
        assert said.code == 2 and f"{12 * '0'}…" in said.err.replace("1", "0") and len(said.err) < 400


def test_the_program_itself_prints_no_traceback(environment: Path, tmp_path: Path) -> None:
    """The same through a real process, as a shell sees it."""
    arguments = ["run", "--unlearner", "grun+mpo", "--task", "tofu_forget10"]
    done = subprocess.run(
        [sys.executable, "-m", "grun_bench", *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    refused(Said(done.returncode, done.stdout, done.stderr), "did you mean", "npo")


def test_a_bug_keeps_its_traceback(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only expected errors are one line: anything else must not be hidden."""
    from grun_bench.tasks import yaml_files

    monkeypatch.setattr(yaml_files, "task_files", lambda include=(): 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("ls", "tasks")


# --- bad models, data, tasks and folders ------------------------------------------------------------------------------


@pytest.fixture
def task_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes the small task with its data as JSON Lines files; `edit` changes the rows of `forget01_perturbed`."""

    def write(edit: Callable[[list[dict[str, Any]]], Any] = list, **changes: Any) -> Path:
        files = {}
        for config, count in CONFIGS.items():
            rows = [dict(row) for row in world.rows(config)[:count]]
            if config == "forget01_perturbed":
                edit(rows)
            files[config] = tmp_path / f"{config}.jsonl"
            files[config].write_text("".join(json.dumps(row) + "\n" for row in rows))

        def local(source: str) -> str:
            return str(files[source.partition(":")[2]])

        task = TASK | {name: [local(source) for source in TASK[name]] for name in ("forget", "retain")}
        task["score"] = {name: local(source) for name, source in TASK["score"].items()}
        path = tmp_path / "local.yaml"
        path.write_text(yaml.safe_dump(task | changes))
        return path

    return write


def test_model_folder_without_weights(command: Command, hub: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(hub / SMALL, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    out = tmp_path / "results"
    said = command("run", "--unlearner", "none", "--task", hub / "small.yaml", "--target", bare, "--output", out)
    refused(said, str(bare), "no weights", "*.safetensors")
    assert not list(result_files(out))


def _drop(column: str, row: int) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda rows: rows[row].pop(column)


def _put(column: str, row: int, value: Any) -> Callable[[list[dict[str, Any]]], Any]:
    return lambda rows: rows[row].update({column: value})


@pytest.mark.parametrize(
    ("edit", "row", "column"),
    [
        (_drop("answer", 2), 2, "answer"),
        (_drop("perturbed_answer", 0), 0, "perturbed_answer"),
        (_drop("paraphrased_question", 3), 3, "paraphrased_question"),
        (_put("answer", 1, ""), 1, "answer"),
        (_put("answer", 1, "  \n"), 1, "answer"),
        (_put("question", 3, None), 3, "question"),
        (_put("answer", 2, 7), 2, "answer"),
        (_put("perturbed_answer", 1, ["one", ""]), 1, "perturbed_answer"),
        (_put("perturbed_answer", 1, []), 1, "perturbed_answer"),
        (_put("perturbed_answer", 1, 7), 1, "perturbed_answer"),
    ],
)
def test_bad_row_names_file_row_and_column(
    command: Command, task_file: Callable[..., Path], tmp_path: Path, edit: Any, row: int, column: str
) -> None:
    task = task_file(edit)
    said = command("run", "--unlearner", "ga", "--task", task, "--model", SMALL, "--output", tmp_path / "results")
    refused(said, str(tmp_path / "forget01_perturbed.jsonl"), f"row {row}", f"column '{column}'")


@pytest.mark.parametrize("text", ['{"question": "who?"', "3", "\xff\xfe"])
def test_data_file_that_is_no_json_lines(
    command: Command, task_file: Callable[..., Path], tmp_path: Path, text: str
) -> None:
    task, file = task_file(), tmp_path / "retain99.jsonl"
    file.write_bytes(file.read_bytes() + text.encode("latin-1"))
    said = command("run", "--unlearner", "ga", "--task", task, "--model", SMALL, "--output", tmp_path / "results")
    refused(said, str(file), f"line {CONFIGS['retain99'] + 1}")


def test_rows_may_hold_any_line_end_of_unicode(task_file: Callable[..., Path], tmp_path: Path) -> None:
    from grun_bench.tasks.dataset import Source
    from grun_bench.tasks.world import PUBLISHED

    path = tmp_path / "odd.jsonl"
    path.write_text(
        json.dumps({"question": "a\u2028b\x85c", "answer": "d"}, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    assert PUBLISHED.rows(Source(str(path)), ("question", "answer")).rows[0]["question"] == "a\u2028b\x85c"


CARD = "---\nconfigs:\n- config_name: forget01\n  data_files: forget01.json\n---\n"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "data files"),
        ({"README.md": CARD}, "forget01.json"),
        ({"README.md": "---\nconfigs: [}\n---\n"}, "forget01"),
        ({"README.md": CARD, "forget01.json": '{"question":'}, "JSON"),
        ({"README.md": CARD, "forget01.json": "3"}, "locuslab/TOFU"),
    ],
)
def test_broken_mirror_is_an_error_with_its_folder(
    command: Command,
    hub: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    said: str,
) -> None:
    broken = tmp_path / "locuslab" / "TOFU"
    broken.mkdir(parents=True)
    for name, text in files.items():
        (broken / name).write_text(text)
    monkeypatch.setenv("GRUN_BENCH_HUB", str(tmp_path))
    found = command(
        "run", "--unlearner", "ga", "--task", hub / "small.yaml", "--model", hub / SMALL, "--output", tmp_path
    )
    assert found.code == 2 and "Traceback" not in found.err
    assert found.err.splitlines()[-1].startswith("error: ") and str(broken) in found.err and said in found.err


def test_missing_data_names_every_place(
    command: Command, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = [tmp_path / "one", tmp_path / "two"]
    monkeypatch.setenv("GRUN_BENCH_HUB", os.pathsep.join(map(str, mirrors)))
    task = tmp_path / "elsewhere.yaml"
    task.write_text(yaml.safe_dump(TASK | {"forget": ["no-such-org/no-such-set:all"]}))
    said = command("run", "--unlearner", "ga", "--task", task, "--model", hub / SMALL, "--output", tmp_path / "results")
    assert said.code == 2 and "Traceback" not in said.err
    for place in (*(str(mirror / "no-such-org" / "no-such-set") for mirror in mirrors), "Hub", "GRUN_BENCH_HUB="):
        assert place in said.err


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"forgett": ["x/y"]}, ["'forgett'", "did you mean forget"]),
        ({"finetune": {"lr": 1e-3, "epochs": 1, "batch_size": 4, "epoch": 2}}, ["finetune.epoch"]),
        ({"score": {"forgot": "x/y"}}, ["score.forgot", "forgot: {source: x/y, role: forget}", "real_authors"]),
        ({"score": {"a": {"source": "x/y", "role": "forgot"}}}, ["score.a", "role", "'holdout'"]),
        ({"score": {"a": {"source": "x/y", "role": "retain", "columns": {"reply": "b"}}}}, ["columns.reply"]),
        ({"score": {"a,b": {"source": "x/y", "role": "retain"}}}, ["'a,b' cannot name a set"]),
        ({"measures": {"forget": {"role": "utility"}}}, ["'forget' cannot name a set"]),
        ({"forget": ["x/y[3]"]}, ["x/y[3]"]),
        ({"metrics": ["probabilty"]}, ["'probabilty'", "did you mean probability"]),
    ],
)
def test_bad_task_file(
    command: Command, task_file: Callable[..., Path], tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    task = task_file(**changes)
    said = command("run", "--unlearner", "ga", "--task", task, "--model", SMALL, "--output", tmp_path / "results")
    refused(said, *parts)
    assert str(task) in said.err or "metrics" in changes


def test_unwritable_output_is_found_before_anything_is_loaded(
    command: Command, small_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked, cache = tmp_path / "file", tmp_path / "cache"
    blocked.write_text("in the way")
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(cache))
    refused(command(*small_run, "--unlearner", "ga", "--output", blocked / "results"), str(blocked), "--output")
    assert not cache.exists() and blocked.read_text() == "in the way"


def test_unwritable_cache_says_what_to_set(
    command: Command, small_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / "file" / "cache"))
    said = command(*small_run, "--unlearner", "ga", "--output", tmp_path / "results")
    refused(said, "GRUN_BENCH_CACHE", str(tmp_path / "file" / "cache"))


@pytest.mark.whole
def test_page_that_cannot_be_saved_is_a_failure(command: Command, results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = command("leaderboard", "--results", results, "--out", tmp_path / "file" / "pages")
    assert said.code == 1 and said.err.startswith("error: ") and said.err.count("\n") == 1
    assert "could not be saved" in said.err


# --- what a run leaves and says ---------------------------------------------------------------------------------------


def stored(folder: Path) -> dict[str, Result]:
    return {result.unlearner.name: result for result in map(read_result, result_files(folder))}


@pytest.mark.whole
def test_a_second_run_reuses_and_overwrite_runs_again(
    command: Command, small_run: list[str], results: Path, tmp_path: Path
) -> None:
    output = tmp_path / "results"
    shutil.copytree(results, output)
    before = {path: path.read_bytes() for path in result_files(output)}
    assert len(before) == 3
    said = command(*small_run, "--unlearner", "grun+npo", "--output", output)
    assert said.code == 0 and "already run" in said.out and "unlearning" not in said.err
    assert {path: path.read_bytes() for path in result_files(output)} == before

    said = command(*small_run, "--unlearner", "grun+npo", "--output", output, "--overwrite")
    assert said.code == 0 and "already run" not in said.out and "unlearning grun+npo" in said.err
    after = {path: path.read_bytes() for path in result_files(output)}
    changed = [path for path in before if before[path] != after[path]]
    assert set(after) == set(before) and [path.parent.name for path in changed] == ["grun+npo"]
    # the same seed on the same machine gives the same numbers
    assert stored(output)["grun+npo"].results == stored(results)["grun+npo"].results


@pytest.mark.whole
def test_another_seed_and_other_settings_are_other_rows(
    command: Command, small_run: list[str], results: Path, tmp_path: Path
) -> None:
    output = tmp_path / "results"
    shutil.copytree(results, output)
    for more in (["--unlearner", "npo"], ["--unlearner", "full+npo"], ["--unlearner", "npo", "--set", "lr=1e-3"]):
        assert command(*small_run, *more, "--output", output).code == 0
    # `npo` is `full+npo`: one row; another learning rate is another
    names = sorted(read_result(path).unlearner.name for path in result_files(output))
    assert names == ["full+npo", "full+npo", "grun+npo", "none", "retain"]


def test_json_is_the_result_file(command: Command, small_run: list[str], results: Path) -> None:
    said = command(*small_run, "--unlearner", "grun+npo", "--output", results, "--json")
    assert said.code == 0
    printed = json.loads(said.out)
    file = next(path for path in result_files(results) if path.parent.name == "grun+npo")
    assert said.out == file.read_text(encoding="utf-8")
    assert {"results", "configs", "versions", "n-samples", "higher_is_better", "date", "git_hash"} <= set(printed)


def test_the_table_of_a_run_has_both_references_and_the_file(
    command: Command, small_run: list[str], results: Path
) -> None:
    said = command(*small_run, "--unlearner", "grun+npo", "--output", results)
    rows = stored(results)
    shown = next(line for line in said.out.splitlines() if line.startswith("│ forget probability"))
    for name in ("grun+npo", "none", "retain"):
        value = rows[name].value("forget_probability")
        assert value is not None and (f"{value:.3f}" in shown or f"{value:.1e}" in shown)
    assert str(results) in said.out and rows["grun+npo"].run_id in said.out and "trainable parameters" in said.out


def test_the_next_commands_find_the_folder_that_a_run_was_filed_in(
    command: Command, small_run: list[str], results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = command(*small_run, "--unlearner", "grun+npo", "--output", results)
    told = next(line for line in said.out.splitlines() if line.startswith("next: ")).removeprefix("next: ")
    show, leaderboard = (shlex.split(each)[1:] for each in told.split("   |   "))
    assert command(*show).code == 0
    assert command(*leaderboard).code == 0 and (tmp_path / "pages" / "README.md").exists()


def test_a_narrow_terminal_shows_run_ids_whole(
    command: Command, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    listed = command("ls", "runs", "--output", results).out
    assert all(found.run_id in listed for found in stored(results).values())


def test_show_and_ls_read_what_is_there(command: Command, results: Path) -> None:
    row = stored(results)["grun+npo"]
    for name in (row.run_id, row.run_id[:6]):
        said = command("show", name, "--output", results)
        assert said.code == 0
        for part in (row.run_id, "grun+npo", "gate_weight", "forget probability", row.date, "published"):
            assert part in said.out
    assert json.loads(command("show", row.run_id, "--output", results, "--json").out)["run_id"] == row.run_id
    listed = command("ls", "runs", "--output", results)
    assert listed.code == 0 and all(found.run_id in listed.out for found in stored(results).values())
    assert command("ls", "runs", "--output", results / "none").out.count("\n") == 1
    refused(command("show", row.run_id[:6] + "zz", "--output", results), row.run_id)
    refused(command("show", "", "--output", results), "3 runs")


def test_show_refuses_what_is_no_result(command: Command, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text('{"run_id": "x"}')
    for name in ("odd.json", "missing.json"):
        refused(command("show", tmp_path / name), str(tmp_path / name))


def test_ls_names_every_kind(command: Command) -> None:
    said = command("ls")
    assert said.code == 0
    for name in ("grun", "lora", "npo", "idk", "forget_quality", "tofu_lite", "retain"):
        assert name in said.out


def test_leaderboard_pins_the_references(command: Command, results: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "small" / "org__small.md"
    said = command("leaderboard", "--results", results, "--out", tmp_path)
    assert said.code == 0 and "3 results" in said.out
    rows = [line for line in page.read_text().splitlines() if line.startswith("| ")]
    names = [row.split("|")[2].split("<sub>")[0].strip() for row in rows[2:5]]
    assert names == ["**target model**", "**retain model**", "grun+npo"]
    assert command("leaderboard", "--results", results, "--out", tmp_path, "--check").code == 0


@pytest.mark.whole
@pytest.mark.parametrize(
    ("more", "unlearners", "code", "said"),
    [
        ([], ["none", "full+pdu"], 0, "refused"),
        (["--retain", "org/nothing"], ["none", "ga"], 1, "of 2 runs 2 failed or diverged, and 0 were refused"),
    ],
)
def test_a_sweep_fails_where_a_run_failed(
    command: Command, hub: Path, tmp_path: Path, more: list[str], unlearners: list[str], code: int, said: str
) -> None:
    """A pair that makes no sense is no failure; a model that cannot be had is one."""
    task = yaml.safe_load((hub / "small.yaml").read_text()) | {"retain": []}
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(task))
    named = [part for name in unlearners for part in ("--unlearner", name)]
    target = ["--model", SMALL, "--target", SMALL]
    found = command("sweep", "--task", tmp_path / "task.yaml", *target, "--output", tmp_path / "out", *named, *more)
    assert found.code == code and said in found.out + found.err


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        # the loss of a step
        ("full+ga", ["lr=1e30", "clip=1e30", "epochs=4"]),
        # one step: the weights are finite, and what the model says is not
        ("lora+ga", ["lr=3e37", "batch_size=4", "accumulate=1", "warmup=0", "least_steps=1"]),
    ],
)
def test_diverged_row_is_kept_marked_and_a_failure(
    command: Command, small_run: list[str], results: Path, tmp_path: Path, name: str, settings: list[str]
) -> None:
    output, page = tmp_path / "results", tmp_path / "pages" / "small" / "org__small.md"
    shutil.copytree(results, output)
    arguments = [*small_run, "--unlearner", name, *(part for each in settings for part in ("--set", each))]
    said = command(*arguments, "--output", output, "--json")
    row = stored(output)[name]
    assert said.code == 1 and "Traceback" not in said.err
    assert said.err.splitlines()[-1].startswith("error: ") and "diverged" in said.err.splitlines()[-1]
    assert json.loads(said.out)["status"] == row.status == "diverged"
    assert row.error and "not finite" in row.error
    values, reasons = row.results[row.task], row.reasons
    assert set(values) == set(stored(results)["none"].results[row.task])
    assert all(value is None and "diverged" in reasons[key] for key, value in values.items())

    again = command(*arguments, "--output", output)
    assert again.code == 1 and "diverged" in again.out and "already run" in again.out and "unlearning" not in again.err
    assert command("leaderboard", "--results", output, "--out", tmp_path).code == 0
    line = next(line for line in page.read_text().splitlines() if name in line)
    assert "(diverged)" in line
    assert "diverged" in command("show", row.run_id, "--output", output).out


@pytest.mark.whole
@pytest.mark.parametrize(
    ("option", "said"),
    [("--target", "compared with its target: "), ("--retain-model", "compared with its retain model: ")],
)
def test_a_model_to_compare_with_that_says_no_numbers_is_an_error_in_words(
    command: Command,
    small_run: list[str],
    hub: Path,
    make_lm: Callable[..., LM],
    tmp_path: Path,
    option: str,
    said: str,
) -> None:
    """Its weights are finite, so it loads; their products are beyond what float32 holds."""
    lm, output = make_lm(), tmp_path / "results"
    lm.model.get_output_embeddings().weight.data.fill_(3e38)
    for part in (lm.model, lm.tokenizer):
        part.save_pretrained(tmp_path / "huge")
    found = command(
        *small_run, "--unlearner", "grun+npo", "--target", hub / SMALL, option, tmp_path / "huge", "--output", output
    )
    assert found.code == 2 and found.err.splitlines()[-1].startswith("error: ") and "JSON" not in found.err
    assert said in found.err and "row 0 of 'forget'" in found.err
    assert not list(output.rglob("*.json"))


@pytest.mark.whole
def test_what_is_measured_during_a_training_is_made_of_numbers(
    command: Command, small_run: list[str], results: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(results, tmp_path / "results")
    once = ["lr=3e37", "batch_size=4", "accumulate=1", "warmup=0", "least_steps=1"]
    given = [part for each in once for part in ("--set", each)]
    assert command(*small_run, "--unlearner", "lora+ga", "--eval-every", "1", *given, "--output", output).code == 1
    row = stored(output)["lora+ga"]
    assert row.status == "diverged" and [point.at for point in row.curves["training"].points] == [0]


# --- what reading results loads ---------------------------------------------------------------------------------------


def test_reading_results_loads_no_torch(results: Path, tmp_path: Path) -> None:
    """One command after another in a process that has loaded nothing: who does is the first that says so."""
    output = ["--output", str(results)]
    commands = [
        (["ls", "runs", *output], 0),
        (["show", stored(results)["grun+npo"].run_id, *output], 0),
        (["leaderboard", "--results", str(results)], 0),
        ([*RUN, "--batch-size", "x", *output], 2),
    ]
    code = (
        "import sys\n"
        "from grun_bench.cli import main\n"
        f"for arguments, wanted in {commands!r}:\n"
        "    sys.argv, ended = ['grun-bench', *arguments], None\n"
        "    try:\n        main()\n"
        "    except SystemExit as stopped:\n        ended = stopped.code or 0\n"
        "    loaded = [name for name in ('torch', 'scipy', 'datasets') if name in sys.modules]\n"
        "    print('ENDED', arguments[0], ended == wanted, loaded)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    ended = [line for line in done.stdout.splitlines() if line.startswith("ENDED")]
    assert ended == [f"ENDED {arguments[0]} True []" for arguments, _ in commands], done.stderr


@pytest.mark.whole
def test_eval_every_shows_the_best_and_the_last_step(
    command: Command, small_run: list[str], results: Path, tmp_path: Path
) -> None:
    options = ["--unlearner", "grun+gd", "--output", shutil.copytree(results, tmp_path / "results"), "--no-trunk-cache"]
    said = command(*small_run, *options, "--eval-every", 1)
    assert said.code == 0, said.err
    assert "during training" in said.out and "last step, 1" in said.out and "best" in said.out
    refused(command(*small_run, *options, "--eval-every", 0), "--eval-every")
