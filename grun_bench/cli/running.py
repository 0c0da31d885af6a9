"""Commands that make rows: run, attack, sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from grun_bench.cli.options import Include, Json, OptionGroup, Output, RunName, batch_size, mapped, numbers, parsed
from grun_bench.core import processes
from grun_bench.core.errors import GrunBenchError, UsageError
from grun_bench.core.printing import put
from grun_bench.runs.config import MAX_SEED, RESULTS, RunConfig, config_of
from grun_bench.runs.own import files_of, own_defaults

if TYPE_CHECKING:
    from grun_bench.runs.outcome import Outcome

AttackSets = Annotated[
    str, typer.Option(metavar="all|NAME,...", help="Attacks that ask every scored set, not what their headline needs.")
]


@dataclass(frozen=True, kw_only=True)
class MachineOptions(OptionGroup):
    """What every command has that runs a model."""

    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...; under torchrun one each.")] = "auto"
    device_map: Annotated[
        str | None,
        typer.Option(
            metavar="auto|FILE",
            help="Spread models over devices and host memory, or as a JSON file of part -> device says; the base stays "
            "as it is.",
        ),
    ] = None
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
            "device_map": self.device_map,
            "scoring_batch_size": batch_size(self.batch_size),
            "include": tuple(self.include_path),
            "trust_remote_code": self.trust_remote_code,
        }


@dataclass(frozen=True, kw_only=True)
class TrackOptions(OptionGroup):
    """What is told to whom of a run while it is made."""

    track: Annotated[
        list[str],
        typer.Option(metavar="NAME,...", help="Follow it in tensorboard, wandb, trackio or mlflow; repeat it."),
    ] = field(default_factory=list)

    def config(self) -> dict[str, Any]:
        """What these options are in a RunConfig."""
        return {"track": ",".join(self.track)}


@dataclass(frozen=True, kw_only=True)
class TaskOptions(OptionGroup):
    """What is to be forgotten, and by which model."""

    task: Annotated[str, typer.Option("--task", help="A task's name, or the path of its YAML.")] = ""
    model: Annotated[
        str | None, typer.Option("--model", help="Hub id or folder; default: tiny, the embedded toy model.")
    ] = None


@dataclass(frozen=True, kw_only=True)
class TrialOptions(OptionGroup):
    """What rows and trials of a tuning are of, and made with: fields of RunConfig, and the recipe."""

    forget: Annotated[
        Path | None,
        typer.Option(
            help="Own rows to forget, in place of a task: .jsonl, .json, .csv, .tsv, .parquet, or a folder of texts."
        ),
    ] = None
    retain: Annotated[
        str | None, typer.Option(help="With --forget, own rows to keep; with --task, the same as --retain-model.")
    ] = None
    neighbours: Annotated[
        Path | None, typer.Option(help="With --forget, own rows near to these that must not go with them.")
    ] = None
    columns: Annotated[
        str, typer.Option(metavar="OURS=THEIRS,...", help="The columns of own rows, as in question=Q,answer=A.")
    ] = ""
    augment: Annotated[
        bool, typer.Option("--augment", help="Let the model write paraphrases and wrong answers of own rows.")
    ] = False
    writer: Annotated[
        str | None, typer.Option(metavar="MODEL", help="With --augment, the model that writes, in place of --model.")
    ] = None
    private: Annotated[
        bool, typer.Option("--private/--no-private", help="Keep the texts of own rows on this machine, out of results.")
    ] = True
    utility: Annotated[
        str, typer.Option(metavar="NAME,...", help="With --forget, tasks of lm-eval to measure utility by, as mmlu.")
    ] = ""
    target_model: Annotated[
        str | None, typer.Option("--target", help="A target model already fine-tuned on the task.")
    ] = None
    retain_model: Annotated[
        str | None, typer.Option("--retain-model", help="A retain model, fine-tuned without the forget set.")
    ] = None
    revision: Annotated[
        str | None,
        typer.Option(help="A branch, tag or commit of --target on the Hub, else of --model; as in ORG/NAME@IT."),
    ] = None
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto"
    quantise: Annotated[
        str, typer.Option(metavar="nf4|fp4", help="Base weights in 4 bits (bitsandbytes), the adapter in float32.")
    ] = ""
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows of each data set: a smoke test.")] = None
    protocol: Annotated[
        str, typer.Option("--protocol", help="grun-bench, or open-unlearning to compare with its tables.")
    ] = "grun-bench"
    recipe: Annotated[
        str, typer.Option(help="Settings to begin with: default, paper (GRUN's code) or open-unlearning.")
    ] = "default"

    def config(
        self, machine: MachineOptions, unlearner: str = "", settings: Sequence[str] = (), **more: Any
    ) -> RunConfig:
        """The run that was asked for; `settings` as in `--set`, `more` are options of one command alone."""
        fields, overrides = vars(self).copy(), parsed(settings)
        if retain := fields.pop("retain"):
            fields |= {"keep": Path(retain)} if self.forget else {"retain_model": self.retain_model or retain}
        fields["columns"] = mapped(self.columns)
        if (recipe := fields.pop("recipe")) != "default":
            overrides["recipe"] = recipe
        return own_defaults(RunConfig(unlearner=unlearner, overrides=overrides, **fields | machine.config() | more))


@dataclass(frozen=True, kw_only=True)
class CommonOptions(TrialOptions):
    """What rows have in common that are compared: all that, and how they are scored."""

    retain_log: Annotated[Path | None, typer.Option(help="A published retain log instead of a retain model.")] = None
    attacks: Annotated[
        str,
        typer.Option(
            metavar="all|NAME,...",
            help="Attack the model, and the target and retain model as controls; own rows are, as a user could, "
            "unless it is none. all,-NAME is all but one.",
        ),
    ] = ""
    attack_sets: AttackSets = ""
    strengths: Annotated[
        str,
        typer.Option(
            metavar="S,...", help="Score the model weaker and stronger too, as in 0.5,1.5 (0: the target), as a curve."
        ),
    ] = ""
    tuning: Annotated[
        Path | None,
        typer.Option(
            "--tuned", help="Settings that `tune` chose: its folder, or a tuning.jsonl; with a seed it did not see."
        ),
    ] = None

    def config(
        self, machine: MachineOptions, unlearner: str = "", settings: Sequence[str] = (), **more: Any
    ) -> RunConfig:
        """The same with these."""
        return super().config(
            machine, unlearner, settings, **{"strengths": numbers("--strengths", self.strengths)} | more
        )


@dataclass(frozen=True, kw_only=True)
class RowOptions(CommonOptions, TaskOptions):
    """What decides a row beside the unlearner, its settings and its seed."""


def run(
    unlearner: Annotated[str, typer.Option(help="adapter+objective, as in grun+npo; `ls` lists them.")],
    options: RowOptions,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a setting; repeat it.")
    ] = [],  # noqa: B006
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of unlearning.")] = 0,
    save: Annotated[Path | None, typer.Option(help="Keep the unlearned model in this folder.")] = None,
    trunk_cache: Annotated[
        bool,
        typer.Option("--trunk-cache/--no-trunk-cache", help="Compute what frozen first layers give once, and keep it."),
    ] = True,
    eval_every: Annotated[
        int | None, typer.Option(min=1, help="Score a small sample every so many training steps, as a curve.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run again what is there already.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print settings, rows, steps, tokens, memory and time, and do nothing.")
    ] = False,
    *,
    tracking: TrackOptions,
    machine: MachineOptions,
    as_json: Json = False,
) -> None:
    """Unlearn, score and record one unlearner on one task."""
    from grun_bench.runs.front import plan, run_config

    beside = {"seed": seed, "save": save, "trunk_cache": trunk_cache, "eval_every": eval_every, "overwrite": overwrite}
    config = options.config(machine, unlearner, settings, **beside, **tracking.config())
    if dry_run:
        from grun_bench.terminal.plan import print_plan

        print_plan(plan(config), as_json)
        return
    _show(run_config(config), config.output, as_json)
    if save and not as_json and processes.first():
        print(f"model: {save}   (grun_bench.load({str(save)!r}) gives it back)")


def attack(
    result: RunName,
    attacks: Annotated[
        str, typer.Option(metavar="all|NAME,...", help="The attacks; `ls attacks` lists them. all,-NAME: all but one.")
    ] = "all",
    attack_sets: AttackSets = "",
    saved: Annotated[
        Path | None, typer.Option(help="The folder of the model (run --save); without it the model is made again.")
    ] = None,
    settings: Annotated[
        list[str], typer.Option("--set", metavar="ATTACK.KEY=VALUE", help="Override a setting of an attack; repeat it.")
    ] = [],  # noqa: B006
    task: Annotated[str | None, typer.Option(help="The task's YAML, where it is not a packaged one.")] = None,
    model: Annotated[str | None, typer.Option(help="The model's folder, where its name does not lead to it.")] = None,
    target: Annotated[str | None, typer.Option(help="The target model that the run named.")] = None,
    retain: Annotated[str | None, typer.Option(help="The retain model that the run named.")] = None,
    retain_log: Annotated[Path | None, typer.Option(help="The retain log that the run named.")] = None,
    *,
    tracking: TrackOptions,
    machine: MachineOptions,
    as_json: Json = False,
) -> None:
    """Attack the model of a result that is there already, and add what comes of it to the result."""
    from grun_bench.results.store import find_result, read_result
    from grun_bench.runs.front import attack_row

    path = find_result(result, machine.output)
    row = read_result(path)
    if row.imported:
        raise UsageError(f"{row.run_id} was imported from {row.imported.file}: there is no model to attack.")
    overrides = parsed(settings)
    if odd := [key for key in overrides if "." not in key]:
        raise UsageError(f"--set {odd[0]}: the row's settings stay; an attack's is written <attack>.{odd[0]}=value.")
    given = {"model": model, "target_model": target, "retain_model": retain}
    models = {key: name for key, name in given.items() if name or (key == "model" and target)}
    own = files_of(row)
    config = config_of(
        row,
        **{"task": task or row.task} | own,
        retain_log=retain_log,
        overrides=row.unlearner.settings | overrides,
        attacks=attacks,
        attack_sets=attack_sets,
        **models,
        **machine.config() | {"output": path.resolve().parents[3]},
        **tracking.config(),
    )
    outcome = attack_row(config, row, saved)
    _show(replace(outcome, cell=replace(outcome.cell, reused=False)), config.output, as_json)


def _show(outcome: Outcome, output: Path, as_json: bool) -> None:
    """Print a run. Raises GrunBenchError where it diverged."""
    from grun_bench.reports.rows import FiledRow, Row
    from grun_bench.results.filed import CONTROLS
    from grun_bench.terminal.result import print_run

    cell = outcome.cell
    if not processes.first():
        pass
    elif as_json:
        put(cell.result.dumps())
    else:
        beside = dict(zip(CONTROLS, (outcome.target, outcome.retain), strict=True))
        controls = {role: FiledRow(each.result, each.path) for role, each in beside.items() if each}
        print_run(Row(FiledRow(cell.result, cell.path), controls), output, cell.reused)
    if cell.result.status != "ok":
        name = cell.result.unlearner.name
        raise GrunBenchError(f"{name} {cell.result.status}: {cell.result.error} The row is kept in {cell.path}.")
