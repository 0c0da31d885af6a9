"""What the command says of a sweep's file before anything is begun, and where nothing was."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from conftest import Command
from test_cli import refused

from grun_bench.core.errors import UsageError
from grun_bench.tasks.task import load_task
from grun_bench.tasks.yaml_files import read_yaml, task_file

NPO = "unlearners: [npo]\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (NPO + "tasks: tofu_forget10", "sweep.yaml: tasks: should be a list, as in [tofu_forget10]."),
        (NPO + "seeds: 0,1", "sweep.yaml: seeds: should be a list, as in [0,1]."),
        ("unlearners: npo", "sweep.yaml: unlearners: should be a list, as in [npo]."),
        ("unlearners: []", "sweep.yaml: unlearners: has too few entries."),
        ("unlearners: [3]", "unlearners[0]: should be a name, or a mapping with name and set."),
        ("unlearners: [{nme: npo}]", "unlearners[0].name: is missing."),
        ("unlearner: [npo]", "unknown key in sweep.yaml 'unlearner': did you mean unlearners?"),
        (NPO + "set: lr", "sweep.yaml: set: should be a mapping."),
        (NPO + "augment: perhaps", "sweep.yaml: augment: should be true or false."),
    ],
)
def test_what_is_no_sweep_is_told_in_plain_words(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(content)
    refused(command("sweep", "sweep.yaml"), words)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("metrics", "forget_quality", "metrics: should be a list, as in \\[forget_quality\\]"),
        ("headline", {"a": 1}, "headline: should be a list$"),
        ("score", ["forget"], "score: should be a mapping"),
        ("finetune", 3, "finetune: should be a mapping$"),
    ],
)
def test_a_task_file_is_told_so_too(tmp_path: Path, key: str, value: object, words: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(read_yaml(task_file("tofu_forget10")) | {key: value}))
    with pytest.raises(UsageError, match=words):
        load_task(str(path))


@pytest.mark.parametrize("more", [[], ["--status"]])
def test_an_attack_that_cannot_be_made_here_is_refused_once_and_nothing_is_left(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as Python has it for what cannot be imported
    monkeypatch.chdir(tmp_path)
    Path("sweep.yaml").write_text(NPO + "tasks: [tofu_forget10]\nseeds: [0, 1]\nattacks: [prefill, int4]\n")
    said = command("sweep", "sweep.yaml", *more)
    refused(said, "int4 needs bitsandbytes: pip install 'grun-bench[quantisation]'; without: --attacks prefill")
    assert not said.out and [each.name for each in tmp_path.iterdir()] == ["sweep.yaml"]


def test_showing_where_a_sweep_stands_makes_no_folder(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["sweep", "--unlearner", "npo", "--task", "tofu_forget10", "--status", "--output"]
    said = command(*asked, "nowhere")
    assert said.code == 0 and "2 runs: 2 waiting" in said.out and "nowhere: no such folder" in said.out
    assert not any(tmp_path.iterdir())
    Path("here").mkdir()
    assert "no such folder" not in command(*asked, "here").out
