"""Results -> a bundle: what a pull request to the leaderboards adds. No torch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError, UsageError, unknown, wrong
from grun_bench.core.files import check_writable, part_of, write_whole
from grun_bench.leaderboard.bundle import CARD, MODELS, PLUGIN, RESULTS, Bundle, Card, read_bundle, read_submitted
from grun_bench.methods.saving import CARD as MODEL_CARD
from grun_bench.methods.saving import read_card as read_model_card
from grun_bench.results.filed import CONTROLS, Filed, controls
from grun_bench.results.result import Result
from grun_bench.results.store import control_paths, find_result, read_filed

#: what a card file looks like; `--card` takes it as YAML or JSON
CARD_TEMPLATE = """\
name: my method
authors: [Ada Example]
paper: https://arxiv.org/abs/...   # or null
code: https://...                  # or null
licence: MIT
tuning: "what was tried before these settings, and on which data"
"""


@dataclass
class Submission:
    """The bundle that was made, and what its reviewers will ask about."""

    bundle: Bundle
    warnings: list[str] = field(default_factory=list)


def submit(
    runs: Sequence[str], out: Path, card: Path, output: Path, models: Sequence[Path], plugin: Path | None
) -> Submission:
    """Make a bundle of runs, with the target and retain rows that they compare with.

    `runs` are run ids, their beginnings or paths of result files; `models` are folders that `run --save` wrote. Raises
    UsageError for what a submission may not have or lacks; nothing is left at `out` then.
    """
    if out.exists():
        raise UsageError(f"--out {out}: is there already. Choose another folder.")
    check_writable(out.parent)
    filled = read_card_file(card)
    results = _results(runs, output)
    _check_methods(results, plugin)
    found = _models(results, models)
    try:
        with part_of(out) as part:
            part.mkdir()
            _fill(part, filled, results, found, plugin)
            read_bundle(part)
            part.replace(out)
    except OSError as error:
        raise GrunBenchError(f"{out} could not be made: {error.strerror or error}.") from error
    return Submission(read_bundle(out), _warnings([filed.result for filed in results], found))


def _fill(bundle: Path, card: Card, results: Sequence[Filed], models: dict[str, Path], plugin: Path | None) -> None:
    write_whole(bundle / CARD, json.dumps(card.model_dump(), indent=1, ensure_ascii=False) + "\n")
    for filed in results:
        place = bundle / RESULTS / filed.path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(filed.file, place)
        for records in filed.result.all_records():
            shutil.copyfile(filed.beside(records), place.with_name(records.file))
    for run_id, folder in models.items():
        _copy_model(folder, bundle / MODELS / run_id)
    if plugin:
        shutil.copyfile(plugin, bundle / PLUGIN)


def read_card_file(path: Path) -> Card:
    """A method card in YAML or JSON. Raises UsageError naming the field that is missing, unknown or wrong."""
    try:
        data: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--card {path}: {error.strerror}. It is a file such as\n\n{CARD_TEMPLATE}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"--card {path}: not YAML or JSON ({' '.join(str(error).split())}).") from None
    if not isinstance(data, dict):
        raise UsageError(f"--card {path}: not a mapping of fields. It is a file such as\n\n{CARD_TEMPLATE}")
    for key in data:
        if key not in Card.model_fields:
            raise unknown(f"field in --card {path}", key, Card.model_fields)
    try:
        return Card.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UsageError(f"--card {path}: the field '{place}' {wrong(first)}.") from None


def _results(runs: Sequence[str], output: Path) -> list[Filed]:
    """The results asked for, then their target and retain rows.

    Raises UsageError for those that may not be submitted, or lie outside of the folder.
    """
    output = output.resolve()
    asked = [_asked(run, output) for run in runs]
    places = {filed.place.rpartition("/")[0] for filed in asked}
    beside = [read_filed(output, path) for path in control_paths(output) if path.rsplit("/", 2)[0] in places]
    found = {filed.result.run_id: filed for filed in asked}
    for filed in asked:
        for role in CONTROLS:
            control = next((other for other in controls(filed.result, role, beside) if not other.problem()), None)
            if control is not None:
                found.setdefault(control.result.run_id, control)
            elif role == "retain model" and filed.result.reference.get("retain_log"):
                raise UsageError(
                    f"{filed.result.run_id} was compared with a published retain log that is no row yet: "
                    "`grun-bench import LOG --unlearner retain` makes it one."
                )
    return list(found.values())


def _asked(run: str, output: Path) -> Filed:
    path = find_result(run, output).resolve()
    if output not in path.parents or len(path.relative_to(output).parts) != 4:
        raise UsageError(f"{path} is not in {output}: give the folder of the results with --output.")
    filed = read_submitted(output, path.relative_to(output).as_posix())
    if filed.result.own:
        raise UsageError(f"{filed.file}: it is of own rows, which stay with whoever has them.")
    problem = filed.problem()
    if problem:
        raise UsageError(f"{filed.file}: {problem}. Run it again with --overwrite.")
    return filed


def _check_methods(results: Sequence[Filed], plugin: Path | None) -> None:
    """Raises UsageError when a method is not built in and its plugin file is not given, or declares something else."""
    if plugin is not None and not plugin.is_file():
        raise UsageError(f"--plugin {plugin}: no such file.")
    with registry.including([plugin] if plugin else []):
        known = {kind: registry.entries(kind) for kind in registry.KINDS}
    used = False
    for result in (filed.result for filed in results):
        for kind, name in _parts(result.unlearner.name):
            entry = known[kind].get(name)
            used |= plugin is not None and entry is not None and entry.origin == plugin.expanduser().resolve()
            if (entry is None or not entry.builtin) and plugin is None and not result.imported:
                raise UsageError(f"the {kind} '{name}' is not built in: give its file with --plugin FILE.")
            if entry is None and not result.imported:
                raise UsageError(f"--plugin {plugin}: does not declare the {kind} '{name}' of {result.run_id}.")
    if plugin is not None and not used:
        raise UsageError(f"--plugin {plugin}: declares nothing that these runs use.")


def _parts(name: str) -> list[tuple[registry.Kind, str]]:
    """(kind, name) of what makes up an unlearner; a row's name is never a bare objective."""
    adapter, plus, objective = name.partition("+")
    return [("adapter", adapter), ("objective", objective)] if plus else [("unlearner", name)]


def _models(results: Sequence[Filed], folders: Sequence[Path]) -> dict[str, Path]:
    """Run id -> the folder of its model. Raises UsageError for a folder that is of none of the results."""
    known = {filed.result.run_id for filed in results}
    found: dict[str, Path] = {}
    for folder in folders:
        run_id = read_model_card(folder).run_id
        if run_id is None:
            raise UsageError(f"--model {folder}: does not say which run it is of: save it again with `run --save`.")
        if run_id not in known:
            raise UsageError(f"--model {folder}: of the run {run_id}, which is not among those submitted.")
        if run_id in found:
            raise UsageError(f"--model {folder}: of the same run as {found[run_id]}.")
        found[run_id] = folder
    return found


def _copy_model(folder: Path, to: Path) -> None:
    """Copy a saved model without its card, whose numbers the results have, and with the base named as they name it."""
    to.mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix != ".md":
            shutil.copyfile(path, to / path.name)
    config = to / "adapter_config.json"
    if config.exists():
        told = json.loads(config.read_bytes())
        base = json.loads((to / MODEL_CARD).read_bytes())["base"].get("name")
        told |= {"base_model_name_or_path": base, "auto_mapping": None, "revision": None}
        write_whole(config, json.dumps(told, indent=2, sort_keys=True) + "\n")


def _warnings(results: Sequence[Result], models: dict[str, Path]) -> list[str]:
    told = []
    for result in results:
        if result.git.get("dirty"):
            told.append(f"{result.run_id}: made by a harness with uncommitted changes; the row says so.")
        if result.status != "ok":
            told.append(f"{result.run_id}: {result.status}.")
        if registry.role_of(result.unlearner.name) is None and result.run_id not in models and not result.imported:
            told.append(f"{result.run_id}: no saved model (--model), so `verify --rerun` trains it again.")
    names: dict[str, set[int | None]] = {}
    for result in results:
        names.setdefault(result.unlearner.name, set()).add(result.seed)
    told += [
        f"{name}: {len(seeds)} seed{'s' * (len(seeds) > 1)}; three or more make an interval."
        for name, seeds in names.items()
        if None not in seeds and len(seeds) < 3
    ]
    return told
