"""The command that makes a filed row again: given to the command line it asks for the same row."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL, Command
from synthetic import result
from test_cli import refused

from grun_bench.core.errors import ModelError, UsageError
from grun_bench.models.places import identity, locate
from grun_bench.rerun import Rerunner
from grun_bench.results.result import Result
from grun_bench.runs import front
from grun_bench.runs.again import command_of
from grun_bench.runs.config import RunConfig, config_of
from grun_bench.runs.folders import folders_of, is_lost, remember
from grun_bench.runs.inputs import Inputs, resolve
from grun_bench.runs.next_command import on_row
from grun_bench.runs.own import files_of, own_defaults
from grun_bench.runs.session import Session

NAMES = [f"{first} {last}" for last in ("Berg", "Falk", "Grau", "Hahn", "Ibn O'Hara") for first in ("Ada", "Bo")]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files whose columns have names of their own, in a folder whose name a shell would break."""
    folder = tmp_path / "our customers; $HOME"
    folder.mkdir()
    for name, names in {
        "gone": NAMES[:3],
        "near": NAMES[3:5],
        "kept": [f"{n}{k}" for n in NAMES for k in "abc"],
    }.items():
        rows = [{"Q: asked": f"Where does {each} live?", "A": f"In {each[:4]}ville."} for each in names]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return folder


def asked(config: RunConfig) -> tuple[Inputs, str]:
    """What a run would work with, and the id of its row; no model is loaded."""
    front.check(config)
    session = Session.of(config)
    with session.in_force():
        inputs = resolve(config, session)
        return inputs, inputs.run_id(inputs.method)


def filed(config: RunConfig) -> Result:
    """A result that says of its making what that of this run would."""
    inputs, run_id = asked(config)
    task, world = inputs.task, inputs.session.world
    return result(inputs.method.name, task=task.name, settings=inputs.method.unlearner.settings).model_copy(
        update={
            "run_id": run_id,
            "model": inputs.models.name,
            "seed": config.seed,
            "limit": config.limit,
            "dataset": world.name,
            "reference": dict(inputs.models.identity) | {"retain_log": None},
            "configs": {task.name: task.model_dump(exclude={"models"})},
            "hardware": {"dtype": inputs.session.placement.dtype},
        }
    )


OWN: dict[str, dict[str, Any]] = {
    "files alone": {"columns": {"question": "Q: asked", "answer": "A"}},
    "all that goes with them": {
        "columns": {"question": "Q: asked", "answer": "A"},
        "utility": "mmlu_anatomy",
        "private": False,
        "keep": "kept.jsonl",
        "neighbours": "near.jsonl",
    },
    "settings": {
        "columns": {"question": "Q: asked", "answer": "A"},
        "keep": "kept.jsonl",
        "seed": 3,
        "limit": 2,
        "dtype": "bfloat16",
        "overrides": {"lr": 1e-05, "layers": [0.5, 1.0], "retain": "ce", "steps": 3},
    },
}


@pytest.mark.long
@pytest.mark.parametrize("case", OWN)
def test_the_command_of_a_row_of_own_files_asks_for_that_row(
    files: Path, command: Command, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    given = {key: files / value if key in ("keep", "neighbours") else value for key, value in OWN[case].items()}
    config = own_defaults(RunConfig("grun+npo", model=SMALL, forget=files / "gone.jsonl", **given))
    monkeypatch.setattr("grun_bench.integrations.lm_eval.measures.check", lambda *_: None)
    row = filed(config)
    again = command_of(row, config.output, "model")
    assert again.notes == ()
    found: list[RunConfig] = []

    def instead(config: RunConfig) -> None:
        found.append(config)
        raise UsageError("asked")

    monkeypatch.setattr(front, "run_config", instead)
    words = shlex.split(again.command)
    assert words[0] == "grun-bench" and "error: asked" in command(*words[1:]).err
    (made,) = found
    assert asked(replace(made, save=None))[1] == row.run_id
    assert (made.private, made.utility, made.neighbours) == (config.private, config.utility, config.neighbours)
    assert (made.attacks, str(made.save)) == ("", "model")


def test_what_the_command_needs_and_is_not_there_is_said(files: Path, environment: Path) -> None:
    config = RunConfig("npo", model=SMALL, forget=files / "gone.jsonl", columns={"question": "Q: asked", "answer": "A"})
    row = filed(own_defaults(config))
    row.model = "folder/elsewhere"
    (files / "gone.jsonl").write_text('{"question": "Who?", "answer": "Nobody."}\n')
    again = command_of(row, config.output, "model")
    assert "--forget gone.jsonl" in again.command
    assert [note.partition(" ")[0] for note in again.notes] == ["gone.jsonl", "folder/elsewhere"]


@pytest.mark.parametrize(
    ("configs", "parts"),
    [
        ({}, ["$.configs", "should be a mapping"]),
        ({"letters": {"own": {"forget": {"file": "a", "sha256": "b", "rm": 1}}}}, ["$.configs"]),
        ({"letters": {"description": 3}}, ["$.configs"]),
        (None, ["names no file"]),
    ],
)
@pytest.mark.parametrize("name", ["export", "attack"])
def test_a_result_without_its_task_is_refused_in_words(
    files: Path, command: Command, tmp_path: Path, configs: dict[str, Any] | None, parts: list[str], name: str
) -> None:
    config = RunConfig("npo", model=SMALL, forget=files / "gone.jsonl", columns={"question": "Q: asked", "answer": "A"})
    row = filed(own_defaults(config))
    if configs is None:
        configs = {row.task: row.configs[row.task] | {"own": {}}}
    row.configs = {row.task if key == "letters" else key: value for key, value in configs.items()}
    path = tmp_path / "results" / row.task / "small" / "npo" / f"{row.run_id}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(row.dumps())
    more = ["--to", "hf", "--out", tmp_path / "out"] if name == "export" else ["--attacks", "prefill"]
    refused(command(name, path, *more), row.run_id, *parts)


@pytest.mark.parametrize("unlearner", ["npo", "retain"])
def test_a_retain_model_that_was_named_is_no_target_model(unlearner: str) -> None:
    """Where the target model is the model itself, a reference has two names, and says not which the second is."""
    target, retain = {"name": "org/a", "revision": "1" * 40}, {"name": "org/b", "revision": "2" * 40}
    names = [f"{each['name']}@{each['revision']}" for each in (target, retain)]
    row = result(unlearner).model_copy(update={"reference": {"names": names}})
    row.target = retain if unlearner == "retain" else target
    made = config_of(row)
    assert (made.model, made.target_model, made.retain_model) == (names[0], None, names[1])
    row.reference = {"names": ["org/base", names[0]]}
    row.target = target
    if unlearner != "retain":
        assert config_of(row).target_model == names[0]


#: models of runs on own rows -> the options of `attack` that find them again
FOLDERS = {
    "the model": ({"model": "mine"}, {"--model": "mine"}),
    "a target model alone": ({"target_model": "mine"}, {"--target": "mine"}),
    "a target model of a model of the mirror": (
        {"model": SMALL, "target_model": "mine"},
        {"--model": SMALL, "--target": "mine"},
    ),
    "a retain model too": ({"model": "mine", "retain_model": "other"}, {"--model": "mine", "--retain": "other"}),
    "a retain model alone": ({"model": SMALL, "retain_model": "other"}, {"--retain": "other"}),
    "none": ({"model": SMALL}, {}),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_models_that_are_folders_are_named_by_the_next_command(
    files: Path, hub: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """Typed, it asks for the same row; without the options the Hub is not asked for what was never there."""
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / "cache"))
    given, named = FOLDERS[case]
    for name in ("mine", "other"):
        shutil.copytree(hub / SMALL, name)
        Path(name, "config.json").write_text(Path(name, "config.json").read_text() + " " * len(name))
    config = RunConfig("npo", forget=files / "gone.jsonl", columns={"question": "Q: asked", "answer": "A"}, **given)
    row, models = filed(config), asked(config)[0].models
    target = given.get("target_model") or given["model"]
    row.target = identity(target, locate(target))
    remember(models.folders)
    path = Path("results", row.task, "mine", "npo", f"{row.run_id}.json")
    path.parent.mkdir(parents=True)
    path.write_text(row.dumps())
    words = shlex.split(on_row(row, Path("results")))
    assert words == [*(word for pair in named.items() for word in pair), "--output", "results"]
    found = config_of(row, **files_of(row), **folders_of(row))
    assert asked(found)[1] == row.run_id
    assert command_of(row, Path("results"), "model").notes == ()
    if not is_lost(row):
        return
    shown = [str(Path(name).resolve()) for option, name in named.items() if name != SMALL]
    refused(command("attack", path, "--attacks", "spelling"), row.run_id, "not found from here", *named, *shown)
    shutil.rmtree(tmp_path / "cache" / "bases")
    option = next(iter(named))
    refused(command("attack", path, "--attacks", "spelling"), f"{option} FOLDER", "GRUN_BENCH_HUB")
    assert on_row(row, Path("results")) == f" {option} FOLDER --output results"
    with pytest.raises(ModelError, match="put it at <folder>/"):
        Rerunner(tmp_path / "again", "cpu", ())._config(row, None)


def test_a_method_of_a_plugin_says_that_its_file_is_needed(tmp_path: Path) -> None:
    (note,) = command_of(result("grun+margin"), tmp_path, "model").notes
    assert note == "grun+margin is of a plugin: add --include-path PLUGIN.py."
    assert command_of(result("grun+npo"), tmp_path, "model").notes == ()
