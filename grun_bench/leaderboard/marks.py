"""How far results were verified: the file that `grun-bench verify` writes beside them. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from grun_bench.core.files import write_whole
from grun_bench.core.strict_json import read_if_there

VERIFICATION = "verified.json"


class Mark(BaseModel):
    """How far a result file was verified: its hash, the tier, the day, and the harness that did it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tier: Literal["recomputed", "re-run"]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    harness: Annotated[str, Field(max_length=100)]


def read_marks(folder: Path) -> dict[str, Mark]:
    """The marks of a folder by the path of the result file in it; none where it has no such file.

    Raises UsageError with the place when the file is another.
    """
    return read_if_there(folder / VERIFICATION, dict[str, Mark], {})


def write_marks(folder: Path, marks: Mapping[str, Mark]) -> None:
    """Raises GrunBenchError when they cannot be saved."""
    data = {path: mark.model_dump() for path, mark in marks.items()}
    write_whole(folder / VERIFICATION, json.dumps(data, indent=1, sort_keys=True) + "\n")
