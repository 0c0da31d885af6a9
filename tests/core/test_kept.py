"""What the cache holds is counted as it lies there, and cleared by kind and age and nothing beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Said

Command = Callable[..., Said]


@pytest.fixture
def cache(environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of three days and one of now, a model of two files three days old, a lock, and a stranger's file."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(folder))
    days_ago = time.time() - 3 * 86400
    for name, size, old in (
        ("checkpoints/0123-seed0-0-aa.pt", 3 * 2**20, True),
        ("checkpoints/4567-seed0-0-bb.pt", 2**20, False),
        ("models/abcd/model.safetensors", 2**20, True),
        ("models/abcd/key.json", 2**19, True),
        ("models/abcd.lock", 0, True),
        ("mine/thesis.txt", 7, True),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        if old:
            for each in (path, *([path.parent] if path.parent.name == "abcd" else [])):
                os.utime(each, (days_ago, days_ago))
    return folder


def there(cache: Path) -> set[str]:
    return {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}


ALL = {
    "checkpoints/0123-seed0-0-aa.pt",
    "checkpoints/4567-seed0-0-bb.pt",
    "models/abcd/model.safetensors",
    "models/abcd/key.json",
    "models/abcd.lock",
    "mine/thesis.txt",
}


def test_it_is_shown_by_kind(command: Command, cache: Path) -> None:
    said = command("cache")
    assert said.code == 0 and there(cache) == ALL
    rows = {line.split()[1]: line.split() for line in said.out.splitlines() if "MiB" in line}
    assert rows["checkpoints"][3:6] == ["2", "│", "4.0"] and rows["models"][3:6] == ["1", "│", "1.5"]
    assert rows["trunk"][3:6] == ["0", "│", "0.0"] and "mine" not in rows


@pytest.mark.parametrize(
    ("arguments", "gone"),
    [
        (["checkpoints"], {"checkpoints/0123-seed0-0-aa.pt"}),
        (["checkpoints", "--older-than", "4"], set()),
        (["checkpoints", "--older-than", "0"], {"checkpoints/0123-seed0-0-aa.pt", "checkpoints/4567-seed0-0-bb.pt"}),
        (["models"], {"models/abcd/model.safetensors", "models/abcd/key.json"}),
        (["all", "--older-than", "0"], ALL - {"models/abcd.lock", "mine/thesis.txt"}),
    ],
)
def test_it_is_cleared_by_kind_and_age(command: Command, cache: Path, arguments: list[str], gone: set[str]) -> None:
    said = command("cache", "--clear", *arguments)
    assert said.code == 0, said.err
    assert ALL - there(cache) == gone
    removed = len({name.split("/")[1] for name in gone})  # a model is one, with all of its files
    assert sum(int(line.split()[1]) for line in said.out.splitlines()) == removed


def test_a_model_that_is_being_built_is_new_before_it_has_files(command: Command, cache: Path) -> None:
    (cache / "models" / ".abcd.0-1.part").mkdir()
    assert command("cache", "--clear", "models").code == 0
    assert {path.name for path in (cache / "models").iterdir()} == {"abcd.lock", ".abcd.0-1.part"}
    assert "1970" not in command("cache").out


def test_texts_that_are_nowhere_else_go_by_their_own_name_alone(command: Command, cache: Path) -> None:
    (cache / "texts").mkdir()
    (cache / "texts" / "0123.jsonl.gz").write_text("texts")
    assert command("cache", "--clear", "all", "--older-than", "0").code == 0
    assert there(cache) == {"models/abcd.lock", "mine/thesis.txt", "texts/0123.jsonl.gz"}
    assert command("cache", "--clear", "texts", "--older-than", "0").code == 0
    assert not list((cache / "texts").iterdir())


def test_a_link_is_removed_and_not_what_it_leads_to(command: Command, cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "model.bin").write_text("mine")
    (cache / "models" / "link").symlink_to(tmp_path / "elsewhere")
    assert command("cache", "--clear", "models", "--older-than", "0").code == 0
    assert not (cache / "models" / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "model.bin").read_text() == "mine"


def test_odd_kinds_and_an_empty_cache(command: Command, environment: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / "none"))
    said = command("cache", "--clear", "checkpoint")
    assert said.code == 2 and "did you mean checkpoints" in said.err
    assert command("cache", "--clear", "all").code == 0 and command("cache").code == 0
    assert not (tmp_path / "none").exists()
