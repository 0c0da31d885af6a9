"""Rows of JSON files: an object a line, or one array of objects. Read strictly, so that every reader sees the same."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from grun_bench.core.errors import DataError, UsageError
from grun_bench.core.escaping import clean
from grun_bench.core.local_data import check_fetched
from grun_bench.core.strict_json import parse_json
from grun_bench.tasks.dataset import Row
from grun_bench.tasks.kinds import check_text, encoding_of, save_as_utf8

#: endings of files that are read here, in a folder of several kinds
SUFFIXES = (".json", ".jsonl")


def read_rows(paths: Iterable[Path]) -> list[Row]:
    """The rows of files, one after another, all with the same columns: null where a row has none.

    Blank lines and a byte order mark are passed over. Raises DataError with the line (from 1) or the row (from 0) that
    is not strict JSON (see `core.strict_json`) or no object.
    """
    rows = [row for path in paths for row in _rows(path)]
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{column: row.get(column) for column in columns} for row in rows]


def _rows(path: Path) -> Iterator[Row]:
    content = b""
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        check_fetched(content, path)
        check_text(content, path)
        for place, row in _values(content, path):
            if not isinstance(row, dict):
                raise DataError(f"{place}: expected an object with the columns, found {clean(repr(row), 60)}.")
            yield row
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    except DataError:
        raise
    except UsageError as error:
        raise DataError(f"{error} {_advice(content, path)}") from None


def _advice(content: bytes, path: Path) -> str:
    """What to do with a file that is neither JSON Lines nor an array."""
    try:
        whole = json.loads(content.decode())
    except UnicodeDecodeError:
        return save_as_utf8(path, encoding_of(content))
    except (ValueError, RecursionError):
        whole = None
    lists = [key for key, value in whole.items() if isinstance(value, list)] if isinstance(whole, dict) else []
    if lists:
        key = clean(str(lists[0]), 60)
        return f"It is one object with its rows in '{key}': `jq '.{key}' FILE` is the array of them that is read."
    return "Data are JSON Lines, an object a line, or one array of objects."


def _values(content: bytes, path: Path) -> Iterator[tuple[str, Any]]:
    if content.lstrip().startswith(b"["):
        for number, row in enumerate(parse_json(content, path)):
            yield f"{path}, row {number}", row
        return
    # as bytes: texts may hold what Unicode counts as the end of a line
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            place = f"{path}, line {number}"
            yield place, parse_json(line, place)
