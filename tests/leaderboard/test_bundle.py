"""Bundles: made by submit, verified from records and from models, and whatever a stranger does to one is refused."""

from __future__ import annotations

import bz2
import hashlib
import json
import os
import pickle
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SMALL, TASK, Said
from forging import edit, refile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grun_bench import cli
from grun_bench.results.store import LOCK, read_result

pytestmark = pytest.mark.whole

Command = Callable[..., Said]

CARD = """\
name: gated edits
authors: [Ada Example, Bo Beispiel]
paper: https://arxiv.org/abs/2502.17823
code: null
licence: MIT
tuning: "two learning rates on seed 0"
"""


@pytest.fixture(scope="module")
def made(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `results`, `model` (saved) and `card.yaml` of a real run on the small model. Not to be changed."""
    from grun_bench.runs.config import RunConfig
    from grun_bench.runs.run import run

    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRUN_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("GRUN_BENCH_HUB", str(hub))
        config = RunConfig("grun+npo", str(hub / "small.yaml"), folder / "results", model=SMALL)
        run(RunConfig(**{**vars(config), "overrides": {"epochs": 1}, "save": folder / "model"}))
    (folder / "card.yaml").write_text(CARD)
    return folder


def bundle_of(hub: Path, made: Path, folder: Path, metrics: list[str], attacks: str) -> Path:
    """A bundle of a run on the small model with few metrics, whose numbers are made again in no time."""
    from grun_bench.leaderboard.submit import submit
    from grun_bench.runs.config import RunConfig
    from grun_bench.runs.run import run

    task = hub / f"{'attacked' if attacks else 'little'}.yaml"
    task.write_text(yaml.safe_dump({**TASK, "metrics": metrics, "headline": ["forget_quality"]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRUN_BENCH_CACHE", str(folder.parent / "cache"))
        patch.setenv("GRUN_BENCH_HUB", str(hub))
        options = {"model": SMALL, "overrides": {"epochs": 1}, "save": folder / "model", "attacks": attacks}
        run(RunConfig("grun+npo", str(task), folder / "results", **options))
    submit([run_of(folder).stem], folder / "bundle", made / "card.yaml", folder / "results", [folder / "model"], None)
    return folder / "bundle"


@pytest.fixture(scope="module")
def little(hub: Path, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle without attacks. Not to be changed."""
    return bundle_of(hub, made, tmp_path_factory.mktemp("little"), ["forget_quality", "mia_loss"], "")


@pytest.fixture(scope="module")
def attacked(hub: Path, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an attack. Not to be changed."""
    return bundle_of(
        hub, made, tmp_path_factory.mktemp("attacked"), ["forget_quality", "extraction_strength"], "suffix"
    )


def run_of(made: Path, unlearner: str = "grun+npo") -> Path:
    return next(made.glob(f"results/*/*/{unlearner}/*.json"))


@pytest.fixture(scope="module")
def original(made: Path) -> Path:
    """The bundle of the run, with its model. Not to be changed."""
    from grun_bench.leaderboard.submit import submit

    out = made / "bundle"
    submit([run_of(made).stem], out, made / "card.yaml", made / "results", [made / "model"], None)
    return out


@pytest.fixture
def bundle(original: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(original, tmp_path / "bundle"))


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def row_in(bundle: Path, unlearner: str = "grun+npo") -> Path:
    return next(bundle.glob(f"results/*/*/{unlearner}/*.json"))


# --- submit -----------------------------------------------------------------------------------------------------------


def submit_options(made: Path, out: Path) -> list[object]:
    return ["submit", run_of(made).stem, "--out", out, "--card", made / "card.yaml", "--output", made / "results"]


def test_a_bundle_holds_the_rows_as_they_are_with_their_controls(made: Path, original: Path) -> None:
    inside = files(original)
    there = files(made / "results").items()
    results = {f"results/{name}": content for name, content in there if not name.endswith(".svg")}  # drawn from them
    assert {name: inside[name] for name in results} == results
    model = {path for path in inside if path.startswith("models/")}
    assert model == {f"models/{run_of(made).stem}/{name}" for name in ("adapter.safetensors", "grun_bench.json")}
    assert json.loads(inside["card.json"])["authors"] == ["Ada Example", "Bo Beispiel"]
    assert len(inside) == len(results) + 3


@pytest.mark.parametrize("field", ["name", "authors", "paper", "code", "licence", "tuning"])
def test_a_card_without_a_field_is_refused_by_its_name(
    command: Command, made: Path, tmp_path: Path, field: str
) -> None:
    card = tmp_path / "card.yaml"
    card.write_text("".join(line + "\n" for line in CARD.splitlines() if not line.startswith(field)))
    said = command(*submit_options(made, tmp_path / "out"), "--card", card)
    assert said.code == 2 and f"'{field}' is missing" in said.err
    assert not (tmp_path / "out").exists()


def test_what_may_not_be_submitted(command: Command, made: Path, tmp_path: Path, small_run: list[str]) -> None:
    out, options = tmp_path / "out", submit_options(made, tmp_path / "out")
    card = tmp_path / "card.yaml"
    card.write_text(CARD + "licens: MIT\n")
    assert "did you mean licence" in command(*options, "--card", card).err
    card.write_text(CARD.replace("https://arxiv", "javascript:arxiv"))
    assert "paper" in command(*options, "--card", card).err

    results = Path(shutil.copytree(made / "results", tmp_path / "results"))
    options = [*options[:-1], results]
    path = next(results.glob("*/*/grun+npo/*.json"))
    records = path.with_suffix(".records.jsonl.bz2")
    before = records.read_bytes()
    records.write_bytes(bz2.compress(bz2.decompress(before).replace(b"0", b"1", 1)))
    assert "SHA-256" in command(*options).err
    records.unlink()
    assert "is missing" in command(*options).err
    records.write_bytes(before)
    edit(path, lambda data: data.update(limit=3))
    assert "--limit 3" in command(*options).err
    edit(path, lambda data: (data.update(limit=None), data["git"].update(dirty=True)))
    assert not out.exists()
    said = command(*options)
    assert said.code == 0 and "uncommitted changes" in said.out and "three or more" in said.out
    assert "is there already" in command(*options).err


def test_a_model_of_another_run_is_refused(command: Command, made: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(made / "model", tmp_path / "model"))
    edit(model / "grun_bench.json", lambda data: data.update(run_id="0123456789ab-seed0"))
    said = command(*submit_options(made, tmp_path / "out"), "--model", model)
    assert said.code == 2 and "not among those submitted" in said.err


def test_a_method_of_ones_own_needs_its_file(command: Command, made: Path, tmp_path: Path) -> None:
    results = Path(shutil.copytree(made / "results", tmp_path / "results"))
    path = next(results.glob("*/*/grun+npo/*.json"))
    mine = path.parents[1] / "grun+mine" / path.name
    mine.parent.mkdir()
    shutil.copy(path.with_suffix(".records.jsonl.bz2"), mine.parent)
    shutil.copy(path, mine)
    edit(mine, lambda data: data["unlearner"].update(name="grun+mine"))
    options = ["submit", mine, "--out", tmp_path / "out", "--card", made / "card.yaml", "--output", results]
    assert "the objective 'mine' is not built in" in command(*options).err
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from grun_bench.core.registry import objective\n\n@objective('other')\ndef other(batch):\n    '''.'''\n"
    )
    assert "does not declare the objective 'mine'" in command(*options, "--plugin", plugin).err
    plugin.write_text(plugin.read_text().replace("'other'", "'mine'"))
    assert command(*options, "--plugin", plugin).code == 0
    assert (tmp_path / "out" / "plugin.py").read_bytes() == plugin.read_bytes()


# --- verify -----------------------------------------------------------------------------------------------------------


def test_what_submit_makes_is_verified(command: Command, bundle: Path, hub: Path) -> None:
    said = command("verify", bundle, "--include-path", hub)
    assert said.code == 0, said.err
    marks = json.loads((bundle / "verified.json").read_text())
    assert set(marks) == {path.relative_to(bundle).as_posix() for path in bundle.glob("results/*/*/*/*.json")}
    for path, mark in marks.items():
        assert mark["tier"] == "recomputed"
        assert mark["sha256"] == hashlib.sha256((bundle / path).read_bytes()).hexdigest()
    # a second time, with the mark in it
    assert command("verify", bundle, "--include-path", hub).code == 0


def test_where_marks_were_written_is_said(command: Command, bundle: Path, hub: Path, tmp_path: Path) -> None:
    """Those of a submission in a tree are among the tree's."""
    tree = tmp_path / "reviewed"
    inside = Path(shutil.copytree(bundle, tree / "submissions" / "mine"))
    for folder, marks in ((bundle, bundle), (inside, tree)):
        said = command("verify", folder, "--results", tree, "--include-path", hub)
        assert said.code == 0, said.err
        assert f"written to {marks / 'verified.json'}" in said.out.replace("\n", "")
        assert list(folder.rglob("verified.json")) == ([folder / "verified.json"] if folder == marks else [])


def test_a_folder_of_results_is_verified_like_a_bundle(command: Command, made: Path, hub: Path, tmp_path: Path) -> None:
    """As reviewers do with the project's own rows, which then have that tier on the pages."""
    from grun_bench.leaderboard.tree import read_models

    results = Path(shutil.copytree(made / "results", tmp_path / "results"))
    assert {filed.tier for filed in chain.from_iterable(read_models(results))} == {"self-reported"}
    options = ["verify", results, "--results", results, "--include-path", hub]
    assert command(*options).code == 0
    assert {filed.tier for filed in chain.from_iterable(read_models(results))} == {"recomputed"}
    edit(next(results.glob("*/*/grun+npo/*.json")), lambda data: data["intervals"].clear())
    assert command(*options).code == 1
    assert {filed.tier for filed in chain.from_iterable(read_models(results))} == {"self-reported"}
    assert "nor a folder of results" in command("verify", tmp_path).err


def test_toy_results_without_records_keep_the_mark_of_the_file_that_had_them(
    command: Command, made: Path, hub: Path, tmp_path: Path
) -> None:
    from grun_bench.leaderboard.marks import read_marks
    from grun_bench.results.store import result_files
    from grun_bench.tasks.task import load_task
    from grun_bench.tasks.world import TOY

    results = Path(shutil.copytree(made / "results", tmp_path / "results"))
    told = TOY.task(load_task(str(hub / "small.yaml"))).model_dump(mode="json")
    for path in result_files(results):
        edit(path, lambda data: (data.update(dataset=TOY.name), data["configs"]["small"].update(told)))
    options = ["verify", results, "--results", results, "--include-path", hub]
    assert command(*options).code == 0
    marks = read_marks(results)
    path = next(results.glob("*/*/grun+npo/*.json"))
    name = path.relative_to(results).as_posix()
    path.with_suffix(".records.jsonl.bz2").unlink()
    said = command(*options)
    assert said.code == 0 and "no records" in said.out
    assert read_marks(results) == marks
    edit(path, lambda data: data["results"]["small"].update({"model_utility,none": 0.5}))
    assert command(*options).code == 0
    assert set(read_marks(results)) == set(marks) - {name}
    # a published result has them
    edit(path, lambda data: data.update(dataset="published"))
    assert command(*options).code == 1


def test_rows_of_an_older_schema_are_verified_and_newer_ones_say_to_upgrade(
    command: Command, bundle: Path, hub: Path
) -> None:
    def older(data: dict[str, Any]) -> None:
        data["schema_version"] = 1
        for name in ("attacks", "curves"):
            assert not data.pop(name)

    edit(row_in(bundle), older)
    content = row_in(bundle).read_bytes()
    assert command("verify", bundle, "--include-path", hub).code == 0
    marks = json.loads((bundle / "verified.json").read_text())
    name = row_in(bundle).relative_to(bundle).as_posix()
    assert marks[name]["sha256"] == hashlib.sha256(content).hexdigest()
    edit(row_in(bundle), lambda data: data.update(schema_version=1000))
    said = command("verify", bundle, "--include-path", hub)
    assert said.code == 2 and "upgrade" in said.err and name in said.err


def test_an_edited_number_is_named_and_nothing_is_written(command: Command, bundle: Path, hub: Path) -> None:
    assert command("verify", bundle, "--include-path", hub).code == 0
    path = row_in(bundle)
    edit(path, lambda data: data["results"]["small"].update({"forget_probability,none": 0.125}))
    said = command("verify", bundle, "--include-path", hub)
    assert said.code == 1 and "forget_probability,none" in said.out and "0.125" in said.out
    assert not (bundle / "verified.json").exists()


def test_every_number_is_looked_at(attacked: Path) -> None:
    """Each value, interval, count, direction and version, of attacks too, changed or left out alone: each is found."""
    from grun_bench.leaderboard.compare import compared
    from grun_bench.leaderboard.recompute import recomputed
    from grun_bench.results.store import read_filed

    paths = [path.relative_to(attacked).as_posix() for path in attacked.glob("results/*/*/*/*.json")]
    rows = {row.result.unlearner.name: row for row in (read_filed(attacked, path) for path in paths)}
    result, task = rows["grun+npo"].result, "attacked"
    own, retain = rows["grun+npo"].records(), rows["retain"].records()
    values = recomputed(result, own, retain, rows["none"].records()["none"])

    def wrong() -> int:
        return sum(not number.ok for number in compared(result, values, {}))

    assert wrong() == 0
    # of single variants older results have intervals, which are compared where they are
    variants = (key.split(",") for key in result.results[task] if ":" in key and not key.endswith(":mean"))
    metric, label = next((metric, label) for metric, label in variants if values[label][metric].low is not None)
    assert not any(":" in key and not key.endswith(":mean") for key in result.intervals)
    variant = f"{metric},{label}"
    result.intervals[variant] = (values[label][metric].low, values[label][metric].high)
    assert wrong() == 0
    assert {"recovery_forget_extraction_strength,suffix", "forget_quality,suffix"} <= set(result.results[task])
    changed: list[tuple[dict[str, Any], str]] = [
        *((result.results[task], key) for key in result.results[task]),
        *((result.intervals, key) for key in result.intervals),
        *((result.n_samples[task], key) for key in result.n_samples[task]),
        *((result.higher_is_better[task], key) for key in result.higher_is_better[task]),
        *((result.versions, key) for key in result.versions if key != task),
    ]
    assert len(changed) > 40
    for place, key in changed:
        before = place[key]
        if isinstance(before, tuple):
            place[key] = (before[0] + 1e-6, before[1])
        elif before is None or isinstance(before, bool):
            place[key] = 0.5 if place is result.results[task] else not before
        else:
            place[key] = before + 1e-6 if isinstance(before, float) else before + 1
        assert wrong(), key
        del place[key]
        assert wrong() or (place is result.intervals and key == variant), key
        place[key] = before
    assert wrong() == 0


def test_a_task_that_is_another_one_here_is_found(command: Command, bundle: Path, hub: Path) -> None:
    assert "none of the harness's" in command("verify", bundle).out
    edit(row_in(bundle), lambda data: data["configs"]["small"].update(max_new_tokens=1))
    said = command("verify", bundle, "--include-path", hub)
    assert said.code == 1 and "max_new_tokens" in said.out


def test_models_are_scored_again(command: Command, bundle: Path, hub: Path) -> None:
    said = command("verify", bundle, "--rerun", "--include-path", hub)
    assert said.code == 0, said.out + said.err
    assert {mark["tier"] for mark in json.loads((bundle / "verified.json").read_text()).values()} == {"re-run"}
    # another adapter than the one that the numbers come from: its gates are shut, and the weights are all that differs
    import torch
    from safetensors.torch import load_file, save_file

    path = next(bundle.glob("models/*/adapter.safetensors"))
    tensors = load_file(path)
    save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, path)
    said = command("verify", bundle, "--rerun", "--include-path", hub)
    assert said.code == 1 and "forget_gate" in said.out, said.out


def test_a_retain_model_in_the_place_of_the_saved_one_is_noticed_by_other_words(
    command: Command, bundle: Path, hub: Path, tmp_path: Path
) -> None:
    """Whatever its records say, and however it would answer the very questions of the evaluation."""
    from grun_bench.runs.config import RunConfig
    from grun_bench.runs.run import run

    run(RunConfig("retain", str(hub / "small.yaml"), tmp_path / "out", model=SMALL, save=tmp_path / "retain"))
    (model,) = bundle.glob("models/*")
    shutil.rmtree(model)
    shutil.copytree(tmp_path / "retain", model, ignore=shutil.ignore_patterns("README.md", ".eval_results"))
    edit(model / "grun_bench.json", lambda data: data.update(unlearner="grun+npo", run_id=model.name))
    said = command("verify", bundle, "--rerun", "--include-path", hub)
    assert said.code == 1 and "in other words it answers as the retain model" in " ".join(said.out.split()), said.out


@pytest.mark.slow
def test_rows_without_a_model_are_trained_again(command: Command, bundle: Path, hub: Path) -> None:
    shutil.rmtree(bundle / "models")
    said = command("verify", bundle, "--rerun", "--include-path", hub)
    assert said.code == 0, said.out + said.err
    # with other settings than it was trained with, its gates come out otherwise
    refile(row_in(bundle), lambda data: data["unlearner"]["settings"].update(epochs=40, gate_weight=1000.0))
    said = command("verify", bundle, "--rerun", "--include-path", hub)
    assert said.code == 1 and "gate" in said.out


def test_a_plugin_runs_for_nobody_who_does_not_trust_it(
    command: Command, bundle: Path, hub: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    (bundle / "plugin.py").write_text(
        "from pathlib import Path\nfrom grun_bench.core.registry import objective\n"
        f"Path({str(mark)!r}).write_text('ran')\n\n@objective('mine')\ndef mine(batch):\n    '''Mine.'''\n"
        "    return batch.forget.cross_entropy\n"
    )
    shutil.rmtree(bundle / "models")
    refile(row_in(bundle), lambda data: data["unlearner"].update(name="grun+mine"))
    options = ["--include-path", hub]
    assert command("verify", bundle, *options).code == 0
    said = command("verify", bundle, "--rerun", *options)
    assert said.code == 2 and "mine" in said.err and not mark.exists()
    assert command("verify", bundle, "--trust-plugin", *options).code == 2 and not mark.exists()
    command("verify", bundle, "--rerun", "--trust-plugin", *options)
    assert mark.exists()


# --- what is refused, and where ---------------------------------------------------------------------------------------


class Attack:
    """What a pickle would do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "ran")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_pickles_are_known_by_content(command: Command, bundle: Path, hub: Path, tmp_path: Path, protocol: int) -> None:
    import io

    import torch

    evil = pickle.dumps(Attack(tmp_path / "ran"), protocol)
    zipped = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, zipped)
    model = next(bundle.glob("models/*"))
    tensors = (model / "adapter.safetensors").read_bytes()
    for content in (evil, zipped.getvalue(), tensors + evil, evil + tensors, tensors[:-1], b""):
        (model / "adapter.safetensors").write_bytes(content)
        said = command("verify", bundle, "--rerun", "--include-path", hub)
        assert said.code == 2 and "not safetensors" in said.err
    (model / "adapter.safetensors").write_bytes(tensors)
    for name in ("merges.txt", "chat_template.jinja", "config.json", "pytorch_model.bin", "weights"):
        for content in (evil, zipped.getvalue()):
            (model / name).write_bytes(content)
            said = command("verify", bundle, "--rerun", "--include-path", hub)
            assert said.code == 2 and name in said.err
        (model / name).unlink()
    assert not (tmp_path / "ran").exists()
    assert command("verify", bundle, "--include-path", hub).code == 0


def test_no_path_leaves_the_folder(command: Command, bundle: Path, hub: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    outside.write_text("{}")
    path = row_in(bundle)

    results, models = bundle / "results", bundle / "models"
    card = bundle / "card.json"
    spoiled: list[tuple[str, Callable[[], object]]] = [
        ("a link", lambda: (results / "link.json").symlink_to(outside)),
        ("a link", lambda: (models / "other").symlink_to(tmp_path)),
        ("a link", lambda: (card.unlink(), card.symlink_to(outside))),
        ("a hard link", lambda: os.link(outside, path.parent / "hard.json")),
        ("neither a file", lambda: os.mkfifo(results / "pipe.json")),
        ("not a plain name", lambda: (results / "a\x1b[31m.json").write_text("{}")),
        ("not a plain name", lambda: (bundle / ".bashrc").write_text("")),
        ("deeper than", lambda: (models / "/".join("abcdefgh")).mkdir(parents=True)),
        ("no place", lambda: (bundle / "setup.py").write_text("")),
        ("case only", lambda: (bundle / "Card.json").write_text("{}")),
    ]
    for said_why, spoil in spoiled:
        copy = Path(shutil.copytree(bundle, tmp_path / "kept"))
        spoil()
        said = command("verify", bundle, "--include-path", hub)
        assert said.code == 2 and said_why in said.err, (said_why, said.err)
        assert "\x1b" not in said.err
        shutil.rmtree(bundle)
        copy.rename(bundle)


@pytest.mark.parametrize("file", ["../../outside.records.jsonl.bz2", "/etc/passwd", "a/b.records.jsonl", "card.json"])
def test_records_lie_beside_their_result(command: Command, bundle: Path, hub: Path, file: str) -> None:
    edit(row_in(bundle), lambda data: data["records"].update(file=file))
    said = command("verify", bundle, "--include-path", hub)
    assert said.code == 2 and "no file beside it" in said.err


def test_text_is_shown_without_control_sequences(command: Command, bundle: Path, hub: Path) -> None:
    path = row_in(bundle)
    edit(path, lambda data: data["results"]["small"].update({"\x1b[31m[bold]\u202eevil[/bold],none": 1.0}))
    said = command("verify", bundle, "--include-path", hub)
    assert said.code == 1 and "evil" in said.out and "[bold]" in said.out
    assert not {"\x1b", "\u202e"} & set(said.out + said.err)


# --- mangled bundles --------------------------------------------------------------------------------------------------

#: JSON texts in the place of a value
HOSTILE = [
    "NaN", "Infinity", "1e999", "-1e308", "1e308", "9" * 5000, "-1", "0", "1.5", "true", "null", "[]", "{}", '""',
    '"../../../x"', '"/etc/passwd"', r'"\u0000"', r'"\ud800"', r'"\u001b[2J[bold]"', r'"\u202egnp.exe"',
    '"javascript:alert(1)"', '"<script>"', '"' + "x" * 10_000 + '"', "[" * 50 + "]" * 50, '{"a": 1, "a": 2}',
    "[null]", "[[]]", '{"": {}}', "18446744073709551616", "1e-400", "-0.0", "[1e300, -1e300]", '"=1+1"', '"ß"',
]  # fmt: skip
PIECES = [b"", b"\x00", b"\xff\xfe", b"PK\x03\x04", b"\x80\x05.", b"}", b'"', b"\n", b",", b"\xef\xbb\xbf", b"9" * 400]


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [path, *(place for key, value in items for place in _places(value, (*path, key)))]


def _mangle_json(text: str, draw: Callable[..., Any]) -> str:
    """One value replaced, left out, or joined by an unknown or a second key."""
    data = json.loads(text)
    place = draw(st.sampled_from(_places(data)))
    if not place:
        return draw(st.sampled_from(HOSTILE))
    parent = data
    for key in place[:-1]:
        parent = parent[key]
    how = draw(st.sampled_from(["replace", "delete", "add", "rename"]))
    if how == "delete":
        del parent[place[-1]]
    elif how == "add" and isinstance(parent, dict):
        parent[draw(st.sampled_from(["extra", "", "\x1b[1m", "__class__", "x,none"]))] = parent[place[-1]]
    elif how == "rename" and isinstance(parent, dict):
        parent[draw(st.text(max_size=5))] = parent.pop(place[-1])
    else:
        parent[place[-1]] = "@@HERE@@"
    return json.dumps(data).replace('"@@HERE@@"', draw(st.sampled_from(HOSTILE)))


def _mangle_file(path: Path, draw: Callable[..., Any]) -> None:
    content = path.read_bytes()
    how = draw(st.sampled_from(["json", "json", "json", "cut", "insert", "replace"]))
    at = draw(st.integers(0, len(content)))
    if how == "json" and path.suffix == ".json" and content:
        try:
            path.write_text(_mangle_json(content.decode(), draw))
        except (ValueError, UnicodeError):
            path.write_bytes(b"")
    elif how == "json" and path.suffix == ".bz2" and content:
        try:
            lines = bz2.decompress(content).split(b"\n")
        except (OSError, EOFError, ValueError):  # mangled before
            lines = [b""]
        number = draw(st.integers(0, len(lines) - 1))
        try:
            lines[number] = _mangle_json(lines[number].decode(), draw).replace("\n", " ").encode()
        except (ValueError, UnicodeError):  # mangled before
            lines[number] = b""
        path.write_bytes(bz2.compress(b"\n".join(lines)))
    elif how == "cut":
        path.write_bytes(content[:at])
    elif how == "insert":
        path.write_bytes(content[:at] + draw(st.sampled_from(PIECES)) + content[at:])
    else:
        path.write_bytes(draw(st.binary(max_size=40) | st.sampled_from(PIECES)))


def _mangle_tree(bundle: Path, path: Path, draw: Callable[..., Any]) -> None:
    how = draw(st.sampled_from(["remove", "rename", "link", "hard", "folder", "copy", "swap", "pipe"]))
    name = draw(
        st.sampled_from(["x.json", "a b", "-rf", "..x", "x\n.json", "verified.json", "plugin.py", "\u202e.json"])
    )
    beside = path.with_name(name)
    if how == "remove":
        path.unlink()
    elif how == "rename":
        path.rename(beside)
    elif how == "link":
        path.unlink()
        path.symlink_to(draw(st.sampled_from(["/etc/passwd", "..", "/dev/zero", "nowhere"])))
    elif how == "hard" and not beside.exists():
        os.link(path, beside)
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "copy" and not beside.exists():
        shutil.copy(path, beside)
    elif how == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif how == "swap":
        other = draw(st.sampled_from(sorted(each for each in bundle.rglob("*") if each.is_file())))
        one, two = path.read_bytes(), other.read_bytes()
        path.write_bytes(two)
        other.write_bytes(one)


def _rehash(bundle: Path) -> None:
    """As one who edits records would: the results say the hashes that the records have."""

    def plain(path: Path) -> bytes:
        if not stat.S_ISREG(path.lstat().st_mode):  # a pipe or a device would be read for ever
            raise OSError(path)
        return path.read_bytes()

    for path in bundle.glob("results/*/*/*/*.json"):
        try:
            data = json.loads(plain(path))
            records = bz2.decompress(plain(path.with_name(data["records"]["file"])))
            data["records"] |= {"sha256": hashlib.sha256(records).hexdigest(), "count": records.count(b"\n")}
            path.write_text(json.dumps(data))
        except (ValueError, TypeError, KeyError, OSError, EOFError):
            continue


def _check_mangled(original: Path, hub: Path, folder: Path, capfd: pytest.CaptureFixture[str], data: Any) -> None:
    """Mangle a copy in one to three places and verify it: a clean answer, and nothing but the mark is written."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "beside.txt").write_text("mine")
    bundle = Path(shutil.copytree(original, folder / "bundle"))
    draw = data.draw
    for _ in range(draw(st.integers(1, 3))):
        paths = sorted(path for path in bundle.rglob("*") if path.is_file() and not path.is_symlink())
        if not paths:
            break
        path = draw(st.sampled_from(paths))
        (_mangle_file if draw(st.integers(0, 3)) else lambda path, draw: _mangle_tree(bundle, path, draw))(path, draw)
    if draw(st.booleans()):
        _rehash(bundle)
    before = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    capfd.readouterr()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["grun-bench", "verify", str(bundle), "--include-path", str(hub)])
        patch.setenv("COLUMNS", "150")
        cli.main()
    out, err = capfd.readouterr()
    code = ended.value.code or 0
    assert code in (0, 1, 2)
    assert "Traceback" not in err
    assert not {char for char in out + err if not char.isprintable()} - {"\n"}
    if code == 2:
        assert err.startswith("error: ") or "\nerror: " in err
    mark = bundle / "verified.json"
    after = {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}
    assert (code == 0) <= mark.is_file()
    changing = {mark, bundle}
    assert {key: value for key, value in after.items() if key not in changing} == {
        key: value for key, value in before.items() if key not in changing
    }


MANGLED = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@MANGLED
@given(data=st.data())
def test_mangled_bundles_are_refused_cleanly(
    little: Path, hub: Path, tmp_path: Path, environment: Path, capfd: pytest.CaptureFixture[str], data: Any
) -> None:
    _check_mangled(little, hub, tmp_path / "case", capfd, data)


@pytest.mark.slow
@settings(MANGLED, max_examples=3000)
@given(data=st.data())
def test_thousands_of_mangled_bundles_are_refused_cleanly(
    little: Path, hub: Path, tmp_path: Path, environment: Path, capfd: pytest.CaptureFixture[str], data: Any
) -> None:
    _check_mangled(little, hub, tmp_path / "case", capfd, data)


def test_the_run_of_the_fixture_is_an_ordinary_one(made: Path) -> None:
    assert read_result(run_of(made)).status == "ok"


def test_verifying_from_records_loads_no_torch(little: Path, hub: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(little, tmp_path / "bundle"))
    program = (
        "import atexit, sys\n"
        "heavy = ('torch', 'transformers', 'datasets')\n"
        "atexit.register(lambda: print('LOADED', [name for name in heavy if name in sys.modules], file=sys.stderr))\n"
        "from grun_bench.cli import main\n"
        "main()"
    )
    arguments = [sys.executable, "-c", program, "verify", str(bundle), "--include-path", str(hub)]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "LOADED []" in done.stderr
