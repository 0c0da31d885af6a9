"""Rows at other strengths: from the target's row to the row itself, filed, drawn and recomputed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from conftest import SMALL, TASK

from grun_bench.core.errors import UsageError
from grun_bench.leaderboard.check import check
from grun_bench.leaderboard.pages import render, write
from grun_bench.metrics.strengths import STRENGTHS
from grun_bench.runs.config import RunConfig
from grun_bench.runs.run import run

STIFF = """
from grun_bench.core.registry import adapter
from grun_bench.methods.adapters.lora import Lora


@adapter("stiff")
class Stiff(Lora):
    "An adapter that is there or not."

    has_strength = False
"""


@pytest.mark.whole
@pytest.mark.parametrize("unlearner", ["grun+npo", "full+gd"])
def test_a_curve_from_the_target_to_the_row_and_beyond(
    environment: Path, hub: Path, results: Path, tmp_path: Path, unlearner: str
) -> None:
    output = shutil.copytree(results, tmp_path / "results")
    config = RunConfig(unlearner, str(hub / "small.yaml"), output, model=SMALL, overrides={"epochs": 1})
    plain = run(config).cell.result
    outcome = run(RunConfig(**vars(config) | {"strengths": (0.5, 2)}))
    result, target = outcome.cell.result, outcome.target
    assert result.results == plain.results and target is not None
    points = {point.at: point for point in result.curves[STRENGTHS].points}
    assert list(points) == [0, 50, 100, 200]
    for at, other in ((0, target.result), (100, result)):
        assert points[at].values == {key: pytest.approx(other.value(key)) for key in result.headline}
    key = "forget_probability"
    assert len({point.values[key] for point in points.values()}) == 4
    # nothing is made again for strengths that are there, and one more is added to them
    date = outcome.cell.path.stat().st_mtime_ns
    assert run(RunConfig(**vars(config) | {"strengths": (0.5,)})).cell.reused
    assert outcome.cell.path.stat().st_mtime_ns == date
    if unlearner != "grun+npo":
        return
    # what is filed comes from its records
    write(render(output, tmp_path), tmp_path)
    assert not list(check(output, tmp_path).problems)
    edited = json.loads(outcome.cell.path.read_text())
    edited["curves"][STRENGTHS]["points"][1]["values"][key] = 0.123
    outcome.cell.path.write_text(json.dumps(edited))
    said = [each for each in check(output, tmp_path).problems if STRENGTHS in each]
    assert len(said) == 1 and f"curves.strengths.points.1.{key}: the result says 0.123" in said[0]
    # a point that names no records is not believed
    edited["curves"][STRENGTHS]["points"][1]["records"] = None
    outcome.cell.path.write_text(json.dumps(edited))
    said = [each for each in check(output, tmp_path).problems if STRENGTHS in each]
    assert len(said) == len(result.headline) and all("no metric here gives it" in each for each in said)


@pytest.mark.parametrize(
    ("unlearner", "stages", "says"),
    [
        ("none", None, "nothing was unlearned in none"),
        ("grun+npo", [[0, 2], [2, 4]], "request after request"),
        ("stiff+npo", None, "puts beside the model has no strength"),
    ],
)
def test_what_has_no_strength_is_refused(
    environment: Path, tmp_path: Path, unlearner: str, stages: object, says: str
) -> None:
    plugin = tmp_path / "stiff.py"
    plugin.write_text(STIFF)
    task = tmp_path / "small.yaml"
    task.write_text(yaml.safe_dump(TASK | ({"stages": stages} if stages else {})))
    with pytest.raises(UsageError, match=says):
        run(RunConfig(unlearner, str(task), tmp_path, model=SMALL, strengths=(0.5,), include=(plugin,)))
