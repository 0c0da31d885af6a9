"""Files from strangers: which there may be and how large, and pickles known by content. No torch.

Everything that is refused raises UsageError with the file and the place in it, in text that is safe to print.
"""

from __future__ import annotations

import bz2
import gzip
import os
import pickletools
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NoReturn

from grun_bench.core.errors import UsageError
from grun_bench.core.escaping import clean

MAX_FILES, MAX_DEPTH = 2_000, 6
#: bytes of a text and of a file of tensors
TEXT_BYTES, TENSOR_BYTES = 8 * 2**20, 64 * 2**30
#: bytes that a file is read by, at most
_PIECE = 2**20

#: names of files and folders: nothing hidden, nothing that a shell, a system or a page could take for something else
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+@=-]{0,198}[A-Za-z0-9_+@=-])?")
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
    with _opened(path, limit) as file:
        # a reader that is given the limit makes room for it
        return file.read(os.fstat(file.fileno()).st_size)


def pieces(path: Path, limit: int) -> Iterator[bytes]:
    """The content of a plain file piece by piece, uncompressed where its name ends in `.bz2` or `.gz`.

    Refuses links, devices, what is not compressed so, and more than `limit` bytes of content, however few they are on
    the disk.
    """
    with _opened(path, limit) as file:
        count = 0
        try:
            for piece in _bunzipped(file) if path.suffix == ".bz2" else _read(file, path.suffix == ".gz"):
                count += len(piece)
                if count > limit:
                    refuse(path, f"more than {limit:,} bytes when it is uncompressed")
                yield piece
        except (OSError, EOFError, zlib.error) as error:
            refuse(path, f"cannot be uncompressed ({error})")


def _read(file: BinaryIO, packed: bool) -> Iterator[bytes]:
    content: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=file) if packed else file
    while piece := content.read(_PIECE):
        yield piece


def _bunzipped(file: BinaryIO) -> Iterator[bytes]:
    """One stream of bzip2 after the other. The library's own reader passes over what comes after them."""
    given = file.read(_PIECE)
    while given:
        stream = bz2.BZ2Decompressor()
        while not stream.eof:
            if stream.needs_input and not (given := given or file.read(_PIECE)):
                raise EOFError("it ends too early")
            yield stream.decompress(given, _PIECE)
            given = b""
        given = stream.unused_data or file.read(_PIECE)


def _opened(path: Path, limit: int) -> BinaryIO:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})")
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        refuse(path, "not a plain file")
    if status.st_size > limit:
        os.close(handle)
        refuse(path, f"{status.st_size:,} bytes, and {limit:,} are allowed")
    return os.fdopen(handle, "rb")


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
