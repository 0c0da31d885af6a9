"""Files are written whole, through no link; what killed processes left goes, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from grun_bench.core.errors import GrunBenchError
from grun_bench.core.files import locked, noted_path, part_of, write_whole


def ended() -> int:
    """The number of a process that ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_parts_of_ended_processes_go_and_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file and a folder that a killed process left; not one's own, a living process's, another machine's or a link's
    target."""
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with part_of(tmp_path / "row.json") as example:
        stem = example.name.removesuffix(f"{os.getpid()}.part")
    dead, parent = ended(), os.getppid()
    (tmp_path / f"{stem}{dead}.part").write_text("half")
    (tmp_path / f".folder{stem}{dead}.part").mkdir()
    (tmp_path / f".folder{stem}{dead}.part" / "weights").write_text("half")
    (tmp_path / f".link{stem}{dead}.part").symlink_to(mine)
    others = [f"{stem}{parent}.part", f".row.json.00000000-{dead}.part", ".row.json.part", "row.json.part"]
    for name in others:
        (tmp_path / name).write_text("of others")
    write_whole(tmp_path / "row.json", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "row.json", *others}
    assert (mine / "thesis.txt").read_text() == "mine"
    # on another machine nobody can be asked, but no file is written for a day
    os.utime(tmp_path / f".row.json.00000000-{dead}.part", (0, 0))
    write_whole(tmp_path / "row.json", "again")
    assert not (tmp_path / f".row.json.00000000-{dead}.part").exists()


def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    (tmp_path / "row.json").mkdir()
    with pytest.raises(GrunBenchError, match=r"row\.json could not be saved"):
        write_whole(tmp_path / "row.json", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["row.json"]


#: holds a lock until it is killed
HOLDER = """
import sys, time
from pathlib import Path
from grun_bench.core.files import locked
with locked(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "folder" / ".lock"
    command = [sys.executable, "-c", HOLDER, str(lock)]
    first = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None and first.stdout.readline() == "held\n"
    second = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert second.stderr is not None and second.stdout is not None
    assert second.stderr.readline() == "busy\n"
    for process in (first, second):
        process.kill()
        process.communicate()
        if process is first:
            assert second.stdout.readline() == "held\n"
    with locked(lock, "busy"):
        assert lock.exists()


# --- links ---------------------------------------------------------------------------------------------------------


def test_a_link_that_is_planted_in_the_name_of_the_part_is_refused_and_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "page.md"
    with part_of(path) as part:
        pass
    for there in (True, False):  # a link that leads nowhere would make its target
        victim.write_text("mine") if there else victim.unlink()
        part.symlink_to(victim)
        with pytest.raises(GrunBenchError, match="in the way"):
            write_whole(path, "text")
        assert part.is_symlink() and not path.exists()
        assert (victim.read_text() == "mine") if there else not victim.exists()
        part.unlink()


def test_what_a_dead_process_of_the_same_number_left_is_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    with part_of(path) as part:
        pass
    part.write_text("half")
    write_whole(path, "text")
    assert path.read_text() == "text" and [each.name for each in tmp_path.iterdir()] == ["page.md"]


def test_a_link_in_the_place_of_the_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "page.md"
    victim.write_text("mine")
    path.symlink_to(victim)
    write_whole(path, "text")
    assert victim.read_text() == "mine" and path.read_text() == "text" and not path.is_symlink()


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe"])
def test_a_note_that_says_no_path_is_none(tmp_path: Path, content: bytes) -> None:
    """Above all not the folder that one is in, which an empty path would be."""
    note = tmp_path / "note"
    assert noted_path(note) is None and noted_path(tmp_path) is None
    note.write_bytes(content)
    assert noted_path(note) is None
    note.write_text(f"{tmp_path / 'ein Büro'}\n", encoding="utf-8")
    assert noted_path(note) == tmp_path / "ein Büro"
