"""What code of a plugin raised: whose it is, what, and where. No torch."""

from __future__ import annotations

import traceback
from types import CodeType

from grun_bench.core.errors import GrunBenchError, PluginError, UsageError, first_line
from grun_bench.core.plugins import INCLUDED, from_outside


def of_plugin(error: Exception) -> PluginError | None:
    """What to raise from an error that came out of a plugin of somebody's own; None where it came out of none."""
    own = [(module, code) for module, code, _ in _steps(error) if from_outside(module)]
    if not own:
        return None
    module, code = own[-1]
    of_file = from_outside(module)
    # the function that was called is further out than those that it called
    outer = [_whole(each) for one, each in own if one == module]
    called = [each for name in outer for each in of_file if _whole(each[1].target) == name]
    kind, plugin = (called or of_file)[0]
    include = f" --include-path {code.co_filename}" if module.startswith(INCLUDED) else ""
    return PluginError(
        f"{kind} '{plugin.name}' raised {with_place(error)}. `grun-bench test {plugin.name}{include}` checks it."
    )


def with_place(error: BaseException) -> str:
    """An error of somebody else's code in a line: its kind, what it says first, and where in a plugin it came about,
    or where it was raised. What a plugin gave the harness and it refused is said without its kind."""
    if isinstance(error, UsageError):
        return f"{str(error).rstrip('.')} ({place_of(error)})"
    text, name = first_line(error) if isinstance(error, Exception) else str(error), type(error).__name__
    return f"{name if text == name else f'{name}: {text}'} ({place_of(error)})"


def place_of(error: BaseException) -> str:
    """Where in a plugin an error came about; where it was raised, if in none."""
    steps = _steps(error)
    own = [step for step in steps if step[0].startswith(INCLUDED) or from_outside(step[0])]
    _, code, line = (own or steps)[-1]
    return f"{code.co_filename}, line {line}, in {code.co_qualname}"


def trace_of(error: GrunBenchError) -> str:
    """The traceback of what a plugin raised, for its author to read; "" where an error comes of nothing such."""
    cause = error.__cause__ if isinstance(error, PluginError) else None
    return "".join(traceback.format_exception(cause)) if isinstance(cause, Exception) else ""


def _steps(error: BaseException) -> list[tuple[str, CodeType, int]]:
    """The module, the function and the line of each call that an error came through, the outermost first."""
    steps = traceback.walk_tb(error.__traceback__)
    return [(frame.f_globals.get("__name__", ""), frame.f_code, line) for frame, line in steps]


def _whole(part: object) -> str:
    """The function or class of a file that a function, or its code, is a part of."""
    name = part.co_qualname if isinstance(part, CodeType) else getattr(part, "__qualname__", "")
    return name.partition(".")[0]
