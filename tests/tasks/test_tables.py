"""Files as people have them: the same rows whatever their kind, and one line with file and row for what is none."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from grun_bench.core.errors import DataError
from grun_bench.tasks.dataset import Row, Source
from grun_bench.tasks.tables import read_file, read_texts
from grun_bench.tasks.world import PUBLISHED

#: a comma, a quotation mark, a line end and a line separator of Unicode in cells
ROWS = [
    {"question": "Who, please?", "answer": 'Ada "the Countess"'},
    {"question": "Where?\nAnd when?", "answer": "In Rome.\u2028In 1843."},
]


def _csv(path: Path, delimiter: str = ",", encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, ["question", "answer"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


WAYS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "lines": ("jsonl", lambda path: path.write_text("\n\n".join(map(json.dumps, ROWS)), encoding="utf-8")),
    "array": ("json", lambda path: path.write_text(json.dumps(ROWS, indent=1))),
    "commas": ("csv", _csv),
    "semicolons": ("csv", lambda path: _csv(path, ";")),
    "tabs, byte order mark": ("CSV", lambda path: _csv(path, "\t", "utf-8-sig")),
    "tabs by name": ("tsv", lambda path: _csv(path, "\t")),
    "parquet": ("parquet", lambda path: pandas.DataFrame(ROWS).to_parquet(path)),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_kind_of_file_gives_the_same_rows(way: str, tmp_path: Path) -> None:
    suffix, write = WAYS[way]
    path = tmp_path / f"rows.{suffix}"
    write(path)
    assert read_file(path) == ROWS
    assert PUBLISHED.rows(Source.parse(str(path))).rows == ROWS


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_names_of_columns_may_hold_what_parts_others(tmp_path: Path, delimiter: str) -> None:
    path, row = tmp_path / "rows.csv", {"asked; of whom, and when": "Who?", 'the "answer",\nin words': "Ada."}
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([row, row.values()])
    assert read_file(path) == [row]


def test_an_empty_cell_is_null(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("question,answer,note\nWho?,Ada.,\n\nWhere?,Rome.,old\n")
    assert [row["note"] for row in read_file(path)] == [None, "old"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.csv", "question,answer\nWho?,Ada.\nWhen?,1 May, 1990\n", r"r\.csv, row 1: 3 cells for 2 columns"),
        ("r.csv", "question,answer\nWho?\n", r"row 0: 1 cells for 2 columns"),
        ("r.csv", 'question,answer\nWho?,"Ada\n', r"line \d: not CSV"),
        ("r.csv", "question,question\nWho?,Ada\n", "line 1: the first line of a CSV file names its columns"),
        ("r.csv", "", "line 1: the first line"),
        ("r.csv", "question,answer\nQui?,Andr\xe9\n".encode("latin-1"), "line 2: not UTF-8 .*Save it as UTF-8"),
        ("r.jsonl", '{"question": "Andr\xe9"}'.encode("latin-1"), "line 1: not UTF-8 .*Save it as UTF-8"),
        ("r.json", '{\n "data": [\n{"question": "Who?"}]}', r"one object with its rows in 'data': `jq '\.data' FILE`"),
        ("r.parquet", "question,answer\n", r"r\.parquet: not Parquet"),
        ("r.txt", " \n", r"r\.txt: an empty text"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=message) as told:
        read_file(path)
    assert "\n" not in str(told.value) and str(path) in str(told.value)


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    """A folder of texts of several lines, one of them in a folder of its own."""
    folder = tmp_path / "letters"
    (folder / "old").mkdir(parents=True)
    for name, text in {"b.txt": "One.\n\nTwo.\n", "a.md": "# Three\nFour", "old/c.txt": "Five", ".hidden": "x"}.items():
        (folder / name).write_text(text)
    return folder


def test_a_file_of_a_folder_is_one_text(letters: Path) -> None:
    rows: list[Row] = [
        {"file": "a.md", "text": "# Three\nFour"},
        {"file": "b.txt", "text": "One.\n\nTwo.\n"},
        {"file": "old/c.txt", "text": "Five"},
    ]
    assert read_texts(letters) == rows
    assert PUBLISHED.rows(Source.parse(str(letters))).rows == rows


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("scan.pdf", b"%PDF", r"scan\.pdf: neither \.txt nor \.md; make it one, or take it out"),
        ("empty.txt", b"\n", r"empty\.txt: an empty text"),
        ("old.txt", "Andr\xe9".encode("latin-1"), r"old\.txt, line 1: not UTF-8"),
    ],
)
def test_a_file_that_is_no_text_is_named(letters: Path, name: str, content: bytes, message: str) -> None:
    (letters / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_texts(letters)


def test_a_folder_without_texts_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.txt or \.md files"):
        read_texts(tmp_path)
