"""The direction of imports between the folders, and how little the light commands load."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import grun_bench

PACKAGE = Path(grun_bench.__file__).parent

#: top first; a file imports from its own folder and from those below it, and from nothing above
LAYERS: list[list[str]] = [
    ["__main__"],
    ["cli"],
    ["terminal", "rerun"],
    ["reports"],
    ["matrix"],
    ["tuning"],
    ["runs", "plugin_checks"],
    ["leaderboard"],
    ["integrations"],
    ["attacks"],
    ["methods"],
    ["models"],
    ["metrics"],
    ["results"],
    ["tasks"],
    ["core"],
]
#: importable without torch
LIGHT = {"core", "tasks", "results", "metrics", "leaderboard", "reports", "terminal", "cli"}


def module_of(path: Path) -> str:
    """The module's name in the layers: a family's files go by the family."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


class Imports(ast.NodeVisitor):
    """The package's modules that a file imports, anywhere in it but under `if TYPE_CHECKING`."""

    def __init__(self) -> None:
        self.found: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" not in ast.unparse(node.test):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            parts = alias.name.split(".")
            if parts[0] == "grun_bench":
                self.found.add(parts[1] if len(parts) > 1 else "__init__")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "the package imports itself by its full name"
        parts = (node.module or "").split(".")
        if parts[0] == "grun_bench":
            self.found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}


def imports_of(text: str) -> set[str]:
    visitor = Imports()
    visitor.visit(ast.parse(text))
    return visitor.found


def forbidden(module: str, imported: str) -> str | None:
    """Why `module` may not import `imported`; None when it may."""
    places = {name: place for place, names in enumerate(LAYERS) for name in names}
    if imported in (module, "__init__"):
        return None
    if imported not in places:
        return f"{imported} is in no layer"
    return None if places[imported] > places[module] else f"{imported} is not below {module}"


@pytest.mark.long
def test_imports_point_downwards() -> None:
    broken = [
        f"{path.relative_to(PACKAGE)}: {reason}"
        for path in sources()
        for imported in sorted(imports_of(path.read_text(encoding="utf-8")))
        if (reason := forbidden(module_of(path), imported))
    ]
    assert not broken


def test_every_module_is_in_a_layer() -> None:
    assert {module_of(path) for path in sources()} == {name for layer in LAYERS for name in layer}


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("core", "from grun_bench.tasks import task"),
        ("models", "from grun_bench.methods.objectives import ga"),
        ("results", "def late():\n    from grun_bench.models.forward import LM"),
        ("metrics", "import grun_bench.attacks.prefix"),
        ("terminal", "from grun_bench import cli"),
        ("cli", "from grun_bench.nowhere import thing"),
    ],
)
def test_the_check_sees_wrong_imports(module: str, text: str) -> None:
    assert any(forbidden(module, imported) for imported in imports_of(text))


def test_the_check_lets_types_through() -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from grun_bench.methods.batch import Side"
    assert imports_of(text) == set()


#: lines of a class and of a function; how many ways lead through a function is ruff's to say
LONGEST = {ast.ClassDef: 250, ast.FunctionDef: 60, ast.AsyncFunctionDef: 60}


@pytest.mark.long
def test_no_class_and_no_function_is_too_long() -> None:
    long = [
        f"{path.relative_to(PACKAGE)}: {node.name} has {lines} lines"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST[type(node)]
    ]
    assert not long


# --- what the light commands load -------------------------------------------------------------------------------------


@pytest.mark.long
def test_light_modules_load_no_torch() -> None:
    modules = [
        ".".join(("grun_bench", *path.relative_to(PACKAGE).with_suffix("").parts))
        for path in sources()
        if module_of(path) in LIGHT and path.name != "__init__.py"
    ]
    assert len(modules) > len(LIGHT)
    code = f"import sys\nfor name in {modules!r}:\n    __import__(name)\n    assert 'torch' not in sys.modules, name"
    subprocess.run([sys.executable, "-c", code], check=True)


COMMANDS = {
    "run help": (["run", "--help"], 0),
    "unknown unlearner": (["run", "--unlearner", "npoo", "--task", "tofu_forget10"], 2),
    "unknown pair": (["run", "--unlearner", "grum+npo", "--task", "tofu_forget10"], 2),
    "unknown task": (["run", "--unlearner", "npo", "--task", "tofu_forget1"], 2),
    "unknown attack": (["run", "--unlearner", "npo", "--task", "tofu_forget10", "--attacks", "sufix"], 2),
    "unknown tracker": (["run", "--unlearner", "npo", "--task", "tofu_forget10", "--track", "wanbd"], 2),
    "unknown option": (["run", "--unlearnr", "npo", "--task", "tofu_forget10"], 2),
    "ls": (["ls"], 0),
    "help": (["--help"], 0),
}


#: what takes a moment to load and none of these commands needs; the last ones load schemas of pydantic and sockets
HEAVY = (
    *("torch", "transformers", "datasets", "peft", "lm_eval", "pandas", "scipy", "numpy", "rich.console"),
    *("grun_bench.tasks.task", "grun_bench.results.result", "grun_bench.core.patches"),
)
#: what one command needs and the others do not: files of commands, and what reads those of tasks
PARTS = [
    f"grun_bench.cli.{path.stem}"
    for path in (PACKAGE / "cli").glob("[a-z]*.py")
    if path.stem not in ("commands", "options", "mistyped")
]
LOADED = {"run help": {"grun_bench.cli.running"}, "ls": {"grun_bench.cli.reading", "yaml"}, "help": {*PARTS}}


def test_light_commands_load_nothing_heavy(tmp_path: Path) -> None:
    """One after another in a process that has loaded nothing: who does is the first that says so.

    A command loads its own file of `cli/` alone; the last of them, which tells of all, loads all.
    """
    program = (
        "import json, sys\n"
        "from grun_bench.cli import main\n"
        f"for name, (arguments, code) in {COMMANDS}.items():\n"
        "    sys.argv, ended = ['grun-bench', *arguments], None\n"
        "    try:\n        main()\n"
        "    except SystemExit as exit:\n        ended = exit.code or 0\n"
        f"    loaded = [each for each in {HEAVY} if each in sys.modules]\n"
        f"    own = [each for each in {[*PARTS, 'yaml']} if each in sys.modules]\n"
        "    print('ENDED', json.dumps([name, ended == code, loaded, sorted(own)]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "200"},
    )
    ended = [json.loads(line.removeprefix("ENDED")) for line in done.stdout.splitlines() if line.startswith("ENDED")]
    assert [name for name, *_ in ended] == list(COMMANDS), done.stderr
    wanted: set[str] = set()
    for name, right, heavy, own in ended:
        wanted |= LOADED.get(name, set())
        assert (right, heavy, set(own)) == (True, [], wanted), name
