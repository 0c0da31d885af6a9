"""The walks in `examples/` run from nothing to the end, the script and the notebook; the server answers."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from attaching import saved
from conftest import SMALL

import grun_bench
from grun_bench.models.loading import Placement, load
from grun_bench.tasks.chats import Chat

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_server_says_what_the_model_generates(environment: Path, tmp_path: Path) -> None:
    """Over HTTP, from a saved folder, of a question alone and of turns; what is no question is refused."""
    saved(load(SMALL, Placement("cpu", "float32")), tmp_path / "model", "grun")
    spec = importlib.util.spec_from_file_location("serve", EXAMPLES / "serve.py")
    assert spec is not None and spec.loader is not None
    serve = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(serve)
    lm = grun_bench.load(tmp_path / "model", "cpu")
    serve.answer.__defaults__ = (4,)
    with serve.server(lm, 0) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        turns = [("user", "Who?"), ("assistant", "Ada."), ("user", "Where?")]
        for asked, question in ((turns[:1], "Who?"), (turns, Chat(turns))):
            prompt = torch.tensor([lm.prompts.prompt(question)])
            said = lm.model.generate(prompt, max_new_tokens=4, do_sample=False, pad_token_id=lm.pad_id)
            expected = lm.tokenizer.decode(said[0, prompt.shape[1] :], skip_special_tokens=True).strip()
            messages = [{"role": role, "content": content} for role, content in asked]
            assert posted(server.server_port, {"messages": messages}) == (200, {"content": expected})
        status, told = posted(server.server_port, {"question": "Who?"})
        assert status == 400 and "messages" in told["error"]
        server.shutdown()


def posted(port: int, data: Any) -> tuple[int, Any]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("POST", "/", json.dumps(data))
        found = connection.getresponse()
        return found.status, json.loads(found.read())


@pytest.fixture
def walk(environment: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a walk: this Python's programs, this checkout, a cache of its own."""
    for file in EXAMPLES.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    paths = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(EXAMPLES.parent)}
    return os.environ | paths | {"HF_MODULES_CACHE": str(tmp_path / "modules"), "OMP_NUM_THREADS": "1"}


@pytest.mark.whole
@pytest.mark.slow  # the notebook is the same walk
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


@pytest.mark.whole
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
