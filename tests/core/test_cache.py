"""The cache: built once by two processes, whole or not at all, whatever kills a build."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from grun_bench.core.cache import cached_folder, digest, is_cached
from grun_bench.core.errors import GrunBenchError, UsageError

KEY = {"what": "a model", "seed": 0}
BUILDER = """
import os, sys, time
from pathlib import Path
from grun_bench.core.cache import cached_folder

def build(folder):
    (folder / "first").write_text("whole")
    with open(sys.argv[1], "a") as log:
        log.write(f"{os.getpid()}\\n")
    time.sleep(float(sys.argv[2]))
    (folder / "second").write_text("whole")

print(cached_folder("models", {"what": "a model", "seed": 0}, build))
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def start(log: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", BUILDER, str(log), str(seconds)], stdout=subprocess.PIPE, text=True)


def await_line(log: Path, process: subprocess.Popen[str]) -> None:
    while not log.exists() or not log.read_text():
        assert process.poll() is None, "the builder ended before it began to build"
        time.sleep(0.02)


def fill(folder: Path) -> None:
    (folder / "first").write_text("again")
    (folder / "second").write_text("again")


def test_two_processes_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes = [start(log, 0.5) for _ in range(2)]
    folders = {process.communicate(timeout=60)[0].strip().splitlines()[-1] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(log.read_text().splitlines()) == 1
    (folder,) = folders
    assert (Path(folder) / "second").read_text() == "whole"


def test_a_killed_build_leaves_nothing_false(tmp_path: Path, cache: Path) -> None:
    log = tmp_path / "log"
    process = start(log, 60)
    await_line(log, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (cache / "models" / digest(KEY)[:20]).exists()
    folder = cached_folder("models", KEY, fill)
    assert {path.name: path.read_text() for path in folder.iterdir() if path.name != "key.json"} == {
        "first": "again",
        "second": "again",
    }
    assert not list((cache / "models").glob("*.building-*"))


def test_a_folder_without_its_key_is_built_again(cache: Path) -> None:
    half = cache / "models" / digest(KEY)[:20]
    half.mkdir(parents=True)
    (half / "first").write_text("half")
    folder = cached_folder("models", KEY, fill)
    assert (folder / "first").read_text() == "again"


def test_another_key_is_another_folder() -> None:
    folder = cached_folder("models", KEY, fill)
    assert cached_folder("models", KEY | {"seed": 1}, fill) != folder
    # what is there is not built again
    assert cached_folder("models", dict(reversed(KEY.items())), lambda _: pytest.fail("built twice")) == folder


def test_a_build_that_fails_leaves_nothing(cache: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "first").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        cached_folder("models", KEY, fails)
    assert [path.name for path in (cache / "models").iterdir() if path.suffix != ".lock"] == []


def test_a_disk_that_is_full_is_a_failed_save() -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(GrunBenchError, match="No space left"):
        cached_folder("models", KEY, full)


def test_a_cache_that_is_a_file_is_an_error_that_says_what_to_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="GRUN_BENCH_CACHE"):
        cached_folder("models", KEY, fill)


def test_files_that_are_not_what_was_built_are_built_again(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = cached_folder("models", KEY, fill)
    (folder / "second").write_bytes(bytes(5))
    assert cached_folder("models", KEY, fill) == folder
    assert (folder / "second").read_text() == "again"
    assert str(folder) in capsys.readouterr().err
    # what an older version built says nothing of its files
    (folder / "key.json").write_text(json.dumps(KEY))
    assert cached_folder("models", KEY, lambda _: pytest.fail("built twice")) == folder


@pytest.mark.parametrize(
    "said", ["[]", "3", '"text"', "null", "{}", '{"seed": 0}', '{"content_sha256": null}', "[" * 100_000, "", "\xff"]
)
def test_a_key_file_that_is_not_what_was_written_is_no_whole_folder(said: str) -> None:
    folder = cached_folder("models", KEY, fill)
    (folder / "first").write_text("half")
    (folder / "key.json").write_text(said, encoding="latin-1")
    assert not is_cached("models", KEY)
    assert (cached_folder("models", KEY, fill) / "first").read_text() == "again"
    assert is_cached("models", KEY)
