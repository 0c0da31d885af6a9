"""Files as people have them: the same rows whatever their kind, and one line with file and row for what is none."""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import shutil
import subprocess
import zipfile
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
        (
            "r.csv",
            "question,answer\nQui?,Andr\xe9\n".encode("latin-1"),
            "line 2: not UTF-8 .*Latin-1. Save it as UTF-8",
        ),
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


PACKED = {
    "rows.json.gz": (lambda path: path.write_bytes(gzip.compress(b"[]")), "packed with gzip.*`gunzip -k rows.json.gz`"),
    "rows.csv.bz2": (lambda path: path.write_bytes(bz2.compress(b"a,b")), "packed with bzip2"),
    "rows.csv.xz": (lambda path: path.write_bytes(lzma.compress(b"a,b")), "packed with xz"),
    "our rows.xlsx": (lambda path: _zip(path, "xl/workbook.xml"), r"Excel.*save it as CSV.*csv 'our rows\.xlsx'`"),
    "named.csv": (lambda path: _zip(path, "xl/workbook.xml"), "a workbook of Excel"),
    "rows.docx": (lambda path: _zip(path, "word/document.xml"), "a document of Word.*save it as a .txt.*pandoc"),
    "rows.ods": (
        lambda path: _zip(path, "mimetype", "application/vnd.oasis.opendocument.spreadsheet"),
        "a table of OpenDocument.*CSV",
    ),
    "rows.zip": (lambda path: _zip(path, "rows.csv"), "a ZIP archive.*unpack it"),
    "rows.pdf": (lambda path: path.write_bytes(b"%PDF-1.7\n\xe2\xe3"), "PDF.*`pdftotext rows.pdf`"),
    "rows.xls": (lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), "an older Excel or Word.*CSV"),
    "rows.jsonl": (lambda path: pandas.DataFrame(ROWS).to_parquet(path), "it is Parquet.*call it .parquet"),
    "table.parquet": (lambda path: path.write_bytes(gzip.compress(b"x")), "packed with gzip"),
}


def _zip(path: Path, name: str, content: str = "x") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)


@pytest.mark.parametrize("name", PACKED)
def test_what_a_file_is_that_has_no_rows_is_said_with_what_makes_rows_of_it(tmp_path: Path, name: str) -> None:
    write, message = PACKED[name]
    write(tmp_path / name)
    for read in (read_file, lambda path: PUBLISHED.rows(Source.parse(str(path)))):
        with pytest.raises(DataError, match=message) as told:
            read(tmp_path / name)
        assert "\n" not in str(told.value)


ENCODINGS = {
    "utf-16": "it is UTF-16",
    "utf-32": "it is UTF-32",
    "utf-16-le": "it is UTF-16LE",
    "utf-16-be": "it is UTF-16BE",
    "latin-1": "line 2: not UTF-8 .*It looks like Latin-1",
    "cp1252": "line 2: not UTF-8 .*It looks like Windows-1252",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_another_encoding_is_named_and_the_command_that_is_said_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, suffix: str
) -> None:
    said = "André’s" if encoding == "cp1252" else "André"
    rows = [{"question": "Who?", "answer": said}] * 2
    lines = "question,answer\n" + f"Who?,{said}\n" * 2
    if suffix == "jsonl":
        lines = '{"question": "Who?", "answer": "Ada"}\n' + f'{{"question": "Who?", "answer": "{said}"}}\n'
        rows = [{"question": "Who?", "answer": "Ada"}, rows[0]]
    path = tmp_path / f"my rows.{suffix}"
    path.write_bytes(lines.encode(encoding))
    with pytest.raises(DataError, match=ENCODINGS[encoding]) as told:
        read_file(path)
    command = str(told.value).split("`")[1]
    if not shutil.which("iconv"):
        pytest.skip("the system has no iconv")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    assert read_file(tmp_path / f"utf8-my rows.{suffix}") == rows


def test_a_text_of_many_letters_beyond_ascii_is_called_by_no_encoding(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("вопрос,ответ\nКто?,Ада\n".encode("cp1251"))
    with pytest.raises(DataError, match="Save it as UTF-8, as `iconv -f ENCODING") as told:
        read_file(path)
    assert "looks like" not in str(told.value)


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
        ("scan.xyz", b"x", r"scan\.xyz: neither \.txt nor \.md; make it one, or take it out"),
        (
            "scan.pdf",
            b"%PDF-1",
            r"scan\.pdf: neither \.txt nor \.md; it is PDF: `pdftotext scan\.pdf`.*, or take it out",
        ),
        ("rows.gz", gzip.compress(b"x", mtime=0), r"rows\.gz: neither .*gzip: `gunzip -k"),
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


def test_what_says_what_a_folder_is_is_no_text_of_it(letters: Path) -> None:
    rows = read_texts(letters)
    for name in ("README.md", "readme.txt", "old/README.en.md", "LICENSE", "LICENCE.txt", "COPYING"):
        (letters / name).write_text("What this folder is.")
    assert read_texts(letters) == rows == PUBLISHED.rows(Source.parse(str(letters))).rows
    (letters / "licensed.txt").write_text("A letter.")
    assert len(read_texts(letters)) == len(rows) + 1


def test_a_folder_that_has_nothing_else_says_so(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Text.")
    with pytest.raises(DataError, match=r"no \.txt or \.md files in it but README\.md"):
        read_texts(tmp_path)
