"""Plugins by name, without importing any until it is asked for.

Names and summaries are read from the source text, so listing imports nothing (no torch) and a broken plugin fails when
it is named, not when others are listed.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal, overload

from grun_bench.core.calls import ended_at
from grun_bench.core.errors import UsageError, unknown
from grun_bench.core.given import listed
from grun_bench.core.plugin_search import KINDS as KINDS
from grun_bench.core.plugin_search import Entry, entries
from grun_bench.core.plugin_search import included as included
from grun_bench.core.plugin_search import including as including
from grun_bench.core.plugins import (
    INCLUDED,
    AdapterPlugin,
    AttackPlugin,
    Control,
    Kind,
    MetricPlugin,
    ObjectivePlugin,
    Plugin,
    UnlearnerPlugin,
    registered,
)

# plugins take their decorator from here
from grun_bench.core.plugins import adapter as adapter
from grun_bench.core.plugins import attack as attack
from grun_bench.core.plugins import metric as metric
from grun_bench.core.plugins import objective as objective
from grun_bench.core.plugins import unlearner as unlearner
from grun_bench.core.raised import with_place

#: no thread sees a half-imported file
_importing = threading.RLock()


def names(kind: Kind) -> list[str]:
    """The names of all plugins of a kind, built-in first."""
    return list(entries(kind))


@overload
def get(kind: Literal["adapter"], name: str) -> AdapterPlugin: ...
@overload
def get(kind: Literal["objective"], name: str) -> ObjectivePlugin: ...
@overload
def get(kind: Literal["metric"], name: str) -> MetricPlugin: ...
@overload
def get(kind: Literal["attack"], name: str) -> AttackPlugin: ...
@overload
def get(kind: Literal["unlearner"], name: str) -> UnlearnerPlugin: ...
@overload
def get(kind: Kind, name: str) -> Plugin: ...
def get(kind: Kind, name: str) -> Plugin:
    """Import a plugin by name. Raises UsageError with the near names, or when it does not import."""
    known = entries(kind)
    if name not in known:
        raise missing(kind, name, known, f"`grun-bench ls {kind}s` lists them")
    entry = known[name]
    module = entry.module if entry.module.startswith(INCLUDED) else ""
    with _importing:
        plugin = registered(module, kind, name)
        if plugin is None:
            _import(entry)
            plugin = registered(module, kind, name)
    if plugin is None:
        raise UsageError(f"{entry} did not register the {kind} '{name}' when it was imported.")
    return plugin


def _import(entry: Entry) -> None:
    if entry.builtin:
        importlib.import_module(entry.module)
        return
    try:
        if isinstance(entry.origin, Path):
            _run_file(entry.module, entry.origin)
        else:
            entry.origin.load()
    except SystemExit as ended:
        raise UsageError(f"{entry.kind} '{entry.name}' ({entry}) does not import: {ended_at(ended)}.") from ended
    except Exception as error:
        raise UsageError(f"{entry.kind} '{entry.name}' ({entry}) does not import: {with_place(error)}.") from error


def _run_file(name: str, path: Path) -> None:
    """A file as a module of this name. No compiled file is kept: one of the same second and size would pass for it."""
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise


# --- names that users give --------------------------------------------------------------------------------------------


def missing(what: str, name: str, known: Iterable[str], hint: str, place: str = "") -> UsageError:
    """The error for a plugin that is not among those `known`: the near names, and how one's own is brought.

    `hint` is a sentence without its end, `place` what the name is a part of.
    """
    if not name.endswith(".py"):
        return unknown(what, name, known, f"{hint}; --include-path FILE brings your own.", place=place)
    path = Path(name)
    with including([path] if path.is_file() else []):
        declared = [each.name for kind in KINDS for each in entries(kind).values() if each.origin == path.resolve()]
    there = f" It has {', '.join(declared)}." if declared else ""
    return UsageError(
        f"'{name}' is a file, and the name of a plugin is asked for: give the file with --include-path {name}.{there}"
    )


def parse_unlearner(name: str) -> tuple[str, str] | str:
    """`adapter+objective`, a bare objective (`full` is its adapter), or the name of an unlearner of its own.

    Raises UsageError with the near names when it is none of these.
    """
    if "," in name:
        raise UsageError(f"unlearner '{name}': one at a time; `grun-bench sweep --unlearner {name}` takes several.")
    if "+" in name:
        return _parse_pair(name)
    if name in entries("unlearner"):
        return name
    if name in entries("objective"):
        return "full", name
    if name in entries("adapter"):
        raise UsageError(f"'{name}' is an adapter: add what to optimise with it, as in {name}+npo.")
    pairs = [f"{adapter}+{objective}" for adapter in names("adapter") for objective in names("objective")]
    known = [*names("unlearner"), *names("objective"), *pairs]
    raise missing("unlearner", name, known, "An unlearner is adapter+objective; `grun-bench ls` lists them all")


def _parse_pair(name: str) -> tuple[str, str]:
    """Adapter and objective. Raises UsageError where one of them is not known, or is no part of a pair."""
    adapter, _, objective = name.partition("+")
    if adapter in entries("objective") and objective in entries("adapter"):
        turned = f"{objective}+{adapter}"
        raise unknown("unlearner", name, [turned], "An unlearner is adapter+objective.", meant=turned)
    for part in (adapter, objective):
        if part in entries("unlearner"):
            raise UsageError(f"'{name}': {part} is an unlearner of its own, not a part of a pair; name it alone.")
    parts: tuple[tuple[Kind, str], ...] = (("adapter", adapter), ("objective", objective))
    for kind, part in parts:
        if part not in entries(kind):
            place = f"in the unlearner '{name}'"
            raise missing(kind, part, names(kind), "`grun-bench ls` lists them all", place)
    return adapter, objective


def role_of(name: str) -> Control | None:
    """What an unlearner is to every run: its `target`, its `retain model`, or None for a method.

    Read from the source (`@unlearner(..., role=...)`), so it imports nothing. A name that is not known is a method's.
    """
    entry = entries("unlearner").get(name)
    return entry.declared.get("role") if entry else None


def control(role: Control) -> str:
    """The name of the unlearner with this role: the model that every run is compared with."""
    return next(name for name, entry in entries("unlearner").items() if entry.declared.get("role") == role)


def attack_names(text: str, of_task: Sequence[str]) -> list[str]:
    """The attacks that `all` or names with commas between mean; `all` are the task's, or every one where it has none.

    `all,-NAME` are all but that one. Raises UsageError for an unknown name, with the near ones.
    """
    known, given = entries("attack"), listed("attacks", text)
    left = [name[1:] for name in given if name.startswith("-")]
    named = [name for name in given if not name.startswith("-")]
    if left and named != ["all"]:
        raise UsageError(f"attacks {text}: -{left[0]} leaves an attack out of all of them: write all,-{left[0]}.")
    chosen = list(of_task or known) if named == ["all"] else named
    if "all" in chosen:
        raise UsageError("'all' are the attacks of the task: write all alone, or the names alone.")
    for name in (*chosen, *left):
        if name not in known:
            raise missing("attack", name, [*known, "all"], "`grun-bench ls attacks` lists them")
    return [name for name in dict.fromkeys(chosen) if name not in left]
