"""Rows of the kinds of files that people have: JSON, tables of commas, Parquet, and folders of texts. No torch."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

from grun_bench.core.errors import DataError
from grun_bench.core.escaping import clean
from grun_bench.core.local_data import check_fetched
from grun_bench.tasks.dataset import Row
from grun_bench.tasks.json_rows import SUFFIXES, read_rows
from grun_bench.tasks.kinds import advice, check_text, encoding_of, kind_of, save_as_utf8

#: endings of files that are a text each, in a folder of them
TEXTS = (".txt", ".md")
#: names of files about a folder, before the first dot
_ABOUT = ("readme", "license", "licence", "copying")
#: endings of tables; what is not here is read as JSON
_TABLES = (*SUFFIXES, ".csv", ".tsv", ".parquet")
_DELIMITERS = ",;\t"
#: a name of a column that stands in quotation marks, in which a delimiter is none
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
#: characters in a cell
_CELL = 2**24


def read_file(path: Path) -> list[Row]:
    """The rows of a file, by its ending: `.csv`, `.tsv`, `.parquet`, or else JSON (see `json_rows`).

    A `.txt` or `.md` is one row. What a row lacks is null, and so is an empty cell of a CSV file. Raises DataError with
    the line or the row.
    """
    try:
        return _READERS.get(path.suffix.lower(), _json)(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None


def is_texts(folder: Path) -> bool:
    """Whether a folder is one of texts: it has some beside those about itself, and no table."""
    kinds = {path.suffix.lower() for path in text_files(folder)} if folder.is_dir() else set()
    return bool(kinds.intersection(TEXTS)) and not kinds.intersection(_TABLES)


def read_texts(folder: Path) -> list[Row]:
    """The texts of a folder and of those in it, a row a file, in the order of their paths: `text`, and `file`.

    What `left_out` has is passed over. Raises DataError for a file of another kind, which would be left out in silence,
    for an empty one, and for what is not UTF-8.
    """
    files = text_files(folder)
    if odd := [path for path in files if path.suffix.lower() not in TEXTS]:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        kind = _kind(odd[0])
        rows = "name it by itself to have its rows" if odd[0].suffix.lower() in _TABLES else "make it one"
        how = f"it is {kind}: {advice(kind, odd[0])}" if kind else rows
        raise DataError(f"{odd[0]}{more}: neither .txt nor .md; {how}, or take it out of that folder.")
    if not files:
        about = left_out(folder)[0]
        only = f" but {about[0].name}, which says what a folder is; name that file to have it read" if about else ""
        raise DataError(f"{folder}: no .txt or .md files in it{only}.")
    return [{"file": path.relative_to(folder).as_posix(), **_text(path)[0]} for path in files]


def text_files(folder: Path) -> list[Path]:
    """The files that `read_texts` reads."""
    return [path for path in _files(folder) if not _is_about(path) and not _is_hidden(path, folder)]


def left_out(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files that it passes over: those that say what the folder is, as README.md, and hidden ones."""
    hidden = [path for path in _files(folder) if _is_hidden(path, folder)]
    return [path for path in _files(folder) if _is_about(path) and path not in hidden], hidden


def _is_about(path: Path) -> bool:
    return path.name.partition(".")[0].lower() in _ABOUT and path.suffix.lower() in ("", ".rst", *TEXTS)


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return kind_of(file.read(256), path)
    except OSError:
        return ""


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _json(path: Path) -> list[Row]:
    return read_rows([path])


def _text(path: Path) -> list[Row]:
    text = _decoded(path)
    if not text.strip():
        raise DataError(f"{path}: an empty text.")
    return [{"text": text}]


def _parquet(path: Path) -> list[Row]:
    import pyarrow
    from pyarrow import parquet

    with path.open("rb") as file:
        beginning = file.read(256)
    check_fetched(beginning, path)
    if kind_of(beginning, path) != "Parquet":
        check_text(beginning, path)
    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(f"{path}: not Parquet ({clean(' '.join(str(error).split()), 100)}).") from None
    return rows


def _csv(path: Path) -> list[Row]:
    text = _decoded(path)
    first = _QUOTED.sub("", text).partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=first.count)
    csv.field_size_limit(_CELL)
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        return list(_table(reader, path))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: not CSV ({error}).") from None


def _table(lines: Iterator[list[str]], path: Path) -> Iterator[Row]:
    """The rows below the names of the columns. Raises DataError where a row has more or fewer cells than these."""
    names = [name.strip() for name in next(lines, [])]
    if not names or not all(names) or len(set(names)) < len(names):
        raise DataError(f"{path}, line 1: the first line of a CSV file names its columns, each with a name of its own.")
    for number, cells in enumerate(line for line in lines if line):
        if len(cells) != len(names):
            raise DataError(
                f"{path}, row {number}: {len(cells)} cells for {len(names)} columns; a cell with a comma or a line end "
                'in it stands in quotation marks, "as, here".'
            )
        yield {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _decoded(path: Path) -> str:
    """UTF-8, a byte order mark passed over. Raises DataError with the line that is something else."""
    content = path.read_bytes()
    check_fetched(content, path)
    check_text(content, path)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 (byte {error.start}). {save_as_utf8(path, encoding_of(content))}"
        ) from None


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    **dict.fromkeys((".csv", ".tsv"), _csv),
    ".parquet": _parquet,
    **dict.fromkeys(TEXTS, _text),
}
