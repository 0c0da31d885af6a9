"""The command line. Tables on stdout, the rest on stderr; exit codes 0, 1 failed, 2 usage, 130 interrupted, 143 and 129
stopped by SIGTERM and SIGHUP."""

from __future__ import annotations

import codecs
import errno
import io
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import grun_bench
from grun_bench.cli.commands import Commands
from grun_bench.cli.commands import ParserError as ParserError
from grun_bench.core import processes
from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.core.escaping import lines
from grun_bench.core.printing import Closed, open_streams
from grun_bench.core.raised import trace_of
from grun_bench.core.signals import Stopped, stopping

app = typer.Typer(
    name="grun-bench",
    cls=Commands,
    help="Train, score and compare unlearning methods for language models.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"max_content_width": 100, "help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"grun-bench {grun_bench.__version__}")
        raise typer.Exit


@app.callback()
def _every_command(
    version: Annotated[
        bool, typer.Option("--version", help="Say the version and end.", callback=_tell_version, is_eager=True)
    ] = False,
) -> None:
    """Train, score and compare unlearning methods for language models."""


#: what a terminal without these signs shows; any other is a question mark
_SIGNS = {"↑": "^", "↓": "v"}
#: what a full disk and a reader that is gone make of a line
_UNWRITTEN = (errno.ENOSPC, errno.EPIPE)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_SIGNS.get(each, "?") for each in error.object[error.start : error.end]), error.end


codecs.register_error("grun-bench", _in_ascii)


def _flushed() -> int:
    """Writes out what is still held back. The exit code."""
    if isinstance(sys.stdout, Closed):
        return _lost("stdout is closed") if sys.stdout.getvalue() else 0
    try:
        sys.stdout.flush()
    except OSError as error:
        return _unwritten(error)
    return 0


def _unwritten(error: OSError) -> int:
    """The exit code where stdout takes no more: a reader that has read enough is no failure, a full disk is one."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if error.errno == errno.EPIPE:
        return 0
    return _lost(error.strerror)


def _lost(why: str | None) -> int:
    print(f"error: the output could not be written ({why}).", file=sys.stderr)
    return 1


@open_streams()
def main() -> None:
    """The entry point: expected errors as one message and an exit code, no traceback but of what a plugin raised."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if os.path.expanduser("~") == "~" and (cache := os.environ.get("GRUN_BENCH_CACHE")):  # noqa: PTH111
        os.environ["HOME"] = cache  # libraries keep things there, and some do not start without a home
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="grun-bench")
    code = max(_done(), _flushed())
    if code > 128:
        why = "interrupted" if code == 130 else f"stopped by {signal.Signals(code - 128).name}"
        left = "nothing half-written is left, and the same command goes on with what is done."
        if processes.first():
            print(f"{why}; {left}", file=sys.stderr)
    sys.exit(code)


def _done() -> int:
    """Does what was asked for. The exit code."""
    try:
        return _ran()
    except ParserError as error:
        _show_parser_error(error)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Stopped as stopped:
        return stopped.exit_code
    except GrunBenchError as error:
        if message := processes.to_tell(lines(str(error))):
            sys.stderr.write(trace_of(error))
            print(f"error: {message}", file=sys.stderr)
        return error.exit_code
    except SystemExit as ended:
        # how the libraries that print end the program when nobody reads on
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        return 0
    except OSError as error:
        if error.errno not in _UNWRITTEN:
            raise
        return _unwritten(error)


def _ran() -> int:
    """Does what was asked for. Raises GrunBenchError too where another process of the same run failed."""
    try:
        _check_here()
        with stopping():
            return app(standalone_mode=False) or 0
    except (Stopped, RuntimeError) as error:
        if reason := processes.failed_elsewhere(error):
            raise GrunBenchError(reason) from error
        raise


def _check_here() -> None:
    """Raises UsageError where the current folder is gone: nothing relative can be found then, nor a path made whole."""
    try:
        Path.cwd()
    except OSError as error:
        raise UsageError(f"the current folder is gone ({error.strerror}): change to another one.") from None


def _show_parser_error(error: Any) -> None:
    if not processes.first():
        return
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    hint = f" `{error.ctx.command_path} --help` says more." if getattr(error, "ctx", None) else ""
    message = lines(error.format_message())
    print(f"error: {message}{'' if message.endswith(('.', '?')) else '.'}{hint}", file=sys.stderr)
