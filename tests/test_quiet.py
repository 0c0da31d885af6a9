"""What a person sees on stderr while a run goes on is the program's own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARIES = re.compile(r"warn|deprecat|%\||\[transformers\]|site-packages", re.IGNORECASE)


@pytest.mark.slow
def test_a_run_prints_no_librarys_warnings(environment: Path, small_run: list[str], tmp_path: Path) -> None:
    """In a process of its own, since a test's warnings are pytest's. LoRA trained, saved and attacked by sampling."""
    options = ["--unlearner", "lora+gd", "--attacks", "sampling", "--output", tmp_path / "r", "--save", tmp_path / "m"]
    done = subprocess.run(
        [sys.executable, "-m", "grun_bench", *small_run, *map(str, options)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if LIBRARIES.search(line)]
