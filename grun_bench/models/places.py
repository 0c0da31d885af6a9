"""Where models are, and what tells one from another: folders, mirrors, commits of the Hub."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.utils.hub import cached_file

from grun_bench.core import environment as env
from grun_bench.core.cache import KEY_FILE
from grun_bench.core.errors import ModelError
from grun_bench.core.local_data import is_pointer
from grun_bench.models.names import folder_name, folder_of, hub_id, mirrored, near

#: weights, configuration and tokenizer; and what else decides what a model says: templates, merges, its own code
_BY_END = {
    "sha256": (".safetensors", ".bin", ".json", ".model"),
    "beside_sha256": (".jinja", ".txt", ".py", ".tiktoken"),
}
#: what an origin says of a model's content
HASHES = ("sha256", "beside_sha256", "modules_sha256", "revision")


@dataclass(frozen=True)
class Commit:
    """A model of the Hub as it is at one of its commits. As text it is what `locate` finds it by."""

    repository: str
    sha: str

    def __str__(self) -> str:
        return f"{self.repository}@{self.sha}"


def locate(name: str, hint: str = "") -> Path | Commit:
    """A folder given as a path or found in a mirror; else what the Hub has, or its cache where it cannot be reached.

    A revision is a branch, a tag or a commit. Raises ModelError for what is nowhere, with `hint` as in `hub_id`.
    """
    if folder := folder_of(name):
        return folder
    repository, revision = hub_id(name, hint)
    try:
        config = cached_file(repository, "config.json", revision=revision)
    except (OSError, ValueError) as error:
        raise not_loaded(name, error) from None
    return Commit(repository, Path(str(config)).parent.name)


def source_of(place: Path | Commit) -> tuple[str, dict[str, Any]]:
    """What `from_pretrained` takes to read a place: its folder or repository, and the options that name the commit."""
    return (str(place), {}) if isinstance(place, Path) else (place.repository, {"revision": place.sha})


def pinned(name: str) -> str:
    """The name under which `locate` finds the same content when the Hub has moved on."""
    place = locate(name)
    return str(place) if isinstance(place, Commit) else name


def not_loaded(name: str, error: Exception, part: str = "") -> ModelError:
    """The error for a model, or a part of it, that foreign code could not read, with every place looked at."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    kind = "" if isinstance(error, (OSError, ValueError, ImportError)) else f"{type(error).__name__}: "
    if env.expanded(name).is_dir():
        return ModelError(f"model {name}{part} could not be loaded: {kind}{said}")
    where = "".join(f"\n  {path} (GRUN_BENCH_HUB)" for path in mirrored(name)) + f"\n  {name}"
    return ModelError(
        f"model {name}{part} could not be loaded: {kind}{said}\nLooked in:{where}{near(name)}\n"
        f"Put a copy at <folder>/{name.partition('@')[0]} and set GRUN_BENCH_HUB=<folder>."
    )


def identity(name: str, place: Path | Commit) -> dict[str, Any]:
    """What a result says of a model: its name, and the Hub's commit or the SHA-256 of its folder's files.

    `sha256` is that of the weights, configuration and tokenizer, `beside_sha256` of the templates, merges and code
    beside them, `modules_sha256` of the folders of a sentence-embedding model's further modules, where there are any.
    """
    content = {"revision": place.sha} if isinstance(place, Commit) else _hashes(place)
    return {"name": name_of(name, place), **content}


def name_of(name: str, place: Path | Commit) -> str:
    """What rows call a model that was given by this name: <org>/<name>, a folder's by its last two parts."""
    if isinstance(place, Commit):
        return place.repository
    return folder_name(place) if Path(name).is_dir() else name


def content_of(place: Path | Commit) -> str:
    """A model's content in one word: that of a folder the same wherever it lies."""
    return str(place) if isinstance(place, Commit) else "+".join(_hashes(place).values())


def other_content(found: Mapping[str, Any], stated: Mapping[str, Any]) -> str | None:
    """In words, what of a model's content is not as it was stated; None where all that both origins say agrees."""
    for key in HASHES:
        if found.get(key) is not None and stated.get(key) is not None and found[key] != stated[key]:
            return f"its {key} is {found[key][:12]}, that one's {stated[key][:12]}"
    return None


def _hashes(folder: Path) -> dict[str, str]:
    """SHA-256 over the names and contents of a model folder's files, in parts: older results know the first."""
    top = list(_files(folder))
    parts = {key: [path for path in top if path.suffix in ends] for key, ends in _BY_END.items()}
    parts["modules_sha256"] = _module_files(folder)
    found = {}
    for key, files in parts.items():
        total = hashlib.sha256()
        for path in files:
            with path.open("rb") as file:
                name = path.relative_to(folder).as_posix()
                total.update(name.encode() + hashlib.file_digest(file, "sha256").digest())
        if files:
            found[key] = total.hexdigest()
    return found


def _files(folder: Path) -> Iterator[Path]:
    """The files of a model's folder, with those of the folder that transformers keeps further templates in."""
    for path in sorted([*folder.iterdir(), *folder.glob("additional_chat_templates/*")]):
        if path.is_file() and path.name != KEY_FILE:
            yield path


def _module_files(folder: Path) -> list[Path]:
    """The files in the folders of a sentence-transformers model's modules after the first, as `1_Pooling`."""
    if not (folder / "modules.json").is_file():
        return []
    ends = {end for ends in _BY_END.values() for end in ends}
    return sorted(path for path in folder.glob("[0-9]*_*/**/*") if path.is_file() and path.suffix in ends)


def check_whole(folder: Path) -> None:
    """Raises ModelError for a folder without weights or configuration, and names a file that was not fetched whole."""
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise ModelError(f"model folder {folder} holds no weights (*.safetensors or pytorch_model*.bin).")
    if not (folder / "config.json").exists():
        raise ModelError(f"model folder {folder} holds no config.json: it is no whole model of transformers.")
    for path in (*_files(folder), *_module_files(folder)):
        if is_pointer(path):
            raise ModelError(f"{path}: a git-lfs pointer, not the file; `git lfs pull` in its folder fetches it.")
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, "pt"):
                    pass
            except (SafetensorError, OSError) as error:
                raise ModelError(f"{path}: damaged, or copied in part ({error}); fetch it again.") from None
