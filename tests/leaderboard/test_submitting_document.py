"""leaderboards/SUBMITTING.md, typed as it stands: from a plugin file to a verified bundle and an attack on it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "leaderboards" / "SUBMITTING.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_worked_example(tmp_path: Path) -> None:
    """Every block in order, in an empty folder: Python and YAML saved under the names that the text gives."""
    program = tmp_path / "bin" / "grun-bench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m grun_bench "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    work = tmp_path / "work"
    work.mkdir()

    def type_in(lines: str) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", lines], cwd=work, env=environment, text=True, capture_output=True
        )
        assert done.returncode == 0, f"{lines}\n{done.stdout}\n{done.stderr}"

    def row_on_the_page() -> tuple[str, str, str]:
        """Runs, attacks and source of the method's row."""
        page = (work / "leaderboards" / "toy" / "tofu_forget10" / "tiny.md").read_text()
        line = next(line for line in page.splitlines() if "| lora+unlikelihood" in line)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        return cells[-6], cells[-5], cells[-1]

    ran = 0
    for language, block in re.findall(r"```(\w+)\n(.*?)```", TEXT, flags=re.DOTALL):
        if language == "python":
            (work / "my_method.py").write_text(block)
        elif language == "yaml":
            (work / "card.yaml").write_text(block)
        elif language == "sh":
            type_in(block)
            ran += 1
    assert ran == 6
    marks = json.loads((work / "unlikelihood" / "verified.json").read_text())
    assert len(marks) == 5 and {mark["tier"] for mark in marks.values()} == {"re-run"}
    filed = json.loads(next(work.glob("unlikelihood-prefix/results/*/*/lora+*/*.json")).read_text())
    assert set(filed["attacks"]) == {"suffix", "prefix"}

    # the pull request, in a tree that has no other results, and what reviewers make of it
    (block,) = re.findall(r"```text\n(.*?)```", TEXT, flags=re.DOTALL)
    own = work / "leaderboards" / "results"
    for name in ("none", "retain"):  # the project's, with which rows are ranked
        shutil.copytree(work / "results" / "tofu_forget10" / "tiny" / name, own / "tofu_forget10" / "tiny" / name)
    type_in("\n".join(line for line in block.splitlines() if not line.startswith("git ")))
    assert row_on_the_page() == ("3", "1", "self-reported")
    type_in("grun-bench verify leaderboards/results/submissions/unlikelihood && grun-bench leaderboard")
    assert row_on_the_page() == ("3", "1", "recomputed")
    assert not (own / "submissions" / "unlikelihood" / "verified.json").exists()
    type_in("rm unlikelihood-prefix/verified.json && cp -r unlikelihood-prefix leaderboards/results/submissions/")
    type_in("grun-bench leaderboard")
    assert row_on_the_page()[:2] == ("3", "2")
    type_in("grun-bench leaderboard --check")


def test_the_document_says_what_the_program_does() -> None:
    from grun_bench import rerun as rerunning
    from grun_bench.core import untrusted
    from grun_bench.leaderboard.allowed import SECONDS, SECONDS_PER_ROW
    from grun_bench.leaderboard.compare import TOLERANCE
    from grun_bench.leaderboard.likeness import ALIKE
    from grun_bench.leaderboard.submit import CARD_TEMPLATE
    from grun_bench.results.filed import ALL_BYTES, ALL_VALUES

    assert f"{TOLERANCE:g}".replace("e-09", "e-9") in TEXT
    assert f"({rerunning.RESCORED} + 1/n)" in TEXT and f"({rerunning.RETRAINED} + 1/n)" in TEXT
    assert f"recovery under attack | {rerunning.DISTANCE} |" in TEXT and rerunning.DISTANCE == rerunning.RECOVERY
    assert f"at most {untrusted.MAX_FILES:,} files" in TEXT
    assert f"{ALL_VALUES:,} values" in TEXT and ALL_BYTES == 2**30 and ALIKE == 0.1
    assert f"{SECONDS:.0f} seconds and {SECONDS_PER_ROW} for each line" in TEXT
    fields = re.findall(r"^(\w+):", CARD_TEMPLATE, flags=re.MULTILINE)
    block = re.search(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)
    assert block is not None and re.findall(r"^(\w+):", block[1], flags=re.MULTILINE) == fields
