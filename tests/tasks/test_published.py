"""Data in files and in mirrors: the same rows both ways, as they are now, and one line for what is none."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from grun_bench.core.errors import DataError
from grun_bench.tasks.dataset import Source, training_pair
from grun_bench.tasks.world import PUBLISHED

ADA, ROME = {"question": "Who?", "answer": "Ada."}, {"question": "Where?", "answer": "In Rome."}
LINES = [json.dumps(row) for row in (ADA, ROME)]
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"


@pytest.fixture
def ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts content into a file; returns the sources that read it, by its path and from a mirror."""
    folder = tmp_path / "hub" / "someone" / "rows"
    folder.mkdir(parents=True)
    monkeypatch.setenv("GRUN_BENCH_HUB", str(tmp_path / "hub"))

    def put(content: str | bytes, name: str = "rows.jsonl") -> tuple[str, str]:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(folder / name), "someone/rows"

    return put


def rows(source: str) -> list[dict[str, object]]:
    return PUBLISHED.rows(Source.parse(source)).rows


@pytest.mark.parametrize(
    "content",
    [
        "\n".join(LINES),
        "\n\n".join(LINES) + "\n\n\n",
        "\n  \t\n".join(LINES),
        "\r\n\r\n".join(LINES),
        "\ufeff" + "\n".join(LINES),
        json.dumps([ADA, ROME]),
        "\n" + json.dumps([ADA, ROME], indent=1),
    ],
    ids=["lines", "blank lines", "white lines", "carriage returns", "byte order mark", "array", "pretty array"],
)
def test_json_is_read_the_same_from_a_file_and_from_a_mirror(ways, content: str) -> None:
    for source in ways(content):
        assert rows(source) == [ADA, ROME]


def test_texts_are_read_as_they_are_written(ways) -> None:
    """Readers that guess types make times of dates, and lines of what Unicode counts as their ends."""
    written = [{"question": "When?", "answer": "1979-11-19"}, {"question": "a\u2028b\x85c", "answer": "NaN"}]
    for source in ways("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written)):
        assert rows(source) == written


def test_what_a_row_lacks_is_null_as_in_a_table(ways) -> None:
    for source in ways(json.dumps(ADA) + '\n{"text": "A text."}\n'):
        assert rows(source) == [ADA | {"text": None}, {"question": None, "answer": None, "text": "A text."}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (POINTER, "rows.jsonl: a git-lfs pointer, not the data; `git lfs pull`"),
        (LINES[0] + '\n{"question": "Who?", "answer": "Ada \\ud83d."}', r"line 2: \$.answer: half of a surrogate pair"),
        (LINES[0] + '\n\n{"question": ', "line 3: not JSON .* Data are JSON Lines, an object a line, or one array"),
        ('{"question": "Who?", "answer": ' + "[" * 9000 + "]" * 9000 + "}", "line 1: .*nested deeper than 32"),
        ('[{"question": "Who?", "answer": ["a"]}, "b"]', "row 1: expected an object with the columns, found 'b'"),
        (json.dumps([[ADA] * 1000]), "row 0: expected an object with the columns, found .{40,64}$"),
        (json.dumps(ADA | {"answer": ["x"] * 9000}), "row 0, column 'answer': expected text, found .{40,64}$"),
        (json.dumps(dict.fromkeys(map(str, range(9000)))), "column 'question' is missing; the columns are .{50,304}$"),
        (bytes(range(256)), "line 1: not JSON"),
        ("", "no rows"),
        ("\n\n", "no rows"),
    ],
)
def test_what_is_no_data_is_one_short_line_either_way(ways, content: str | bytes, message: str) -> None:
    for source in ways(content):
        with pytest.raises(DataError, match=message) as told:
            rows(source)
        assert "\n" not in str(told.value) and len(str(told.value)) < 600


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_rows_are_those_of_the_file_now_whatever_its_time_says(ways, tmp_path: Path, kind: str) -> None:
    import pandas

    def write(answer: str) -> tuple[str, str]:
        table, path = pandas.DataFrame([ADA | {"answer": answer}]), tmp_path / f"rows.{kind}"
        if kind == "parquet":
            table.to_parquet(path)
        elif kind == "csv":
            table.to_csv(path, index=False)
        else:
            table.to_json(path, orient="records", lines=True)
        sources = ways(path.read_bytes(), path.name)
        os.utime(sources[0], (1e9, 1e9))
        return sources

    for answer in ("one.", "two.", "one."):
        for source in write(answer):
            assert rows(source) == [ADA | {"answer": answer}]


def test_a_pointer_in_place_of_a_table_is_told(ways) -> None:
    _, source = ways(POINTER, "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet: a git-lfs pointer"):
        rows(source)


# --- what is trained on ---------------------------------------------------------------------------------------------


def test_a_text_beside_question_and_answer_is_refused_until_the_task_says_which(ways) -> None:
    path, _ = ways(json.dumps(ADA) + "\n" + json.dumps(ROME | {"text": "All of it."}))
    with pytest.raises(DataError, match=r"row 1: it has 'text' beside 'question' and 'answer'; say which"):
        rows(path)
    pair = PUBLISHED.rows(Source.parse(path, {"question": "question", "answer": "answer"}))
    assert pair.rows == [ADA, ROME] and [training_pair(row) for row in pair.rows][1] == ("Where?", "In Rome.")
    path, _ = ways(json.dumps(ROME | {"text": "All of it."}))
    text = PUBLISHED.rows(Source.parse(path, {"text": "text"}))
    assert [training_pair(row) for row in text.rows] == [("", "All of it.")]
    # scored sets have no texts
    assert PUBLISHED.rows(Source.parse(path), ("question", "answer")).rows == [ROME | {"text": "All of it."}]


def test_texts_and_pairs_may_be_in_one_file(ways) -> None:
    path, _ = ways(json.dumps(ADA) + '\n{"text": "A text."}\n')
    assert [training_pair(row) for row in PUBLISHED.rows(Source.parse(path)).rows] == [
        ("Who?", "Ada."),
        ("", "A text."),
    ]
