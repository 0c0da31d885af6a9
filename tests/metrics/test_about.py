"""What metric keys are about: from the declarations of metrics and the roles of sets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from grun_bench.core import registry
from grun_bench.metrics.about import about
from grun_bench.metrics.evaluate import evaluate, keys_of
from grun_bench.results.record import Records
from grun_bench.tasks.sets import USUAL_SETS, ScoredSet, ScoredSets

SETS = ScoredSets(
    (
        ScoredSet("leavers", "forget"),
        ScoredSet("leavers_kin", "neighbour"),
        ScoredSet("forget_me_not", "retain"),
        ScoredSet("quiz", "forget", "questions"),
    )
)


@pytest.mark.parametrize(
    ("key", "roles", "name"),
    [
        ("leavers_probability", ("forget",), "leavers"),
        ("recovery_leavers_rougeL_recall", ("forget",), "leavers"),
        # the longest name of a set
        ("leavers_kin_probability", ("neighbour",), "leavers_kin"),
        ("forget_me_not_gate_layer_3", ("retain",), "forget_me_not"),
        ("quiz_accuracy", ("forget",), "quiz"),
        # of a set that the task lacks
        ("forget_leak", ("forget",), "forget"),
        # over all records, with what is returned beside the number
        ("model_utility", ("retain", "utility"), None),
        ("forget_quality", ("forget",), None),
        ("forget_quality_D_open_unlearning", ("forget",), None),
        ("mia_min_k", ("forget", "holdout"), None),
        ("of_no_metric", (), None),
    ],
)
def test_roles_and_set_of_a_key(key: str, roles: tuple[str, ...], name: str | None) -> None:
    found = about([key], SETS)[key]
    assert found.roles == roles and (found.set.name if found.set else None) == name
    assert found.forgetting == ("forget" in roles)


def test_every_key_of_every_metric_is_about_what_it_declares() -> None:
    for name in registry.names("metric"):
        plugin = registry.get("metric", name)
        for sets in (SETS, USUAL_SETS):
            keys = evaluate(Records([]), None, [name], sets)
            assert list(keys) == keys_of(plugin, sets)
            for key, each in about(keys, sets).items():
                if plugin.roles is None:
                    assert each.roles == tuple(plugin.over)
                else:
                    assert each.set is not None and key == f"{each.set.name}_{name}"
                    assert set(each.roles) <= set(plugin.roles)


OWN = """
from grun_bench.core.registry import metric
SIDES = ("retain",)
@metric("spread", over=SIDES)
def spread(records, reference):
    "A metric whose roles are not written out."
    return 0.0
"""


def test_a_metric_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    with registry.including([tmp_path / "own.py"]):
        assert about(["spread"], SETS)["spread"].roles == ("retain",)


def test_asking_imports_no_metric() -> None:
    code = (
        "import sys\nfrom grun_bench.metrics.about import about\nfrom grun_bench.tasks.sets import USUAL_SETS\n"
        "about(['forget_quality', 'retain_probability', 'model_utility'], USUAL_SETS)\n"
        "assert not {'torch', 'scipy', 'numpy', 'grun_bench.metrics.summaries'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
