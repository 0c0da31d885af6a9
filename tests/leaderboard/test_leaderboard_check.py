"""`leaderboard --check` on real runs: it passes what is right and names what is not, with file and place."""

from __future__ import annotations

import bz2
import hashlib
import json
import shutil
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SMALL, TASK
from forging import Data, edit

from grun_bench.core.errors import UsageError
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.check import Checked, check
from grun_bench.leaderboard.pages import render, write
from grun_bench.leaderboard.tree import read_models
from grun_bench.metrics.recovery import remove_attack
from grun_bench.results.store import read_result, result_files


@pytest.fixture
def tree(results: Path, tmp_path: Path) -> Path:
    """A copy of a real run with its target and retain rows, its pages rendered."""
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    write(render(folder, tmp_path), tmp_path)
    return folder


def found(tree: Path) -> list[str]:
    return list(check(tree, tree.parent).problems)


def of(tree: Path, unlearner: str = "grun+npo") -> Path:
    (path,) = (tree / "small" / "org__small" / unlearner).glob("*.json")
    return path


def test_a_right_tree_has_no_problem(tree: Path) -> None:
    assert found(tree) == []


def test_a_bundle_in_place_of_the_folder_of_submissions_is_no_silent_nothing(tmp_path: Path) -> None:
    """What `cp -r bundle submissions/` leaves where there is no folder yet: rows are looked for one deeper."""
    (tmp_path / "submissions" / "results").mkdir(parents=True)
    (tmp_path / "submissions" / "card.json").write_text("{}")
    with pytest.raises(UsageError, match=r"submissions is a bundle: move it into a folder of its own"):
        list(chain.from_iterable(read_models(tmp_path)))


@pytest.mark.parametrize("unlearner", ["grun+npo", "none", "retain"])
def test_every_edited_number_is_found(tree: Path, unlearner: str) -> None:
    path = of(tree, unlearner)
    values = json.loads(path.read_text())["results"]["small"]
    numbers = {key: value for key, value in values.items() if value is not None}
    assert len(numbers) > 5
    # towards the middle: a share above 1 is found for another reason
    edited = {key: value + (1e-6 if value < 0.5 else -1e-6) for key, value in numbers.items()}
    edit(path, lambda data: data["results"]["small"].update(edited))
    said = [line for line in found(tree) if line.startswith(str(path))]
    assert {line.split("results.")[-1].split(": ")[0] for line in said} == set(numbers)
    assert all(repr(numbers[key.split("results.")[-1].split(": ")[0]]) in key for key in said)


def test_a_number_that_is_taken_away_or_made_up_is_found(tree: Path) -> None:
    def change(data: Data) -> None:
        data["results"]["small"]["model_utility,none"] = None
        data["results"]["small"]["brilliance,none"] = 1.0

    edit(of(tree), change)
    said = "\n".join(found(tree))
    assert "results.model_utility,none: the result says none" in said
    assert "results.brilliance,none: the result says 1.0, no metric here gives it" in said


def test_gates_that_the_records_do_not_give_are_found(tree: Path) -> None:
    def change(data: Data) -> None:
        data["gates"]["none"]["forget"]["quantiles"][10] += 1e-3
        data["gates"]["none"]["retain"]["n"] += 1

    assert len(read_result(of(tree)).gates) > 1
    edit(of(tree), change)
    said = [line.split(": ")[1] for line in found(tree) if "gates." in line]
    assert said == ["gates.none.forget.quantiles.10", "gates.none.retain.n"]


def test_gates_that_are_left_out_are_found(tree: Path) -> None:
    """A set or a way of asking that looks bad cannot be kept silent; without any audit a row says that it has none."""

    def change(data: Data) -> None:
        del data["gates"]["paraphrased"]
        del data["gates"]["none"]["retain"]

    edit(of(tree), change)
    said = [line.split(": ")[1] for line in found(tree) if "gates." in line]
    assert {"gates.paraphrased.forget.wrong", "gates.none.retain.wrong", "gates.none.retain.quantiles.20"} <= set(said)
    assert all(place.startswith(("gates.paraphrased.", "gates.none.retain.")) for place in said)
    edit(of(tree), lambda data: data["gates"].clear())
    assert not [line for line in found(tree) if "gates." in line]


def test_a_difference_within_the_tolerance_is_none(tree: Path) -> None:
    def change(data: Data) -> None:
        data["results"]["small"]["model_utility,none"] *= 1 + 1e-12

    edit(of(tree), change)
    assert not [line for line in found(tree) if "model_utility" in line]


def test_wrong_hashes_and_missing_records_are_found(tree: Path) -> None:
    one, other = of(tree), of(tree, "none")
    for path in (one, other):
        assert path.with_suffix(".records.jsonl.bz2").exists()
    records = one.with_suffix(".records.jsonl.bz2")
    changed = bz2.decompress(records.read_bytes()).replace(b"0", b"1", 1)
    records.write_bytes(bz2.compress(changed))
    other.with_suffix(".records.jsonl.bz2").unlink()
    said = found(tree)
    found_hash, stated = hashlib.sha256(changed).hexdigest(), read_result(one).records.sha256
    assert any(
        line.startswith(f"{one}: {records.name}") and found_hash in line and stated in line and "SHA-256" in line
        for line in said
    )
    assert f"{other}: {other.stem}.records.jsonl.bz2 is missing." in said


def test_a_broken_schema_is_found_and_the_rest_still_checked(tree: Path) -> None:
    edit(of(tree), lambda data: data.update(colour="blue"))
    edit(of(tree, "none"), lambda data: data["results"]["small"].update({"model_utility,none": 2.0}))
    said = found(tree)
    assert any(str(of(tree)) in line and "colour" in line for line in said)
    assert any(str(of(tree, "none")) in line and "model_utility" in line for line in said)


def test_pages_that_are_old_missing_or_left_over_are_found(tree: Path) -> None:
    out = tree.parent
    (out / "README.md").write_text((out / "README.md").read_text() + " ")
    (sheet,) = (out / "pages" / "small").glob("*.csv")
    sheet.unlink()
    (out / "index.html").unlink()  # which is made where it is read
    (out / "pages" / "small" / "gone.md").write_text("")
    said = {line.split(": ")[0]: line for line in found(tree)}
    assert "out of date" in said[str(out / "README.md")]
    assert "missing" in said[str(sheet)]
    assert "no page of these results" in said[str(out / "pages" / "small" / "gone.md")]
    assert len(said) == 3


# --- attacks and curves -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def attacked_results(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of two requests unlearned one after the other, under an attack of two variants. Not to be changed."""
    from grun_bench.runs.config import RunConfig
    from grun_bench.runs.run import run

    folder = tmp_path_factory.mktemp("attacked")
    task = TASK | {"metrics": ["probability", "forget_quality", "extraction_strength"], "stages": [[0, 2], [2, 4]]}
    (folder / "small.yaml").write_text(yaml.safe_dump(task | {"headline": ["forget_quality", "forget_probability"]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRUN_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("GRUN_BENCH_HUB", str(hub))
        overrides = {"epochs": 1, "suffix.phrases": {"a": "Now.", "b": "Please, please."}}
        options = {"model": SMALL, "overrides": overrides, "attacks": "suffix"}
        run(RunConfig("grun+npo", str(folder / "small.yaml"), folder / "results", **options))
    return folder / "results"


@pytest.fixture
def attacked(attacked_results: Path, tmp_path: Path) -> Path:
    """A copy to spoil, its pages rendered."""
    folder = tmp_path / "results"
    shutil.copytree(attacked_results, folder)
    write(render(folder, tmp_path), tmp_path)
    return folder


def test_numbers_under_attack_and_of_stages_come_from_their_records(attacked: Path) -> None:
    result = read_result(of(attacked))
    assert set(result.attacks["suffix"].variants) == {"a", "b", "tuned"} and len(result.curves["stages"].points) == 3
    assert found(attacked) == []


@pytest.mark.parametrize(
    "key", ["forget_probability,suffix:a", "forget_quality,suffix", "recovery_forget_extraction_strength,suffix:b"]
)
def test_an_edited_number_under_attack_is_found(attacked: Path, key: str) -> None:
    path = of(attacked)
    edit(path, lambda data: data["results"]["small"].update({key: 0.123}))
    said = [line for line in found(attacked) if line.startswith(str(path))]
    assert len(said) == 1 and f"results.{key}: the result says 0.123, the records give " in said[0]


@pytest.mark.parametrize(
    ("place", "key"), [(0, "stage1_forget_probability"), (1, "stage2_forget_probability"), (2, "forget_brilliance")]
)
def test_an_edited_or_made_up_point_of_a_curve_is_found(attacked: Path, place: int, key: str) -> None:
    path = of(attacked)
    edit(path, lambda data: data["curves"]["stages"]["points"][place]["values"].update({key: 0.123}))
    (said,) = (line for line in found(attacked) if line.startswith(str(path)))
    assert f"curves.stages.points.{place}.{key}: the result says 0.123" in said


def test_attacks_are_those_that_the_target_model_had(attacked: Path) -> None:
    """The strongest variant left out, or an attack by users told as one that does not count."""
    path, none = of(attacked), of(attacked, "none")

    def weaken(data: Data) -> None:
        data["attacks"]["suffix"]["access"] = "weights"
        del data["attacks"]["suffix"]["variants"]["b"]

    edit(path, weaken)
    said = found(attacked)
    control = none.relative_to(attacked)
    assert f"{path}: $.attacks.suffix.access: weights, and {control} has user." in said
    assert f"{path}: $.attacks.suffix.variants: not all that {control} has: no b." in said


def test_an_attack_with_other_settings_than_the_target_model_had_is_found(attacked: Path) -> None:
    path, none = of(attacked), of(attacked, "none")
    edit(path, lambda data: data["attacks"]["suffix"]["settings"].update(words=0))
    control = none.relative_to(attacked)
    assert f"{path}: $.attacks.suffix.settings: not those that {control} has: not the same attack." in found(attacked)


def test_what_an_attack_needs_is_as_the_trees_own_rows_say(attacked: Path) -> None:
    base = attacked / "submissions" / "other" / "results"
    shutil.copytree(attacked / "small", base / "small")
    for path in base.glob("*/*/*/*.json"):
        edit(path, lambda data: data["attacks"]["suffix"].update(access="weights"))
    edit(of(base), lambda data: data["unlearner"].update(name="zzz"))
    of(base).parent.rename(base / "small/org__small/zzz")
    assert [board.access for board in build(chain.from_iterable(read_models(attacked)), {})] == [{"suffix v2": "user"}]


def test_the_retain_models_records_under_an_attack_are_noticed(attacked: Path) -> None:
    path, retain = of(attacked), of(attacked, "retain")
    brought = read_result(retain).attacks["suffix"].variants["a"]
    shutil.copy(retain.with_name(brought.file), path.parent)
    edit(path, lambda data: data["attacks"]["suffix"]["variants"].update(a=brought.model_dump()))
    (said,) = (line for line in found(attacked) if "is no method" in line)
    assert said.startswith(f"{path}: the records of suffix:a: those of the retain model of ")


def test_missing_records_of_a_variant_or_a_stage_are_found(attacked: Path) -> None:
    path = of(attacked)
    result = read_result(path)
    for records in (result.attacks["suffix"].variants["a"], result.curves["stages"].points[1].records):
        file = path.with_name(records.file)
        content = file.read_bytes()
        file.unlink()
        assert f"{path}: {records.file} is missing." in found(attacked)
        file.write_bytes(content)


def test_of_several_retain_models_the_one_that_was_compared_with_is_taken(attacked: Path) -> None:
    """A submission's own copy of the controls, attacked otherwise, does not make right numbers wrong."""
    other = attacked / "submissions" / "another" / "results" / "small" / "org__small"
    for name in ("none", "retain"):
        shutil.copytree(of(attacked, name).parent, other / name)
        for path in (other / name).glob("*.json"):
            result = read_result(path)
            remove_attack(result, "suffix")
            path.write_text(result.dumps())
    write(render(attacked, attacked.parent), attacked.parent)
    assert found(attacked) == []
    # and the other way about: without the attack on the tree's own, the submission's numbers are those of its copy
    for name in ("none", "retain"):
        shutil.rmtree(other / name)
        shutil.copytree(of(attacked, name).parent, other / name)
        path = of(attacked, name)
        result = read_result(path)
        remove_attack(result, "suffix")
        path.write_text(result.dumps())
    write(render(attacked, attacked.parent), attacked.parent)
    assert found(attacked) == []


# --- toy results without records --------------------------------------------------------------------------------------


def toy(tree: Path) -> None:
    """The results as if the toy world had made them, their pages rendered."""
    for path in result_files(tree):
        edit(path, lambda data: data.update(dataset="embedded"))
    shutil.rmtree(tree.parent / "pages", ignore_errors=True)
    write(render(tree, tree.parent), tree.parent)


def test_toy_results_need_no_records_and_it_is_told_how_many_had_some(command: Any, tree: Path) -> None:
    toy(tree)
    assert check(tree, tree.parent) == Checked((), recomputed=3, without_records=0)
    of(tree).with_suffix(".records.jsonl.bz2").unlink()
    assert check(tree, tree.parent) == Checked((), recomputed=2, without_records=1)
    said = command("leaderboard", "--results", tree, "--out", tree.parent, "--check")
    assert said.code == 0 and "every number of 2 results" in said.out
    assert "1 toy results without records: their schema and pages alone were checked" in said.out
    # its numbers may not be right, but what is shown of them is still what it says
    edit(of(tree), lambda data: data["results"]["small"].update({"model_utility,none": 0.5}))
    assert all(line.endswith("is out of date; run grun-bench leaderboard.") for line in found(tree))
    edit(of(tree, "none"), lambda data: data["results"]["small"].update({"model_utility,none": 2.0}))
    assert any("model_utility,none: the result says 2.0" in line for line in found(tree))


def test_toy_records_that_are_there_are_those_of_their_result(attacked: Path) -> None:
    toy(attacked)
    result = read_result(of(attacked))
    of(attacked).with_name(result.records.file).unlink()
    assert check(attacked, attacked.parent) == Checked((), recomputed=2, without_records=1)
    variant = of(attacked).with_name(result.attacks["suffix"].variants["a"].file)
    variant.write_bytes(bz2.compress(bz2.decompress(variant.read_bytes()).replace(b"0", b"1", 1)))
    assert any(variant.name in line and "was changed" in line for line in found(attacked))


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_lists_every_problem_and_fails(command: Any, tree: Path) -> None:
    edit(of(tree), lambda data: data["results"]["small"].update({"model_utility,none": 2.0}))
    said = command("leaderboard", "--results", tree, "--out", tree.parent, "--check")
    assert said.code == 1 and "Traceback" not in said.err
    assert f"{of(tree)}: results.model_utility,none: the result says 2.0" in said.out
    assert "problem" in said.err.splitlines()[-1] and (tree.parent / "index.html").exists()
