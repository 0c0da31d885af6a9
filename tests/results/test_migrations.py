"""Results of every version of the schema can be read. The stored files were written by the code of their time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grun_bench.core.errors import UsageError
from grun_bench.results.migrations import ALIKE, CURRENT, STEPS, migrate
from grun_bench.results.result import parse_result
from grun_bench.results.store import read_result

DATA = Path(__file__).parents[1] / "data"


def stored(version: int) -> Path:
    return DATA / f"result-v{version}.json"


@pytest.mark.parametrize("version", range(1, CURRENT + 1))
def test_there_is_a_file_of_each_version_and_it_is_read(version: int) -> None:
    assert json.loads(stored(version).read_text())["schema_version"] == version
    assert read_result(stored(version)).schema_version == CURRENT


@pytest.mark.parametrize("version", range(1, CURRENT + 1))
def test_what_was_reviewed_is_read_as_anything_is(version: int) -> None:
    content = stored(version).read_bytes()
    assert parse_result(content, "here", reviewed=True) == parse_result(content, "here")


@pytest.mark.parametrize("version", range(ALIKE, CURRENT))
def test_no_step_changes_what_is_read_at_once(version: int) -> None:
    data = json.loads(stored(version).read_text())
    assert STEPS[version](data) == data == json.loads(stored(version).read_text())


def test_nothing_of_version_1_is_lost() -> None:
    before = json.loads(stored(1).read_text())
    after = json.loads(read_result(stored(1)).dumps())
    new = {
        "schema_version": CURRENT,
        "attacks": {},
        "curves": {},
        "gates": {},
        "cost": before["cost"] | {"trunk_bytes": 0},
        "unlearner": before["unlearner"] | {"tuned": None, "adjusted": {}},
    }
    assert after == before | new


def test_a_file_of_the_current_version_comes_back_as_it_was() -> None:
    assert read_result(stored(CURRENT)).dumps() == stored(CURRENT).read_text()


def test_attacks_and_curves_of_version_2_are_read() -> None:
    result = read_result(stored(2))
    assert {name: info.access for name, info in result.attacks.items()} == {"suffix": "user", "relearn": "weights"}
    assert set(result.curves) == {"training", "relearn:retain-lora"}
    for point in result.curves["relearn:retain-lora"].points:
        stated = result.value("forget_probability", "relearn", f"retain-lora@{point.at}")
        assert point.values["forget_probability"] == stated and point.records is not None


def test_attacks_before_version_3_asked_every_set() -> None:
    assert {name: info.rows for name, info in read_result(stored(2)).attacks.items()} == {"suffix": {}, "relearn": {}}
    left_out = dict.fromkeys(("real_authors", "retain", "world_facts"), 0)
    assert read_result(stored(3)).attacks["suffix"].rows == left_out


def test_gates_before_version_4_were_not_audited() -> None:
    assert read_result(stored(3)).gates == {}
    gates = read_result(stored(4)).gates
    assert list(gates) == ["none", "paraphrased", "suffix:please"]
    assert {name: spread.opens for name, spread in gates["none"].items()} == {
        "forget": True,
        "retain": False,
        "nearest retain": False,
        "real_authors": False,
        "world_facts": False,
    }


def test_settings_before_version_5_were_not_tuned() -> None:
    assert read_result(stored(4)).unlearner.tuned is None
    tuned = read_result(stored(5)).unlearner.tuned
    assert tuned is not None and tuned.label == "tuned: 20 trials, validation of small"


def test_strengths_before_version_6_were_not_there() -> None:
    assert read_result(stored(5)).curves == {}
    curve = read_result(stored(6)).curves["strengths"]
    assert curve.unit == "percent" and [point.at for point in curve.points] == [0, 50, 100, 150]
    assert curve.points[2].records == read_result(stored(6)).records


def test_the_steps_have_no_gap() -> None:
    assert sorted(STEPS) == list(range(1, CURRENT))


def test_a_newer_version_says_to_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    path.write_text(json.dumps(json.loads(stored(1).read_text()) | {"schema_version": CURRENT + 1}))
    with pytest.raises(UsageError, match=rf"new\.json: .*version {CURRENT + 1}.*up to {CURRENT}.*upgrade"):
        read_result(path)


@pytest.mark.parametrize("version", ["1", True, 0, -1, None, "left out"])
def test_a_version_that_is_none_is_refused(version: object, tmp_path: Path) -> None:
    data = json.loads(stored(CURRENT).read_text()) | {"schema_version": version}
    if version == "left out":
        del data["schema_version"]
    path = tmp_path / "odd.json"
    path.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=r"odd\.json: \$\.schema_version: must be"):
        read_result(path)


@pytest.mark.parametrize("data", [[], None, 3])
def test_what_is_no_object_is_left_to_the_schema(data: object) -> None:
    assert migrate(data) is data


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused(number: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    path.write_text(stored(CURRENT).read_text().replace('"parameters": ', f'"parameters": {number}, "_": ', 1))
    with pytest.raises(UsageError, match=rf"odd\.json: \$\.cost\.parameters: {number}"):
        read_result(path)
