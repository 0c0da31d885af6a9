"""What a result says of the checkout that made it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from grun_bench.core import environment as env


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the package's layout and one commit, in place of the project's own."""
    (tmp_path / "grun_bench" / "core").mkdir(parents=True)
    shutil.copy(env.__file__, tmp_path / "grun_bench" / "core" / "environment.py")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True)
    monkeypatch.setattr(env, "__file__", str(tmp_path / "grun_bench" / "core" / "environment.py"))
    return tmp_path


def test_results_do_not_make_a_checkout_dirty_and_changed_code_does(checkout: Path) -> None:
    head = subprocess.run(["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    (checkout / "leaderboards").mkdir()
    (checkout / "leaderboards" / "result.json").write_text("{}")
    assert env.git_state() == {"commit": head.stdout.strip(), "dirty": False}
    (checkout / "grun_bench" / "mine.py").write_text("")
    assert env.git_state()["dirty"] is True


def test_a_wheel_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "__file__", str(tmp_path / "grun_bench" / "core" / "environment.py"))
    assert env.git_state() == {"commit": None, "dirty": None}
