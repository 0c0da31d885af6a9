"""What a plugin of somebody's own raises: whose it was, what, and where, for each kind, and its traceback."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import SMALL, Said

import grun_bench
from grun_bench.core import registry
from grun_bench.core.errors import PluginError
from grun_bench.plugin_checks.check import CONTRACTS, check

PLUGINS = '''
from grun_bench.core.registry import adapter, attack, metric, objective, unlearner
from grun_bench.methods.adapters.lora import Lora
from grun_bench.methods.base import Unlearner


def deeper(found):
    return found["nothing"]  # HERE


@objective("mine-objective")
def first(batch):
    """An objective."""
    return deeper({})


@adapter("mine-adapter")
class Second(Lora):
    """An adapter."""

    def attach(self, model):
        deeper({})


@unlearner("mine-unlearner")
class Third(Unlearner):
    """An unlearner."""

    def fit(self, context):
        deeper({})


@metric("mine-metric", roles=("forget",))
def fourth(records):
    """A metric."""
    return deeper({})


@attack("mine-attack", access="user", version=1)
def fifth(subject):
    """An attack."""
    yield deeper({}), subject
'''
LINE = next(number for number, line in enumerate(PLUGINS.splitlines(), 1) if "HERE" in line)
#: kind -> the options that have it used
USED = {
    "objective": ["--unlearner", "lora+mine-objective"],
    "adapter": ["--unlearner", "mine-adapter+npo"],
    "unlearner": ["--unlearner", "mine-unlearner"],
    "metric": ["--unlearner", "none"],
    "attack": ["--unlearner", "none", "--attacks", "mine-attack"],
}


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PLUGINS)
    return tmp_path / "mine.py"


@pytest.mark.whole
@pytest.mark.parametrize("kind", USED)
def test_what_a_plugin_raises_is_told_with_its_place(
    command: Callable[..., Said], hub: Path, results: Path, plugins: Path, tmp_path: Path, kind: str
) -> None:
    assert USED.keys() == CONTRACTS.keys()
    task, output = hub / "small.yaml", shutil.copytree(results, tmp_path / "results")
    if kind == "metric":
        task = tmp_path / "task.yaml"
        task.write_text((hub / "small.yaml").read_text().replace("metrics:\n", "metrics:\n- mine-metric\n"))
        output = tmp_path / "others"
    options = ["--task", task, "--model", SMALL, "--output", output, "--include-path", plugins, *USED[kind]]
    said = command("run", *options)
    told = f"{kind} 'mine-{kind}' raised KeyError: 'nothing' ({plugins}, line {LINE}, in deeper)."
    last = f"error: {told} `grun-bench test mine-{kind} --include-path {plugins}` checks it."
    assert said.code == 1 and said.err.splitlines()[-1] == last
    # and how it came to that
    assert said.err.count("Traceback (most recent call last)") == 1
    assert 'return found["nothing"]  # HERE' in said.err and "KeyError: 'nothing'" in said.err.splitlines()


def test_a_check_of_a_plugin_says_where_it_raised(plugins: Path) -> None:
    with registry.including([plugins]):
        problems = {each.problem for each in check("objective", "mine-objective")}
    assert f"KeyError: 'nothing' ({plugins}, line {LINE}, in deeper)" in problems


def test_a_plugin_that_does_not_import_says_where(command: Callable[..., Said], plugins: Path) -> None:
    plugins.write_text(f"{PLUGINS}\ndeeper({{}})\n")
    said = command("test", "mine-objective", "--include-path", plugins)
    assert said.code == 2 and f"does not import: KeyError: 'nothing' ({plugins}, line {LINE}, in deeper)." in said.err


@pytest.mark.whole
def test_from_python_what_was_raised_is_the_cause(environment: Path, hub: Path, results: Path, plugins: Path) -> None:
    output = shutil.copytree(results, plugins.parent / "results")
    with pytest.raises(PluginError, match="objective 'mine-objective' raised KeyError") as told:
        grun_bench.run("lora+mine-objective", hub / "small.yaml", model=SMALL, output=output, include=[plugins])
    assert isinstance(told.value.__cause__, KeyError)
