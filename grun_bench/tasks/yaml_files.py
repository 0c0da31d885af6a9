"""Task files by name, and the keys in them before it is known whether they make a task. No pydantic, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from grun_bench.core.errors import UsageError, unknown
from grun_bench.core.escaping import clean

_PACKAGED = Path(__file__).with_name("files")
_REPOSITORY = Path(__file__).parents[2] / "tasks"
#: collections in collections; task files have four
MAX_DEPTH = 20


def task_folder() -> Path:
    """The folder of the packaged tasks; the repository's in an editable install."""
    return _PACKAGED if _PACKAGED.is_dir() else _REPOSITORY


def _files(include: Sequence[Path]) -> Iterator[Path]:
    for folder in (task_folder(), *include):
        if folder.is_dir():
            yield from sorted(folder.glob("*.yaml"))


def task_files(include: Sequence[Path] = ()) -> dict[str, Path]:
    """Task name -> file. Files that begin with `_` are parts to include, not tasks."""
    return {path.stem: path for path in _files(include) if not path.stem.startswith("_")}


def task_file(name: str, include: Sequence[Path] = ()) -> Path:
    """The file of a task by name, or by its own path. Raises UsageError for an unknown name."""
    if name.endswith(".yaml"):
        return Path(name)
    files = task_files(include)
    if name not in files:
        raise unknown("task", name, files, "`grun-bench ls tasks` lists them.")
    return files[name]


def read_yaml(path: Path, including: Sequence[Path] = ()) -> dict[str, Any]:
    """The keys of a YAML file, over those of the file that it includes: in the same folder, or else of the package.

    `including` are the files that include it. Raises UsageError, with the file, where there are no keys.
    """
    if path in including:
        chain = " includes ".join(each.name for each in (*including, path))
        raise UsageError(f"{including[0]}: a file that includes itself ({chain}).")
    settings = loaded(path)
    if not isinstance(settings, dict):
        raise UsageError(f"{path}: a task file is a mapping of keys; see tasks/tofu_forget10.yaml.")
    included = settings.pop("include", None)
    if included is None:
        return settings
    if not isinstance(included, str) or not included or Path(included).name != included:
        raise UsageError(
            f"{path}: include: {clean(repr(included), 100)} is not the name of a file in the same folder or of a "
            "packaged task."
        )
    beside, packaged = path.with_name(included), task_folder() / included
    found = packaged if _is_file(packaged) and not _is_file(beside) else beside
    return read_yaml(found, (*including, path)) | settings


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # no name of a file, which reading it says
        return False


def description(path: Path) -> str:
    """What a task file says of itself, or one that it includes; "" where none does.

    A file is read up to there: a list of names needs no more of it, and its faults are told when it is named. Raises
    UsageError, with the file, for what cannot be read before that.
    """
    said = _first_text(path, "description")
    return said if said is not None else str(read_yaml(path).get("description", ""))


def _first_text(path: Path, key: str) -> str | None:
    """The text under a key of the file's mapping; None where there is none. What comes after it is not looked at."""
    import yaml

    depth, of_key, found = 0, True, False
    with _told(path):
        for event in yaml.parse(path.read_text(encoding="utf-8"), _loader()):
            if depth == 1 and isinstance(event, yaml.NodeEvent):
                text = event.value if isinstance(event, yaml.ScalarEvent) else None
                if found:
                    return text
                of_key, found = not of_key, of_key and text == key
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
    return None


def loaded(path: Path) -> Any:
    """What a YAML file holds. Raises UsageError, with the file, for what cannot be read."""
    import yaml

    with _told(path):
        text, depth = path.read_text(encoding="utf-8"), 0
        for event in yaml.parse(text, _loader()):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:  # the loader in C would end the process
                raise UsageError(f"{path}: nested deeper than {MAX_DEPTH}.")
        return yaml.load(text, _loader())


def _loader() -> Any:
    import yaml  # takes a moment, and an unknown name is told without

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times faster


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raises UsageError, with the file, for what cannot be read in this block."""
    import yaml

    try:
        yield
    except OSError as error:
        raise UsageError(f"{clean(str(path), 300)}: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text (byte {error.start}).") from None
    except (yaml.YAMLError, ValueError) as error:  # a date or number that is none
        raise UsageError(f"{path}: not YAML ({clean(' '.join(str(error).split()), 300)}).") from None
