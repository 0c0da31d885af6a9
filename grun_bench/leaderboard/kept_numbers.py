"""Numbers that a page has from records, and no result states: made once, and kept under what decides them. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import grun_bench
from grun_bench.core import registry
from grun_bench.core.cache import cached_folder
from grun_bench.core.errors import UsageError
from grun_bench.results.result import RecordsFile
from grun_bench.tasks.sets import ScoredSets

_FILE = "numbers.json"


def kept_numbers(
    what: str, records: RecordsFile, metrics: Sequence[str], sets: ScoredSets, make: Callable[[], Any]
) -> Any:
    """What `make` gives of records with these metrics on these sets, as plain JSON data; `what` tells kinds apart.

    Made where it is not in the cache, which knows records by their content: whoever asks has checked that the file
    holds what its hash says. Raises what `make` does; where the cache cannot be written, everything is made anew.
    """
    key = {
        "what": what,
        "records": records.sha256,
        "metrics": {name: registry.get("metric", name).version for name in metrics},
        "sets": [asdict(each) for each in sets.sets],
        "version": grun_bench.__version__,
    }

    def write(folder: Path) -> None:
        (folder / _FILE).write_text(json.dumps(make()))

    try:
        folder = cached_folder("numbers", key, write)
    except UsageError:
        return make()
    return json.loads((folder / _FILE).read_text())
