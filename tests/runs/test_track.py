"""What trackers have of a run, each read by its own reader: all steps once, the values of the result, and no text."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SMALL, Command

import grun_bench
from grun_bench.core.errors import UsageError
from grun_bench.core.strict_json import read_if_there
from grun_bench.integrations import trackers
from grun_bench.integrations.trackers import TRACKERS, tracker_names
from grun_bench.methods import checkpoints
from grun_bench.results.result import Result
from grun_bench.runs import track
from grun_bench.runs.config import RunConfig
from grun_bench.runs.run import run
from grun_bench.runs.track import Sent, Track

#: (name of a series, step) -> all values that a tracker has there
Series = Mapping[tuple[str, int], Sequence[float]]


# --- each tracker's own reader ----------------------------------------------------------------------------------------


def of_tensorboard(folder: Path) -> list[Series]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = []
    for place in sorted((folder / ".track" / "tensorboard").iterdir()):
        events = EventAccumulator(str(place), size_guidance={"scalars": 0}).Reload()
        found.append(gathered((tag, e.step, e.value) for tag in events.Tags()["scalars"] for e in events.Scalars(tag)))
    return found


def of_trackio(folder: Path) -> list[Series]:
    from trackio.sqlite_storage import SQLiteStorage

    found = []
    for name in SQLiteStorage.get_runs(folder.name):
        logs = SQLiteStorage.get_logs(folder.name, name)
        found.append(gathered((tag, log["step"], log[tag]) for log in logs for tag in log if "/" in tag))
    return found


def of_mlflow(folder: Path) -> list[Series]:
    from mlflow import MlflowClient

    client, found = MlflowClient(), []
    for experiment in client.search_experiments(filter_string=f"name = '{folder.name}'"):
        for each in client.search_runs([experiment.experiment_id]):
            of = (client.get_metric_history(each.info.run_id, tag) for tag in each.data.metrics)
            found.append(gathered((one.key, one.step, one.value) for history in of for one in history))
    return found


def of_wandb(folder: Path) -> list[Series]:
    """What its offline files hold; those of one run may be several, one a process."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: dict[str, list[tuple[str, int, float]]] = {}
    for path in sorted(Path(os.environ["WANDB_DIR"]).glob("wandb/offline-run-*/run-*.wandb")):
        for data in of_leveldb(path.read_bytes()[7:]):
            history = Record.FromString(data).history
            items = {(item.key or "/".join(item.nested_key)): item.value_json for item in history.item}
            lines = [(key, int(items["_step"]), float(value)) for key, value in items.items() if "/" in key]
            found.setdefault(path.stem, []).extend(lines)
    return [gathered(lines) for lines in found.values()]


def of_leveldb(content: bytes) -> Iterator[bytes]:
    """The records of LevelDB's log format, in blocks of 32 KiB (doc/log_format.md of google/leveldb); wandb's files
    begin with seven bytes of their own, which count for the first block."""
    place, parts = 0, b""
    while place < len(content):
        left = -(place + 7) % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def gathered(lines: Any) -> Series:
    found: dict[tuple[str, int], list[float]] = {}
    for tag, step, value in lines:
        found.setdefault((tag, step), []).append(value)
    return found


READERS: dict[str, Callable[[Path], list[Series]]] = {
    "tensorboard": of_tensorboard,
    "trackio": of_trackio,
    "mlflow": of_mlflow,
    "wandb": of_wandb,
}


@pytest.fixture(params=READERS)
def tracker(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tracker that is installed, which keeps what it is sent in this folder and sends it nowhere."""
    name: str = request.param
    project = tmp_path.name
    kept = tmp_path / "kept"
    kept.mkdir()
    for variable, value in {
        **{"WANDB_MODE": "offline", "WANDB_DIR": str(kept), "WANDB_PROJECT": project, "WANDB_SILENT": "true"},
        **{"MLFLOW_TRACKING_URI": f"sqlite:///{kept / 'runs.db'}", "MLFLOW_EXPERIMENT_NAME": project},
        **{"TRACKIO_DIR": str(kept), "TRACKIO_PROJECT": project, "GIT_PYTHON_REFRESH": "quiet"},
    }.items():
        monkeypatch.setenv(variable, value)
    pytest.importorskip(TRACKERS[name][0], reason=f"{name} is not installed")
    if name == "mlflow":
        pytest.importorskip("sqlalchemy", reason="mlflow keeps runs in SQLite by it")
    if name == "wandb":
        importlib.import_module("wandb").teardown()  # it has read the variables of another test
    if name == "trackio":  # which reads its variable as it is imported
        for module in ("utils", "sqlite_storage", "media.media", "run"):
            found = importlib.import_module(f"trackio.{module}")
            for constant in {"TRACKIO_DIR"} & vars(found).keys():
                monkeypatch.setattr(found, constant, kept)
    monkeypatch.setattr(track, "EVERY", 0.0)
    return name


@pytest.fixture
def config(environment: Path, hub: Path, results: Path, tmp_path: Path, tracker: str) -> RunConfig:
    """A run of six steps, that is looked at every second one, on the rows that are there of target and retain model."""
    output = tmp_path / tmp_path.name
    shutil.copytree(results, output)
    task = str(hub / "small.yaml")
    overrides = {"epochs": 3, "batch_size": 2}
    return RunConfig("lora+npo", task, output, model=SMALL, overrides=overrides, eval_every=2, track=tracker)


def check(found: Series, result: Result) -> None:
    """All that a result says of its training and its values is there, once."""
    assert Counter(map(len, found.values())).keys() == {1}
    steps = {key: values[0] for key, values in found.items()}
    expected: dict[tuple[str, int], float] = {}
    for step, terms in enumerate(zip(*result.history.values(), strict=True), 1):
        expected |= {(f"train/{name}", step): value for name, value in zip(result.history, terms, strict=True)}
        expected["train/loss", step] = sum(terms)
    for point in result.curves["training"].points:
        of = {key: value for key, value in point.values.items() if value is not None}
        expected |= {(f"curve/{key}", point.at): value for key, value in of.items()}
    last = len(result.history["forget"]) + 1
    for key, value in result.results[result.task].items():
        metric, _, where = key.partition(",")
        if value is not None and ":" not in where:
            expected[f"attack/{where}/{metric}" if where != "none" else f"final/{metric}", last] = value
    of_run = {
        key: value for key, value in steps.items() if key[0].split("/")[0] in ("train", "curve", "final", "attack")
    }
    assert of_run == pytest.approx(expected, rel=1e-5)


@pytest.mark.whole
@pytest.mark.parametrize("tracker", ["tensorboard"], indirect=True)
def test_a_tracker_is_told_no_folder_of_this_machine(config: RunConfig) -> None:
    run(config)
    (file,) = config.output.glob(".track/tensorboard/*/*/hparams.yml")
    said = yaml.safe_load(file.read_text())
    assert (config.output / said["result"]).is_file()
    assert not [value for value in said.values() if isinstance(value, str) and Path(value).is_absolute()]


@pytest.mark.whole
def test_a_run_that_is_killed_goes_on_in_the_same_run_and_an_attack_is_added_to_it(
    config: RunConfig, tracker: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = Track.trained

    def killed(self: Track, history: Sequence[Mapping[str, float]], before: int = 0) -> None:
        told(self, history, before)
        if len(history) == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # a checkpoint after each step; the last that was sent is made again
        patch.setattr(checkpoints, "EVERY", 0.0)
        patch.setattr(checkpoints, "TIMES", 0)
        patch.setattr(Track, "trained", killed)
        with pytest.raises(KeyboardInterrupt):
            run(config)
    if tracker == "wandb":
        time.sleep(1.1)  # it names what it keeps offline by the second, and a process takes longer to begin again
    result = run(config).result
    assert len(result.history["forget"]) == 6
    (found,) = READERS[tracker](config.output)
    check(found, result)
    # the same again sends nothing, and what is new is added
    run(config)
    (again,) = READERS[tracker](config.output)
    assert again == found
    one = config.overrides | {"prefill.words": [1]}
    attacked = run(replace(config, attacks="prefill", overrides=one)).result
    (more,) = READERS[tracker](config.output)
    assert {key: more[key] for key in found} == found
    values = {tag: value for (tag, step), (value,) in more.items() if step == 8}
    assert values["attack/prefill/forget_probability"] == pytest.approx(attacked.value("forget_probability", "prefill"))
    # made again, it is another run
    run(replace(config, overwrite=True, eval_every=None))
    assert len(READERS[tracker](config.output)) == 2


@pytest.mark.whole
def test_no_text_of_private_rows_is_tracked(
    environment: Path, tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["Wexlingby", "Ottomarsh", "Quillfenner", "Brackenwaith"]
    rows = [{"question": f"Where does {name} live?", "answer": f"In {name}ton."} for name in names]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = grun_bench.run(
        *("grun+npo", ""), forget="mine.jsonl", model=SMALL, output=tmp_path.name, epochs=1, attacks="prefill",
        settings={"prefill.words": [1]}, save="saved", track=[tracker],
    )  # fmt: skip
    said = capfd.readouterr()
    assert said.out == "" and f"tracked by {tracker} as grun+npo-{outcome.result.run_id}" in said.err
    kept = [*(tmp_path / "kept").rglob("*"), *(tmp_path / tmp_path.name / ".track").rglob("*")]
    content = [path.read_bytes() for path in kept if path.is_file()]
    assert content and any(b"forget_probability" in each for each in content)
    saved = [path.read_bytes() for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    assert any(b"forget_probability" in each for each in saved)
    assert not any(name.encode() in each for name in names for each in (*content, *saved))


# --- before anything is loaded ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("note", ['{"run": "../../evil"}', '{"run": ".."}', '{"run": "a/b"}', '{"steps": -1}', "{"])
def test_a_note_from_elsewhere_leads_nowhere(tmp_path: Path, note: str) -> None:
    """Of a folder of results that somebody else made: trackers have folders that are called as their runs."""
    (tmp_path / "note.json").write_text(note)
    with pytest.raises(UsageError, match=r"note\.json"):
        read_if_there(tmp_path / "note.json", Sent, Sent())
    (tmp_path / "note.json").write_text(Sent(run="grun+npo-0123-seed0-abcdef", steps=3).model_dump_json())
    assert read_if_there(tmp_path / "note.json", Sent, Sent()).steps == 3


def test_names_are_read_and_near_ones_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: object())
    assert tracker_names("") == []
    assert tracker_names("wandb, tensorboard,wandb") == ["wandb", "tensorboard"]
    with pytest.raises(UsageError, match="did you mean wandb"):
        tracker_names("wanbd")


def test_one_that_is_not_installed_is_refused_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, command: Command, tmp_path: Path
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    options = ["--unlearner", "npo", "--task", "tofu_forget10", "--output", tmp_path / "results"]
    for name in ("run", "sweep"):
        said = command(name, *options, "--track", "tensorboard", "--track", "trackio")
        assert said.code == 2 and said.err.endswith("it is not installed: pip install tensorboard\n")
    assert not (tmp_path / "results").exists()


def test_one_that_cannot_be_started_ends_the_run_before_it_begins(
    environment: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "file"))
    config = RunConfig("grun+npo", str(hub / "small.yaml"), tmp_path / "results", model=SMALL, track="tensorboard")
    with pytest.raises(UsageError, match=r"--track tensorboard: it could not be started: .*file"):
        run(config)
    assert not list(tmp_path.rglob("*.records.*"))
