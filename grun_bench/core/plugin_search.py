"""Where plugins are looked for, and what their source files say of them: nothing is imported.

Three places are searched: the package's own module or folder of the kind, files that are `including`d
(`--include-path`), and installed entry points of the group `grun_bench.<kind>s`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from grun_bench.core.environment import expanded
from grun_bench.core.errors import UsageError
from grun_bench.core.plugins import CLASSES, INCLUDED, Kind

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: plugin kind -> file (without its suffix) or folder of the built-in ones
KINDS: dict[Kind, str] = {
    "adapter": "methods/adapters",
    "objective": "methods/objectives",
    "metric": "metrics",
    "attack": "attacks",
    "unlearner": "methods/baselines",
}
_PACKAGE = Path(__file__).parents[1]
#: what `including` added here: each thread and each context has its own
_included: ContextVar[tuple[Path, ...]] = ContextVar("included", default=())


@dataclass(frozen=True)
class Entry:
    """A plugin that is known by name and not yet imported.

    `module` is the name that its file is imported by, `origin` where that is; `declared` are the decorator's options
    that are written out as literals.
    """

    kind: Kind
    name: str
    summary: str
    origin: Path | EntryPoint
    module: str = ""
    declared: Mapping[str, Any] = field(default_factory=dict)
    #: the names of its settings; None where its source alone does not say them
    settings: tuple[str, ...] | None = None
    #: the defaults of those settings, of which its source says them as literals
    defaults: Mapping[str, Any] = field(default_factory=dict)
    #: the names of all options of the decorator
    options: tuple[str, ...] = ()
    #: what it says of itself, with what the file of an attack says first; None where its source alone does not say it
    docstring: str | None = None
    #: the first line of its file
    theme: str = ""

    @property
    def builtin(self) -> bool:
        return isinstance(self.origin, Path) and _PACKAGE in self.origin.parents

    def __str__(self) -> str:
        return str(self.origin) if isinstance(self.origin, Path) else f"entry point {self.origin.value}"


@contextmanager
def including(paths: Iterable[Path]) -> Iterator[None]:
    """Search plugin files, or folders of them, too while this block runs (`--include-path`), in this thread.

    Within another such block they are added to its own. Raises UsageError when a path does not exist.
    """
    found = [expanded(path).resolve() for path in paths]
    for path in found:
        if not path.exists():
            raise UsageError(f"--include-path {path}: no such file or folder.")
    before = _included.set(tuple(dict.fromkeys((*_included.get(), *found))))
    try:
        yield
    finally:
        _included.reset(before)


def included() -> tuple[Path, ...]:
    """The files and folders that are searched too, here and now."""
    return _included.get()


def entries(kind: Kind) -> dict[str, Entry]:
    """All plugins of a kind by name, in the order built-in, included, installed.

    Raises UsageError when two places declare the same name: nothing is overridden silently.
    """
    included = (file for path in _included.get() for file in _python_files(path))
    found: dict[str, Entry] = {}
    for entry in (*_builtin(kind), *_declared(included, kind), *_from_packages()[kind]):
        if entry.name in found:
            raise UsageError(f"two {kind}s are named '{entry.name}': {found[entry.name]} and {entry}. Rename yours.")
        found[entry.name] = entry
    return found


@cache
def _builtin(kind: Kind) -> list[Entry]:
    module = _PACKAGE / KINDS[kind]
    files = _python_files(module if module.is_dir() else module.with_suffix(".py"))
    decorator = f"\n@{kind}(".encode()  # most of a start goes into syntax trees: none of files that have no plugin
    return list(_declared((path for path in files if decorator in path.read_bytes()), kind))


@cache
def _from_packages() -> dict[Kind, list[Entry]]:
    """What installed packages bring; looking through them takes a while."""
    from importlib.metadata import entry_points

    found = entry_points()
    points = {kind: found.select(group=f"grun_bench.{kind}s") for kind in KINDS}
    return {kind: [Entry(kind, each.name, f"from {each.value}", each) for each in points[kind]] for kind in KINDS}


def _python_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.glob("*.py"))
    return [path] if path.exists() else []


def _declared(files: Iterable[Path], kind: Kind) -> Iterator[Entry]:
    for path in files:
        yield from (entry for entry in _scan(path, path.read_bytes()) if entry.kind == kind)


@cache
def _scan(path: Path, content: bytes) -> list[Entry]:
    """The plugins that a source file declares, read from its syntax tree; a file that changed is another one."""
    try:
        tree = ast.parse(content)
    except SyntaxError as error:
        if _PACKAGE in path.parents:
            raise
        raise UsageError(
            f"{path}, line {error.lineno}: {error.msg}. The file given with --include-path must be Python."
        ) from None
    module, of_file, found = _module_name(path, content), ast.get_docstring(tree) or "", []
    theme = of_file.split("\n")[0].rstrip(".")
    for node in tree.body:
        for call in getattr(node, "decorator_list", []):
            if not isinstance(call, ast.Call) or not call.args or not isinstance(call.args[0], ast.Constant):
                continue
            called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)
            if called in CLASSES:
                own = ast.get_docstring(node) or ""  # type: ignore[arg-type]
                summary, said = own.split("\n")[0], f"{of_file}\n\n{own}" if called == "attack" else own
                name = str(call.args[0].value)
                found.append(
                    Entry(
                        called,
                        name,
                        summary,
                        path,
                        module,
                        declared=_literals(call),
                        settings=keywords(node),
                        defaults=defaults(node),
                        options=tuple(each.arg or "" for each in call.keywords),
                        docstring=said,
                        theme=theme,
                    )
                )
    return found


def keywords(node: ast.AST) -> tuple[str, ...] | None:
    """The keyword-only parameters of a function, or of a class's constructor; None where its source has none of that.

    The fields of a dataclass are those of its constructor.
    """
    found = _parameters(node)
    return None if found is None else tuple(found)


def defaults(node: ast.AST) -> dict[str, Any]:
    """The defaults of those parameters that have a literal for one."""
    found = {}
    for name, value in (_parameters(node) or {}).items():
        with suppress(ValueError):
            if value is not None:
                found[name] = ast.literal_eval(value)
    return found


def _parameters(node: ast.AST) -> dict[str, ast.expr | None] | None:
    if isinstance(node, ast.ClassDef):
        if any("kw_only=True" in ast.unparse(decorator) for decorator in node.decorator_list):
            fields = (each for each in node.body if isinstance(each, ast.AnnAssign))
            return {each.target.id: each.value for each in fields if _is_name(each.target)}
        inits = (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
        node = next(inits, node)
    if not isinstance(node, ast.FunctionDef):
        return None
    return {each.arg: value for each, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)}


def _is_name(node: ast.expr) -> TypeGuard[ast.Name]:
    return isinstance(node, ast.Name)


def _module_name(path: Path, content: bytes) -> str:
    """The name that a file is imported by. An included one's depends on its content: once edited it is read anew."""
    if _PACKAGE in path.parents:
        return ".".join(("grun_bench", *path.relative_to(_PACKAGE).with_suffix("").parts))
    import hashlib

    return f"{INCLUDED}{path.stem}_{hashlib.sha256(bytes(path) + content).hexdigest()[:16]}"


def _literals(call: ast.Call) -> dict[str, Any]:
    """The keyword arguments of a decorator that are literals."""
    found = {}
    for keyword in call.keywords:
        with suppress(ValueError):
            found[keyword.arg or ""] = ast.literal_eval(keyword.value)
    return found
