"""Every plugin of the package keeps its kind's contract, and the checks see plugins that do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Command

from grun_bench.core import registry
from grun_bench.core.plugins import AttackPlugin
from grun_bench.plugin_checks.check import CONTRACTS, check

BUILT_IN = [(kind, name) for kind in CONTRACTS for name in registry.names(kind)]

BROKEN = """
from contextlib import contextmanager

import numpy as np
import torch

from grun_bench.methods.adapters.base import Adapter
from grun_bench.core.errors import Inapplicable
from grun_bench.core.ranges import Range
from grun_bench.core.registry import adapter, attack, metric, objective, unlearner
from grun_bench.methods.base import Unlearner


@adapter("leaky")
class Leaky(Adapter):
    "Says that it trains the last norm and leaves all the rest trainable; never off."

    def attach(self, model):
        self.norm = model.model.norm

    def trainable_parameters(self):
        return list(self.norm.parameters())

    @contextmanager
    def disabled(self):
        yield


@objective("undefined")
def undefined(batch):
    "Not a number."
    return batch.forget.cross_entropy * float("nan")


@metric("percent", roles=("forget",), higher_is_better=False, bounds=(0.0, 1.0))
def percent(rows):
    "Out of its bounds."
    return np.array([100.0 for _ in rows])


@metric("first", roles=("forget",), higher_is_better=None)
def first(rows):
    "Fine."
    return np.array([float(row.index) for row in rows])


@objective("unranged", searched={"beta": Range(1, 2), "warmup": Range(0, 0.5)})
def unranged(batch, *, beta: float = 3.0):
    "It is searched where its default is not."
    return -batch.forget.cross_entropy


@objective("unequal", searched={"warmup": Range(0, 0.5)})
def unequal(batch):
    "It is searched less than others."
    return -batch.forget.cross_entropy


@objective("leaving")
def leaving(batch):
    "It ends the program, and means that all is well."
    raise SystemExit(0)


@objective("empty")
def empty(batch):
    "It gives nothing."


@unlearner("noise")
class Noise(Unlearner):
    "Another model every time."

    def fit(self, context):
        from grun_bench.methods.base import Fitted

        lm = context.load_target()
        torch.seed()
        lm.model.lm_head.weight.data.add_(torch.rand(()))
        return Fitted(lm)


@attack("unfinished", access="weights", version=1)
def unfinished(subject):
    "Puts the head back only when nothing stops it."
    head = subject.lm.model.get_output_embeddings().weight
    before = head.data
    head.data = before * 2
    yield "twice", subject
    head.data = before


@attack("wandering", access="user", version=1)
def wandering(subject):
    "Moves the questions about for good."
    subject.examples.reverse()
    yield "backwards", subject


@attack("twins", access="user", version=1)
def twins(subject):
    "Two variants of one name."
    yield "a", subject
    yield "a", subject


@attack("idle", access="user", version=1)
def idle(subject):
    "No variant."
    yield from ()


@attack("picky", access="user", version=1)
def picky(subject):
    "Fine: it says why."
    raise Inapplicable("there is nothing here.")
    yield
"""


@pytest.mark.whole
@pytest.mark.parametrize(("kind", "name"), BUILT_IN, ids=lambda value: value)
def test_built_in_plugins_keep_their_contracts(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = registry.get(kind, name)
    if isinstance(plugin, AttackPlugin) and plugin.extra:
        pytest.importorskip(plugin.extra[0])
    if name == "relearn":  # its 18 fine-tunings in full take half a minute
        monkeypatch.setitem(registry.get(kind, name).target.__kwdefaults__, "steps", (1, 3))
    assert [checked.problem for checked in check(kind, name)] == [None] * len(CONTRACTS[kind])


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("leaky", "would be trained"),
        ("leaky", "the model differs from the target after a step"),
        ("undefined", "Diverged"),
        ("percent", "forget_percent is 100.0, the bounds are 0.0 to 1.0"),
        ("unranged", "beta is searched in 1 to 2, and its default 3.0 is not among that"),
        ("unequal", "searched names warmup, and every plugin of this kind has 2"),
        ("leaving", "the program was ended (SystemExit: 0)"),
        ("empty", "objective empty gave None; it is to give a scalar tensor"),
        ("noise", "the same seed gave another model"),
        ("unfinished", "lm_head.weight is not what it was"),
        ("wandering", "the examples are not what they were"),
        ("twins", "yields 'a', which cannot name a variant"),
        ("idle", "no variant, and no Inapplicable that says why"),
    ],
)
def test_broken_plugins_are_seen(command: Command, tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    said = command("test", name, "--include-path", tmp_path / "broken.py")
    assert said.code == 1
    assert problem in " ".join(said.out.split())
    assert f"error: {name} breaks" in said.err


#: one of each kind
OF_EACH_KIND = {
    "adapter": "leaky",
    "objective": "undefined",
    "metric": "percent",
    "unlearner": "noise",
    "attack": "idle",
}


@pytest.mark.whole
@pytest.mark.slow  # all libraries are compiled for the flag; ruff refuses asserts in the package
def test_no_flag_of_python_skips_the_checks(tmp_path: Path) -> None:
    """Asserts are left out with this one, which an author may have set for other reasons."""
    assert OF_EACH_KIND.keys() == CONTRACTS.keys()
    (tmp_path / "broken.py").write_text(BROKEN)
    program = (
        "import sys\nfrom grun_bench.cli import main\n"
        f"for name in {[*OF_EACH_KIND.values(), 'first']!r}:\n"
        "    sys.argv = ['grun-bench', 'test', name, '--include-path', 'broken.py']\n"
        "    try:\n        main()\n"
        "    except SystemExit as ended:\n        print('ENDED', name, ended.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONOPTIMIZE": "1", "OMP_NUM_THREADS": "1"},
    )
    ended = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("ENDED")]
    assert ended == [[name, "1"] for name in OF_EACH_KIND.values()] + [["first", "0"]], done.stdout + done.stderr


@pytest.mark.parametrize("name", ["first", "picky"])
def test_a_plugin_that_keeps_its_contract(command: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    said = command("test", name, "--include-path", tmp_path / "broken.py")
    assert said.code == 0, said.out + said.err
    assert "ok" in said.out


def test_the_checks_as_json_are_those_of_the_table(command: Command, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    said = command("test", "percent", "--include-path", tmp_path / "broken.py", "--json")
    rows = json.loads(said.out)
    assert said.code == 1 and {row["kind"] for row in rows} == {"metric"}
    assert f"breaks {sum(row['problem'] is not None for row in rows)} of" in said.err


def test_an_unknown_plugin_names_the_near_ones(command: Command) -> None:
    said = command("test", "nppo")
    assert said.code == 2
    assert "plugin 'nppo'" in said.err and "npo" in said.err
