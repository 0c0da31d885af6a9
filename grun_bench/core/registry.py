"""One lazy registry for the five plugin kinds.

A plugin registers itself with a decorator in its file::

    @objective("ga")
    def ga(batch): ...

Names and summaries are read from the source text, so listing imports nothing (no torch) and a broken plugin fails when
it is named, not when others are listed. Three places are searched: the package's own module or folder of the kind,
files given with `--include-path`, and installed entry points of the group `grun_bench.<kind>s`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, EntryPoints, entry_points
from pathlib import Path
from typing import Any, Literal, TypeVar

from grun_bench.core.errors import UsageError, unknown

T = TypeVar("T")

#: plugin kind -> file (without its suffix) or folder of the built-in ones
KINDS = {
    "adapter": "methods/adapters",
    "objective": "methods/objectives",
    "metric": "metrics",
    "attack": "attacks",
    "unlearner": "methods/baselines",
}
_PACKAGE = Path(__file__).parents[1]
_included: list[Path] = []
_loaded: dict[tuple[str, str], Plugin] = {}


@dataclass(frozen=True)
class Plugin:
    """A registered object with what its decorator declared."""

    kind: str
    name: str
    target: Any
    options: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """A plugin that is known by name and not yet imported."""

    kind: str
    name: str
    summary: str
    origin: Path | EntryPoint
    #: the decorator's options that are written out as literals
    declared: Mapping[str, Any] = field(default_factory=dict)

    @property
    def builtin(self) -> bool:
        return isinstance(self.origin, Path) and _PACKAGE in self.origin.parents

    def __str__(self) -> str:
        return str(self.origin) if isinstance(self.origin, Path) else f"entry point {self.origin.value}"


def _decorator(kind: str) -> Callable[..., Callable[[T], T]]:
    def declare(name: str, **options: Any) -> Callable[[T], T]:
        def register(target: T) -> T:
            _loaded[kind, name] = Plugin(kind, name, target, options)
            return target

        return register

    return declare


adapter = _decorator("adapter")
objective = _decorator("objective")
metric = _decorator("metric")
attack = _decorator("attack")
unlearner = _decorator("unlearner")


def include(path: Path) -> None:
    """Add a plugin file, or a folder of them, to the search (`--include-path`).

    Raises UsageError when the path does not exist.
    """
    path = path.expanduser().resolve()
    if not path.exists():
        raise UsageError(f"--include-path {path}: no such file or folder.")
    if path not in _included:
        _included.append(path)


def _python_files(path: Path) -> list[Path]:
    return sorted(path.glob("*.py")) if path.is_dir() else [path]


@cache
def _tree(path: Path, changed: int) -> ast.Module:
    """The syntax tree of a source file as it was at a time (nanoseconds); names are looked up often."""
    return ast.parse(path.read_text(encoding="utf-8"))


def _declared(path: Path, kind: str) -> list[Entry]:
    """The plugins of one kind that a source file declares, read from its syntax tree."""
    try:
        tree = _tree(path, path.stat().st_mtime_ns)
    except SyntaxError as error:
        if _PACKAGE in path.parents:
            raise
        raise UsageError(
            f"{path}, line {error.lineno}: {error.msg}. The file given with --include-path must be Python."
        ) from None
    found = []
    for node in tree.body:
        for call in getattr(node, "decorator_list", []):
            if not isinstance(call, ast.Call) or not call.args or not isinstance(call.args[0], ast.Constant):
                continue
            called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
            if called == kind:
                summary = (ast.get_docstring(node) or "").split("\n")[0]  # type: ignore[arg-type]
                found.append(Entry(kind, str(call.args[0].value), summary, path, _literals(call)))
    return found


def _literals(call: ast.Call) -> dict[str, Any]:
    """The keyword arguments of a decorator that are literals."""
    found = {}
    for keyword in call.keywords:
        with suppress(ValueError):
            found[keyword.arg or ""] = ast.literal_eval(keyword.value)
    return found


@cache
def _installed() -> EntryPoints:
    """The entry points of all installed packages; looking through those takes a while."""
    return entry_points()


def entries(kind: str) -> dict[str, Entry]:
    """All plugins of a kind by name, in the order built-in, included, installed.

    Raises UsageError when two places declare the same name: nothing is overridden silently.
    """
    module = _PACKAGE / KINDS[kind]
    files = _python_files(module if module.is_dir() else module.with_suffix(".py"))
    files += [file for path in _included for file in _python_files(path)]
    found: dict[str, Entry] = {}
    declared = [entry for file in files if file.exists() for entry in _declared(file, kind)]
    declared += [
        Entry(kind, point.name, f"from {point.value}", point)
        for point in _installed().select(group=f"grun_bench.{kind}s")
    ]
    for entry in declared:
        if entry.name in found:
            raise UsageError(f"two {kind}s are named '{entry.name}': {found[entry.name]} and {entry}. Rename yours.")
        found[entry.name] = entry
    return found


def names(kind: str) -> list[str]:
    """The names of all plugins of a kind, built-in first."""
    return list(entries(kind))


def get(kind: str, name: str) -> Plugin:
    """Import a plugin by name. Raises UsageError with the near names, or when it does not import."""
    known = entries(kind)
    if name not in known:
        raise unknown(kind, name, known, f"`grun-bench ls {kind}s` lists them.")
    if (kind, name) not in _loaded:
        _import(known[name])
    if (kind, name) not in _loaded:
        raise UsageError(f"{known[name]} did not register the {kind} '{name}' when it was imported.")
    return _loaded[kind, name]


def parse_unlearner(name: str) -> tuple[str, str] | str:
    """`adapter+objective`, a bare objective (`full` is its adapter), or the name of an unlearner of its own.

    Raises UsageError with the near names when it is none of these.
    """
    if "+" in name:
        adapter, _, objective = name.partition("+")
        for part in (adapter, objective):
            if part in entries("unlearner"):
                raise UsageError(f"'{name}': {part} is an unlearner of its own, not a part of a pair; name it alone.")
        for kind, part in (("adapter", adapter), ("objective", objective)):
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


def role_of(name: str) -> Literal["target", "retain model"] | None:
    """What an unlearner is to every run: its `target`, its `retain model`, or None for a method.

    Read from the source (`@unlearner(..., role=...)`), so it imports nothing. A name that is not known is a method's.
    """
    entry = entries("unlearner").get(name)
    return entry.declared.get("role") if entry else None


def control(role: Literal["target", "retain model"]) -> str:
    """The name of the unlearner with this role: the model that every run is compared with."""
    return next(name for name, entry in entries("unlearner").items() if entry.declared.get("role") == role)


def attack_names(text: str, of_task: Sequence[str]) -> list[str]:
    """The attacks that `all` or names with commas between mean; `all` are the task's, or every one where it has none.

    Raises UsageError for an unknown name, with the near ones.
    """
    known = entries("attack")
    chosen = list(of_task or known) if text == "all" else [name.strip() for name in text.split(",")]
    for name in chosen:
        if name not in known:
            raise unknown("attack", name, [*known, "all"], "`grun-bench ls attacks` lists them.")
    return list(dict.fromkeys(chosen))


def _import(entry: Entry) -> None:
    if entry.builtin:
        relative = entry.origin.relative_to(_PACKAGE).with_suffix("")  # type: ignore[union-attr]
        importlib.import_module(".".join(("grun_bench", *relative.parts)))
        return
    try:
        if isinstance(entry.origin, EntryPoint):
            entry.origin.load()
            return
        name = f"grun_bench_include_{entry.origin.stem}"
        spec = importlib.util.spec_from_file_location(name, entry.origin)
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        sys.modules[name] = module
        spec.loader.exec_module(module)  # type: ignore[union-attr]
    except Exception as error:
        raise UsageError(
            f"{entry.kind} '{entry.name}' ({entry}) does not import: {type(error).__name__}: {error}"
        ) from error
