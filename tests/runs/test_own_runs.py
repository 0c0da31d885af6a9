"""Runs on own rows, from files to the filed result: what is measured, where it lies, and whose the texts are."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
from conftest import SMALL, Command
from test_cli import refused

import grun_bench
from grun_bench.core.errors import UsageError
from grun_bench.results import private
from grun_bench.results.filed import read_records
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.record import Continuation, Generation, Record, Records, load_records
from grun_bench.results.result import Result
from grun_bench.results.store import read_result, result_files
from grun_bench.runs.config import RunConfig
from grun_bench.runs.own import check_own

NAMES = [f"{first} {last}" for last in ("Berg", "Falk") for first in ("Ada", "Bo", "Cy", "Di")]
CITIES = ["Turin", "Graz", "Malmo", "Ghent"]


def rows(names: list[str]) -> list[dict[str, str]]:
    return [{"question": f"Where does {name} live?", "answer": f"In {CITIES[len(name) % 4]}."} for name in names]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with rows to forget and to keep."""
    for name, names in {"leavers": NAMES[:4], "stayers": [f"{name}{at}" for name in NAMES for at in "abcd"]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(names)))
    (tmp_path / "task.yaml").write_text("version: 1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def environment(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With a cache of the test's own: the session's has the rows of other tests too, as the keys of fine-tuned models
    have public ones ("In which city was ...").
    """
    cache = tmp_path / "cache"
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(cache))
    return cache


RUN = ["run", "--unlearner", "grun-held+npo", "--model", SMALL, "--set", "epochs=1", "--limit", "3"]
OWN = ["--forget", "leavers.jsonl", "--retain", "stayers.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--forget", "leavers.jsonl"], ["--model says which model is to forget it", "made-up authors"]),
        (["--forget", "leavers.jsonl", "--model", "tiny"], ["tiny, the toy model", "examples/customers.py"]),
        (["--forget", "leavers.jsonl", "--model", SMALL, "--task", "tofu_lite"], ["leave --task tofu_lite out"]),
        (["--forget", "nowhere.jsonl", "--model", SMALL], ["--forget nowhere.jsonl: no such file or folder.\n"]),
        (["--forget", "leaver.jsonl", "--model", SMALL], ["no such file or folder; near it is leavers.jsonl.\n"]),
        (["--forget", "no/leavers.jsonl", "--model", SMALL], ["as its folder no is not there"]),
        (
            ["--forget", "nowhere.jsonl", "--retain", "stayer.jsonl", "--task", "tofu_lite", "--writer", SMALL],
            [
                "error: --forget nowhere.jsonl: no such file",
                "--retain stayer.jsonl: no such file or folder; near it is stayers.jsonl",
                "leave --task tofu_lite out",
                "--model says which model",
                "it goes with --augment",
            ],
        ),
        (["--forget", "task.yaml", "--model", SMALL], ["by its name a task's file", "--task task.yaml"]),
        (["--task", "leavers.jsonl", "--model", SMALL], ["rows and no task's file; --forget leavers.jsonl"]),
        (
            ["--forget", "leavers.jsonl", "--model", SMALL, "--columns", "question"],
            ["--columns question", "question=Q"],
        ),
        (["--forget", "leavers.jsonl", "--model", SMALL, "--columns", "answer=A"], ["'A'", "answer"]),
        (["--neighbours", "leavers.jsonl", "--task", "tofu_lite"], ["--neighbours", "--forget FILE"]),
        (["--forget", "leavers.jsonl", "--retain", "leavers.jsonl", "--model", SMALL], ["is to be forgotten", "row 0"]),
        ([], ["--forget FILE"]),
    ],
)
def test_what_does_not_go_together_is_refused(
    files: Path, command: Command, arguments: list[str], parts: list[str]
) -> None:
    refused(command("run", "--unlearner", "npo", *arguments), *parts)
    assert not list(files.glob("*results*/*"))


def test_a_folder_of_results_that_is_called_as_a_task_is_no_rows(files: Path) -> None:
    """As `--output .` leaves one: the same command is not refused the next time."""
    for name in ("tofu_lite", "texts"):
        (files / name).mkdir()
    check_own(RunConfig("npo", "tofu_lite", files))
    with pytest.raises(UsageError, match="--forget texts takes them"):
        check_own(RunConfig("npo", "texts", files))


# --- texts that stay --------------------------------------------------------------------------------------------------


def test_records_without_texts_have_the_numbers_and_equal_texts_equal_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grun_bench.results.filed import save_records

    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / "cache"))
    row = Record("forget", 0, "Secret?", Continuation("Yes, secret.", [-0.5, -0.25], [1, 0]))
    row.generation, row.samples, row.prefill = Generation("Yes, secret."), ["secret", ""], "Yes"
    named = save_records(tmp_path / "r.json", Records([row]), private=True)
    (bare,) = load_records(tmp_path / named.file)
    assert "ecret" not in bz2.decompress((tmp_path / named.file).read_bytes()).decode()
    assert bare.answer.logprobs == [-0.5, -0.25] and bare.answer.text == bare.generation.text != bare.samples[0]
    assert list(read_records(tmp_path / "r.json", named)) == [row]
    shutil.rmtree(tmp_path / "cache")
    assert list(read_records(tmp_path / "r.json", named)) == [bare]


def test_hashes_cannot_be_guessed_without_the_key_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is the machine's; on another one, or where it is lost, the same texts have other hashes."""
    import hashlib
    import hmac

    row = Records([Record("forget", 0, "Where does Ada live?", Continuation("Paris", [-0.5], [1]))])
    found = []
    for machine in ("one", "one", "other"):
        monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / machine))
        found.append(next(iter(private.keep(row))).answer.text)
    assert found[0] == found[1] != found[2]
    (place,) = (tmp_path / "one").glob("*.key")
    key = place.read_bytes()
    assert (len(key), place.stat().st_mode & 0o777) == (32, 0o600)
    assert found[0].partition(":")[2] == hmac.new(key, b"Paris", hashlib.sha256).hexdigest()[:16]
    for known in (b"Paris", b"forget\0Paris"):  # nothing that who has the result alone can compute
        assert hashlib.sha256(known).hexdigest()[:16] not in " ".join(found)


def test_rows_of_older_versions_and_of_a_lost_key_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from grun_bench.results.filed import save_records

    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / "cache"))
    row = Record("forget", 0, "Where?", Continuation("Paris", [-0.5, -0.25], [1, 0]))
    row.generation = Generation("In Lyon.")
    rows = Records([row])
    with monkeypatch.context() as older:  # which had no key
        older.setattr(private, "machine_key", bytes)
        before = save_records(tmp_path / "old.json", rows, private=True)
    assert b"sha256:" in bz2.decompress((tmp_path / before.file).read_bytes())
    assert list(read_records(tmp_path / "old.json", before)) == [row]
    assert private.hashed_otherwise(load_records(tmp_path / before.file), rows)
    now = save_records(tmp_path / "now.json", rows, private=True)
    bare = load_records(tmp_path / now.file)
    assert not private.hashed_otherwise(bare, rows)
    next((tmp_path / "cache").glob("*.key")).unlink()
    assert list(read_records(tmp_path / "now.json", now)) == list(bare)  # numbers, and no texts
    assert private.hashed_otherwise(bare, rows)
    row.answer.logprobs = [-0.5, -0.26]
    assert not private.hashed_otherwise(bare, rows)


def _key_of(folder: Path, _: int) -> bytes:
    os.environ["GRUN_BENCH_CACHE"] = str(folder)
    return private.machine_key()


def test_processes_that_make_the_key_at_once_have_the_same(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as pool:
        keys = set(pool.map(partial(_key_of, tmp_path), range(16)))
    assert keys == {next(tmp_path.glob("*.key")).read_bytes()}
    assert list(tmp_path.iterdir()) == list(tmp_path.glob("*.key"))


def content_of(folder: Path) -> bytes:
    """All that the files below a folder hold, unpacked."""
    found = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    packed = {b"\x1f\x8b": gzip.decompress, b"BZ": bz2.decompress}
    return b"\n".join(packed.get(each[:2], bytes)(each) for each in found)


@pytest.mark.whole
def test_own_rows_are_unlearned_scored_and_attacked_and_their_texts_stay(
    files: Path, command: Command, environment: Path
) -> None:
    said = command(*RUN, *OWN, "--attacks", "prefill,suffix,alias")
    assert said.code == 0, said.err
    assert "5 rows of stayers.jsonl, always the same, are held out" in said.err
    found = {result.unlearner.name: result for result in map(read_result, result_files(files / "results"))}
    assert found.keys() == {"none", "grun-held+npo"}
    result = found["grun-held+npo"]
    assert (result.dataset, result.configs[result.task]["own"]["forget"]["file"]) == ("own", "leavers.jsonl")
    for metric in result.headline:
        assert result.value(metric) is not None, result.reason(metric)
    assert found["none"].value("neutral_texts_kl_to_target") == 0.0 < result.value("neutral_texts_kl_to_target")
    assert result.value("forget_quality") is None and "--retain-model names a model" in result.reason("forget_quality")
    assert result.attacks["prefill"].variants and not result.attacks["alias"].variants
    assert MetricKey("forget_extraction_strength", "suffix") in result.metric_keys()
    kept = content_of(files / "results")
    for text in (*NAMES[:4], *CITIES, "Where does"):
        assert text.encode() not in kept
    # a few letters alone stand in weights by chance
    for text in (*NAMES[:4], "In which city", "The city is"):
        keys = (path for path in environment.rglob("*") if path.is_file() and path.parent.name != "texts")
        assert not any(text.encode() in path.read_bytes() for path in keys)
    check_later(command, files, environment, result)


def check_later(command: Command, files: Path, environment: Path, result: Result) -> None:
    """The row is read again, attacked again, and on no page; without the kept texts its numbers are there still."""
    said = command(*RUN, *OWN, "--attacks", "none")
    assert said.code == 0 and "already run" in said.out, said.err
    said = command("attack", result.run_id, "--attacks", "sampling", "--output", files / "results")
    assert said.code == 0, said.err
    said = command("leaderboard", "--results", files / "results", "--out", files / "pages")
    assert said.code == 2 and "Rows of own files are on no page" in said.err
    refused(command("submit", result.run_id, "--output", files / "results", "--out", files / "bundle"), "card")
    (files / "leavers.jsonl").write_text('{"question": "Who?", "answer": "Nobody."}\n')
    said = command("attack", result.run_id, "--attacks", "cloze", "--output", files / "results")
    refused(said, "leavers.jsonl", "has changed", "--forget FILE")


# --- what a model writes ----------------------------------------------------------------------------------------------

AUGMENTED = ["run", "--unlearner", "none", "--model", SMALL, "--limit", "3", *OWN, "--augment"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--task", "tofu_lite", "--augment"], ["--augment", "--forget FILE"]),
        (["--forget", "leavers.jsonl", "--model", SMALL, "--writer", SMALL], ["--writer org/small", "--augment"]),
    ],
)
def test_a_writer_without_rows_or_without_being_asked_is_refused(
    files: Path, command: Command, arguments: list[str], parts: list[str]
) -> None:
    refused(command("run", "--unlearner", "npo", *arguments), *parts)


@pytest.mark.whole
def test_a_model_writes_what_rows_lack_once_and_a_person_mends_it(
    files: Path, command: Command, environment: Path
) -> None:
    """The small model writes noise: that is left out, with the reason, until somebody writes what is right."""
    said = command(*AUGMENTED, "--attacks", "paraphrase")
    assert said.code == 0, said.err
    made = files / "leavers.made-by-small.json"
    assert "read them, mend what is wrong" in said.err and str(made) in said.err
    assert "question: Where does Ada Berg live?   answer: In" in said.err
    content, first = json.loads(made.read_text()), made.stat().st_mtime_ns
    assert len(content["rows"]) == 3 and any(row["left_out"] for row in content["rows"])
    (result,) = map(read_result, result_files(files / "results"))
    assert "leavers.jsonl: made by org/small" in said.out and "Not taken of it" in said.out
    marked = result.configs[result.task]["own"]["forget"]["made"]
    assert (marked["by"], marked["edited"], marked["writer"]["name"]) == (SMALL, False, SMALL)
    assert sum(marked["left_out"]["paraphrased_question"].values()) + marked["counts"]["paraphrased_question"] == 3

    assert result.value("forget_truth_ratio") is None
    assert "nothing that org/small wrote could stand" in str(result.reason("forget_truth_ratio"))

    said = command(*AUGMENTED, "--attacks", "paraphrase")
    assert said.code == 0 and "already run" in said.out and "writes paraphrases" not in said.err
    assert made.stat().st_mtime_ns == first
    mend(made, leave=2)
    said = command(*AUGMENTED, "--attacks", "paraphrase")
    assert said.code == 0 and "already run" not in said.out and "somebody edited it since" in said.out, said.err
    check_mended(command, files, environment, result.run_id)


def mend(made: Path, leave: int) -> None:
    """What a person would write in place of noise, but for one row."""
    content = json.loads(made.read_text())
    for place, row in enumerate(content["rows"]):
        name = row["question"].removeprefix("Where does ").removesuffix(" live?")
        row |= {"paraphrased_question": f"In which city is the home of {name}?"}
        row |= {"paraphrased_answer": f"The city is {row['answer'][3:]}", "perturbed_answer": ["In Oslo.", "In Bern."]}
        if place == leave:
            row |= {"paraphrased_question": None, "paraphrased_answer": None, "perturbed_answer": None}
    made.write_text(json.dumps(content))


def check_mended(command: Command, files: Path, environment: Path, before: str) -> None:
    """Every number that paraphrases bring is there, of the rows that have one; and no text of theirs is in a result."""
    results = [read_result(path) for path in result_files(files / "results")]
    (result,) = [each for each in results if each.run_id != before]
    for metric in ("truth_ratio", "paraphrased_probability", "perturbed_probability"):
        key = f"forget_{metric}"
        assert result.value(key) is not None and "1 of 3 rows left out" in str(result.reason(key))
        assert result.n_samples[result.task][key] == 2
    assert result.value("neutral_questions_truth_ratio") is not None
    assert "forget_truth_ratio" in result.headline and result.configs[result.task]["own"]["forget"]["made"]["edited"]
    assert list(result.attacks["paraphrase"].variants) == ["questions"]
    assert result.attacks["paraphrase"].rows["forget"] == 2
    kept = content_of(files / "results")
    for text in (*NAMES[:4], *CITIES, "In which city", "The city is", "Oslo", "Bern"):
        assert text.encode() not in kept
    # a few letters alone stand in weights by chance
    for text in (*NAMES[:4], "In which city", "The city is"):
        keys = (path for path in environment.rglob("*") if path.is_file() and path.parent.name != "texts")
        assert not any(text.encode() in path.read_bytes() for path in keys)
    said = command("attack", result.run_id, "--attacks", "suffix", "--output", files / "results")
    assert said.code == 0, said.err
    refused(command("attack", before, "--attacks", "suffix", "--output", files / "results"), "may have been edited")
    (files / "leavers.made-by-small.json").unlink()
    said = command("attack", result.run_id, "--attacks", "prefix", "--output", files / "results")
    refused(said, "leavers.made-by-small.json is not there")


@pytest.mark.whole
def test_texts_of_a_folder_from_python_without_a_retain_file(files: Path, environment: Path) -> None:
    folder = files / "letters"
    folder.mkdir()
    for place, name in enumerate(NAMES[:4]):
        (folder / f"{place}.txt").write_text(f"Dear {name},\n\nthank you for your order of {place + 2} lamps.")
    options = {"model": SMALL, "limit": 3, "epochs": 1, "attacks": "prefill,suffix"}
    outcome = grun_bench.run("npo", forget=folder, private=False, **options)
    assert outcome.path and outcome.path.is_relative_to(Path("results"))
    (first, *_) = [row for row in outcome.records if row.set == "forget"]
    text = (folder / "0.txt").read_text()
    assert text.startswith(first.question) and text.endswith(first.answer.text)
    assert outcome.result.value("mia_loss") is None
    assert "a --retain file of 25 rows brings one" in outcome.result.reason("mia_loss")
    assert outcome.result.value("forget_extraction_strength", "prefill") is not None
    assert "plain texts, in which nothing is asked" in outcome.result.reason("forget_probability", "suffix")
    with pytest.raises(UsageError, match="--task says what is to be forgotten"):
        grun_bench.run("npo", model=SMALL)


@pytest.mark.whole
def test_two_rows_that_are_there_twice_are_trained_for_as_long_as_it_takes(files: Path, command: Command) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows(NAMES[:2]))
    (files / "leavers.jsonl").write_text(lines + lines)
    said = command("run", "--unlearner", "full+npo", "--model", SMALL, *OWN, "--attacks", "none")
    assert said.code == 0, said.err
    assert "2 rows are there more than once, and are taken once" in said.err
    assert "batches of 1 of the 2 rows in 65 epochs (least_steps=130), a rate of " in said.err
    found = {result.unlearner.name: result for result in map(read_result, result_files(files / "results"))}
    result = found["full+npo"]
    assert len(result.history["forget"]) == 130 == result.unlearner.settings["least_steps"]
    assert result.data["train:forget"]["rows"] == 2
