"""What a next command needs that is told to somebody: the options that a row or a run was made with. No torch."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grun_bench.core import registry
from grun_bench.core.sources import file_of_plugin
from grun_bench.results.result import Result
from grun_bench.runs.config import RunConfig, in_folder
from grun_bench.runs.folders import options
from grun_bench.tasks.yaml_files import task_files


def on_row(result: Result, output: Path) -> str:
    """What `attack` needs to find a row, its task, its models and its plugins; begins with a blank, or is nothing."""
    packaged = result.own or result.task in task_files(registry.included())
    task = "" if packaged else f" --task {shlex.quote(f'{result.task}.yaml')}"
    models = "".join(f" {option} {shlex.quote(str(_short(Path(at))))}" for option, at in options(result).items())
    return f"{task}{models}{_plugins(result.unlearner.name)}{in_folder('--output', output)}"


def asked(config: RunConfig) -> str:
    """The options of a run that say what is forgotten, by which model, and where plugins are."""
    given: dict[str, Any] = {
        "--task": config.task,
        "--forget": config.forget,
        "--retain": config.keep,
        "--neighbours": config.neighbours,
        "--columns": ",".join(f"{ours}={theirs}" for ours, theirs in config.columns.items()),
        "--utility": config.utility,
        "--augment": config.augment,
        "--writer": config.writer,
        "--no-private": not config.private,
        "--model": config.model,
        "--target": config.target_model,
        "--retain-model": config.retain_model,
        "--revision": config.revision,
        "--dtype": config.dtype if config.dtype != "auto" else "",
        "--quantise": config.quantise,
        "--protocol": config.protocol if config.protocol != RunConfig.protocol else "",
        "--trust-remote-code": config.trust_remote_code,
    }
    return " ".join(typed(given)) + _plugins(config.unlearner)


def typed(options: Mapping[str, Any]) -> list[str]:
    """Options as a shell takes them: a flag for True, and nothing for what is empty."""
    return [name if value is True else f"{name} {shlex.quote(str(value))}" for name, value in options.items() if value]


def _plugins(unlearner: str) -> str:
    """The files and folders that are included now, else the file that an unlearner needs."""
    needed = registry.included() or tuple(filter(None, [file_of_plugin(unlearner)]))
    return "".join(f" --include-path {shlex.quote(str(_short(path)))}" for path in needed)


def _short(path: Path) -> Path:
    """A path as somebody in this folder types it."""
    here = Path.cwd()
    return path.relative_to(here) if here in path.parents else path
