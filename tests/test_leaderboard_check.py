"""`leaderboard --check` on real runs: it passes what is right and names what is not, with file and place."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grun_bench.leaderboard.check import problems
from grun_bench.leaderboard.files import render, write

Data = dict[str, Any]


@pytest.fixture
def tree(results: Path, tmp_path: Path) -> Path:
    """A copy of a real run with its target and retain rows, its pages rendered."""
    folder = tmp_path / "results"
    shutil.copytree(results, folder)
    write(render(folder, tmp_path).pages, tmp_path)
    return folder


def found(tree: Path) -> list[str]:
    return list(problems(tree, tree.parent))


def of(tree: Path, unlearner: str = "grun+npo") -> Path:
    (path,) = (tree / "small" / "org__small" / unlearner).glob("*.json")
    return path


def edit(path: Path, change: Callable[[Data], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def test_a_right_tree_has_no_problem(tree: Path) -> None:
    assert found(tree) == []


@pytest.mark.parametrize("unlearner", ["grun+npo", "none", "retain"])
def test_every_edited_number_is_found(tree: Path, unlearner: str) -> None:
    path = of(tree, unlearner)
    values = json.loads(path.read_text())["results"]["small"]
    numbers = {key: value for key, value in values.items() if value is not None}
    assert len(numbers) > 5
    edit(path, lambda data: data["results"]["small"].update({key: value + 1e-6 for key, value in numbers.items()}))
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
    assert "results.brilliance,none: no metric gives it" in said


def test_a_difference_within_the_tolerance_is_none(tree: Path) -> None:
    def change(data: Data) -> None:
        data["results"]["small"]["model_utility,none"] *= 1 + 1e-12

    edit(of(tree), change)
    assert not [line for line in found(tree) if "model_utility" in line]


def test_wrong_hashes_and_missing_records_are_found(tree: Path) -> None:
    one, other = of(tree), of(tree, "none")
    for path in (one, other):
        assert path.with_suffix(".records.jsonl").exists()
    records = one.with_suffix(".records.jsonl")
    records.write_text(records.read_text().replace("0", "1", 1))
    other.with_suffix(".records.jsonl").unlink()
    said = found(tree)
    assert any(str(records) in line and "SHA-256" in line for line in said)
    assert any(str(other.with_suffix(".records.jsonl")) in line and "cannot be read" in line for line in said)


def test_a_broken_schema_is_found_and_the_rest_still_checked(tree: Path) -> None:
    edit(of(tree), lambda data: data.update(colour="blue"))
    edit(of(tree, "none"), lambda data: data["results"]["small"].update({"model_utility,none": 2.0}))
    said = found(tree)
    assert any(str(of(tree)) in line and "colour" in line for line in said)
    assert any(str(of(tree, "none")) in line and "model_utility" in line for line in said)


def test_pages_that_are_old_missing_or_left_over_are_found(tree: Path) -> None:
    out = tree.parent
    (out / "README.md").write_text((out / "README.md").read_text() + " ")
    (out / "index.html").unlink()
    (out / "pages" / "small" / "gone.md").write_text("")
    said = {line.split(": ")[0]: line for line in found(tree)}
    assert "out of date" in said[str(out / "README.md")]
    assert "missing" in said[str(out / "index.html")]
    assert "no results any more" in said[str(out / "pages" / "small" / "gone.md")]
    assert len(said) == 3


def attack(tree: Path) -> Path:
    """An attack on a real run whose two variants answered as the run and as its target did. Returns the result."""
    for unlearner in ("retain", "grun+npo"):
        path = of(tree, unlearner)
        sources = {"same": path, "target": of(tree, "none")}
        stored = {name: json.loads(source.read_text()) for name, source in sources.items()}
        numbers: Data = {}
        variants = {}
        for name, source in sources.items():
            file = f"{path.stem}.prefix.{name}.records.jsonl"
            shutil.copy(source.with_suffix(".records.jsonl"), path.with_name(file))
            content = path.with_name(file).read_bytes()
            variants[name] = {
                "file": file,
                "sha256": hashlib.sha256(content).hexdigest(),
                "count": stored[name]["records"]["count"],
            }
            numbers[f"forget_probability,prefix:{name}"] = stored[name]["results"]["small"]["forget_probability,none"]
        numbers["forget_probability,prefix"] = max(numbers.values())
        numbers["recovery_forget_probability,prefix:target"] = numbers["recovery_forget_probability,prefix"] = 1.0
        info = {"version": 1, "access": "user", "settings": {}, "variants": variants, "seconds": 1.0}

        def change(data: Data, info: Data = info, numbers: Data = numbers) -> None:
            data["attacks"] = {"prefix": info}
            data["results"]["small"] |= numbers

        edit(path, change)
    return of(tree)


def test_numbers_under_attack_come_from_the_variants_records(tree: Path) -> None:
    attack(tree)
    assert [line for line in found(tree) if "results" in line and ",prefix" in line] == []


@pytest.mark.parametrize(
    "key", ["forget_probability,prefix:same", "forget_probability,prefix", "recovery_forget_probability,prefix:target"]
)
def test_an_edited_number_under_attack_is_found(tree: Path, key: str) -> None:
    path = attack(tree)
    edit(path, lambda data: data["results"]["small"].update({key: 0.123}))
    said = [line for line in found(tree) if line.startswith(str(path))]
    assert any(f"results.{key}: the result says 0.123" in line for line in said)


def test_missing_records_of_a_variant_are_found(tree: Path) -> None:
    path = attack(tree)
    next(path.parent.glob("*.prefix.same.*")).unlink()
    assert any("prefix.same" in line and "cannot be read" in line for line in found(tree))


def test_the_command_lists_every_problem_and_fails(command: Any, tree: Path) -> None:
    edit(of(tree), lambda data: data["results"]["small"].update({"model_utility,none": 2.0}))
    said = command("leaderboard", "--results", tree, "--out", tree.parent, "--check")
    assert said.code == 1 and "Traceback" not in said.err
    assert f"{of(tree)}: results.model_utility,none: the result says 2.0" in said.out
    assert "problem" in said.err.splitlines()[-1] and (tree.parent / "index.html").exists()
