"""Result files: they come back as they were written, whole or not at all, and nothing false is read as one."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest

from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.core.files import write_whole
from grun_bench.results.filed import records_problem, save_records
from grun_bench.results.record import load_records
from grun_bench.results.result import RecordsFile, parse_result
from grun_bench.results.store import find_result, read_result, result_files


def one(results: Path, unlearner: str = "grun+npo") -> Path:
    (path,) = (results / "small" / "org__small" / unlearner).glob("*.json")
    return path


def test_a_result_comes_back_as_it_was_written(results: Path) -> None:
    for path in result_files(results):
        assert read_result(path).dumps() == path.read_text()


def test_the_records_have_the_hash_that_the_result_says(results: Path) -> None:
    for path in result_files(results):
        result = read_result(path)
        records = path.with_name(result.records.file)
        content = bz2.decompress(records.read_bytes())
        assert hashlib.sha256(content).hexdigest() == result.records.sha256
        assert len(load_records(records)) == result.records.count == len(content.splitlines())
        assert records_problem(path, result.own_records()) is None


def test_a_changed_record_is_noticed(results: Path, tmp_path: Path) -> None:
    path = one(results)
    result = read_result(path)
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    content = bz2.decompress(path.with_name(result.records.file).read_bytes())
    records = copy.with_name(result.records.file)
    records.write_bytes(bz2.compress(content.replace(b"0", b"1", 1)))
    assert "was changed" in str(records_problem(copy, result.own_records()))
    records.write_bytes(bz2.compress(content, 1))  # by another compressor the same
    assert records_problem(copy, result.own_records()) is None
    records.unlink()
    assert "is missing" in str(records_problem(copy, result.own_records()))


def test_records_are_read_by_pandas_and_come_out_as_they_were(results: Path) -> None:
    for path in result_files(results):
        named = read_result(path).records
        table, lines = (
            pandas.read_json(path.with_name(named.file), lines=True),
            load_records(path.with_name(named.file)),
        )
        assert list(table["question"]) == [record.question for record in lines] and len(table) == named.count
        assert [answer["text"] for answer in table["answer"]] == [record.answer.text for record in lines]


def test_the_same_records_are_the_same_bytes_whenever_they_are_written(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = load_records(one(results).with_name(read_result(one(results)).records.file))
    written = []
    for now in (0.0, 1e9):
        monkeypatch.setattr("time.time", lambda now=now: now)
        saved = save_records(tmp_path / "run.json", records, "attack", "variant")
        assert saved.file == "run.attack.variant.records.jsonl.bz2"
        written.append((saved, (tmp_path / saved.file).read_bytes()))
    assert written[0] == written[1]


@pytest.mark.parametrize(("end", "written"), [("", bytes), (".gz", gzip.compress)])
def test_records_of_an_older_harness_are_read_and_replaced(
    results: Path, tmp_path: Path, end: str, written: Callable[[bytes], bytes]
) -> None:
    packed = one(results).with_name(read_result(one(results)).records.file)
    content = bz2.decompress(packed.read_bytes())
    (older := tmp_path / f"run.records.jsonl{end}").write_bytes(written(content))
    named = RecordsFile(file=older.name, sha256=hashlib.sha256(content).hexdigest(), count=len(load_records(packed)))
    assert load_records(older).dumps() == load_records(packed).dumps()
    assert records_problem(tmp_path / "run.json", [named]) is None
    assert save_records(tmp_path / "run.json", load_records(older)).sha256 == named.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["run.records.jsonl.bz2"]


def test_every_metric_is_there_and_a_missing_one_says_why(results: Path) -> None:
    for path in result_files(results):
        data = json.loads(path.read_text())
        values = data["results"][data["task"]]
        missing = {key for key, value in values.items() if value is None}
        assert missing == set(data["reasons"])
        assert all(data["reasons"].values())
        assert {key.split(",")[0] for key in values} == set(data["higher_is_better"][data["task"]])


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda data: data | {"colour": "blue"}, "colour"),
        (lambda data: data | {"status": "fine"}, "status"),
        (lambda data: data | {"cost": data["cost"] | {"parameters": "many"}}, "cost.parameters"),
        (lambda data: {key: value for key, value in data.items() if key != "seed"}, "seed"),
    ],
)
def test_what_breaks_the_schema_is_refused_with_its_place(
    results: Path, tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], place: str
) -> None:
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(change(json.loads(one(results).read_text()))))
    with pytest.raises(UsageError, match=place):
        read_result(path)


def test_what_was_reviewed_is_read_as_anything_else(results: Path) -> None:
    for path in result_files(results):
        content = path.read_bytes()
        once, strictly = (parse_result(content, path, reviewed=reviewed) for reviewed in (True, False))
        assert once == strictly and once.dumps() == strictly.dumps()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data["unlearner"]["settings"].update(lr=math.nan),
        lambda data: data["data"]["forget"].update(rows=[{"share": -math.inf}]),
        lambda data: data["results"]["small"].update({"forget_probability,none": math.nan}),
        lambda data: data["cost"].update(training_seconds=math.inf),
        lambda data: data["cost"].update(parameters="many"),
        lambda data: data["configs"].update(small=[]),
        lambda data: data["git"].update(commit="\ud800"),
        lambda data: data.update(colour="blue"),
        lambda data: data.update(schema_version=99),
        lambda data: data.update(schema_version=True),
        lambda data: data.pop("schema_version"),
        lambda data: data["results"].update(other={}),
        lambda data: data["records"].update(file="../elsewhere.records.jsonl"),
    ],
)
def test_what_was_reviewed_is_refused_in_the_same_words(
    results: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    data = json.loads(one(results).read_text())
    change(data)
    words = []
    for reviewed in (True, False):
        with pytest.raises(UsageError) as refused:
            parse_result(json.dumps(data).encode(), "file", reviewed=reviewed)
        words.append(str(refused.value))
    assert words[0] == words[1]


@pytest.mark.parametrize("place", ['"epochs": ', '"training_seconds": '])
def test_a_number_too_large_to_hold_is_refused_wherever_it_stands(results: Path, place: str) -> None:
    before, found, after = one(results).read_text().partition(place)
    assert found
    text = f"{before}{place}1e999{after[after.index(',') :]}"
    for reviewed in (True, False):
        with pytest.raises(UsageError, match=r"settings|training_seconds|epochs"):
            parse_result(text.encode(), "file", reviewed=reviewed)


@pytest.mark.parametrize("text", ["", "{", "[]", "nonsense"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"broken\.json: (not JSON|\$: )"):
        read_result(path)


def test_a_file_is_replaced_whole_or_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.json"
    write_whole(path, "first")
    # a lone surrogate cannot be encoded
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "second \ud800")
    assert path.read_text() == "first"
    assert [item.name for item in path.parent.iterdir()] == ["file.json"]


def test_a_save_that_fails_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GrunBenchError, match="could not be saved"):
        write_whole(tmp_path / "file" / "result.json", "text")


def test_a_run_is_found_by_the_beginning_of_its_id(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = one(results)
    assert find_result(path.stem, results) == find_result(path.stem[:8], results) == path
    with pytest.raises(UsageError, match="beginning of"):
        find_result("", results)
    with pytest.raises(UsageError, match="did you mean"):
        find_result(path.stem[:-1] + "9", results)
    # names that say nothing to a reader are not listed
    with pytest.raises(
        UsageError, match=r"unknown run 'nope': none of the 3 there is near it\. `grun-bench ls runs --out"
    ):
        find_result("nope", results)
    # rows of own files are elsewhere
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "results").symlink_to(results)
    monkeypatch.chdir(tmp_path / "own")
    with pytest.raises(UsageError, match=rf"no run '{path.stem}' in elsewhere, but one in results: --output results\."):
        find_result(path.stem, Path("elsewhere"))
