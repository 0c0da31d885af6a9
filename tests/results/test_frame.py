"""Results as a table, counted by hand from the files themselves."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Command
from synthetic import references, result, store

import grun_bench
from grun_bench.results.frame import COLUMNS, to_frame
from grun_bench.results.result import TunedBy
from grun_bench.results.store import read_result

ATTACKS: dict[str, Any] = {"prefix": ("user", {"a": 0.2, "b": 0.5}), "relearn": ("weights", {"lora@8": 0.9})}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two seeds, one of them attacked, and the references."""
    store([*references(), result(seed=0), result(seed=1, es=None, attacks=ATTACKS)], tmp_path)
    return tmp_path


def test_there_is_one_line_for_every_value_in_the_files(folder: Path) -> None:
    table = grun_bench.load_results(folder)
    assert list(table.columns) == list(COLUMNS)
    stated = {
        (data["run_id"], key): value
        for path in folder.glob("*/*/*/*.json")
        for data in [json.loads(path.read_text())]
        for key, value in data["results"]["letters"].items()
    }
    assert len(table) == len(stated) == 4 * 5 + 2 + 1 + 2
    for line in table.itertuples():
        label = f"{line.attack}:{line.variant}" if line.variant else line.attack or "none"
        value = stated.pop((line.run_id, f"{line.metric},{label}"))
        assert line.value == value or (value is None and math.isnan(line.value) and line.reason == "there is no gate")
    assert not stated


def test_a_line_says_what_its_value_is(folder: Path) -> None:
    table = grun_bench.load_results(folder)
    mine = table[(table["unlearner"] == "grun+npo") & (table["seed"] == 1)]
    worst = mine[(mine["metric"] == "forget_es") & (mine["attack"] == "prefix") & (mine["variant"] == "")].iloc[0]
    assert (worst["value"], worst["access"], worst["set"], worst["n"]) == (0.5, "user", "forget", 4)
    assert not worst["higher_is_better"]
    assert worst["settings"] == {"lr": 0.001} and worst["status"] == "ok"
    assert set(mine[mine["attack"] == "relearn"]["variant"]) == {"", "lora@8"}
    assert set(mine[mine["attack"] == "relearn"]["access"]) == {"weights"}
    utility = mine[mine["metric"] == "utility"].iloc[0]
    assert (utility["low"], utility["high"], utility["set"]) == (0.5, 0.7, "")
    gate = mine[mine["metric"] == "forget_gate"].iloc[0]
    assert gate["higher_is_better"] is pd.NA and gate["n"] == 4
    controls = table[table["seed"].isna()]
    assert set(controls["unlearner"]) == {"none", "retain"}


def test_means_over_seeds_are_a_line_of_pandas(folder: Path) -> None:
    table = grun_bench.load_results(folder)
    clean = table[(table["attack"] == "") & (table["metric"] == "utility")]
    assert clean.groupby("unlearner")["value"].mean().to_dict() == {"grun+npo": 0.6, "none": 0.8, "retain": 0.78}


def test_a_tuned_row_is_another_method_than_the_default_one(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In tables of pandas, in lists of runs and where rows are compared: one name, one seed, and told apart."""
    default, tuned, other = result(utility=0.6), result(utility=0.4), result("grun+dpo")
    tuned.unlearner.tuned = TunedBy(trials=20, on="validation of letters", seed=1000)
    tuned.run_id = f"f{tuned.run_id[1:]}"
    label = "tuned: 20 trials, validation of letters"
    store([default, tuned, other], tmp_path)
    table = grun_bench.load_results(tmp_path)
    assert dict(zip(table["run_id"], table["tuned"], strict=True)) == {
        **{default.run_id: "", other.run_id: ""},
        tuned.run_id: label,
    }
    utility = table[(table["metric"] == "utility") & (table["unlearner"] == "grun+npo")]
    assert utility.groupby("tuned")["value"].mean().to_dict() == {"": 0.6, label: 0.4}
    monkeypatch.setenv("COLUMNS", "300")
    three = [default.run_id, tuned.run_id, other.run_id]
    for said in (command("ls", "runs", "--output", tmp_path), command("compare", *three, "--output", tmp_path)):
        assert said.code == 0, said.err
        lines = {run: next(line for line in said.out.splitlines() if run in line) for run in three}
        assert [f"grun+npo ({label})" in lines[run] for run in three] == [False, True, False]
        assert all("(" not in lines[run].split("small")[0] for run in (default.run_id, other.run_id))
    as_json = json.loads(command("compare", *three, "--output", tmp_path, "--json").out)
    assert [row["tuned"] for row in as_json["rows"]] == ["", label, ""]


def test_rows_of_other_settings_are_told_apart_where_their_task_and_model_are_the_same(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    settings = [{"lr": 0.001, "epochs": 1}, {"lr": 0.1, "epochs": 1}]
    same = [result(settings=each) for each in settings]
    store([*same, result(settings=settings[0], task="digits")], tmp_path)
    lines = command("ls", "runs", "--output", tmp_path).out.splitlines()
    found = [re.findall(r"grun\+npo[^│]*", line)[0].strip() for line in lines if "grun+npo" in line]
    assert sorted(found) == ["grun+npo", "grun+npo (lr=0.001)", "grun+npo (lr=0.1)"]


def test_a_real_result_is_a_table_of_its_own(results: Path) -> None:
    table = grun_bench.load_results(results)
    assert set(table["run_id"]) == {path.stem for path in results.glob("*/*/*/*.json")}
    for path in results.glob("*/*/*/*.json"):
        one = to_frame(read_result(path))
        pd.testing.assert_frame_equal(one, table[table["run_id"] == path.stem].reset_index(drop=True))
        rates = one[one["metric"].str.endswith("_probability")]
        assert set(rates["set"]) == {"forget", "retain", "real_authors", "world_facts"}
        assert (rates["low"] <= rates["value"]).all() and (rates["value"] <= rates["high"]).all()


def test_an_empty_folder_is_an_empty_table_and_none_is_told(tmp_path: Path) -> None:
    table = grun_bench.load_results(tmp_path)
    assert len(table) == 0 and list(table.columns) == list(COLUMNS)
    with pytest.raises(grun_bench.UsageError, match="no such folder"):
        grun_bench.load_results(tmp_path / "nowhere")
    store([result()], tmp_path)
    (path,) = tmp_path.glob("*/*/*/*.json")
    path.write_text(path.read_text().replace('"status": "ok"', '"status": "fine"'))
    with pytest.raises(grun_bench.UsageError, match="status"):
        grun_bench.load_results(tmp_path)
