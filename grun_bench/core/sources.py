"""What is to be cited for the names of a command line: the papers that docstrings of plugins name. No torch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from pathlib import Path

from grun_bench.core import registry
from grun_bench.core.errors import unknown
from grun_bench.core.papers import Paper, numbers, paper
from grun_bench.core.plugin_search import Entry
from grun_bench.core.plugins import Kind

#: what stands for the file of a plugin that is not known here
PLUGIN = Path("PLUGIN.py")


def papers_of(names: Iterable[str]) -> dict[str, list[Paper]]:
    """Name -> the papers of the adapter, objective, unlearner, attack or metric; of a pair, those of both parts.

    Raises UsageError with the near names for one that is none of these.
    """
    return {name: [paper(number) for number in numbers("\n".join(map(_said, _entries(name))))] for name in names}


def papers_of_unlearner(name: str) -> list[Paper]:
    """The papers of an unlearner of a result; none of a part that is not known here."""
    return [paper(number) for number in numbers("\n".join(map(_said, filter(None, _parts(name)))))]


def file_of_plugin(name: str) -> Path | None:
    """The file that a command needs (`--include-path`) to know an unlearner of a result; None for one of a package.

    That of a part which is not known here is `PLUGIN`.
    """
    origins = (entry.origin if entry else PLUGIN for entry in _parts(name) if entry is None or not entry.builtin)
    return next((origin for origin in origins if isinstance(origin, Path)), None)


def _parts(name: str) -> list[Entry | None]:
    """What an unlearner is made of; None for a part which is not known here.

    A bare objective is that alone: the adapter that goes with it is the package's.
    """
    parts: list[tuple[Kind, str]] = [("unlearner", name)]
    if "+" in name:
        adapter, _, objective = name.partition("+")
        parts = [("adapter", adapter), ("objective", objective)]
    elif name in registry.entries("objective"):
        parts = [("objective", name)]
    return [registry.entries(kind).get(part) for kind, part in parts]


def _entries(name: str) -> list[Entry]:
    if "+" in name:
        parsed = registry.parse_unlearner(name)
        kinds: tuple[Kind, ...] = ("adapter", "objective")
        return [registry.entries(kind)[part] for kind, part in zip(kinds, parsed, strict=True)]
    found = [known[name] for kind in registry.KINDS if name in (known := registry.entries(kind))]
    if not found:
        every = {each for kind in registry.KINDS for each in registry.entries(kind)}
        hint = "`grun-bench ls` lists them; --include-path FILE brings your own."
        raise unknown("name", name, every, hint, listed=False)
    return found


def _said(entry: Entry) -> str:
    """What the source says of a plugin; of an attack what its file says too, which is about the attack."""
    if entry.docstring is None:
        return inspect.getdoc(registry.get(entry.kind, entry.name).target) or ""
    return entry.docstring
