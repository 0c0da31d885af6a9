"""Rows out of Git: those of the commit, whatever becomes of the repository, and one line for what cannot be had."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from grun_bench.core.errors import DataError, UsageError
from grun_bench.tasks.dataset import Source
from grun_bench.tasks.world import PUBLISHED

OLD, NEW = [{"question": "Who?", "answer": "Ada."}], [{"question": "Who?", "answer": "Nobody."}]


class Repository:
    """A repository on this machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch=main", str(folder), inside=False)

    def git(self, *arguments: str, inside: bool = True) -> str:
        who = ["-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        place = ["-C", str(self.folder)] if inside else []
        return subprocess.run(["git", *place, *who, *arguments], check=True, capture_output=True, text=True).stdout

    def commit(self, files: dict[str, str | bytes]) -> str:
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", ".")
        self.git("commit", "--quiet", "--message=rows")
        return self.git("rev-parse", "HEAD").strip()

    def source(self, commit: str, path: str = "data/rows.jsonl") -> str:
        return f"git+file://{self.folder}@{commit}:{path}"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GRUN_BENCH_HUB", raising=False)
    return Repository(tmp_path / "org" / "name")


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def rows(source: str, **options: str) -> list[dict[str, object]]:
    return PUBLISHED.rows(Source.parse(source, **options)).rows


def test_rows_are_those_of_the_commit_and_outlive_the_repository(repository: Repository) -> None:
    first = repository.commit({"data/rows.jsonl": lines(OLD)})
    second = repository.commit({"data/rows.jsonl": lines(NEW)})
    assert rows(repository.source(first)) == OLD
    assert rows(repository.source(second) + "[0:1]") == NEW
    shutil.rmtree(repository.folder)
    assert rows(repository.source(first)) == OLD


def test_what_was_changed_in_the_cache_is_fetched_again(repository: Repository, tmp_path: Path) -> None:
    source = repository.source(repository.commit({"data/rows.jsonl": lines(OLD)}))
    assert rows(source) == OLD
    (kept,) = (tmp_path / "cache" / "sources").glob("*/rows.jsonl")
    kept.write_text(lines(NEW))
    assert rows(source) == OLD


def test_arrow_streams_are_read_as_json_is(repository: Repository, tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list(OLD).save_to_disk(str(tmp_path / "disk"))
    content = next((tmp_path / "disk").glob("*.arrow")).read_bytes()
    commit = repository.commit({"a/data.arrow": content, "a/broken.arrow": b"no stream"})
    assert rows(repository.source(commit, "a/data.arrow")) == OLD
    with pytest.raises(DataError, match=r"broken\.arrow: not a stream of Apache Arrow"):
        rows(repository.source(commit, "a/broken.arrow"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda source: source.replace("rows.jsonl", "absent.jsonl"), r"git cat-file: .*absent\.jsonl"),
        (
            lambda source: source.replace("@", "@" + "0" * 40 + ":")[: source.index("@") + 41] + ":a.jsonl",
            "git fetch: ",
        ),
        (lambda source: source.replace("/org/name@", "/org/nobody@"), "git fetch: "),
        (lambda source: source.replace("rows.jsonl", "rows.txt"), "files of rows end with .json, .jsonl, .arrow"),
        (lambda source: source.rpartition(":")[0], "is no file of a Git repository"),
        (lambda source: source.replace("git+file://", "git+ext://sh -c exit% "), "is no file of a Git repository"),
        (lambda source: source.replace("@", "@main-"), "is not a data source"),
    ],
    ids=["no such file", "no such commit", "no such repository", "another kind", "no path", "a command", "no commit"],
)
def test_what_cannot_be_had_is_one_line(repository: Repository, change, message: str) -> None:
    source = repository.source(repository.commit({"data/rows.jsonl": lines(OLD)}))
    with pytest.raises(UsageError, match=message) as told:
        rows(change(source))
    assert "\n" not in str(told.value)


def test_a_repository_stands_for_what_no_mirror_has(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repository.commit({"data/forget.jsonl": lines(OLD)})
    source = Source("org/rows", "forget", repository=repository.source(commit, "data/{config}.jsonl"))
    found = PUBLISHED.rows(source)
    assert found.rows == OLD and found.origin == repository.source(commit, "data/forget.jsonl")
    mirror = tmp_path / "hub" / "org" / "rows"
    mirror.mkdir(parents=True)
    (mirror / "forget.jsonl").write_text(lines(NEW))
    monkeypatch.setenv("GRUN_BENCH_HUB", str(tmp_path / "hub"))
    assert PUBLISHED.rows(source).rows == NEW
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        PUBLISHED.rows(Source("org/other", "absent", repository=repository.source(commit, "data/{config}.jsonl")))
