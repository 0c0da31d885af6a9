"""Compressed files from strangers: read piece by piece, and never more than was allowed."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from grun_bench.core.errors import UsageError
from grun_bench.core.untrusted import pieces


def test_what_is_compressed_is_read_as_what_is_not(tmp_path: Path) -> None:
    content = b"".join(b"%d\n" % number for number in range(500_000))
    for name, stored in (("a", content), ("b.gz", gzip.compress(content)), ("c.gz", gzip.compress(content[:9]) * 2)):
        (tmp_path / name).write_bytes(stored)
    assert b"".join(pieces(tmp_path / "a", 10**7)) == b"".join(pieces(tmp_path / "b.gz", 10**7)) == content
    assert b"".join(pieces(tmp_path / "c.gz", 100)) == content[:9] * 2


def test_a_bomb_is_refused_without_being_held(tmp_path: Path) -> None:
    path, limit = tmp_path / "bomb.gz", 64 * 2**20
    path.write_bytes(gzip.compress(bytes(limit + 1)))
    assert path.stat().st_size < limit / 900
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=r"bomb\.gz: more than 67,108,864 bytes"):
            for _ in pieces(path, limit):
                pass
        assert tracemalloc.get_traced_memory()[1] < limit / 8
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda good: good[:-1],
        lambda good: good[: len(good) // 2],
        lambda good: good[:1],
        lambda good: b"plain",
        lambda good: good + b"more",
        lambda good: good[:12] + bytes([good[12] ^ 255]) + good[13:],
        lambda good: good[:-8] + bytes(8),
    ],
)
def test_what_is_no_gzip_is_refused_cleanly(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "odd.gz"
    path.write_bytes(spoil(gzip.compress(b"content " * 1000)))
    with pytest.raises(UsageError, match=r"odd\.gz: cannot be uncompressed"):
        list(pieces(path, 10**6))


def test_links_and_large_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be read"):
        list(pieces(tmp_path / "link", 10))
    with pytest.raises(UsageError, match="5 bytes, and 4 are allowed"):
        list(pieces(tmp_path / "file", 4))
