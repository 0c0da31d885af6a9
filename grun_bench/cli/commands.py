"""The commands by name. Each is imported, and its options made, when it is asked for: a start makes one, not all."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from grun_bench.cli.mistyped import check_words, translated
from grun_bench.cli.options import with_groups
from grun_bench.core.errors import UsageError

#: command -> module of this folder and function
COMMANDS = {
    "run": "running.run",
    "attack": "running.attack",
    "sweep": "sweeping.sweep",
    "tune": "tuning.tune",
    "ls": "reading.list_names",
    "show": "reading.show",
    "compare": "judging.compare",
    "report": "judging.report",
    "meta-eval": "judging.meta_eval",
    "depth": "judging.depth",
    "import": "reading.import_log",
    "convert": "reading.convert",
    "export": "exporting.export",
    "share": "sharing.share",
    "leaderboard": "reading.leaderboard",
    "cite": "reading.cite",
    "test": "contributing.test_plugin",
    "submit": "contributing.submit",
    "verify": "contributing.verify",
    "cache": "caching.cache",
    "lm-eval": "harness.lm_eval",
}
#: the errors of parsing; newer versions of typer carry their own copy of click
ParserError: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
#: commands that hand what follows to another program, options and all
HANDED_ON = {"lm-eval"}


class Command(TyperCommand):
    """A command whose options have a value if they are given: an empty one is mostly a variable that was not set, and
    would be this folder where a path is asked for, or the default where a name is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        typed = list(args)
        try:
            given, words, _ = self.make_parser(ctx).parse_args(args=list(args))
            for each in self.params:
                values = given.get(each.name or "")
                if each.param_type_name == "option" and each.default != "" and "" in (values, *_several(values)):
                    raise UsageError(f"{each.opts[0]}: its value is empty. Say one, or do not give it.")
            check_words(self, ctx, typed, given, words)
            return super().parse_args(ctx, args)
        except ParserError as error:
            raise translated(error, self, ctx, typed) from None


def _several(values: Any) -> tuple[Any, ...]:
    return tuple(values) if isinstance(values, list | tuple) else ()


class Made(Mapping[str, Any]):
    """Name -> command as Typer makes it, made at the first look and kept."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _made(name, COMMANDS[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class Commands(TyperGroup):
    """A group whose commands are not made before they are needed."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands: Any = Made()


def _made(name: str, place: str) -> Any:
    module, _, function = place.partition(".")
    command = getattr(importlib.import_module(f"grun_bench.cli.{module}"), function)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    passed: dict[str, Any] = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    settings = passed if name in HANDED_ON else None
    # given as short help, a docstring is not cut at the first line's width
    kind = TyperCommand if name in HANDED_ON else Command
    declare = alone.command(name, cls=kind, short_help=command.__doc__, context_settings=settings)
    declare(command if name in HANDED_ON else with_groups(command))
    return typer.main.get_command(alone)
