"""What commands share: options, each declared once, and how their values are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import MISSING, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from grun_bench.core import registry
from grun_bench.core.calls import plugins_told
from grun_bench.core.errors import UsageError
from grun_bench.core.escaping import shown
from grun_bench.core.given import listed
from grun_bench.core.printing import results_alone
from grun_bench.core.progress import quiet
from grun_bench.runs.config import MAX_SEED

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def include(context: typer.Context, paths: list[Path]) -> list[Path]:
    """Search plugins there too, from when the option is read until the command ends."""
    context.with_resource(registry.including(paths))
    return paths


Include = Annotated[
    list[Path],
    typer.Option("--include-path", help="A plugin file, or a folder of plugins and task YAML.", callback=include),
]
Output = Annotated[Path, typer.Option("--output", help="Folder of the result files.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result file instead of tables.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run id, its beginning, or the path of a result file.")]


def _be_quiet(context: typer.Context, asked: bool) -> bool:
    """Say nothing from when the option is read until the command ends."""
    if asked and not context.resilient_parsing:
        context.with_resource(quiet())
    return asked


#: an option of every command
QUIET = inspect.Parameter(
    "quiet",
    _KEYWORD,
    default=False,
    annotation=Annotated[
        bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.", callback=_be_quiet)
    ],
)


class OptionGroup:
    """The base of dataclasses whose fields are options that several commands have."""


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command with each parameter that is a group of options given as the group's fields, an option each, and with
    what every command has."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, Any] = {each.name: each.annotation for each in own if _is_group(each.annotation)}

    @wraps(command)
    def called(**given: Any) -> None:
        del given[QUIET.name]  # done where it is read
        for name, group in groups.items():
            given[name] = group(**{each.name: given.pop(each.name) for each in fields(group)})
        with results_alone() if given.get("as_json") else nullcontext(), plugins_told():
            command(**given)

    spread = [each for one in own for each in (_options(one.annotation) if one.name in groups else [_keyword(one)])]
    called.__signature__ = inspect.Signature([*spread, QUIET])  # type: ignore[attr-defined]
    return called


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, OptionGroup)


def _options(group: Any) -> list[inspect.Parameter]:
    """The fields of a class of options as keyword parameters of a command."""
    types = get_type_hints(group, include_extras=True)

    def default(each: Any) -> Any:
        if each.default_factory is not MISSING:
            return each.default_factory()
        return inspect.Parameter.empty if each.default is MISSING else each.default

    return [
        inspect.Parameter(each.name, _KEYWORD, default=default(each), annotation=types[each.name])
        for each in fields(group)
    ]


def _keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=_KEYWORD)


def parsed(pairs: Sequence[str], option: str = "--set") -> dict[str, Any]:
    """Settings from `key=value`, values read as YAML. Raises UsageError for anything else."""
    return {key: value for pair in pairs for key, value in [_setting(pair, option)]}


def tried(pairs: Sequence[str]) -> dict[str, list[Any]]:
    """The same where a key may come again: all its values, in their order."""
    values: dict[str, list[Any]] = {}
    for pair in pairs:
        key, value = _setting(pair, "--set")
        values.setdefault(key, []).append(value)
    return values


def _setting(pair: str, option: str) -> tuple[str, Any]:
    import yaml  # takes a moment, and most runs set nothing

    key, separator, value = pair.partition("=")
    if not separator or not key:
        raise UsageError(f"{option} {pair}: write it as key=value.")
    try:
        return key, yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):  # odd dates, and numbers too long for Python
        raise UsageError(f"{option} {shown(key)}={shown(value)}: its value is no number, word or [list].") from None


def names(option: str, texts: Sequence[str]) -> list[str]:
    """The names that an option which may be repeated was given, each time one or several with commas between."""
    return [name for text in texts for name in listed(option, text)]


def mapped(text: str) -> dict[str, str]:
    """Names from `ours=theirs,...`. Raises UsageError for anything else."""
    pairs = [part.partition("=") for part in listed("--columns", text)]
    if odd := next((ours for ours, _, theirs in pairs if not ours.strip() or not theirs.strip()), None):
        raise UsageError(f"--columns {odd}: write it as question=Q,answer=A.")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def numbers(option: str, text: str) -> tuple[float, ...]:
    """The numbers between commas. Raises UsageError for anything else."""
    try:
        return tuple(map(float, listed(option, text)))
    except ValueError:
        raise UsageError(f"{option} {text}: must be numbers with commas between, as in 0.5,1.5.") from None


def seeded(text: str) -> list[int]:
    """The seeds of `--seeds`. Raises UsageError for none, and for what is no seed."""
    found = listed("--seeds", text)
    if not found or not all(each.isdecimal() and len(each) < 11 and int(each) <= MAX_SEED for each in found):
        raise UsageError(f"--seeds {text}: write whole numbers with commas between, as in 0,1,2, up to {MAX_SEED}.")
    return list(map(int, found))


def batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise UsageError(f"--batch-size {text}: write auto or a whole number above 0.")
    return int(text)
