"""JSON from strangers, read strictly: what two readers could take for different things is refused. No torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from grun_bench.core.errors import wrong
from grun_bench.core.untrusted import decode, read, refuse

#: bytes of a JSON file (tokenizers take up to 20 MB) and of one line of a JSON Lines file
JSON_BYTES, LINE_BYTES = 32 * 2**20, 4 * 2**20
#: lines of a JSON Lines file; WMDP with MMLU has 18,000
MAX_LINES = 50_000
#: containers in containers; result files have six
JSON_DEPTH = 32
#: whole numbers that JSON of other languages can hold
LARGEST_INT = 2**63 - 1
#: what saved tokenizers say where they have no limit
NO_LIMIT = int(1e30)

T = TypeVar("T")
_SURROGATE = re.compile("[\ud800-\udfff]")


def checked(kind: type[T], data: Any, place: object, root: str = "$") -> T:
    """Data from JSON as a value of this type, a pydantic model with `strict=True`; refused where they are another.

    `root` is what they are called as a whole, where a place in them is named: "" in files that people write.
    """
    anything: Any = kind  # mypy holds that a type cannot be hashed
    try:
        found: T = _adapter(anything).validate_python(data)
        return found
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        refuse(place, ": ".join(filter(None, ((root + where).lstrip("."), wrong(first)[:200]))))


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def read_json(path: Path, kind: type[T]) -> T:
    """A strict JSON file as a value of this type, as `checked` has it."""
    return checked(kind, parse_json(read(path, JSON_BYTES), path), path)


def read_if_there(path: Path, kind: type[T], empty: T) -> T:
    """The same of a file that need not be there."""
    return read_json(path, kind) if path.exists() or path.is_symlink() else empty


def parse_json(content: bytes, place: object, *, reviewed: bool = False) -> Any:
    """The data in strict JSON.

    Refuses, with the place: duplicate keys, NaN and infinities, numbers too large to hold, text that is not Unicode
    (lone surrogates), nesting deeper than `JSON_DEPTH`, a byte order mark, and what is not UTF-8 or not JSON. What was
    `reviewed` has been read so before; then keys, numbers and nesting are not looked at once more.
    """
    from pydantic_core import from_json

    try:
        data = from_json(content, allow_inf_nan=False)
        if reviewed or _in_order(content, data):
            return data
    except ValueError:
        pass
    return _read(content, place)


def json_lines(pieces: Iterable[bytes], place: object) -> Iterator[tuple[bytes, str]]:
    """The lines of a JSON Lines file that comes in pieces, each strict JSON, with its place.

    Refuses empty and overlong lines, and more than `MAX_LINES`.
    """
    for number, line in enumerate(_lines(pieces, place), 1):
        if number > MAX_LINES:
            refuse(place, f"more than {MAX_LINES:,} lines")
        where = f"{place}, line {number}"
        if len(line) > LINE_BYTES:
            refuse(where, f"longer than {LINE_BYTES:,} bytes")
        parse_json(line, where)
        yield line, where


def _lines(pieces: Iterable[bytes], place: object) -> Iterator[bytes]:
    """Lines without their ends; of one that does not end, no more than what shows that it is too long."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole
        if len(rest) > LINE_BYTES:
            break
    if rest:
        yield rest


# --- the quick way: data that are proven to be in order -----------------------------------------------------------


def _in_order(content: bytes, data: Any) -> bool:
    """Whether data that a quick reader found in a text are what the strict one finds; False where it cannot tell.

    The quick reader lets three things pass. Nesting and numbers too large are in the data. Of a key that comes twice
    the data have one: then the text has more `":` than the data have keys. A `":` may come from elsewhere only where
    text has an escaped quote, which is left to the strict reader, or where a text begins with a colon, which makes
    them too many as well.
    """
    level, keys = [data], 0
    for _ in range(JSON_DEPTH):
        inner: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is dict:
                keys += len(value)
                inner += value.values()
            elif kind is list:
                inner += value
            elif (kind is float and value - value != 0) or (kind is int and not -LARGEST_INT <= value <= LARGEST_INT):
                return False
        if not inner:
            return b'\\"' not in content and content.translate(None, b" \t\r\n").count(b'":') == keys
        level = inner
    return False


# --- the strict way: what is wrong, and where -----------------------------------------------------------------------


class _Odd:
    """Stands in the parsed data where something is refused, until its place is known."""

    def __init__(self, what: str) -> None:
        self.what = what


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    seen: set[str] = set()
    return _Odd(f"the key '{next(key for key, _ in pairs if key in seen or seen.add(key))}' twice")  # type: ignore[func-returns-value]


def _int(text: str) -> Any:
    value = int(text) if len(text) < 40 else math.inf
    return value if abs(value) <= LARGEST_INT or value == NO_LIMIT else _Odd(f"a whole number beyond {LARGEST_INT}")


def _float(text: str) -> Any:
    value = float(text)
    return value if math.isfinite(value) else _Odd("a number too large to hold")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_int,
    parse_float=_float,
    parse_constant=lambda text: _Odd(f"{text}, which JSON does not have"),
)


def _read(content: bytes, place: object) -> Any:
    text = decode(content, place)
    try:
        data = _DECODER.decode(text)
    except RecursionError:
        refuse(place, f"nested deeper than {JSON_DEPTH}")
    except ValueError as error:
        refuse(place, f"not JSON ({error})")
    _check_data(data, place)
    return data


#: a place in JSON: what it lies in, and its key or number there
_Place = tuple[Any, Any] | None


def _check_data(data: Any, place: object) -> None:
    waiting: list[tuple[Any, _Place, int]] = [(data, None, 0)]
    while waiting:
        value, where, depth = waiting.pop()
        if isinstance(value, _Odd):
            refuse(place, f"{_path(where)}: {value.what}")
        elif isinstance(value, str):
            if not value.isascii() and _SURROGATE.search(value):
                refuse(place, f"{_path(where)}: half of a surrogate pair, which is no text")
        elif isinstance(value, dict | list):
            if depth >= JSON_DEPTH:
                refuse(place, f"{_path(where)}: nested deeper than {JSON_DEPTH}")
            if isinstance(value, dict):
                waiting += [(key, (where, "key"), depth + 1) for key in value if not key.isascii()]
                items: Any = value.items()
            else:
                items = enumerate(value)
            waiting += [
                (item, (where, key), depth + 1)
                for key, item in items
                if isinstance(item, str | list | dict | _Odd)  # numbers were seen to when they were read
            ]


def _path(where: _Place) -> str:
    """`$.results.tofu[3]`."""
    parts = []
    while where is not None:
        where, key = where
        parts.append(f"[{key}]" if isinstance(key, int) else f".{key}")
    return "$" + "".join(reversed(parts))
