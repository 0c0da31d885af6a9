"""What a saved adapter says of its base, so that it is found again here and named anywhere: no path of this machine.

A base of the Hub is named by its id and commit. One that is a folder is named by the end of its path and the SHA-256 of
its files; a folder that lies beside the adapter's is found from there, and where another lies is kept in the cache of
this machine alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from grun_bench.core.environment import cache_folder
from grun_bench.core.errors import GrunBenchError
from grun_bench.core.files import noted_path, write_whole
from grun_bench.models.names import mirrored

#: of a base that is a folder beside the saved model's, where it lies from there
BESIDE = "folder"
#: what other libraries write of where a model was read from
_OF_PEFT = "base_model_name_or_path"
#: what is a text wherever it is said of a base; the rest is how it was made
_TEXTS = ("name", "sha256", "beside_sha256", "modules_sha256", "revision", "cache", "finetuned", "quantised", BESIDE)
_PLACES = ("_name_or_path", "name_or_path", _OF_PEFT)


def checked(origin: dict[str, Any]) -> dict[str, Any]:
    """What a saved model's file says of its base, if that can be believed to name one. Raises ValueError."""
    if odd := [key for key in _TEXTS if key in origin and not (isinstance(origin[key], str) and origin[key])]:
        raise ValueError(f"{odd[0]} is no text")
    return origin


def is_made(origin: Mapping[str, Any]) -> bool:
    """Whether it was made here and lies in the cache: fine-tuned, or the embedded model."""
    return bool({"cache", "trained_without"} & set(origin))


def is_of_hub(origin: Mapping[str, Any]) -> bool:
    """Whether its name is an id of the Hub, as far as it can be told."""
    return not is_made(origin) and (
        "revision" in origin or any(each.is_dir() for each in mirrored(str(origin.get("name"))))
    )


def name_for_others(origin: Mapping[str, Any]) -> str:
    """What other libraries are told that it is: an id of the Hub, else the hash of its files, where that is known."""
    known = origin.get("sha256")
    return str(origin.get("name")) if is_of_hub(origin) or not known else f"sha256-{known}"


def beside(base: Path, folder: Path, origin: Mapping[str, Any]) -> dict[str, str]:
    """How a base that is a folder is found from the adapter's, where it lies beside it.

    Where it lies is noted in the cache too: either may be moved.
    """
    if is_made(origin) or is_of_hub(origin) or not base.is_dir():
        return {}
    note(str(origin.get("sha256")), base)
    way = os.path.relpath(base.resolve(), folder.resolve())
    return {BESIDE: way} if Path(way).parts.count(os.pardir) < 2 else {}


def folders(origin: Mapping[str, Any], folder: Path) -> Iterator[Path]:
    """Where a base that is a folder may lie, which the adapter in `folder` names so."""
    if way := origin.get(BESIDE):
        yield folder / str(way)
    if place := noted(str(origin.get("sha256"))):
        yield place


def note(content: str, folder: Path) -> None:
    """Keep on this machine where a model lies that is a folder; `content` begins with the SHA-256 of its files."""
    with suppress(GrunBenchError):  # whoever has no cache says where it lies
        write_whole(_note(content), f"{folder.resolve()}\n")


def noted(content: str) -> Path | None:
    """The folder that was noted for a content, if it is there still; what is in it by now may be another model."""
    place = noted_path(_note(content))
    return place if place and place.is_dir() else None


def _note(content: str) -> Path:
    return cache_folder() / "bases" / f"{content[:24]}.txt"


def without_places(folder: Path, name: str, revision: str | None = None) -> None:
    """Put a model's name where libraries wrote the folder that they read it from, in all JSON files of a folder."""
    for path in folder.rglob("*.json"):
        told = json.loads(path.read_bytes())
        found = [
            key for key in _PLACES if isinstance(told, dict) and (told.get(key) or (key in told and key == _OF_PEFT))
        ]
        if not found:
            continue
        told |= dict.fromkeys(found, name)
        if _OF_PEFT in found:
            told["revision"] = revision
        path.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
