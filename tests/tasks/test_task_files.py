"""Task files: what they include, and one line with the file for what is no task."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from conftest import TASK

from grun_bench.core.errors import UsageError
from grun_bench.integrations.logs.log import SETS
from grun_bench.tasks.task import load_task
from grun_bench.tasks.world import PUBLISHED
from grun_bench.tasks.yaml_files import description, read_yaml, task_files


def test_keys_are_laid_over_those_of_the_included_file(tmp_path: Path) -> None:
    (tmp_path / "_base.yaml").write_text(yaml.safe_dump(TASK))
    (tmp_path / "_half.yaml").write_text("include: _base.yaml\nmax_new_tokens: 7\nversion: 2\n")
    (tmp_path / "own.yaml").write_text("include: _half.yaml\nversion: 3\n")
    task = load_task(str(tmp_path / "own.yaml"))
    assert (task.name, task.version, task.max_new_tokens, task.forget) == ("own", 3, 7, TASK["forget"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("include: own.yaml", "own.yaml: a file that includes itself .own.yaml includes own.yaml"),
        ("include: other.yaml", "own.yaml includes other.yaml includes own.yaml"),
        ("include: ../outside.yaml", "'../outside.yaml' is not the name of a file in the same folder"),
        ("include: /etc/passwd", "'/etc/passwd' is not the name"),
        ("include: .", "'.' is not the name"),
        ("include: ''", "'' is not the name"),
        ("include: 5", "include: 5 is not the name"),
        ("include: [a, b]", "is not the name"),
        ("include: " + "x" * 9000, "x…: File name too long"),
        ("include: absent.yaml", "absent.yaml: No such file"),
        ("include: binary.yaml", "binary.yaml: not UTF-8 text"),
        (bytes(range(128, 256)), "own.yaml: not UTF-8 text .byte 0"),
        # newer versions of the YAML library in C refuse it themselves
        ("metrics: " + "[" * 100_000 + "]" * 100_000, "nested deeper than 20|maximum nesting depth"),
        ("metrics: " + "[" * 30 + "]" * 30, "nested deeper than 20"),
        ("".join("  " * depth + "a:\n" for depth in range(1000)), "nested deeper than 20"),
        ("version: 2020-99-99", "not YAML .month must be in 1..12"),
        ("version: " + "9" * 5000, "not YAML"),
        ("version: &x [*x]", "version: should be a whole number"),
        ("name: other", "unknown key in .* 'name'"),
        ("1: x", "unknown key in .* '1'"),
        ("? " + "x" * 9000 + "\n: 1", "unknown key in .*/own.yaml 'x{99}…'"),
        ("- a\n- b", "a task file is a mapping of keys"),
        ("", "a task file is a mapping of keys"),
        ("a: [", "not YAML"),
        (yaml.safe_dump(TASK | {"forget": ["a/b[" + "9" * 5000 + ":]"]}), "is not a data source"),
    ],
)
def test_what_is_no_task_is_one_short_line_with_the_file(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "other.yaml").write_text("include: own.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path.parent / "outside.yaml").write_text(yaml.safe_dump(TASK))
    with pytest.raises(UsageError, match=message) as told:
        load_task(str(path))
    text = str(told.value)
    assert str(tmp_path) in text and "\n" not in text and len(text) < 1500


def test_a_packaged_file_is_included_where_none_lies_beside(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    kept = {key: TASK[key] for key in ("description", "forget", "retain", "score")}
    path.write_text(yaml.safe_dump(kept | {"include": "_tofu.yaml"}))
    task = load_task(str(path))
    assert task.metrics == load_task("tofu_forget10").metrics and task.max_new_tokens == 200
    (tmp_path / "_tofu.yaml").write_text(yaml.safe_dump(TASK))
    assert load_task(str(path)).max_new_tokens == TASK["max_new_tokens"]


def test_a_task_that_scores_nothing_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in TASK.items() if key != "score"}))
    with pytest.raises(UsageError, match=r"own\.yaml: nothing is scored: .*score: .leavers: .source: rows\.jsonl"):
        load_task(str(path))


# --- what a list of names says ----------------------------------------------------------------------------------------


def test_packaged_tasks_say_what_they_say_when_they_are_read_whole() -> None:
    files = task_files()
    assert len(files) > 10
    assert {name: description(path) for name, path in files.items()} == {
        name: read_yaml(path)["description"] for name, path in files.items()
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("description: Of its own.\ninclude: _base.yaml", "Of its own."),
        ("include: _base.yaml", "Of the included file."),
        ("include: _base.yaml\nfinetune: {description: inner}\nheadline: [description, x]", "Of the included file."),
        ("version: description\ndescription: >\n  In two\n  lines.", "In two lines."),
        ("{finetune: {a: [b, {description: inner}]}, description: 'Behind another.'}", "Behind another."),
        ("version: 1", ""),
        ("description: Said before a fault.\nmetrics: [", "Said before a fault."),
    ],
)
def test_a_description_is_that_of_the_whole_file(tmp_path: Path, content: str, said: str) -> None:
    """What the loader makes of the whole file says the same, where it is YAML to its end."""
    path = tmp_path / "own.yaml"
    (tmp_path / "_base.yaml").write_text("description: Of the included file.")
    path.write_text(content)
    assert description(path) == said
    if not said.endswith("fault."):
        assert str(read_yaml(path).get("description", "")) == said


@pytest.mark.parametrize("content", [b"metrics: [", b"- a\n- b", b"\xff\xfe"])
def test_what_cannot_be_read_up_to_its_description_is_told_with_the_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"own\.yaml"):
        description(path)


@pytest.mark.parametrize("name", [name for name in task_files() if load_task(name).rows])
def test_the_rows_that_a_task_says_are_those_that_were_published(
    name: str, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRUN_BENCH_HUB", str(shared / "hub"))
    task = load_task(name)
    counted = {each: len(PUBLISHED.rows(task.scored[each], task.needed(each)).rows) for each in task.rows}
    assert counted == task.rows


def test_every_task_that_logs_of_other_tools_are_of_says_its_rows_and_no_result_has_them() -> None:
    for name in task_files():
        task = load_task(name)
        if set(SETS) <= task.score.keys():
            assert task.rows.keys() == set(SETS), name
            assert "rows" not in task.model_dump()
