"""Unlearners from outside the package: the example of CONTRIBUTING as one file, and installed with an entry point."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Said

import grun_bench
from grun_bench.results.record import load_records
from grun_bench.results.result import Result
from grun_bench.results.store import read_result, result_files

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
EXAMPLE = next(block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if '@unlearner("shrink' in block)
ENTRY_POINTS = tomllib.loads(re.search(r"```toml\n(.*?)```", TEXT, re.DOTALL)[1])["project"]["entry-points"]


def rows(output: Path) -> dict[str, tuple[Result, Path]]:
    return {result.unlearner.name: (result, path) for path in result_files(output) for result in [read_result(path)]}


def is_less_sure(output: Path) -> None:
    """The example's row: its setting is recorded, and its answers' probabilities are nearer to uniform."""
    found = rows(output)
    row, path = found["shrink-head"]
    assert row.status == "ok" and row.seed is None and row.unlearner.settings == {"factor": 0.2}
    spread = {}
    for name in ("shrink-head", "none"):
        result, place = found[name]
        records = load_records(place.with_name(result.records.file))
        # the spread of the log-probabilities of all next tokens around their mean, token by token
        spread[name] = np.concatenate([record.answer.deviations for record in records])
    # logits of a fifth: the deviation under a flatter distribution is a fraction of what it was
    assert np.mean(spread["shrink-head"]) < 0.6 * np.mean(spread["none"])
    assert path.parent.name == "shrink-head"


@pytest.fixture
def output(results: Path, tmp_path: Path) -> Path:
    """A folder of results that has the target and retain rows already."""
    shutil.copytree(results, tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.whole
def test_a_single_file(command: Callable[..., Said], hub: Path, output: Path, tmp_path: Path) -> None:
    file = tmp_path / "shrink_head.py"
    file.write_text(EXAMPLE)
    listed = command("ls", "unlearners", "--include-path", file)
    assert listed.code == 0 and "shrink-head" in listed.out and "Scale the vocabulary head down" in listed.out
    options = ["--task", hub / "small.yaml", "--model", SMALL, "--output", output]
    run = ["run", "--unlearner", "shrink-head", "--set", "factor=0.2", "--include-path", file, *options]
    said = command(*run)
    assert said.code == 0, said.err
    is_less_sure(output)
    assert "already run" in command(*run).out
    wrong = command(*run[:3], "--set", "factr=1", *run[5:])
    assert wrong.code == 2 and "did you mean factor" in wrong.err


@pytest.mark.whole
def test_two_runs_of_one_process_have_plugins_of_their_own(environment: Path, hub: Path, output: Path) -> None:
    """Files of one name with a plugin of one name: each run sees its own, and the next one neither."""
    options = {"task": hub / "small.yaml", "model": SMALL, "output": output}
    for folder, factor in (("a", 0.5), ("b", 0.25)):
        file = output.parent / folder / "shrink_head.py"
        file.parent.mkdir()
        file.write_text(EXAMPLE.replace("factor: float = 0.5", f"factor: float = {factor}"))
        outcome = grun_bench.run("shrink-head", include=[file], **options)
        assert outcome.result.status == "ok" and outcome.result.unlearner.settings == {"factor": factor}
    with pytest.raises(grun_bench.UsageError, match="unknown unlearner 'shrink-head'"):
        grun_bench.run("shrink-head", **options)


def wheel(folder: Path) -> Path:
    """A wheel of a package `my_package` with the module and the entry point that CONTRIBUTING names."""
    info = "my_package-1.0.dist-info"
    points = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in ENTRY_POINTS.items()
    )
    files = {
        "my_package/__init__.py": "",
        "my_package/shrink_head.py": EXAMPLE,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": points,
    }
    lines = []
    for name, text in files.items():
        digest = urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(text.encode())}\n")
    files[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"])
    path = folder / "my_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


@pytest.mark.whole
def test_an_installed_package(environment: Path, hub: Path, output: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    subprocess.run([*pip, str(wheel(tmp_path))], check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    places = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])

    def program(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "grun_bench", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
        )

    listed = program("ls", "unlearners")
    assert listed.returncode == 0, listed.stderr
    assert "shrink-head" in listed.stdout and "my_package.shrink_head" in listed.stdout
    options = ["--task", hub / "small.yaml", "--model", SMALL, "--output", output]
    done = program("run", "--unlearner", "shrink-head", "--set", "factor=0.2", *options)
    assert done.returncode == 0, done.stderr
    is_less_sure(output)
    # a file that brings the same name is refused: nothing is overridden silently
    (tmp_path / "mine.py").write_text(EXAMPLE)
    twice = program("ls", "unlearners", "--include-path", tmp_path / "mine.py")
    assert twice.returncode == 2 and "two unlearners are named 'shrink-head'" in twice.stderr
