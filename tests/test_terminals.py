"""Where the program prints: full disks, readers that are gone, terminals without signs, users without a home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Command

from grun_bench.cli.commands import COMMANDS, HANDED_ON, Made
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


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.parametrize("arguments", [["ls", "tasks"], ["show", "RESULT"], ["show", "RESULT", "--json"], ["--help"]])
def test_a_stdout_that_is_closed_is_told(results: Path, arguments: list[str]) -> None:
    """As a shell closes it with `>&-`."""
    said = [str(result_files(results)[0]) if each == "RESULT" else each for each in arguments]
    code, error = ended(said, preexec_fn=lambda: os.close(1))
    assert (code, error) == (1, "error: the output could not be written (stdout is closed).\n")


@pytest.mark.long
def test_what_is_for_a_closed_stderr_is_not_on_stdout(results: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "show", "nothing-of-this", "--output", str(results)],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.close(2),
    )
    assert (done.returncode, done.stdout) == (2, b"")


def test_no_file_takes_the_place_of_a_stream_that_is_closed(tmp_path: Path) -> None:
    """Else it would have in it what programs print that are started later."""
    program = (
        "import os, sys\nfrom grun_bench.core.printing import open_streams\n"
        f"with open_streams(), open({str(tmp_path / 'file')!r}, 'w') as file:\n"
        "    assert file.fileno() > 2\n    os.system('echo heard')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, preexec_fn=lambda: os.closerange(0, 3))
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("command", ["show", "ls", "report", "compare", "export", "verify", "leaderboard"])
def test_a_folder_that_is_gone_is_one_line(results: Path, tmp_path: Path, command: str) -> None:
    place = tmp_path / "gone"
    place.mkdir()
    code, said = ended([command, result_files(results)[0]], cwd=place, preexec_fn=place.rmdir)
    assert code == 2 and said.startswith("error: the current folder is gone") and said.count("\n") == 1


PRINTS = """
import json
import os
from grun_bench.core.registry import objective

print("heard at the import")

@objective("prints")
def prints(batch):
    \"\"\"Gradient ascent that talks.\"\"\"
    print("heard in a step")
    os.system("echo heard of a program")
    return -batch.forget.cross_entropy
"""


@pytest.mark.whole
def test_with_json_nothing_else_is_on_stdout(command: Command, small_run: list[str], tmp_path: Path) -> None:
    """Neither what plugins print nor what programs do that they start."""
    (tmp_path / "talks.py").write_text(PRINTS)
    mine = ["--include-path", str(tmp_path / "talks.py"), "--json"]
    run = [*small_run, "--unlearner", "lora+prints", "--output", str(tmp_path / "r")]
    for arguments in ([*run, "--dry-run", *mine], [*run, *mine], ["test", "prints", *mine]):
        said = command(*arguments)
        assert json.loads(said.out), arguments
        assert "heard at the import" in said.err or arguments is not run, arguments
    assert {"heard in a step", "heard of a program"} <= set(said.err.splitlines())
    # a run that is read and one that failed
    assert json.loads(command(*run, *mine).out)["unlearner"]["name"] == "lora+prints"
    diverged = command(*run, "--set", "lr=1e30", "--set", "epochs=4", *mine)
    assert diverged.code == 1 and json.loads(diverged.out)["status"] == "diverged"


def test_every_command_with_json_keeps_stdout_for_it() -> None:
    """It is known by the name of its parameter."""
    made, seen = Made(), set()
    for name in COMMANDS.keys() - HANDED_ON:
        option = next((each for each in made[name].params if "--json" in each.opts), None)
        if option is not None:
            assert option.name == "as_json", name
            seen.add(name)
    assert {"run", "attack", "show", "compare", "tune", "test"} <= seen
