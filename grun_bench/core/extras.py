"""Libraries that an extra of this package installs. No torch."""

from __future__ import annotations

from importlib.util import find_spec

from grun_bench.core.errors import UsageError


def check_installed(what: str, module: str, extra: str) -> None:
    """Raises UsageError where `what` needs a library that is not installed, with the extra that installs it."""
    if find_spec(module) is None:
        raise UsageError(f"{what} needs {module}: pip install 'grun-bench[{extra}]'.")
