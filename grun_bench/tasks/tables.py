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
from grun_bench.tasks.json_rows import SAVE_AS_UTF8, SUFFIXES, read_rows

#: endings of files that are a text each, in a folder of them
TEXTS = (".txt", ".md")
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
    """Whether a folder is one of texts: it has some beside its README, and no table."""
    names = [path for path in _files(folder) if path.stem.lower() != "readme"] if folder.is_dir() else []
    kinds = {path.suffix.lower() for path in names}
    return bool(kinds.intersection(TEXTS)) and not kinds.intersection(_TABLES)


def read_texts(folder: Path) -> list[Row]:
    """The texts of a folder and of those in it, a row a file, in the order of their paths: `text`, and `file`.

    Hidden files are passed over. Raises DataError for a file of another kind, which would be left out in silence, for
    an empty one, and for what is not UTF-8.
    """
    files = _files(folder)
    if odd := [path for path in files if path.suffix.lower() not in TEXTS]:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise DataError(f"{odd[0]}{more}: neither .txt nor .md; make it one, or take it out of {folder}.")
    if not files:
        raise DataError(f"{folder}: no .txt or .md files in it.")
    return [{"file": path.relative_to(folder).as_posix(), **_text(path)[0]} for path in files]


def text_files(folder: Path) -> list[Path]:
    """The files that `read_texts` reads."""
    return _files(folder)


def _files(folder: Path) -> list[Path]:
    inner = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in inner if not any(part.startswith(".") for part in path.relative_to(folder).parts))


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
        check_fetched(file.read(256), path)
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
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 (byte {error.start}). {SAVE_AS_UTF8}") from None


_READERS: dict[str, Callable[[Path], list[Row]]] = {
    **dict.fromkeys((".csv", ".tsv"), _csv),
    ".parquet": _parquet,
    **dict.fromkeys(TEXTS, _text),
}
