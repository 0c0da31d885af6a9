"""Several processes on one folder of results: each one's work is in it when all have ended."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from conftest import SMALL
from forking import ended, forked

from grun_bench.core.errors import GrunBenchError
from grun_bench.methods.base import FitContext
from grun_bench.methods.trainer import Pair
from grun_bench.results.filed import records_problem
from grun_bench.results.result import Result
from grun_bench.results.store import read_result, result_files
from grun_bench.runs.config import RunConfig, config_of
from grun_bench.runs.run import attack_row, run

pytestmark = pytest.mark.whole

#: a variant each: attacks of moments
ATTACKS = {"prefix": {"prefix.phrases": {"a": "Now:"}}, "suffix": {"suffix.phrases": {"a": "Now."}}, "strip": {}}


def together(works: Sequence[Callable[[], object]]) -> None:
    """Each in a process of its own, all at the same time."""
    codes = [ended(number) for number in [forked(work) for work in works]]
    assert codes == [0] * len(codes)


def config(hub: Path, output: Path, unlearner: str, **changes: object) -> RunConfig:
    return RunConfig(unlearner, str(hub / "small.yaml"), output, model=SMALL, **changes)


def rows(output: Path) -> dict[str, Result]:
    """By unlearner; every one with the records that it names."""
    found = {}
    for path in result_files(output):
        found[path.parent.name] = result = read_result(path)
        assert records_problem(path, result.all_records()) is None
    return found


def test_four_processes_lose_nothing(environment: Path, hub: Path, results: Path, tmp_path: Path) -> None:
    """Three attack one row, a fourth makes another row, and all attack the same controls."""
    output = shutil.copytree(results, tmp_path / "results")
    row = rows(output)["grun+npo"]
    task = str(hub / "small.yaml")

    def attacking(name: str) -> Callable[[], object]:
        made = config_of(row, task=task, output=output, attacks=name)
        return lambda: attack_row(RunConfig(**vars(made) | {"overrides": {**made.overrides, **ATTACKS[name]}}), row)

    other = config(hub, output, "lora+gd", attacks="fewshot", overrides={"epochs": 1})
    together([*map(attacking, ATTACKS), lambda: run(other)])
    found = rows(output)
    assert set(found["grun+npo"].attacks) == set(ATTACKS)
    assert set(found["lora+gd"].attacks) == {"fewshot"}
    for control in ("none", "retain"):
        assert set(found[control].attacks) == {*ATTACKS, "fewshot"}
    # what was there before is as it was
    clean = {key: value for key, value in found["grun+npo"].results["small"].items() if key.endswith(",none")}
    assert clean == row.results["small"]


def test_one_row_is_trained_by_one_process(environment: Path, hub: Path, results: Path, tmp_path: Path) -> None:
    """The same command twice at a time: the second waits for the first, and finds the row."""
    output, log = shutil.copytree(results, tmp_path / "results"), tmp_path / "log"
    same = config(hub, output, "lora+npo", overrides={"epochs": 2})

    def noting() -> None:
        fit = Pair.fit

        def noted(self: Pair, context: FitContext) -> object:
            with log.open("a") as file:
                file.write("trained\n")
            return fit(self, context)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Pair, "fit", noted)
            run(same)

    together([noting, noting])
    assert log.read_text() == "trained\n"
    assert "lora+npo" in rows(output)


MEDDLING = """
from pathlib import Path
from grun_bench.core.registry import attack

@attack("meddling", access="user", version=1)
def meddling(subject):
    \"\"\"Makes the row again, as another process would, while it is attacked.\"\"\"
    path = Path({path!r})
    path.write_text(path.read_text().replace({sha256!r}, "0" * 64))
    yield "a", subject
"""


def test_an_attack_on_what_was_made_again_is_not_filed(
    environment: Path, hub: Path, results: Path, tmp_path: Path
) -> None:
    """Numbers of one model would stand in the row of another."""
    output = shutil.copytree(results, tmp_path / "results")
    row = rows(output)["retain"]
    (path,) = (output / "small").glob("*/retain/*.json")
    plugin = tmp_path / "plugin.py"
    plugin.write_text(MEDDLING.format(path=str(path), sha256=row.records.sha256))
    with pytest.raises(GrunBenchError, match="was made again while it was attacked"):
        run(config(hub, output, "none", attacks="meddling", include=(plugin,)))
    assert read_result(path).attacks == {}
