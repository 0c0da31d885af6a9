"""Pages of the command line, of the front door from Python, of training settings and of the result file."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import grun_bench
from grun_bench.cli import app
from grun_bench.core.settings import bounds_of
from grun_bench.methods import recipes
from grun_bench.methods.recipes import Recipe
from grun_bench.methods.retain_terms import RETAIN_TERMS
from grun_bench.results.record import Record
from grun_bench.results.result import SCHEMA_VERSION, Result
from making.words import cell, code, docstring, page, parts, table

# --- the command line -------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Every command with its options, as `--help` says them."""
    group: Any = typer.main.get_command(app)
    texts = ["Every command with its options, as `grun-bench COMMAND --help` says them."]
    texts += [table(("command", "what it does"), [(f"[{name}](#{name})", _short(each)) for name, each in _of(group)])]
    for name, command in _of(group):
        texts += [f"## {name}", _safe(inspect.cleandoc(command.help or "")), _usage(name, command)]
        texts += [_options(command)]
    return page("The command line", *texts)


def _of(group: Any) -> Iterator[tuple[str, Any]]:
    yield from group.commands.items()


def _short(command: Any) -> str:
    return _safe(inspect.cleandoc(command.help or command.short_help or "").split("\n")[0])


def _usage(name: str, command: Any) -> str:
    arguments = [_metavar(each) for each in command.params if each.param_type_name == "argument"]
    return f"```text\ngrun-bench {' '.join([name, '[OPTIONS]', *arguments])}\n```"


def _metavar(argument: Any) -> str:
    word = argument.metavar or argument.name.upper()
    many = f"{word}{'...' if argument.nargs == -1 else ''}"
    return many if argument.required else f"[{many}]"


def _options(command: Any) -> str:
    rows = []
    for each in command.params:
        if each.param_type_name == "option" and not each.hidden:
            names = ", ".join(map(code, [*each.opts, *each.secondary_opts]))
            default = "" if each.default in (None, False, [], ()) or callable(each.default) else cell(str(each.default))
            rows.append((names, _safe(each.help or ""), default))
        elif each.param_type_name == "argument" and getattr(each, "help", None):
            rows.append((code(_metavar(each)), _safe(each.help), ""))
    return table(("option", "what it says", "default"), rows)


def _safe(text: str) -> str:
    """Help as Markdown: what a browser would take for a tag is none."""
    return text.replace("<", "&lt;").replace("|", "\\|").replace("*", "\\*")


# --- from Python ------------------------------------------------------------------------------------------------------


def reference_page() -> str:
    """What `grun_bench` offers: signatures and docstrings."""
    texts = [docstring(grun_bench), "[From Python](python.md) shows them in use."]
    for name in grun_bench._PLACES:
        texts += list(_entry(name, getattr(grun_bench, name)))
    return page("Python reference", *texts)


def _entry(name: str, what: Any) -> Iterator[str]:
    yield f"## {code(f'grun_bench.{name}')}"
    if isinstance(what, type) and issubclass(what, Exception):
        yield f"An exception, of `{what.__mro__[1].__name__}`."
        yield docstring(what)
        return
    yield f"```python\n{name}{_signature(what)}\n```"
    yield docstring(what)
    if isinstance(what, type):
        for member, value in vars(what).items():
            if not member.startswith("_") and isinstance(value, property | staticmethod | classmethod):
                yield f"### {code(f'{name}.{member}')}\n\n{docstring(value)}"
            elif not member.startswith("_") and inspect.isfunction(value):
                yield f"### {code(f'{name}.{member}{_signature(value)}')}\n\n{docstring(value)}"


def _signature(of: Any) -> str:
    """A signature without the modules' names, one parameter a line where it is long."""
    said = re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", str(inspect.signature(of)).replace("'", ""))
    if len(said) <= 100:
        return said
    parameters, _, returned = said[1:].rpartition(")")
    return "(\n    " + re.sub(r", (?=[\w*]+(?:[:=,]|$))", ",\n    ", parameters) + f",\n){returned}"


# --- settings of training ---------------------------------------------------------------------------------------------


def training_table() -> str:
    """The settings of training that every pair has, with what the source says of each."""
    bounds, comments = bounds_of(Recipe), _comments(Path(recipes.__file__).read_text(encoding="utf-8"))
    rows = [
        (
            code(each.name),
            cell(each.default) or "the objective's",
            bounds[each.name].words if each.name in bounds else type(each.default).__name__.replace("NoneType", "str"),
            _safe(comments.get(each.name, "")),
        )
        for each in fields(Recipe)
    ]
    terms = [(code(name), parts(term.loss)[0].replace("|", "\\|")) for name, term in RETAIN_TERMS.items()]
    return (
        f"## Every training setting\n\n{docstring(Recipe)}\n\n"
        + table(("setting", "default", "must be", "what it is"), rows)
        + "\n[Recipes](../RECIPES.md) and the pages of methods say which values stand in place of these.\n\n"
        + "## Retain terms\n\n`retain` names one of these; `retain_weight` weighs it.\n\n"
        + table(("retain", "loss"), terms)
    )


def _comments(source: str) -> dict[str, str]:
    """The comments `#:` before fields, by the field's name."""
    found: dict[str, str] = {}
    said: list[str] = []
    for line in map(str.strip, source.splitlines()):
        if line.startswith("#:"):
            said.append(line[2:].strip())
        elif said:
            found[line.partition(":")[0]] = " ".join(said)
            said = []
    return found


# --- the result file --------------------------------------------------------------------------------------------------


def result_page() -> str:
    """The schema of results and of records."""
    texts = [
        f"A run leaves one JSON file, here its schema version {SCHEMA_VERSION}; older ones are still read. "
        "[Numbers and results](results.md) says what is filed where."
    ]
    seen: list[type[BaseModel]] = []
    _collect(Result, seen)
    for model in seen:
        texts += [f"## {model.__name__}", docstring(model), _fields(model)]
    texts += ["## A line of the records", docstring(Record), _annotations(Record)]
    return page("The result file", *texts)


def _collect(model: type[BaseModel], seen: list[type[BaseModel]]) -> None:
    if model in seen:
        return
    seen.append(model)
    for each in model.model_fields.values():
        for held in _models(each.annotation):
            _collect(held, seen)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models(each)


def _fields(model: type[BaseModel]) -> str:
    rows = [
        (code(each.alias or name), code(_type(each.annotation)), "must be there" if each.is_required() else _left(each))
        for name, each in model.model_fields.items()
    ]
    return table(("key", "type", "where it is left out"), rows)


def _left(each: FieldInfo) -> str:
    return cell("null" if each.default is None else str(each.get_default(call_default_factory=True)))


def _type(annotation: Any) -> str:
    text = inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text).replace("typing.", "").replace("NoneType", "None")


def _annotations(cls: type) -> str:
    rows = [(code(each.name), code(str(each.type))) for each in fields(cls)]
    return table(("key", "type"), rows)
