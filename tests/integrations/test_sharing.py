"""Results in the formats of others have the same numbers, and nothing of private rows."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas
import pytest
from conftest import Command
from synthetic import result, store

import grun_bench
from grun_bench.integrations.eee import write_records
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.result import Result


@pytest.fixture
def filed(tmp_path: Path) -> tuple[Path, list[Result]]:
    """A folder of results: a control, two methods, one of them attacked and with own settings, and private rows."""
    source = {"train:forget": {"sources": ["mirror org/letters", "hub org/letters"], "rows": 4, "sha256": ["0" * 64]}}
    attacks = {"prefill": ("user", {"1": 0.25, "3": 0.5}), "strip": ("weights", {"strip": 0.875})}
    open_rows = [
        result("none", es=0.9, seed=None, data=source),
        result("grun+npo", es=0.125, attacks=attacks, data=source, settings={"lr": 0.5, "layers": [1, 2]}),
        result("lora+gd", es=None, utility=0.1, seed=3, limit=2),
    ]
    hidden = [
        result("grun+gd", task="mine", dataset="own", configs={"mine": {"private": True}}),
        result("npo", task="mine", dataset="own"),
    ]
    store([*open_rows, *hidden], tmp_path / "results")
    return tmp_path / "results", open_rows


def test_a_data_set_has_the_numbers_of_the_table(
    command: Command, filed: tuple[Path, list[Result]], tmp_path: Path
) -> None:
    import datasets
    from huggingface_hub import DatasetCard

    folder, rows = filed
    said = command("share", "--to", "dataset", "--out", tmp_path / "out", "--output", folder)
    assert said.code == 0, said.err
    found = datasets.load_dataset(str(tmp_path / "out"), split="train").to_pandas()
    expected = grun_bench.load_results(folder)
    expected = expected[expected["task"] != "mine"].reset_index(drop=True)
    assert list(found.columns) == list(expected.columns) and len(found) == len(expected) > 10
    found["settings"] = found["settings"].map(json.loads)
    types = expected.dtypes.to_dict()
    pandas.testing.assert_frame_equal(found.astype(types), expected)
    runs = datasets.load_dataset(str(tmp_path / "out"), "runs", split="train")
    told = {row["run_id"]: (row["seed"], row["limit"], row["training_seconds"], row["attacks"]) for row in runs}
    assert told == {each.run_id: (each.seed, each.limit, 61.0, list(each.attacks)) for each in rows}
    card = DatasetCard.load(tmp_path / "out" / "README.md")
    assert [each["config_name"] for each in card.data.configs] == ["values", "runs"]
    assert "3 runs of 3 methods on 1 tasks" in card.text
    content = b"".join(path.read_bytes() for path in (tmp_path / "out").iterdir())
    assert b"mine" not in content and b"letters" in content


def test_records_of_every_eval_ever_have_every_number_with_a_direction(
    command: Command, filed: tuple[Path, list[Result]], tmp_path: Path
) -> None:
    folder, rows = filed
    said = command("share", "--to", "eee", "--organisation", "The lab", "--out", tmp_path / "out", "--output", folder)
    assert said.code == 0 and "records: 3 in" in said.out, said.err
    records = [json.loads(path.read_text()) for path in sorted((tmp_path / "out").glob("data/grun-bench/org/*/*.json"))]
    assert {each["source_metadata"]["source_organization_name"] for each in records} == {"The lab"}
    scores = {each["evaluation_result_id"]: each for record in records for each in record["evaluation_results"]}
    expected = {
        f"{row.run_id}/{text}": value
        for row in rows
        for text, value in row.results["letters"].items()
        if value is not None and row.better(MetricKey.parse(text).metric) is not None
    }
    assert {name: each["score_details"]["score"] for name, each in scores.items()} == expected
    attacked = scores[f"{rows[1].run_id}/forget_es,strip"]
    assert attacked["score_details"]["details"] == {"attack": "strip", "variant": "worst", "access": "weights"}
    assert attacked["metric_config"]["lower_is_better"] is True
    assert attacked["source_data"]["hf_repo"] == "org/letters"
    bounds = scores[f"{rows[0].run_id}/utility,none"]["score_details"]["uncertainty"]["confidence_interval"]
    assert (bounds["lower"], bounds["upper"], bounds["confidence_level"]) == (0.5, 0.7, 0.95)
    # no record takes an unlearned model for its base
    assert {record["model_info"]["id"] for record in records} == {
        f"org/small-{each.unlearner.name}-{each.run_id}" for each in rows
    }


def test_records_are_valid_by_the_published_schema(filed: tuple[Path, list[Result]], tmp_path: Path) -> None:
    """Which is in their package; it needs no import, so that none of what it depends on is needed."""
    jsonschema = pytest.importorskip("jsonschema")
    package = find_spec("every_eval_ever")
    if package is None or not package.submodule_search_locations:
        pytest.skip("no schema: pip install --no-deps every_eval_ever==0.3.0 (Python 3.12 or later)")
    path = Path(package.submodule_search_locations[0]) / "schemas" / "eval.schema.json"
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    files = write_records(filed[1], tmp_path / "out")
    assert len(files) == 3
    for file in files:
        jsonschema.Draft202012Validator(schema).validate(json.loads(file.read_text()))


def test_what_cannot_be_shared_is_told(command: Command, filed: tuple[Path, list[Result]], tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    (tmp_path / "private").mkdir()
    store([result("npo", task="mine", dataset="own")], tmp_path / "private")
    new = tmp_path / "new"
    for options, words in (
        (["--to", "eval", "--out", new, "--output", filed[0]], "choose from: dataset, eee"),
        (["--to", "eee", "--out", tmp_path / "full", "--output", filed[0]], "there is something already"),
        (["--to", "eee", "--out", new, "--output", tmp_path / "private"], "of private rows alone"),
        (["--to", "dataset", "--out", new, "--output", tmp_path / "nowhere"], "no such folder of results"),
    ):
        said = command("share", *options)
        assert said.code == 2 and words in said.err, said.err
    assert not new.exists()
