"""Files written whole or not at all. No torch."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from grun_bench.core.errors import GrunBenchError, UsageError


def check_writable(output: Path) -> None:
    """Raises UsageError when no file can be made in the output folder; makes the folder."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise UsageError(f"--output {output}: cannot be written ({error.strerror}). Choose another folder.") from None


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all; text as UTF-8.

    Raises GrunBenchError when it cannot be saved.
    """
    data = content.encode() if isinstance(content, str) else content
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if part.is_file() and not part.is_symlink():  # a dead process of the same number left it
            part.unlink()
        with part.open("xb") as file:  # never through a link that bears its name
            try:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
    except FileExistsError:
        raise GrunBenchError(f"{path} could not be saved: {part} is in the way; remove it.") from None
    except OSError as error:
        raise GrunBenchError(f"{path} could not be saved: {error.strerror}.") from error
