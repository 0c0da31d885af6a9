"""The command that shows and clears the cache. No torch."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from grun_bench.core.errors import GrunBenchError, unknown
from grun_bench.core.kept import KINDS, LASTING, Kept, clear, kept


def cache(
    what: Annotated[
        str | None,
        typer.Option("--clear", metavar="all|KIND", help="Remove what is kept of a kind; all: of those made again."),
    ] = None,
    older_than: Annotated[
        float, typer.Option(min=0.0, metavar="DAYS", help="What --clear removes was written longer ago than this.")
    ] = 1.0,
) -> None:
    """Show what the cache holds, or clear it."""
    if what is None:
        _show()
        return
    if what not in ("all", *KINDS):
        raise unknown("kind in --clear", what, ("all", *KINDS))
    stays: list[Kept] = []
    for kind in [each for each in KINDS if each not in LASTING] if what == "all" else [what]:
        gone, left = clear(kind, older_than)
        stays += left
        print(f"{kind}: {len(gone)} removed, {_size(gone)}; {len(kept(kind))} kept")
    if stays:
        raise GrunBenchError(f"{len(stays)} could not be removed, as {stays[0].path}.")


def _show() -> None:
    from grun_bench.core.environment import cache_folder
    from grun_bench.terminal.listing import print_rows, tell

    rows = []
    for kind, words in KINDS.items():
        found = kept(kind)
        days = [time.strftime("%Y-%m-%d", time.localtime(each.written)) for each in found[:1] + found[-1:]]
        rows.append((kind, str(len(found)), _size(found), *(days or ("-", "-")), words))
    print_rows(str(cache_folder()), ("kind", "items", "size", "oldest", "newest", "what it is"), rows)
    tell("`grun-bench cache --clear checkpoints` removes those of over a day. All but texts is made again.")


def _size(found: list[Kept]) -> str:
    return f"{sum(each.size for each in found) / 2**20:,.1f} MiB"
