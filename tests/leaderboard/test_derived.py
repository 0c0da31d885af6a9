"""Rows filed before every row had its fluency: their pages have it from the records, their files stay as they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from forging import edit

from grun_bench.leaderboard.check import check
from grun_bench.leaderboard.derived import completed
from grun_bench.leaderboard.pages import render, write
from grun_bench.metrics.fluency import EVERYWHERE
from grun_bench.results.filed import Filed
from grun_bench.results.store import read_filed, result_paths

KEYS = {f"{name}_{metric}" for name in ("forget", "retain") for metric in EVERYWHERE}


def forget_fluency(path: Path) -> None:
    """The file as an earlier harness wrote it."""

    def change(data: dict) -> None:
        for name in ("results", "n-samples", "higher_is_better"):
            part = data[name][data["task"]]
            data[name][data["task"]] = {key: value for key, value in part.items() if key.split(",")[0] not in KEYS}
        for name in ("reasons", "intervals", "versions"):
            data[name] = {key: value for key, value in data[name].items() if key.split(",")[0] not in KEYS}

    edit(path, change)


@pytest.fixture
def older(results: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    for path in result_paths(folder):
        forget_fluency(folder / path)
    return folder


def read(folder: Path) -> list[Filed]:
    return [read_filed(folder, path) for path in result_paths(folder)]


def test_the_records_give_what_a_run_states_today(results: Path, older: Path) -> None:
    for now, then in zip(read(results), read(older), strict=True):
        assert set(now.result.metrics()) >= KEYS and not KEYS & set(then.result.metrics())
        made = completed(then).result
        for key in KEYS:
            assert made.value(key) == pytest.approx(now.result.value(key), rel=1e-8)
            assert made.better(key) == now.result.better(key)
            assert made.versions[key] == now.result.versions[key]
        assert completed(now) is now
        assert then.result.same_numbers(now.result) and not now.result.same_numbers(then.result)


def test_pages_show_it_and_the_check_passes(older: Path, tmp_path: Path) -> None:
    before = {path: (older / path).read_bytes() for path in result_paths(older)}
    rendered = render(older, tmp_path)
    write(rendered, tmp_path)
    assert any("forget ngram entropy" in text for path, text in rendered.pages.items() if path.endswith(".md"))
    assert check(older, tmp_path).problems == ()
    assert before == {path: (older / path).read_bytes() for path in result_paths(older)}


def test_changed_records_and_toy_rows_give_nothing(older: Path) -> None:
    first = read(older)[0]
    toy = Filed(first.result.model_copy(update={"dataset": "embedded"}), first.root, first.path, first.sha256)
    assert completed(toy) is toy
    records = first.result.records
    assert records is not None
    first.beside(records).write_bytes(b"")
    assert completed(first) is first
