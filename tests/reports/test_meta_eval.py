"""meta-eval on pools of seconds: what it says is what counting says, and a second call trains nothing."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from conftest import SMALL, Command
from synthetic import references, result, store

from grun_bench.metrics.trust import Change, kept_by_quantisation, kept_by_relearning
from grun_bench.reports.trust import judge
from grun_bench.results.record import Continuation, Record, Records, load_records
from grun_bench.results.result import Result
from grun_bench.results.store import read_result, result_files
from grun_bench.runs.pools import Member, Pools
from grun_bench.tasks.sets import USUAL_SETS

KEY = "forget_probability"


@pytest.fixture
def asked(hub: Path, tmp_path: Path) -> list[object]:
    given = ["meta-eval", "--task", hub / "small.yaml", "--model", SMALL, "--seeds", "0,1", "--trained", "1"]
    return [*given, "--out", tmp_path / "out", "--output", tmp_path / "none"]


@pytest.mark.long
def test_pools_are_made_once_and_counted_rightly(asked: list[object], command: Command, tmp_path: Path) -> None:
    assert (said := command(*asked)).code == 0, said.err
    files = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    pools = {
        part: [path for path in sorted(files) if path.name.startswith(f"{part}-seed") and path.suffix == ".bz2"]
        for part in ("with", "without")
    }
    assert [len(paths) for paths in pools.values()] == [2, 2]
    values = {
        part: [sum(2.718281828459045**-row.answer.loss for row in load_records(path).of("forget")) for path in paths]
        for part, paths in pools.items()
    }
    pairs = itertools.product(values["with"], values["without"])
    found = json.loads((tmp_path / "out" / "meta_eval.json").read_text())["metrics"][KEY]
    assert found["faithfulness"] == pytest.approx(sum((one > other) + 0.5 * (one == other) for one, other in pairs) / 4)
    assert found["knowing"] == pytest.approx(sum(values["with"]) / 2 / 4)
    assert found["overall"] is None
    # the second call reads what the first has kept
    pools["with"][0].with_name("mark").write_text("")
    again = command(*asked)
    assert again.code == 0 and "pool:" in said.err and "pool:" not in again.err
    assert files == {path: path.read_bytes() for path in files}
    page = (tmp_path / "out" / "README.md").read_text()
    assert "forget probability" in page and "## Without a number" in page and "no gates" in page


@pytest.mark.whole
def test_rows_that_are_asked_for_are_made_once_and_attacked(
    asked: list[object], command: Command, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes")
    given = [*asked, "--unlearner", "npo"]
    assert (said := command(*given)).code == 0, said.err
    made = {path: read_result(path) for path in result_files(tmp_path / "out" / "rows")}
    assert {each.unlearner.name for each in made.values()} == {"none", "retain", "full+npo"}
    for each in made.values():
        assert set(each.attacks["int4"].variants) == {"nf4", "fp4"}
        assert {name.partition("@")[0] for name in each.attacks["relearn"].variants} == {"forget-full"}
    (data,) = (json.loads(path.read_text()) for path in (tmp_path / "out").glob("*.json"))
    assert set(data["rows"]) <= {each.run_id for each in made.values()} and KEY in data["metrics"]
    before = {path: path.read_bytes() for path in made}
    again = command(*given)
    assert again.code == 0 and "relearning" not in again.err and "pool:" not in again.err
    assert before == {path: path.read_bytes() for path in before}


@pytest.mark.parametrize(
    ("option", "value"), [("--seeds", "a"), ("--seeds", "-1"), ("--trained", "0"), ("--trained", "1.5")]
)
def test_odd_pools_are_refused(asked: list[object], command: Command, option: str, value: str) -> None:
    said = command(*asked, option, value)
    assert said.code == 2 and f"{option} {value}" in said.err


def test_a_method_that_there_is_not_is_told_before_anything_is_trained(asked: list[object], command: Command) -> None:
    said = command(*asked, "--unlearner", "npo", "--unlearner", "nqo")
    assert said.code == 2 and "nqo" in said.err and "pool:" not in said.err


def test_a_model_that_is_not_trained_here_has_no_pools(hub: Path, command: Command, tmp_path: Path) -> None:
    said = command(
        "meta-eval", "--task", "wmdp_cyber", "--model", SMALL, "--out", tmp_path, "--output", tmp_path / "none"
    )  # fmt: skip
    assert said.code == 2 and re.search("not trained here|cais", said.err)


def pools_of(knowing: list[float], unknowing: list[float]) -> Pools:
    def said(probability: float) -> Records:
        return Records([Record("forget", 0, "q", Continuation("a", loss=0.0, probability=probability))])

    members = {Member(True, seed, 1.0): said(value) for seed, value in enumerate(knowing)}
    members |= {Member(False, seed, 1.0): said(value) for seed, value in enumerate(unknowing)}
    return Pools(
        "letters", "org/small", "published", "d" * 64, "grun-bench", None, USUAL_SETS, ("probability",), members
    )


def attacked(name: str, before: float, int4: float, relearned: dict[str, float], utility: float = 0.7) -> Result:
    access = {"int4": ("weights", {"nf4": int4}), "relearn": ("weights", relearned)}
    one = result(name, attacks=access, utility=utility)
    text = one.model_dump_json(by_alias=True).replace("forget_es", KEY)
    changed = Result.model_validate_json(text)
    changed.results["letters"][f"{KEY},none"] = before
    return changed


def test_robustness_is_the_mean_over_usable_rows(tmp_path: Path) -> None:
    steps = {"forget-full@4": 0.9, "forget-full@12": 0.4, "retain-full@12": 0.9}
    rows = [
        attacked("grun+npo", 0.1, 0.2, steps),
        attacked("full+npo", 0.2, 0.1, steps | {"forget-full@12": 0.3}),
        attacked("full+ga", 0.1, 0.9, steps, utility=0.1),  # lost its utility
        attacked("full+rmu", 0.9, 0.9, steps),  # the metric itself says that it knows
        attacked("none", 0.95, 0.95, steps, utility=0.8),
        attacked("retain", 0.1, 0.1, steps | {"forget-full@12": 0.2}, utility=0.78),
    ]
    store([*rows, *references(task="others")], tmp_path)
    judged = judge(pools_of([0.9, 0.8], [0.1, 0.2]), tmp_path)
    trust = next(each for each in judged.trusts if each.metric == KEY)
    assert trust.faithfulness == 1.0 and trust.limit == pytest.approx(0.5)
    assert {row.unlearner.name for row in judged.rows} == {"grun+npo", "full+npo", "full+rmu"}
    taught = Change(0.1, 0.2)
    relearned = [kept_by_relearning(change, taught) for change in (Change(0.1, 0.4), Change(0.2, 0.3))]
    quantised = [kept_by_quantisation(change) for change in (Change(0.1, 0.2), Change(0.2, 0.1))]
    assert trust.one_sided.models == 2
    assert trust.one_sided.relearning == pytest.approx(sum(relearned) / 2)
    assert trust.one_sided.quantisation == pytest.approx(sum(quantised) / 2) == 0.75
    harmonic = 2 / (2 / sum(relearned) + 2 / sum(quantised))
    assert trust.overall == pytest.approx(2 / (1 + 1 / harmonic))
