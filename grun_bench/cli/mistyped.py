"""What was meant by an option that a command does not have, and by a word that stands beside its options. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from grun_bench.core.errors import UsageError, in_plain_words
from grun_bench.core.escaping import clean

#: what some commands call as others do not
_ELSEWHERE = {"--output": "--results", "--results": "--output"}
#: the option that settings go through
_SET = "--set"


def translated(error: Exception, command: Any, ctx: Any, args: Sequence[str]) -> Exception:
    """An error of the parser as this package says it; the error itself where that is said well already."""
    kind = type(error).__name__
    if kind == "NoSuchOption":
        return _no_option(error, command, ctx, args)
    if kind == "BadParameter":
        return _bad_value(error, command, ctx, args)
    return error


def check_words(command: Any, ctx: Any, args: Sequence[str], given: Mapping[str, Any], words: Sequence[str]) -> None:
    """Raises UsageError for words that are no value of an option and no argument, with the command that was meant."""
    if not words or given.get("help"):
        return
    place = next((at for at in range(len(args)) if list(args[at : at + len(words)]) == list(words)), 0)
    option, value = args[place - 2 : place] if place > 1 else ("", "")
    meant = _meant(command, given, option, value, words)
    told = f" Did you mean {meant}?" if meant else ""
    raise UsageError(f"{' '.join(words)}: no option is before it.{told}{_help(ctx)}")


def _meant(command: Any, given: Mapping[str, Any], option: str, value: str, words: Sequence[str]) -> str:
    """What words after the value of an option, or before all of them, are meant as; "" where that cannot be told."""
    known = _options(command)
    if param := known.get(option):
        if param.metavar and "=" in param.metavar:
            return f"{option} {shlex.quote(f'{value}={words[0]}')}" if "=" not in value else f"{option} {words[0]}"
        if "," in (param.metavar or ""):
            return f"{option} {','.join((value, *words))}"
        if param.multiple:
            return " ".join(f"{option} {shlex.quote(each)}" for each in (value, *words))
    if "--unlearner" in known and not given.get("unlearner"):
        return f"--unlearner {shlex.quote(words[0])}"
    return ""


def _no_option(error: Any, command: Any, ctx: Any, args: Sequence[str]) -> Exception:
    option, known = error.option_name, _options(command)
    if (other := _ELSEWHERE.get(option)) in known:
        return UsageError(f"no such option {option}: `{ctx.command_path}` takes {other}.{_help(ctx)}")
    if ctx.parent and option in _options(ctx.parent.command.get_command(ctx, "run")):
        return UsageError(f"no such option {option}, which goes with `{ctx.parent.command_path} run`.{_help(ctx)}")
    if _SET not in known or (error.possibilities not in (None, [], ["--help"]) and not _setting(option)):
        return error
    if name := _setting(option):
        value = shlex.quote(f"{name}={_value(option, args)}")
        return UsageError(f"no such option {option}; did you mean {_SET} {value}?{_help(ctx)}")
    return UsageError(f"no such option {option}; settings of a method go through {_SET} NAME=VALUE.{_help(ctx)}")


def _setting(option: str) -> str:
    """The setting of a method that an option which is none is called as; "" for none."""
    from grun_bench.core.settings import here
    from grun_bench.runs.early import all_settings

    name = option.lstrip("-").replace("-", "_")
    known = all_settings()
    return name if name in known else here(name) if here(name) in known else ""


def _value(option: str, args: Sequence[str]) -> str:
    """What stands after an option."""
    for at, each in enumerate(args):
        if each.startswith(f"{option}="):
            return each.partition("=")[2]
        if each == option and at + 1 < len(args) and not args[at + 1].startswith("--"):
            return args[at + 1]
    return "VALUE"


def _bad_value(error: Any, command: Any, ctx: Any, args: Sequence[str]) -> Exception:
    """In plain words what is wrong with a value, with the value, which is not repeated where it is long."""
    option = next(iter(getattr(error.param, "opts", ())), "")
    if not option.startswith("--"):
        return error
    value = _value(option, args)
    said = in_plain_words(error.message).replace("Input should be", "must be").replace(repr(value), "it")
    several = "; `grun-bench sweep --seeds` takes several" if option == "--seed" and "," in value else ""
    return UsageError(f"{option} {clean(value, 60)}: {clean(said, 200).rstrip('.')}{several}.{_help(ctx)}")


def _options(command: Any) -> dict[str, Any]:
    return dict(_named(command.params))


def _named(params: Sequence[Any]) -> Iterator[tuple[str, Any]]:
    for each in params:
        if each.param_type_name == "option":
            yield from ((name, each) for name in each.opts)


def _help(ctx: Any) -> str:
    return f" `{ctx.command_path} --help` says more."
