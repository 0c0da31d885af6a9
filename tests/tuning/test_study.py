"""A search goes on where it was killed, as if it had not been, and several processes share one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from grun_bench.core.ranges import Choice, Range, Searched, times
from grun_bench.tuning.study import Study

pytest.importorskip("optuna")
DEFAULTS: dict[str, Any] = {"lr": 1e-3, "epochs": 10, "share": 0.0, "clusters": [2, 20], "other": "word"}
DECLARED: Searched = {
    "lr": times(0.1, 10),
    "epochs": times(0.5, 2),
    "share": Range(0, 0.5),
    "clusters": Choice(([2, 5], [2, 20])),
}
SEARCHED = {name: each.around(DEFAULTS[name]) for name, each in DECLARED.items()}


def study(folder: Path, trials: int = 8) -> Study:
    return Study(folder, SEARCHED, DEFAULTS, 7, trials)


def value(settings: dict[str, Any]) -> float:
    return abs(settings["lr"] - 2e-3) + settings["share"]


def made(folder: Path, trials: int = 8, count: int | None = None) -> list[dict[str, Any]]:
    """Settings of the trials that are made now, at most so many."""
    found: list[dict[str, Any]] = []
    search = study(folder, trials)
    while (count is None or len(found) < count) and (asked := search.next()) is not None:
        found.append(asked.settings)
        search.tell(asked, value(asked.settings), {"trial": asked.number, "settings": asked.settings})
    return found


def test_the_first_trial_has_the_defaults_and_all_are_in_their_ranges(tmp_path: Path) -> None:
    found = made(tmp_path)
    assert found[0] == {name: DEFAULTS[name] for name in SEARCHED} and len(found) == 8
    assert all(SEARCHED[name].holds(each) for settings in found for name, each in settings.items())
    assert len({str(settings) for settings in found}) == 8
    assert {type(settings["epochs"]) for settings in found} == {int}
    # three significant digits, so that a row says all of them
    assert all(f"{settings['lr']:.3g}" == f"{settings['lr']:.12g}" for settings in found[1:])
    assert [each["settings"] for each in study(tmp_path).told()] == found


def test_it_goes_on_as_if_it_had_not_ended(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole")
    parts = [*made(tmp_path / "parts", count=3), *made(tmp_path / "parts", count=1), *made(tmp_path / "parts")]
    assert parts == whole
    assert made(tmp_path / "parts") == [] and len(made(tmp_path / "parts", trials=10)) == 2


def test_two_at_once_have_different_trials(tmp_path: Path) -> None:
    one, other = study(tmp_path), study(tmp_path)
    first, second = one.next(), other.next()
    assert first and second and (first.number, second.number) == (0, 1)
    one.tell(first, 1.0, {"trial": 0})
    other.tell(second, 1.0, {"trial": 1})
    third = one.next()
    assert third and third.number == 2
    third.lock.release()


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from test_study import study
from pathlib import Path
asked = study(Path({folder!r})).next()
asked.prune(0.5, 1)
print(asked.number, asked.settings, flush=True)
sys.stdin.read()
"""


def test_the_trial_of_a_killed_process_is_made_by_the_next(tmp_path: Path) -> None:
    made(tmp_path, count=2)
    code = KILLED.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        assert process.stdout is not None
        said = process.stdout.readline().strip()
        # while it lives, its trial is its own
        mine = study(tmp_path).next()
        assert mine and mine.number == 3
        mine.lock.release()
        process.send_signal(signal.SIGKILL)
    again = study(tmp_path).next()
    assert again and f"{again.number} {again.settings}" == said and again.number == 2
    assert not again.prune(0.5, 1)
    again.lock.release()


def test_a_trial_that_is_worse_than_most_in_the_middle_is_ended(tmp_path: Path) -> None:
    search = study(tmp_path, trials=9)
    for _ in range(6):
        asked = search.next()
        assert asked and not asked.prune(0.2, 1)
        search.tell(asked, 0.1, {"trial": asked.number})
    better, worse = search.next(), None
    assert better and not better.prune(0.1, 1)
    search.tell(better, 0.1, {"trial": better.number})
    worse = search.next()
    assert worse and worse.prune(0.9, 1)
    search.tell(worse, None, {"trial": worse.number, "state": "pruned"})
    assert search.told()[-1]["state"] == "pruned"
