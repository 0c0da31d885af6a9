"""Options of the commands: each is declared once, and a run's configuration is made of them in one place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.runs.config import RESULTS, RunConfig

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def include(context: typer.Context, paths: list[Path]) -> list[Path]:
    """Search plugins there too, from when the option is read until the command ends."""
    context.with_resource(registry.including(paths))
    return paths


Include = Annotated[
    list[Path],
    typer.Option("--include-path", help="A plugin file, or a folder of plugins and task YAML.", callback=include),
]
Output = Annotated[Path, typer.Option("--output", help="Folder of the result files.")]
Attacks = Annotated[
    str, typer.Option(metavar="all|NAME,...", help="Attack the model, and the target and retain model as controls.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result file instead of tables.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run id, its beginning, or the path of a result file.")]


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """What every command has that runs a model."""

    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto"
    batch_size: Annotated[str, typer.Option(help="Sequences scored at once; auto finds it.")] = "auto"
    output: Output = RESULTS
    include_path: Include = field(default_factory=list)
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Let a model bring its own code.")] = (
        False
    )

    def config(self) -> dict[str, Any]:
        """What these options are in a RunConfig. Raises UsageError for a batch size that is none."""
        return {
            "output": self.output,
            "device": self.device,
            "scoring_batch_size": _batch_size(self.batch_size),
            "include": tuple(self.include_path),
            "trust_remote_code": self.trust_remote_code,
        }


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """What decides a row beside the unlearner, its settings and its seed."""

    task: Annotated[str, typer.Option("--task", help="A task's name, or the path of its YAML.")]
    model: Annotated[
        str | None, typer.Option("--model", help="Hub id or folder; default: tiny, the embedded toy model.")
    ] = None
    target: Annotated[str | None, typer.Option("--target", help="A target model already fine-tuned on the task.")] = (
        None
    )
    retain: Annotated[
        str | None, typer.Option("--retain", help="A retain model, fine-tuned without the forget set.")
    ] = None
    retain_log: Annotated[Path | None, typer.Option(help="A published retain log instead of a retain model.")] = None
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto"
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of each data set: a smoke test.")] = None
    protocol: Annotated[
        str, typer.Option("--protocol", help="grun-bench, or open-unlearning to compare with its tables.")
    ] = "grun-bench"
    attacks: Attacks = ""

    def config(
        self, machine: MachineOptions, unlearner: str = "", settings: Sequence[str] = (), **more: Any
    ) -> RunConfig:
        """The run that was asked for; `settings` as in `--set`, `more` are options of one command alone."""
        return RunConfig(
            unlearner=unlearner,
            task=self.task,
            model=self.model,
            target_model=self.target,
            retain_model=self.retain,
            overrides=parsed(settings),
            dtype=self.dtype,
            limit=self.limit,
            protocol=self.protocol,
            retain_log=self.retain_log,
            attacks=self.attacks,
            **machine.config(),
            **more,
        )


def with_groups(command: Callable[..., None]) -> Callable[..., None]:
    """The command with its parameters of the classes above given as their fields, each an option of its own."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    groups = {each.name: each.annotation for each in own if each.annotation in (RowOptions, MachineOptions)}

    @wraps(command)
    def called(**given: Any) -> None:
        for name, group in groups.items():
            given[name] = group(**{each.name: given.pop(each.name) for each in fields(group)})
        command(**given)

    spread = [each for one in own for each in (_options(one.annotation) if one.name in groups else [_keyword(one)])]
    called.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    return called


def _options(group: Any) -> list[inspect.Parameter]:
    """The fields of a class of options as keyword parameters of a command."""
    types = get_type_hints(group, include_extras=True)

    def default(each: Any) -> Any:
        if each.default_factory is not MISSING:
            return each.default_factory()
        return inspect.Parameter.empty if each.default is MISSING else each.default

    return [
        inspect.Parameter(each.name, _KEYWORD, default=default(each), annotation=types[each.name])
        for each in fields(group)
    ]


def _keyword(parameter: inspect.Parameter) -> inspect.Parameter:
    return parameter.replace(kind=_KEYWORD)


def parsed(pairs: Sequence[str]) -> dict[str, Any]:
    """Settings from `key=value`, values read as YAML. Raises UsageError for anything else."""
    import yaml

    settings = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {pair}: write it as key=value.")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UsageError(f"--set {pair}: '{value}' is not a number, word or [list].") from None
    return settings


def _batch_size(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--batch-size {text}: write auto or a whole number above 0.")
    return int(text)
