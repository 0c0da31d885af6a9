"""What every command has: version, help in two letters, silence, completion; time left; names of other tools."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from conftest import Command

import grun_bench
from grun_bench.cli.commands import COMMANDS, HANDED_ON, Made
from grun_bench.core import progress
from grun_bench.core.errors import UsageError
from grun_bench.core.settings import ELSEWHERE, options_of, override
from grun_bench.methods.recipes import Recipe
from grun_bench.terminal import names


def test_the_version_is_the_packages(command: Command) -> None:
    said = command("--version")
    assert (said.code, said.out, said.err) == (0, f"grun-bench {grun_bench.__version__}\n", "")
    assert grun_bench.__version__.split(".")[:2] >= version("grun-bench").split(".")[:2]


def test_help_has_a_short_name(command: Command) -> None:
    assert command("-h").out == command("--help").out != ""
    assert command("run", "-h").out == command("run", "--help").out != ""


def test_who_wants_silence_gets_results_alone(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what is said meanwhile, results and errors as ever; and only while that command runs."""

    def telling(title: str, summaries: object) -> None:
        progress.say("meanwhile")
        with progress.bar("bar", 2) as advance:
            advance(2)
        print(title)

    monkeypatch.setattr(names, "print_names", telling)
    loud = command("ls", "adapters")
    assert loud.out == "adapters\n" and "meanwhile" in loud.err and "bar: 2/2" in loud.err
    for option in ("--quiet", "-q"):
        said = command("ls", "adapters", option)
        assert (said.out, said.err) == ("adapters\n", "")
    assert "meanwhile" in command("ls", "adapters").err
    assert command("ls", "adapter", "-q").err.startswith("error: unknown kind")


@pytest.mark.long
def test_an_empty_value_is_told_and_not_taken_for_the_folder_here_or_for_the_default(command: Command) -> None:
    """As a variable of a shell makes it that was not set: of each option of each command that has no empty default."""
    made, tried = Made(), 0
    for name in COMMANDS.keys() - HANDED_ON:
        for option in made[name].params:
            takes = option.param_type_name == "option" and not getattr(option, "is_flag", False)
            if takes and option.default != "" and not option.opts[0].startswith("--help"):
                said = command(name, f"{option.opts[0]}=")
                assert (said.code, said.out) == (2, ""), (name, option.opts)
                assert said.err == f"error: {option.opts[0]}: its value is empty. Say one, or do not give it.\n"
                tried += 1
    assert tried > 100


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str, tmp_path: Path) -> None:
    """By the script that typer makes: what it asks for is answered with the names that fit, without torch."""
    environment = {
        "PATH": str(Path(sys.executable).parent),
        "HOME": str(tmp_path),
        "PYTHONPATH": str(Path(grun_bench.__file__).parents[1]),
        "_GRUN_BENCH_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": "grun-bench lea",
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "grun-bench lea",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    code = "import sys; sys.argv = ['grun-bench']; from grun_bench.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert "leaderboard" in done.stdout and "export" not in done.stdout, done.stderr


# --- time left --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "words"), [(4.4, "4 s"), (119, "119 s"), (150, "2 min"), (9000, "2.5 h")])
def test_times_are_as_exact_as_guesses_are(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words


def test_plain_lines_say_what_time_is_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """By rule of three: 40 steps in 100 s leave 60 steps, 150 s."""
    now = iter([0.0, 100.0, 100.0, 260.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.bar("training", 100) as advance:
        advance(40, loss=0.5)
    assert "training: 40/100, 2 min left loss 0.5" in capsys.readouterr().err


# --- names of other tools ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("learning_rate", "lr"),
        ("num_train_epochs", "epochs"),
        ("per_device_train_batch_size", "batch_size"),
        ("gradient_accumulation_steps", "accumulate"),
        ("warmup_ratio", "warmup"),
        ("max-grad-norm", "clip"),
        ("alpha", "retain_weight"),
    ],
)
def test_what_others_call_a_setting_leads_to_ours(theirs: str, ours: str) -> None:
    with pytest.raises(UsageError, match=rf"'{theirs}': did you mean {ours}\?"):
        override(options_of(Recipe), {theirs: 1}, "grun+npo")


def test_a_setting_of_ours_wins_over_what_others_call_so() -> None:
    assert override({"alpha": 1.0, "retain_weight": 2.0}, {"alpha": 3.0}, "lora+npo")["alpha"] == 3.0
    with pytest.raises(UsageError, match="did you mean beta"):
        override({"beta": 1.0}, {"bta": 1.0}, "npo")
    assert all(name == name.lower() and not set(name) & set("_-") for name in ELSEWHERE)
