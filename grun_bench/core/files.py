"""Files and folders written whole or not at all, and locks between processes. No torch."""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path

from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.core.progress import say

#: this machine and the process that writes, in the name of what is not whole yet
_PART = re.compile(r"\..+\.([0-9a-f]{8})-([0-9]+)\.part")
#: no file is in the making for longer, in seconds
_DAY = 86400.0


def check_writable(output: Path) -> None:
    """Raises UsageError when no file can be made in the output folder; makes the folder."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise UsageError(f"--output {output}: cannot be written ({error.strerror}). Choose another folder.") from None


def check_empty(folder: Path, option: str = "") -> None:
    """Raises UsageError where something is at the folder that is to be written, which `option` gave."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{option} {folder}: there is something already. Choose another folder.".lstrip())


def noted_path(note: Path) -> Path | None:
    """The path that a file of the cache notes, on its one line; None where it is not there or notes none."""
    try:
        text = note.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return Path(text) if text else None


def near_files(path: Path, meant: Callable[[Path], bool] = Path.exists) -> str:
    """What is called nearly so beside a file or folder that is not there, for the end of a sentence; of what could be
    `meant` alone."""
    if not path.parent.is_dir():
        return f", as its folder {path.parent} is not there"
    with suppress(OSError):
        # endings are alike in any two names
        there = [each for each in sorted(path.parent.iterdir()) if not each.name.startswith(".") and meant(each)]
        close = get_close_matches(path.stem, {each.stem for each in there}, n=3, cutoff=0.6)
        if found := [str(path.with_name(each.name)) for each in there if each.stem in close]:
            return f"; near it is {' and '.join(found)}"
    return ""


@contextmanager
def part_of(path: Path) -> Iterator[Path]:
    """A name beside `path` to write a file or a folder under, until it takes the place of `path`; gone after the block.

    Makes the folder that they lie in. What processes left there that were killed goes too. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if _left(entry):
                remove(Path(entry.path))
    part = path.with_name(f".{path.name}.{_machine()}-{os.getpid()}.part")
    if part.is_symlink():  # whoever planted it wants something else written
        raise FileExistsError(errno.EEXIST, f"{part} is in the way; remove it")
    remove(part)  # of an earlier process of the same number
    try:
        yield part
    finally:
        remove(part)


def readable_as(folder: Path) -> None:
    """Give files whoever may read their folder: safetensors writes them for the one who ran it alone."""
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _left(entry: os.DirEntry[str]) -> bool:
    """Whether this is a part that nobody writes any more: its process ended, or on another machine, a file of a day."""
    found = _PART.fullmatch(entry.name)
    if found is None:
        return False
    if found[1] == _machine():
        try:
            os.kill(int(found[2]), 0)
        except (ProcessLookupError, OverflowError):
            return True
        except PermissionError:
            return False
    return not entry.is_dir() and time.time() - entry.stat(follow_symlinks=False).st_mtime > _DAY


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there and can be removed."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all; text as UTF-8.

    Raises GrunBenchError when it cannot be saved.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        with part_of(path) as part:
            with part.open("xb") as file:  # never through a link
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
    except OSError as error:
        raise GrunBenchError(f"{path} could not be saved: {error.strerror}.") from error


@contextmanager
def locked(lock: Path, busy: str) -> Iterator[None]:
    """Within this block no other process holds this lock; `busy` is said where one does, and it is waited for.

    A lock ends with its process, however that ends; its file stays. Raises OSError where no lock can be had.
    """
    from filelock import FileLock, Timeout  # takes a moment, and not every command locks something

    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        say(busy)
        held.acquire()
    try:
        yield
    finally:
        held.release()
