"""What README and CONTRIBUTING tell people to type works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import Command

from grun_bench.core import registry
from grun_bench.tasks.task import load_task

ROOT = Path(__file__).parent.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", CONTRIBUTING, flags=re.DOTALL)


PLUGINS = [
    ("objective", "margin"),
    ("adapter", "last-layers"),
    ("metric", "answer_length"),
    ("unlearner", "shrink-head"),
    ("attack", "shout"),
]


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """The plugin examples of CONTRIBUTING as files in a folder."""
    for number, block in enumerate(blocks("python")):
        (tmp_path / f"example_{number}.py").write_text(block)
    return tmp_path


@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_plugin_example_keeps_its_contract(kind: str, name: str, examples: Path, command: Command) -> None:
    said = command("test", name, "--include-path", examples)
    assert said.code == 0, said.out + said.err
    with registry.including([examples]):
        assert registry.get(kind, name).name == name
        assert registry.entries(kind)[name].summary


def test_every_plugin_example_is_tested() -> None:
    assert len(blocks("python")) == len(PLUGINS)


def test_the_task_example_loads(tmp_path: Path) -> None:
    (tmp_path / "_tofu.yaml").write_text((ROOT / "tasks" / "_tofu.yaml").read_text())
    path = tmp_path / "tofu_last_author.yaml"
    path.write_text(blocks("yaml")[0])
    task = load_task(str(path))
    assert task.sources["forget"][0].start == 3980
    assert task.metrics


def test_ci_types_what_the_readme_says() -> None:
    readme, script = (ROOT / "README.md").read_text(), (ROOT / ".ci" / "run").read_text()
    assert 'pip install -c constraints.txt -e ".[dev]" && pytest' in readme
    assert 'pip install -q -c constraints.txt -e ".[dev]"' in script
    assert "grun-bench run --unlearner grun+npo --task tofu_forget10" in readme
    assert "grun-bench run --unlearner grun+npo --task tofu_forget10" in script
