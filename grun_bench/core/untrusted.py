"""Files from strangers: which there may be and how large, JSON read strictly, and pickles known by content. No torch.

Everything that is refused raises UsageError with the file and the place in it, in text that is safe to print.
"""

from __future__ import annotations

import json
import math
import os
import pickletools
import re
import stat
from pathlib import Path
from typing import Any, NoReturn

from grun_bench.core.errors import UsageError
from grun_bench.core.escaping import clean

MAX_FILES, MAX_DEPTH = 2_000, 6
#: bytes of a JSON file (tokenizers take up to 20 MB), of a records file and of one line of it
JSON_BYTES, RECORDS_BYTES, LINE_BYTES = 32 * 2**20, 512 * 2**20, 4 * 2**20
#: bytes of a text and of a file of tensors
TEXT_BYTES, TENSOR_BYTES = 8 * 2**20, 64 * 2**30
#: lines of a records file; WMDP with MMLU has 18,000
MAX_LINES = 50_000
#: containers in containers; result files have six
JSON_DEPTH = 32
#: whole numbers that JSON of other languages can hold
LARGEST_INT = 2**63 - 1

#: names of files and folders: nothing hidden, nothing that a shell, a system or a page could take for something else
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+@=-]{0,198}[A-Za-z0-9_+@=-])?")
_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def refuse(place: object, what: str) -> NoReturn:
    """Raises UsageError: `place` is a file, perhaps with a place in it."""
    raise UsageError(clean(f"{place}: {what}."))


# --- files ------------------------------------------------------------------------------------------------------------


def listing(folder: Path) -> list[str]:
    """The files of a folder, relative to it, with `/`, in order.

    Refuses links of both kinds, what is neither file nor folder, odd names, names that differ in case only, more than
    `MAX_FILES` files or folders and more than `MAX_DEPTH` levels.
    """
    if folder.is_symlink() or not folder.is_dir():
        refuse(folder, "not a folder")
    found: list[str] = []
    seen: dict[str, str] = {}
    waiting = [("", 1)]
    while waiting:
        inner, depth = waiting.pop()
        try:
            with os.scandir(folder / inner) as entries:
                for entry in entries:
                    path = f"{inner}{entry.name}"
                    place, status = folder / path, entry.stat(follow_symlinks=False)
                    _check_entry(place, entry.name, status)
                    twin = seen.setdefault(path.casefold(), path)
                    if twin != path:
                        refuse(place, f"differs from {twin} in case only")
                    if len(seen) > MAX_FILES:
                        refuse(folder, f"more than {MAX_FILES:,} files and folders")
                    if stat.S_ISREG(status.st_mode):
                        found.append(path)
                    elif depth >= MAX_DEPTH:
                        refuse(place, f"deeper than {MAX_DEPTH} levels")
                    else:
                        waiting.append((f"{path}/", depth + 1))
        except OSError as error:
            refuse(folder / inner, f"cannot be read ({error.strerror})")
    return sorted(found)


def _check_entry(place: Path, name: str, status: os.stat_result) -> None:
    if not NAME.fullmatch(name):
        refuse(place, "not a plain name (letters, digits and _ . + @ = - inside)")
    if stat.S_ISLNK(status.st_mode):
        refuse(place, "a link; put the file itself there")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        refuse(place, "neither a file nor a folder")
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        refuse(place, "a hard link; put a copy there")


def read(path: Path, limit: int) -> bytes:
    """The content of a plain file. Refuses links, devices and more than `limit` bytes."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})")
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        refuse(path, "not a plain file")
    with os.fdopen(handle, "rb") as file:
        if status.st_size > limit:
            refuse(path, f"{status.st_size:,} bytes, and {limit:,} are allowed")
        return file.read(limit)


def decode(content: bytes, place: object) -> str:
    """UTF-8 without a byte order mark, or refused."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        refuse(place, f"not UTF-8 (byte {error.start})")
    if text.startswith("\ufeff"):
        refuse(place, "begins with a byte order mark; save it as UTF-8 without one")
    return text


def check_text(content: bytes, place: object) -> None:
    """Refuses what is not readable text, or is a pickle of the printable kind."""
    found = _CONTROL.search(decode(content, place))
    if found:
        refuse(place, f"a control character (U+{ord(found.group()):04X}) in what should be text")
    if _is_pickle(content):
        refuse(place, "a pickle, whatever its name says")


def _is_pickle(content: bytes) -> bool:
    """Whether the bytes are a pickle from the first to a stop. Nothing in it is run."""
    try:
        return sum(1 for _ in pickletools.genops(content)) > 1
    except Exception:  # whatever it stumbles on, it is no pickle
        return False


def check_tensors(path: Path) -> None:
    """Refuses what is not safetensors from the first byte to the last, by its content: a pickle, a zip, a half file."""
    from safetensors import SafetensorError, safe_open

    try:
        size = path.lstat().st_size
        if size > TENSOR_BYTES:
            refuse(path, f"{size:,} bytes, and {TENSOR_BYTES:,} are allowed")
        with safe_open(path, "np"):
            pass
    except (SafetensorError, OSError) as error:
        refuse(path, f"not safetensors ({error}); weights of other formats are refused, pickles above all")


# --- JSON -------------------------------------------------------------------------------------------------------------


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
    odd = len(text) > 20 or abs(int(text)) > LARGEST_INT
    return _Odd(f"a whole number beyond {LARGEST_INT}") if odd else int(text)


def _float(text: str) -> Any:
    value = float(text)
    return value if math.isfinite(value) else _Odd("a number too large to hold")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_int,
    parse_float=_float,
    parse_constant=lambda text: _Odd(f"{text}, which JSON does not have"),
)


def parse_json(content: bytes, place: object) -> Any:
    """The data in strict JSON.

    Refuses, with the place: duplicate keys, NaN and infinities, numbers too large to hold, text that is not Unicode
    (lone surrogates), nesting deeper than `JSON_DEPTH`, a byte order mark, and what is not UTF-8 or not JSON.
    """
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


def json_lines(content: bytes, place: object) -> list[tuple[bytes, str]]:
    """The lines of a JSON Lines file, each strict JSON, with its place. Refuses empty and overlong lines."""
    lines = content.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    if len(lines) > MAX_LINES:
        refuse(place, f"{len(lines):,} lines, and {MAX_LINES:,} are allowed")
    found = []
    for number, line in enumerate(lines, 1):
        where = f"{place}, line {number}"
        if len(line) > LINE_BYTES:
            refuse(where, f"longer than {LINE_BYTES:,} bytes")
        parse_json(line, where)
        found.append((line, where))
    return found
