"""Libraries that a plain install lacks, and extras of this package bring. None is imported. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from grun_bench.core.errors import UsageError
from grun_bench.core.plugin_search import entries


def check_installed(what: str, module: str, extra: str) -> None:
    """Raises UsageError where `what` needs a library that is not installed, with the extra that installs it."""
    if not is_installed(module):
        raise UsageError(f"{needs({what: (module, extra)})}.")


def lacking(attacks: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Those of these attacks whose library is not installed, with it and the extra that brings it.

    Sources say what they need: of a plugin whose `extra` is no literal nothing is known here.
    """
    known = entries("attack")
    needed = {name: known[name].declared.get("extra") for name in attacks if name in known}
    return {name: (each[0], each[1]) for name, each in needed.items() if each and not is_installed(each[0])}


def is_installed(module: str) -> bool:
    """Whether a library can be imported, without doing so."""
    return find_spec(module) is not None


def needs(lacked: Mapping[str, tuple[str, str]]) -> str:
    """In words, what attacks need that is not here, and how it is had."""
    told = []
    for module, extra in dict.fromkeys(lacked.values()):
        names = [name for name, needed in lacked.items() if needed == (module, extra)]
        verb = "need" if len(names) > 1 else "needs"
        told.append(f"{' and '.join(names)} {verb} {module}: pip install 'grun-bench[{extra}]'")
    return ", and ".join(told)


def without(names: Iterable[str], asked: str = "all") -> str:
    """All attacks but these, or all that were `asked` for but these, as `--attacks` takes it."""
    return ",".join([asked, *(f"-{name}" for name in names)])
