"""What the user asked for. It imports no more than names, so that the command line can make it before all else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grun_bench.core.errors import UsageError
from grun_bench.models.names import TINY, folder_name

if TYPE_CHECKING:
    from grun_bench.results.result import Result, TunedBy

#: where rows are filed unless another folder is given
RESULTS = Path("leaderboards/results")
#: where tunings are kept unless another folder is given
TUNINGS = Path("tuning")
#: what every generator of random numbers takes
MAX_SEED = 2**32 - 1


def in_folder(option: str, results: Path) -> str:
    """The option that a next command needs to find a folder of results; nothing for the one that it looks in itself."""
    return "" if results.resolve() == RESULTS.resolve() else f" {option} {shlex.quote(str(results))}"


@dataclass(frozen=True)
class RunConfig:
    """One run, as it was asked for; nothing in it is looked up yet.

    `unlearner`: `adapter+objective`, as in `grun+npo`, or the name of a method that is no such pair. `task`: a task's
    name or the path of its YAML. `overrides`: settings of the unlearner by name, and of attacks as
    `<attack>.<setting>`.
    """

    unlearner: str
    task: str = ""
    #: the folder of results
    output: Path = RESULTS
    #: a Hub id or a folder; None is `tiny`, the toy model, or `target_model` where that is given
    model: str | None = None
    #: models that are fine-tuned already, with and without the forget set
    target_model: str | None = None
    retain_model: str | None = None
    #: a branch, tag or commit of `target_model` on the Hub, of `model` where there is none; else what it has now
    revision: str | None = None
    #: a published retain log in place of a retain model
    retain_log: Path | None = None
    #: own rows to forget, to keep, and near to the first and to be kept, in place of a task: files, or folders of texts
    forget: Path | None = None
    keep: Path | None = None
    neighbours: Path | None = None
    #: our columns -> those of these files, where they are called otherwise
    columns: Mapping[str, str] = field(default_factory=dict)
    #: names of lm-eval's tasks with commas between, as measures of utility beside own rows
    utility: str = ""
    #: paraphrases and wrong answers of own rows are written by a model: the target model, or the one named
    augment: bool = False
    writer: str | None = None
    #: texts of own rows stay on this machine; results have their hashes
    private: bool = True
    #: `all` or names with commas between; they are made on the target and the retain model too
    attacks: str = ""
    #: those of them that ask every scored set, `all` or names with commas between; others ask what their headline needs
    attack_sets: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    #: where `grun-bench tune` left the settings of this unlearner: its folder of tunings, or one `tuning.jsonl`
    tuning: Path | None = None
    #: how `overrides` were found, where that is known already
    tuned: TunedBy | None = None
    #: of unlearning
    seed: int = 0
    #: the first rows of each data set alone: a smoke test
    limit: int | None = None
    #: `grun-bench`, or `open-unlearning` to compare with its tables
    protocol: str = "grun-bench"
    device: str = "auto"
    dtype: str = "auto"
    #: how accelerate spreads a model over devices, host memory and files: `auto`, a map of part -> device, or the path
    #: of a JSON file that holds one
    device_map: str | Mapping[str, str | int] | None = None
    #: what the weights of models are rounded to, with adapters in full precision beside them: nf4, fp4, or nothing
    quantise: str = ""
    #: sequences scored at once; None for what fits
    scoring_batch_size: int | None = None
    #: a folder for the unlearned model; a row that is filed already is made again
    save: Path | None = None
    #: whether the outcome holds the unlearned model; a row that is filed already is made again
    keep_model: bool = False
    #: score a small sample every so many training steps, as a curve
    eval_every: int | None = None
    #: score the unlearned model at these strengths too, as a curve from the target (0) to it (1) and beyond
    strengths: tuple[float, ...] = ()
    #: experiment trackers to follow it in, names with commas between
    track: str = ""
    #: compute what frozen first layers give once, and keep it
    trunk_cache: bool = True
    #: run again what is filed already
    overwrite: bool = False
    #: plugin files, and folders of plugins and task files, for this run alone
    include: tuple[Path, ...] = ()
    #: let a model bring its own code
    trust_remote_code: bool = False


def label_of(config: RunConfig) -> str:
    """What rows call the model that was asked for."""
    name = config.model or config.target_model or TINY
    return folder_name(Path(name)) if Path(name).is_dir() else name.partition("@")[0]


def config_of(row: Result, **changes: Any) -> RunConfig:
    """What a filed row was made with, as far as it says so; `changes` are fields in place of that."""
    said: dict[str, Any] = {
        "unlearner": row.unlearner.name,
        "task": row.task,
        "model": row.model,
        "overrides": row.unlearner.settings,
        "tuned": row.unlearner.tuned,
        "seed": _seed(row),
        "limit": row.limit,
        "protocol": row.protocol,
        "dtype": row.hardware.get("dtype", "auto"),
        "quantise": row.hardware.get("quantised", ""),
    }
    # the Hub may have moved on, and the row is of what it had then
    asked = zip(("model", "target_model", "retain_model"), named_models(row), strict=True)
    said |= {key: name for key, name in asked if name and "@" in name}
    return RunConfig(**said | changes)


def _seed(row: Result) -> int:
    """The seed of a row, or of the models that one without a seed is of. Raises UsageError where it is none."""
    seed = row.reference.get("seed") or 0 if row.seed is None else row.seed
    if not isinstance(seed, int):
        raise UsageError(f"{row.run_id}: $.reference.seed: must be a whole number.")
    return seed


def named_models(row: Result) -> tuple[str | None, str | None, str | None]:
    """The model, target and retain model that a row was run with, where its reference says so.

    Raises UsageError for a reference that says it in no known way.
    """
    names = row.reference.get("names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{row.run_id}: $.reference.names: must name its models.")
    if len(names) == 2 and ("finetune" in row.reference or _of_retain(row, names[1])):
        return names[0], None, names[1]
    model, target, retain = [*names, None, None, None][:3]
    return model, target, retain


def was_folder(name: str | None) -> bool:
    """Whether a model that a reference names was a folder: it is named by hashes of its files."""
    return name is not None and bool(re.fullmatch(r"[0-9a-f+]{64,}", name))


def _of_retain(row: Result, name: str) -> bool:
    """Whether the second of two models is the retain model: it is the one that an unlearned row does not come from."""
    from grun_bench.core import registry

    origin = f"{row.target.get('name')}@{row.target.get('revision')}"
    if was_folder(name):
        name, origin = name.partition("+")[0], str(row.target.get("sha256"))
    elif "@" not in name:
        return False
    return (name == origin) == (registry.role_of(row.unlearner.name) == "retain model")
