"""Compressed files from strangers: read piece by piece, and never more than was allowed."""

from __future__ import annotations

import bz2
import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from grun_bench.core.errors import UsageError
from grun_bench.core.untrusted import pieces

#: end of a name -> the standard library's compressor
PACKED: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress}


@pytest.mark.long
def test_what_is_compressed_is_read_as_what_is_not(tmp_path: Path) -> None:
    content = b"".join(b"%d\n" % number for number in range(500_000))
    (tmp_path / "plain").write_bytes(content)
    assert b"".join(pieces(tmp_path / "plain", 10**7)) == content
    for end, compress in PACKED.items():
        (one := tmp_path / f"one{end}").write_bytes(compress(content))
        (three := tmp_path / f"three{end}").write_bytes(compress(content) + compress(b"more") + compress(content[:9]))
        (empty := tmp_path / f"empty{end}").write_bytes(compress(b""))
        assert b"".join(pieces(one, 10**7)) == content
        assert b"".join(pieces(three, 10**7)) == content + b"more" + content[:9]
        assert b"".join(pieces(empty, 100)) == b""


@pytest.mark.parametrize("end", PACKED)
def test_a_bomb_is_refused_without_being_held(tmp_path: Path, end: str) -> None:
    path, limit = tmp_path / f"bomb{end}", 64 * 2**20
    path.write_bytes(PACKED[end](bytes(limit + 1)))
    assert path.stat().st_size < limit / 900
    tracemalloc.start()
    try:
        with pytest.raises(UsageError, match=r"bomb\.(gz|bz2): more than 67,108,864 bytes"):
            for _ in pieces(path, limit):
                pass
        assert tracemalloc.get_traced_memory()[1] < limit / 8
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("end", PACKED)
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
def test_what_is_not_compressed_so_is_refused_cleanly(
    tmp_path: Path, spoil: Callable[[bytes], bytes], end: str
) -> None:
    path = tmp_path / f"odd{end}"
    path.write_bytes(spoil(PACKED[end](b"content " * 1000)))
    with pytest.raises(UsageError, match=r"odd\.(gz|bz2): cannot be uncompressed"):
        list(pieces(path, 10**6))


def test_links_and_large_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot be read"):
        list(pieces(tmp_path / "link", 10))
    with pytest.raises(UsageError, match="5 bytes, and 4 are allowed"):
        list(pieces(tmp_path / "file", 4))
