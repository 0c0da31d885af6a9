"""Tuning from the command line on a small random model: no scored set is read, and what was chosen makes rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import SMALL, TASK, Command, Said

from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.core.ranges import OF_OBJECTIVE, Range
from grun_bench.results.store import read_result, result_files
from grun_bench.results.tuning import FILE, read_trials, write_trials
from grun_bench.runs.config import RunConfig
from grun_bench.runs.tuned import tuned_settings
from grun_bench.terminal.tuning import print_tuning
from grun_bench.tuning.tune import Tuning, _unsearched

pytestmark = pytest.mark.whole
pytest.importorskip("optuna")
SIBLING = "locuslab/TOFU:retain99[0:4]"


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(TASK | {"tuning": {"sibling": [SIBLING]}}))
    return path


@pytest.fixture
def tune(command: Command, task: Path, tmp_path: Path) -> Callable[..., Said]:
    def called(unlearner: str, *more: object) -> Said:
        options = ("--task", task, "--model", SMALL, "--output", tmp_path / "tuning", *more)
        return command("tune", "--unlearner", unlearner, *options)

    return called


def test_no_scored_file_is_read(
    tune: Callable[..., Said],
    command: Command,
    task: Path,
    hub: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bare = tmp_path / "hub"
    shutil.copytree(hub, bare)
    for file in (bare / "locuslab" / "TOFU").glob("*_perturbed.json"):
        file.unlink()
    monkeypatch.setenv("GRUN_BENCH_HUB", str(bare))
    options = ("--task", task, "--model", SMALL, "--unlearner", "full+npo", "--output", tmp_path / "results")
    assert command("run", *options).code == 2  # its scored sets are gone

    said = tune("full+npo", "--trials", 3)
    assert said.code == 0, said.err
    path = tmp_path / "tuning" / "small" / "org__small" / "full+npo" / FILE
    trials = read_trials(path)
    assert [each.trial for each in trials] == [0, 1, 2] and sum(each.chosen for each in trials) == 1
    assert all(set(each.settings) == {"lr", "epochs", "beta", "retain_weight"} for each in trials)
    assert all(each.utility is not None and each.extraction_strength is not None for each in trials)
    assert {(each.on, each.attack) for each in trials} == {("sibling of small", "prefill")}
    assert "Rule: First, utility" in said.out and f"--tuned {path}" in said.out
    assert "searched: lr, " in said.err and "trial 0 (the defaults), of 0 to 2" in said.err
    # what was forgotten and asked are the sibling's rows, of which the filed rows of the trials say where they are from
    rows = [read_result(file) for file in result_files(tmp_path / "tuning" / "rows")]
    assert {row.run_id for row in rows if row.unlearner.name == "full+npo"} == {each.run_id for each in trials}
    assert {source for row in rows for part in row.data.values() for source in part["sources"]} == {
        f"sibling of small: {name}" for name in ("train-forget", "train-retain", "learnt", "forget", "retain")
    }

    # the same command makes nothing again, another number of trials adds some
    before = path.read_bytes()
    assert tune("full+npo", "--trials", 3).code == 0 and path.read_bytes() == before
    assert tune("full+npo", "--trials", 4).code == 0
    assert [each.settings for each in read_trials(path)][:3] == [each.settings for each in trials]

    monkeypatch.setenv("GRUN_BENCH_HUB", str(hub))
    made = command("run", *options, "--tuned", tmp_path / "tuning", "--attacks", "prefill", "--json")
    assert made.code == 0, made.err
    row = json.loads(made.out)
    assert row["unlearner"]["tuned"] == {"trials": 4, "on": "sibling of small", "seed": 1000}
    (chosen,) = [each for each in read_trials(path) if each.chosen]
    assert chosen.settings.items() <= row["unlearner"]["settings"].items()
    # the same settings by hand make another row, and an attack on the tuned one finds it
    by_hand = [part for name, value in chosen.settings.items() for part in ("--set", f"{name}={value}")]
    other = json.loads(command("run", *options, *by_hand, "--json").out)
    assert other["unlearner"] == row["unlearner"] | {"tuned": None} and other["run_id"] != row["run_id"]
    attacked = command(
        "attack", row["run_id"], "--attacks", "paraphrase", "--output", tmp_path / "results", "--task", task
    )
    assert attacked.code == 0 and len(result_files(tmp_path / "results")) == 4, attacked.err
    shown = command("show", row["run_id"], "--output", tmp_path / "results").out
    assert "tuned: 4 trials, sibling of small" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("none",), "nothing to tune"),
        (("full+npo", "--set", "beta=0.2"), "--set beta: it is one of the settings that are searched"),
        (("full+npo", "--attacks", "suffix"), "no such option --attacks, which goes with"),
        (("full+npo", "--trials", "0"), "trials"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tune: Callable[..., Said], arguments: tuple[str, ...], words: str) -> None:
    said = tune(*arguments)
    assert said.code == 2 and words in said.err


def test_settings_are_those_of_the_unlearner_task_model_and_a_fresh_seed(tmp_path: Path) -> None:
    from test_rule import trial

    place = tmp_path / "t" / "m" / "a+b" / FILE
    write_trials(place, [trial(0, 1.0, 0.1, chosen=True), trial(1, 1.0, 0.2)])
    settings, found = tuned_settings(tmp_path, "a+b", "t", "m", 0)
    assert (settings, found.label) == ({}, "tuned: 2 trials, validation of t")
    for wanted, seed, words in (
        (("a+b", "t", "m"), 1, "was tuned with seed 1"),
        (("a+c", "t", "m"), 0, "none of a\\+c on t with m, but tunings of a\\+b on t with m"),
        (("a+b", "t", "other"), 0, "none of a\\+b on t with other"),
    ):
        with pytest.raises(UsageError, match=words):
            tuned_settings(tmp_path, *wanted, seed)
    # what was judged on scored rows makes no row
    write_trials(place, [trial(0, 1.0, 0.1, chosen=True, on="test of t")])
    with pytest.raises(UsageError, match="tuned on the test of t"):
        tuned_settings(tmp_path, "a+b", "t", "m", 0)
    write_trials(place, [trial(0, None, None, state="pruned")])
    with pytest.raises(UsageError, match="no trial of a\\+b came to an end"):
        tuned_settings(place, "a+b", "t", "m", 0)


def test_the_command_that_makes_a_row_has_all_that_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Own rows, plugins and the folder that was named among it."""
    from test_rule import trial

    monkeypatch.chdir(tmp_path)
    Path("mine.py").touch()
    config = RunConfig(
        "lora+mine", forget=Path("a.csv"), keep=Path("b c.csv"), columns={"question": "q"}, model="m", output=Path("t")
    )
    found = Tuning([trial(0, 1.0, 0.1, chosen=True)], {}, Path("t/x/tuning.jsonl"))
    with registry.including([Path("mine.py")]):
        print_tuning(found, config)
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == (
        "next: grun-bench run --unlearner a+b --forget a.csv --retain 'b c.csv' --columns question=q --model m "
        "--include-path mine.py --tuned t/x/tuning.jsonl --seed 0 --output t"
    )


def test_a_plugin_whose_settings_are_not_searched_is_named(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text('@objective("mine", retain="ce")\ndef mine(batch, *, cap: float = 1.0): ...\n')
    with registry.including([own]):
        (note,) = _unsearched("lora+mine", OF_OBJECTIVE)
        assert note.startswith("mine: its cap is not searched") and 'searched={"cap"' in note
        assert not list(_unsearched("lora+mine", {"cap": Range(1, 2)})) and not list(_unsearched("lora+npo", {}))
