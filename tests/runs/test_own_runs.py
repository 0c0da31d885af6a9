"""Runs on own rows, from files to the filed result: what is measured, where it lies, and whose the texts are."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from conftest import SMALL, Command
from test_cli import refused

import grun_bench
from grun_bench.core.errors import UsageError
from grun_bench.results.filed import read_records
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.record import Continuation, Generation, Record, Records, load_records
from grun_bench.results.result import Result
from grun_bench.results.store import read_result, result_files

NAMES = [f"{first} {last}" for last in ("Berg", "Falk") for first in ("Ada", "Bo", "Cy", "Di")]
CITIES = ["Turin", "Graz", "Malmo", "Ghent"]


def rows(names: list[str]) -> list[dict[str, str]]:
    return [{"question": f"Where does {name} live?", "answer": f"In {CITIES[len(name) % 4]}."} for name in names]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with rows to forget and to keep."""
    for name, names in {"leavers": NAMES[:4], "stayers": [f"{name}{at}" for name in NAMES for at in "abcd"]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(names)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


RUN = ["run", "--unlearner", "grun-held+npo", "--model", SMALL, "--set", "epochs=1", "--limit", "3"]
OWN = ["--forget", "leavers.jsonl", "--retain", "stayers.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--forget", "leavers.jsonl"], ["--model says which model is to forget it", "made-up authors"]),
        (["--forget", "leavers.jsonl", "--model", "tiny"], ["--model says which model"]),
        (["--forget", "leavers.jsonl", "--model", SMALL, "--task", "tofu_lite"], ["leave --task tofu_lite out"]),
        (["--forget", "nowhere.jsonl", "--model", SMALL], ["nowhere.jsonl: cannot be read"]),
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
    assert "ecret" not in gzip.decompress((tmp_path / named.file).read_bytes()).decode()
    assert bare.answer.logprobs == [-0.5, -0.25] and bare.answer.text == bare.generation.text != bare.samples[0]
    assert list(read_records(tmp_path / "r.json", named)) == [row]
    shutil.rmtree(tmp_path / "cache")
    assert list(read_records(tmp_path / "r.json", named)) == [bare]


def content_of(folder: Path) -> bytes:
    """All that the files below a folder hold, unpacked."""
    found = [path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()]
    return b"\n".join(gzip.decompress(each) if each.startswith(b"\x1f\x8b") else each for each in found)


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
