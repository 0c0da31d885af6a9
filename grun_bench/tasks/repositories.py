"""Files of Git repositories at a commit: fetched once, then kept in the cache by what they are. No torch.

A commit's name is the hash of all that it holds, which Git checks when it fetches: nobody can change the rows behind a
task file that names one.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path, PurePosixPath

from grun_bench.core.cache import cached_folder
from grun_bench.core.errors import DataError, UsageError, first_line
from grun_bench.core.escaping import clean
from grun_bench.tasks.dataset import REPOSITORY, Row, Source
from grun_bench.tasks.json_rows import SUFFIXES, read_rows

#: what may be fetched from: others of Git's transports run commands
_FORM = re.compile(r"git\+((?:https|ssh|file)://[^\s@]+(?:@[^\s@:]+)?[^\s@]*)@([0-9a-f]{40})")
#: Apache Arrow's streams, as `datasets` keeps a split on disk
_ARROW = ".arrow"
#: seconds without a byte after which a fetch is given up
_PATIENCE = 60


def read(source: Source) -> tuple[list[Row], str]:
    """All rows of a file of a repository, and where they were found.

    Raises UsageError for a source of another form, DataError for a file that cannot be had.
    """
    form = _FORM.fullmatch(source.data)
    if form is None or not source.config:
        raise UsageError(
            f"'{clean(str(source), 200)}' is no file of a Git repository: write git+https://<host>/<org>/<name>@<commit>"
            ":<path>, the commit by its 40 hexadecimal digits (git+ssh:// and git+file:// too)."
        )
    suffix = PurePosixPath(source.config).suffix
    if suffix not in (*SUFFIXES, _ARROW):
        raise UsageError(f"{clean(str(source), 200)}: files of rows end with {', '.join((*SUFFIXES, _ARROW))}.")
    path = _cached(form[1], form[2], source.config)
    return (_arrow_rows(path) if suffix == _ARROW else read_rows([path])), str(source).partition("[")[0]


def _cached(url: str, commit: str, path: str) -> Path:
    """The file, fetched unless it is in the cache."""
    name = PurePosixPath(path).name
    key = {"repository": url, "commit": commit, "path": path}
    folder = cached_folder("sources", key, lambda folder: _fetch(url, commit, path, folder / name))
    return folder / name


def _fetch(url: str, commit: str, path: str, to: Path) -> None:
    """Fetch one commit, and where the server can leave other files out no other file, and write the file."""
    repository = to.with_name("repository.git")
    try:
        _git(repository, "init", "--quiet", "--bare", str(repository))
        _git(repository, "remote", "add", "origin", url)
        _git(repository, "fetch", "--quiet", "--depth=1", "--filter=blob:none", "origin", commit)
        to.write_bytes(_git(repository, "cat-file", "blob", f"{commit}:{path}"))
    finally:
        if repository.exists():
            import shutil

            shutil.rmtree(repository)


def _git(repository: Path, command: str, *arguments: str) -> bytes:
    """What a command of Git says. Raises DataError with the line that says why it ended."""
    place = [] if command == "init" else ["-C", str(repository)]
    slow = ["-c", "http.lowSpeedLimit=1", "-c", f"http.lowSpeedTime={_PATIENCE}"]
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["git", *place, *slow, command, *arguments], capture_output=True, env={**quiet, **os.environ}, check=False
        )
    except OSError as error:
        raise DataError(f"git cannot be run ({error.strerror}).") from None
    if done.returncode:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise DataError(f"git {command}: {clean(next((each for each in lines if 'fatal: ' in each), lines[-1]), 300)}")
    return done.stdout


def _arrow_rows(path: Path) -> list[Row]:
    import pyarrow

    try:
        with pyarrow.ipc.open_stream(str(path)) as stream:
            return stream.read_all().to_pylist()
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a stream of Apache Arrow ({first_line(error)[:120]}).") from None


def is_repository(source: Source) -> bool:
    """Whether a source is a file of a Git repository."""
    return source.data.startswith(REPOSITORY)
