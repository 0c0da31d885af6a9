"""The walks in `examples/` run from nothing to the end, the script and the notebook."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL

EXAMPLES = Path(__file__).parent.parent / "examples"
pytestmark = pytest.mark.whole


@pytest.fixture
def walk(environment: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a walk: this Python's programs, this checkout, a cache of its own."""
    for file in EXAMPLES.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(EXAMPLES.parent)}
    return os.environ | paths | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}


def test_the_script_ends_with_a_report_and_a_model_of_the_same_answers(walk: dict[str, str], tmp_path: Path) -> None:
    done = subprocess.run(["sh", "own_data.sh", "walk", SMALL], cwd=tmp_path, env=walk, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    out, folder = done.stdout, tmp_path / "walk"
    assert out.count("Was it forgotten?") == 3  # after the run, and of both rows compared
    # own rows stay on this machine: they are on the page, and in no result
    first = json.loads((folder / "customers.jsonl").read_text().splitlines()[0])
    page, filed = (folder / "report.html").read_text(), list((folder / "results").rglob("*.json"))
    assert "30 rows of customers.jsonl" in page and "Texts on this page are of private rows" in page
    assert any(json.loads(line)["answer"] in page for line in (folder / "customers.jsonl").read_text().splitlines())
    assert filed and not [path for path in filed if first["answer"] in path.read_text()]
    assert [line.split(":")[0] for line in out.splitlines()[-2:]] == ["Ada Berg", "Ada Castell"]
    assert (folder / "home" / "modeling_edited.py").exists()


def test_the_notebook_runs_to_its_end(walk: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="no nbclient to run notebooks with")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="no kernel to run notebooks with")
    for name, value in walk.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(tmp_path / "own_data.ipynb", as_version=4)
    told = [cell for cell in notebook.cells if '"customers.py", str(folder)' in cell.source]
    told[0].source = told[0].source.replace("str(folder)]", f"str(folder), {SMALL!r}]")
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [str(cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    assert any("Was it forgotten?" in each for each in said) and "Ada Castell:" in said[-1]
