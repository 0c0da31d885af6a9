"""The command line. Tables on stdout, the rest on stderr; exit codes 0, 1 failed, 2 usage, 130 interrupted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from grun_bench.cli import contributing, harness, reading, running
from grun_bench.cli.options import with_groups
from grun_bench.core.errors import GrunBenchError
from grun_bench.core.escaping import lines

app = typer.Typer(
    name="grun-bench",
    help="Train, score and compare unlearning methods for language models.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100},
    add_completion=False,
    pretty_exceptions_enable=False,
)
COMMANDS: dict[str, Callable[..., None]] = {
    "run": running.run,
    "attack": running.attack,
    "sweep": running.sweep,
    "ls": reading.list_names,
    "show": reading.show,
    "import": reading.import_log,
    "convert": reading.convert,
    "leaderboard": reading.leaderboard,
    "test": contributing.test_plugin,
    "submit": contributing.submit,
    "verify": contributing.verify,
}
for name, command in COMMANDS.items():
    # given as short help, a docstring is not cut at the first line's width
    app.command(name, short_help=command.__doc__)(with_groups(command))
app.command("lm-eval", context_settings=harness.SETTINGS, short_help=harness.lm_eval.__doc__)(harness.lm_eval)

#: the base of the errors of parsing; newer versions of typer carry their own copy of click
ParserError: type[Exception] = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def main() -> None:
    """The entry point: expected errors as one message and an exit code, never a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        code = app(standalone_mode=False)
    except ParserError as error:
        _show_parser_error(error)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except GrunBenchError as error:
        print(f"error: {lines(str(error))}", file=sys.stderr)
        code = error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    if code == 130:
        print(
            "interrupted; nothing half-written is left, and the same command goes on with what is done.",
            file=sys.stderr,
        )
    sys.exit(code or 0)


def _show_parser_error(error: Any) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    hint = f" `{error.ctx.command_path} --help` says more." if getattr(error, "ctx", None) else ""
    message = lines(error.format_message())
    print(f"error: {message}{'' if message.endswith(('.', '?')) else '.'}{hint}", file=sys.stderr)
