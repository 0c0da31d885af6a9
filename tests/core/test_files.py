"""Files are written whole, through no link, and nothing but them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from grun_bench.core.errors import GrunBenchError
from grun_bench.core.files import write_whole


def test_a_link_that_is_planted_in_the_name_of_the_part_is_refused_and_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "page.md"
    part = tmp_path / f".page.md.{os.getpid()}.part"
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
    (tmp_path / f".page.md.{os.getpid()}.part").write_text("half")
    write_whole(path, "text")
    assert path.read_text() == "text" and [each.name for each in tmp_path.iterdir()] == ["page.md"]


def test_a_link_in_the_place_of_the_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "page.md"
    victim.write_text("mine")
    path.symlink_to(victim)
    write_whole(path, "text")
    assert victim.read_text() == "mine" and path.read_text() == "text" and not path.is_symlink()
