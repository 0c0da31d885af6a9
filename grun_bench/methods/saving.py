"""Unlearned models as folders: the base by name and the adapter in safetensors; without an adapter a whole model.

Beside `grun_bench.json`, which says what was trained and on which base, and the card `README.md`, a folder holds one of

- `adapter.safetensors`: the edits and gates of `grun` and `reft`, the clusters of `guard`;
- `adapter_model.safetensors` and `adapter_config.json`: LoRA, in PEFT's own format;
- `model.safetensors` and what transformers puts beside it: all weights, for `full` and for unlearners with nothing
  beside the model.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError

from grun_bench.core import registry
from grun_bench.core.cache import KEY_FILE
from grun_bench.core.calls import working
from grun_bench.core.environment import cache_folder
from grun_bench.core.errors import GrunBenchError, ModelError, UsageError, first_line, wrong
from grun_bench.core.escaping import clean
from grun_bench.core.files import near_files, part_of, readable_as
from grun_bench.core.given import FLAG, PATH, TEXT, Given, check_dtype
from grun_bench.core.settings import bounds_of, options_of, override
from grun_bench.methods.cards import write_card
from grun_bench.models.bases import BESIDE, beside, checked, folders, name_for_others, without_places

if TYPE_CHECKING:
    from grun_bench.methods.adapters.base import Adapter
    from grun_bench.methods.base import Fitted, Unlearner
    from grun_bench.models.lm import LM
    from grun_bench.models.loading import Placement
    from grun_bench.models.maps import DeviceMap
    from grun_bench.results.result import Result

CARD = "grun_bench.json"


class Saved(BaseModel):
    """What `grun_bench.json` says.

    `run_id` is the row that it was made for; `adapter` is None for a whole model. `base` is the target model's origin:
    its name with the Hub's revision or the SHA-256 of its weights, and for a fine-tuned one its place in the cache; see
    `grun_bench.models.bases` for one that is a folder.
    `template` is the text before an answer, with `{question}` in it, where it was trained in such a form of a task's.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal[1] = 1
    unlearner: str
    adapter: str | None
    options: dict[str, Any]
    base: Annotated[dict[str, Any], AfterValidator(checked)]
    prompts: Literal["chat", "qa", "open-unlearning"]
    template: str | None = None
    run_id: str | None = None


def check_new(folder: Path, *others: Path) -> None:
    """Raises UsageError when a model cannot be saved there: before training, not after it.

    `others` are folders of something else, which it may not take the place of.
    """
    try:
        place, linked = folder.resolve(), folder.is_symlink()
        if linked or any(each.resolve().is_relative_to(place) for each in (Path(), *others)):
            what = "a link" if linked else "a folder that is in use"
            raise UsageError(f"--save {folder}: is {what}, which a model cannot replace. Choose another folder.")
        if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / CARD).exists())):
            raise UsageError(f"--save {folder}: there is something else already. Choose another folder.")
        with part_of(folder) as part:
            part.mkdir()
            if folder.exists() and not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UsageError(f"--save {folder}: cannot be written ({error.strerror}). Choose another folder.") from None


def is_saved(folder: Path, run_id: str) -> bool:
    """Whether the folder has the model that was saved when this row was made."""
    try:
        return read_card(folder).run_id == run_id
    except ModelError:
        return False


def check_same_row(folder: Path, run_id: str) -> None:
    """Raises UsageError where the folder has the saved model of another row, which is not lost unasked."""
    if not is_saved_model(folder):
        return
    saved = read_card(folder)
    if saved.run_id != run_id:
        row = f"run {saved.run_id}" if saved.run_id else "of no run"
        raise UsageError(
            f"--save {folder}: has the model of another row ({saved.unlearner}, {row}). Choose another folder, or "
            "remove that one."
        )


def check_no_adapter(folder: Path) -> None:
    """Raises ModelError for a saved adapter where a model is asked for: it says what was saved, and who takes it."""
    if not (folder / CARD).exists():
        return
    saved = read_card(folder)
    if saved.adapter is not None:
        raise ModelError(
            f"{folder} is no model but the {saved.adapter} adapter of {saved.unlearner} on {saved.base.get('name')}, "
            f"as --save wrote it: grun_bench.load({str(folder)!r}) gives the unlearned model to Python, `grun-bench "
            f"attack {saved.run_id or 'RUN'} --saved {folder}` attacks it, and `grun-bench lm-eval --model grun_bench "
            f"--model_args adapter={folder} --tasks ...` asks it lm-eval's questions."
        )


def save(fitted: Fitted, unlearner: str, folder: Path, run_id: str | None = None, result: Result | None = None) -> None:
    """Write an unlearned model as a folder, whole or not at all; a model saved there before is replaced.

    Its card has the numbers of `result`, the row of the model, where there is one.

    Raises GrunBenchError when it cannot be saved.
    """
    from grun_bench.models.written import WrittenPrompts

    lm, adapter = fitted.lm, fitted.adapter

    def fill(part: Path) -> None:
        if adapter is None:
            from grun_bench.models.loading import write_model

            write_model(lm.model, lm.tokenizer, part)
        else:
            adapter.save(part)

    saved = Saved(
        unlearner=unlearner,
        adapter=fitted.adapter_name if adapter else None,
        options=fitted.options,
        base=lm.origin | beside(Path(lm.model.config.name_or_path or "/nowhere"), folder, lm.origin),
        prompts=lm.prompts.style,
        template=lm.prompts.template if isinstance(lm.prompts, WrittenPrompts) else None,
        run_id=run_id,
    )
    write_folder(saved, folder, fill, result)


def write_folder(saved: Saved, folder: Path, fill: Callable[[Path], None], result: Result | None = None) -> None:
    """A folder with its cards and what `fill(folder)` puts beside them, whole or not at all.

    Raises GrunBenchError when it cannot be written.
    """
    try:
        with part_of(folder) as part:
            part.mkdir()
            fill(part)
            without_places(part, name_for_others(saved.base), saved.base.get("revision"))
            (part / CARD).write_text(saved.model_dump_json(indent=1) + "\n", encoding="utf-8")
            write_card(part, saved, result, folder.name)
            readable_as(part)
            if folder.exists():
                shutil.rmtree(folder)
            part.replace(folder)
    except (OSError, SafetensorError) as error:
        raise GrunBenchError(f"{folder} could not be saved: {getattr(error, 'strerror', '') or error}.") from error


def is_saved_model(folder: Path) -> bool:
    """Whether a folder is one that `save` wrote, by what lies in it."""
    return (folder / CARD).is_file()


def read_card(folder: str | Path) -> Saved:
    """What a saved model is. Raises ModelError when the folder is none."""
    if not Path(folder).exists():
        raise ModelError(
            f"{folder}: no such folder{near_files(Path(folder), is_saved_model)}. A saved model is asked for, as "
            "`grun-bench run --save DIR` writes it."
        )
    try:
        return Saved.model_validate_json((Path(folder) / CARD).read_bytes())
    except OSError:
        raise ModelError(f"{folder} holds no {CARD}: it is not what `grun-bench run --save DIR` writes.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "file"
        raise ModelError(f"{Path(folder) / CARD}: not a saved model ({place}: {wrong(first)}).") from None


@working()
def load(
    folder: str | Path,
    device: str = "auto",
    dtype: str = "auto",
    base: LM | str | Path | None = None,
    device_map: DeviceMap | None = None,
) -> LM:
    """The unlearned model of a folder, ready to score: the same logits, to the bit, in the dtype that it was saved in.

    The base is found as `run` found it, and must be the one that was trained on. `base` says where it is, by folder or
    Hub id, where it is not found; or is one that is loaded already, as a quantised one, and is changed in place. With
    `device_map` accelerate spreads it over devices, as in `run`. Raises ModelError when a part is missing or is not the
    one that was saved, UsageError for options that its adapter does not have.
    """
    from grun_bench.models.lm import LM
    from grun_bench.models.loading import Placement

    PATH.check("folder", folder)
    known = Given(lambda value: value is None or isinstance(value, LM) or PATH.fits(value), "a path or a loaded model")
    known.check("base", base)
    check_dtype(dtype)
    return load_fitted(folder, Placement.choose(device, dtype, device_map=device_map), base).lm


def load_fitted(folder: str | Path, place: Placement, base: LM | str | Path | None = None) -> Fitted:
    """As `load`, with the adapter beside the model."""
    from grun_bench.methods.adapters.outside import hand_over
    from grun_bench.methods.base import Fitted
    from grun_bench.models import loading
    from grun_bench.models.protocols import prompts_of

    saved = read_card(folder)
    if saved.adapter is None:
        if list(Path(folder).glob("*.bin")):
            raise ModelError(f"{folder}: weights must be safetensors.")
        lm = loading.load(str(folder), place)
        lm.prompts = prompts_of(lm.tokenizer, saved.prompts, saved.template)
        return Fitted(lm)
    lm = _load_base(saved, place, Path(folder), base) if base is None or isinstance(base, str | Path) else base
    lm.prompts = prompts_of(lm.tokenizer, saved.prompts, saved.template)
    target = _beside(saved)
    said = f"{Path(folder) / CARD}: options: "
    adapter = target(**override(options_of(target), saved.options, saved.adapter, bounds_of(target), said))
    adapter.load(lm.model, Path(folder))
    hand_over(adapter, lm)
    lm.model.requires_grad_(False).eval()
    return Fitted(lm, adapter=adapter, adapter_name=saved.adapter, options=saved.options)


def _beside(saved: Saved) -> type[Adapter]:
    """What lies beside the base: an adapter by name, or what an unlearner of its own puts there."""
    if saved.unlearner in registry.names("unlearner"):
        unlearner = cast("type[Unlearner]", registry.get("unlearner", saved.unlearner).target)
        if unlearner.beside is not None:
            return unlearner.beside
    return cast("type[Adapter]", registry.get("adapter", str(saved.adapter)).target)


def _load_base(saved: Saved, place: Placement, folder: Path, given: str | Path | None) -> LM:
    from grun_bench.methods.made_models import load_tiny
    from grun_bench.models import loading
    from grun_bench.models.places import other_content

    origin = {key: value for key, value in saved.base.items() if key != BESIDE}
    place = replace(place, quantise=str(origin.get("quantised", "")))
    name = str(origin.get("name"))
    if given is not None:
        name = str(given)
        lm = loading.load(name, place)
    elif "trained_without" in origin:
        lm = load_tiny(_left_out(origin["trained_without"]), place, bool(origin.get("lore")))
    elif cached := origin.get("cache"):
        folder = cache_folder() / cached
        if not (folder / KEY_FILE).exists():
            raise ModelError(
                f"the {origin.get('finetuned')} that {name} was fine-tuned into is not in the cache ({folder}): the "
                "command that saved this model builds it again, or set GRUN_BENCH_CACHE to the cache that has it, or "
                "give its folder as `base`."
            )
        lm = loading.load(str(folder), place)
    else:
        lm = _load_named(saved.base, place, folder)
    if other := other_content(lm.origin, origin):
        raise ModelError(f"{name} is not the model that the adapter was trained on: {other}.")
    lm.origin = origin
    return lm


def _left_out(exclude: Any) -> str | None:
    """The forget set that an embedded base never saw. Raises ModelError for none: a model would be made for it."""
    from grun_bench.tasks.toy_lore import DOMAIN_OF
    from grun_bench.tasks.toy_world import RETAIN_OF

    if exclude not in (None, *RETAIN_OF, *DOMAIN_OF):
        raise ModelError(
            f"{CARD}: base.trained_without: the embedded world has no forget set {clean(str(exclude), 40)}."
        )
    return cast("str | None", exclude)


def _load_named(base: dict[str, Any], place: Placement, folder: Path) -> LM:
    """A base of the Hub, of a mirror, or a folder. Raises ModelError that says what it is where it is nowhere.

    A folder that was noted and has another model by now is passed over.
    """
    from grun_bench.models import loading
    from grun_bench.models.names import folder_of, near
    from grun_bench.models.places import other_content

    name, commit, passed = str(base.get("name")), base.get("revision"), ""
    for found in (each for each in folders(base, folder) if each.is_dir()):
        try:
            lm = loading.load(str(found), place)
        except ModelError as error:
            passed += f"\n{error}"
            continue
        other = other_content(lm.origin, base)
        if other is None:
            return lm
        passed += f"\n{found} is not the model that the adapter was trained on: {other}."
    if commit is None and "sha256" in base and folder_of(name) is None:
        # on the Hub another model may be called as the folder was
        raise ModelError(
            f"model {name}: not found from here.{near(name)}{passed}\nIt is the base of {folder}: a folder that was "
            f"called {name} where the adapter was trained, with SHA-256 {base['sha256']}. Say where it is: "
            "grun_bench.load(DIR, base=FOLDER), `grun-bench export DIR --base FOLDER`, or --model_args "
            f"adapter=DIR,base=FOLDER of lm-eval; or put it at <folder>/{name} and set GRUN_BENCH_HUB=<folder>."
        )
    return loading.load(name if commit is None or folder_of(name) else f"{name}@{commit}", place)


@working()
def push_to_hub(folder: str | Path, repository: str, private: bool = True) -> str:
    """Upload a saved model with its card to the Hub under <org>/<name>, as you are logged in there. Gives its address.

    Raises ModelError when the folder is no saved model, UsageError for a name that the Hub does not allow, and
    GrunBenchError where it cannot be reached or refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    from grun_bench.core.patches import offline_if_unreachable

    PATH.check("folder", folder)
    TEXT.check("repository", repository)
    FLAG.check("private", private)
    read_card(folder)
    try:
        with offline_if_unreachable():
            api = HfApi()
            address = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=str(folder))
    except HFValidationError as error:
        raise UsageError(f"{repository}: no name on the Hub, as <org>/<name> is: {first_line(error)}") from None
    except Exception as error:  # whatever the network and the libraries beneath it make of it
        # the library's words name a variable, which may be of the block above
        away = isinstance(error, OfflineModeIsEnabled) and "HF_HUB_OFFLINE" not in os.environ
        why = "the Hub's name cannot be resolved from here." if away else first_line(error)
        raise GrunBenchError(
            f"{folder} could not be pushed to {repository}: {why} It takes a network that reaches the "
            "Hub, and a login that may write there: `hf auth login`. What is there already is not sent again."
        ) from error
    return str(address)
