"""Task files by name, and the keys in them before it is known whether they make a task. No pydantic, no torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from grun_bench.core.errors import UsageError, unknown

_PACKAGED = Path(__file__).with_name("files")
_REPOSITORY = Path(__file__).parents[2] / "tasks"


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


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys of a YAML file, over those of the file it includes. Raises UsageError when there are none."""
    import yaml  # takes a moment, and an unknown name is told without

    try:
        text = path.read_text(encoding="utf-8")
        settings = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # the one in C is ten times faster
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}.") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: not YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(settings, dict):
        raise UsageError(f"{path}: a task file is a mapping of keys; see tasks/tofu_forget10.yaml.")
    included = settings.pop("include", None)
    return (read_yaml(path.with_name(included)) if included else {}) | settings
