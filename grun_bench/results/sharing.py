"""What of results may be handed on, and what others call their data. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from grun_bench.core.errors import UsageError
from grun_bench.results.result import Result
from grun_bench.results.store import read_result, result_files

#: an id of the Hub
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def data_sets(result: Result) -> list[str]:
    """The ids on the Hub of published data, that of the forget set first; none of own rows."""
    if result.dataset != "published":
        return []
    names = [name for each in result.data.values() for source in each.get("sources", []) for name in source.split()]
    return list(dict.fromkeys(name for name in names if HUB_ID.fullmatch(name)))


def is_private(result: Result) -> bool:
    """Whether it is of rows that stay on the machine of the run; of own rows that say nothing else it is."""
    said = result.configs.get(result.task, {}).get("private", result.own)
    return bool(said)


def shared(folder: Path) -> Iterator[Result]:
    """The results of a folder, without those of private rows. Raises UsageError as `load_results` does."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of results.")
    return (result for result in map(read_result, result_files(folder)) if not is_private(result))
