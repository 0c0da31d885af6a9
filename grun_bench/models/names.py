"""What a model may be called: a folder, one of a mirror, or <org>/<name> on the Hub. No torch; nothing is fetched."""

from __future__ import annotations

import difflib
from contextlib import suppress
from pathlib import Path

from grun_bench.core import environment as env
from grun_bench.core.errors import ModelError

#: the model that lives in the toy world, by its name on the command line
TINY = "tiny"


def folder_of(name: str) -> Path | None:
    """The folder that is given as a path or found in a mirror; None where there is none."""
    return next((each for each in (env.expanded(name), *mirrored(name)) if each.is_dir()), None)


def folder_name(path: Path) -> str:
    """The <org>/<name> that the last two parts of a folder's path make."""
    return "/".join(path.resolve().parts[-2:])


def for_others(value: str) -> str:
    """A setting that may be a folder of this machine, as others are told it."""
    return folder_name(Path(value)) if Path(value).is_absolute() else value


def mirrored(name: str) -> list[Path]:
    """Where mirrors would have a model."""
    return [mirror / name for mirror in env.mirrors()]


def hub_id(name: str, hint: str = "") -> tuple[str, str | None]:
    """The repository and the revision, None for the newest, of <org>/<name> or <org>/<name>@<revision>.

    Raises ModelError for what is no name on the Hub, with near names, and `hint` saying what else may be named.
    """
    repository, _, revision = name.partition("@")
    if name.startswith(("/", "~", ".")) or repository.count("/") != 1:
        raise ModelError(f"model {name}: no such folder, and a Hub id is <org>/<name>{hint}.{near(name)}")
    return repository, revision or None


def near(name: str) -> str:
    """The folders beside the one that was meant, and the models of mirrors, that are called nearly so; "" for none."""
    path, found = env.expanded(name), []
    with suppress(OSError):
        found += [str(Path(name).with_name(each.name)) for each in path.parent.iterdir() if each.is_dir()]
    for mirror in env.mirrors():
        with suppress(OSError):
            found += [each.relative_to(mirror).as_posix() for each in mirror.glob("*/*") if each.is_dir()]
    close = difflib.get_close_matches(name, dict.fromkeys(found), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(close)}?" if close else ""
