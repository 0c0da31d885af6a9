"""Plugins by name, without importing any until it is asked for.

Names and summaries are read from the source text, so listing imports nothing (no torch) and a broken plugin fails when
it is named, not when others are listed.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal, overload

from grun_bench.core.errors import UsageError, unknown
from grun_bench.core.given import listed
from grun_bench.core.plugin_search import KINDS as KINDS
from grun_bench.core.plugin_search import Entry, entries
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
        raise unknown(kind, name, known, f"`grun-bench ls {kind}s` lists them.")
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
    except Exception as error:
        raise UsageError(
            f"{entry.kind} '{entry.name}' ({entry}) does not import: {type(error).__name__}: {error}"
        ) from error


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


def parse_unlearner(name: str) -> tuple[str, str] | str:
    """`adapter+objective`, a bare objective (`full` is its adapter), or the name of an unlearner of its own.

    Raises UsageError with the near names when it is none of these.
    """
    if "+" in name:
        adapter, _, objective = name.partition("+")
        for part in (adapter, objective):
            if part in entries("unlearner"):
                raise UsageError(f"'{name}': {part} is an unlearner of its own, not a part of a pair; name it alone.")
        parts: tuple[tuple[Kind, str], ...] = (("adapter", adapter), ("objective", objective))
        for kind, part in parts:
            if part not in entries(kind):
                raise unknown(kind, part, names(kind), f"in the unlearner '{name}'; `grun-bench ls` lists them all.")
        return adapter, objective
    if name in entries("unlearner"):
        return name
    if name in entries("objective"):
        return "full", name
    if name in entries("adapter"):
        raise UsageError(f"'{name}' is an adapter: add what to optimise with it, as in {name}+npo.")
    pairs = [f"{adapter}+{objective}" for adapter in names("adapter") for objective in names("objective")]
    known = [*names("unlearner"), *names("objective"), *pairs]
    raise unknown("unlearner", name, known, "An unlearner is adapter+objective; `grun-bench ls` lists them all.")


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

    Raises UsageError for an unknown name, with the near ones.
    """
    known = entries("attack")
    chosen = list(of_task or known) if text == "all" else listed("attacks", text)
    if "all" in chosen:
        raise UsageError("'all' are the attacks of the task: write all alone, or the names alone.")
    for name in chosen:
        if name not in known:
            raise unknown("attack", name, [*known, "all"], "`grun-bench ls attacks` lists them.")
    return list(dict.fromkeys(chosen))
