"""Result files: they come back as they were written, whole or not at all, and nothing false is read as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.results.record import load_records
from grun_bench.results.result import find_result, read_result, records_intact, result_files, write_whole


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
        assert hashlib.sha256(records.read_bytes()).hexdigest() == result.records.sha256
        assert len(load_records(records)) == result.records.count == len(records.read_text().splitlines())
        assert records_intact(path, result)


def test_a_changed_record_is_noticed(results: Path, tmp_path: Path) -> None:
    path = one(results)
    result = read_result(path)
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    text = path.with_name(result.records.file).read_text()
    copy.with_name(result.records.file).write_text(text.replace("0", "1", 1))
    assert not records_intact(copy, result)
    copy.with_name(result.records.file).unlink()
    assert not records_intact(copy, result)


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


@pytest.mark.parametrize("text", ["", "{", "[]", "nonsense"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="not a result"):
        read_result(path)


def test_a_file_is_replaced_whole_or_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file.json"
    write_whole(path, "first")
    # a lone surrogate cannot be encoded: the write breaks off in the middle
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "second \ud800")
    assert path.read_text() == "first"
    assert [item.name for item in path.parent.iterdir()] == ["file.json"]


def test_a_save_that_fails_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GrunBenchError, match="could not be saved"):
        write_whole(tmp_path / "file" / "result.json", "text")


def test_a_run_is_found_by_the_beginning_of_its_id(results: Path) -> None:
    path = one(results)
    assert find_result(path.stem, results) == find_result(path.stem[:8], results) == path
    with pytest.raises(UsageError, match="beginning of"):
        find_result("", results)
    with pytest.raises(UsageError, match="did you mean"):
        find_result(path.stem[:-1] + "9", results)
