"""Where the program prints: full disks, readers that are gone, terminals without signs, users without a home."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

from grun_bench.core.environment import cache_folder
from grun_bench.core.errors import UsageError
from grun_bench.results.store import result_files

PROGRAM = [sys.executable, "-m", "grun_bench"]


def ended(arguments: list[object], **options: Any) -> tuple[int, str]:
    """The exit code and stderr of the program in a process of its own."""
    done = subprocess.run([*PROGRAM, *map(str, arguments)], stderr=subprocess.PIPE, text=True, **options)
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_output_that_cannot_be_written_is_a_failure() -> None:
    with Path("/dev/full").open("w") as full:
        code, said = ended(["ls", "tasks"], stdout=full)
    assert code == 1 and said.startswith("error: ") and "No space left" in said and said.count("\n") == 1


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_reader_that_has_read_enough_is_no_failure(results: Path, option: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        assert ended(["show", next(iter(result_files(results))), *option], stdout=gone) == (0, "")


def test_a_terminal_without_arrows_gets_signs_that_it_has(results: Path) -> None:
    arguments = ["show", next(iter(result_files(results)))]
    texts = []
    for encoding in ("ascii", "utf-8"):
        environment = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "200"}
        done = subprocess.run([*PROGRAM, *map(str, arguments)], capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout.decode(encoding))
    assert "model utility ^" in texts[0] and "model utility ↑" in texts[1]


def test_a_user_without_a_home_has_one_in_the_cache_or_is_told_what_to_set(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the system answers for a user that it does not know."""
    monkeypatch.setenv("HOME", "~")
    assert command("ls", "tasks").code == 0
    assert os.environ["HOME"] == os.environ["GRUN_BENCH_CACHE"]
    monkeypatch.setenv("HOME", "~")
    for name in ("GRUN_BENCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    said = command("run", "--unlearner", "none", "--task", "tofu_forget10", "--include-path", "~/plugins")
    assert said.code == 2 and "set HOME or GRUN_BENCH_CACHE" in said.err and said.err.count("\n") == 1
    with pytest.raises(UsageError, match="set HOME or GRUN_BENCH_CACHE"):
        cache_folder()


def test_a_folder_of_a_user_that_is_not_there_is_one_line(command: Command, hub: Path, tmp_path: Path) -> None:
    task = ["--task", hub / "small.yaml", "--output", tmp_path]
    said = command("run", "--unlearner", "none", *task, "--model", "~no-such-user/model")
    assert said.code == 2 and said.err.startswith("error: ~no-such-user/model: ") and said.err.count("\n") == 1
