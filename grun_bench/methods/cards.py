"""The card of a saved model: README.md with the Hub's metadata (`model-index`), and `.eval_results/` beside it.

It says what was to be forgotten, how, what was measured, what is not erased, and how the model is loaded. No text of
the data is in it: names, settings and numbers alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grun_bench
from grun_bench.core.escaping import markdown
from grun_bench.core.files import write_whole
from grun_bench.metrics.about import leads
from grun_bench.models.bases import is_made, is_of_hub
from grun_bench.models.names import folder_of, for_others
from grun_bench.results.result import Result
from grun_bench.results.sharing import HUB_ID, data_sets

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

    from grun_bench.methods.saving import Saved

README = "README.md"
EVAL_RESULTS = ".eval_results"
#: the part that says how it is loaded, which another form of the same model says otherwise
LOADING = "## How to load it"
#: what is left where the adapter lies beside the base, and where it was added to the weights
_BESIDE = (
    "The weights of the base were not changed and still hold all that was to be forgotten. What unlearned lies "
    "beside them: whoever has the files takes it off, which is the attack `strip`, and has the target model "
    "again. Do not hand out the weights where that matters; serve answers."
)
_MERGED = (
    "What unlearned was added to the weights, so there is no adapter to take off here. Numbers under `strip`, where "
    "there are some, are of the adapter beside its base. That base still holds all: do not hand it out too. This is no "
    "proof of erasure: attacks with access to the weights (relearning on a few rows, quantisation) may bring things "
    "back."
)
#: form of an adapter's model -> what is kept in its folder, and what is left there
_FORMS = {
    "merged": ("all weights, with what was trained added to them", _MERGED),
    "hf": ("all weights of the base, the edits beside them and their code", _BESIDE),
}


def write_card(folder: Path, saved: Saved, result: Result | None, name: str = "") -> None:
    """Write the card into a saved model's folder, with what its row says by now. Raises GrunBenchError.

    `name` is the folder's, where it is yet to be called so.
    """
    place = name or folder.name
    loading = (
        "```python\nimport grun_bench\n\n"
        f"lm = grun_bench.load({place!r})  # this folder, or its name on the Hub\n"
        "model, tokenizer = lm.model, lm.tokenizer\n```"
    )
    write_whole(folder / README, _card(_metadata(saved, result), "\n\n".join(_parts(saved, result, loading))))
    entries = _entries(result) if result else ""
    if result and entries:
        write_whole(folder / EVAL_RESULTS / f"{result.task}.yaml", entries)


def write_card_of_form(source: Path, out: Path, form: str, loading: str, with_base: bool) -> None:
    """Write into `out` the card of the saved model in `source`, for the same model in another form of `export`.

    `with_base`: whether the base lies in the folder too, beside an adapter.
    """
    from huggingface_hub import ModelCard

    if not (source / README).exists():
        return
    card = ModelCard.load(source / README, ignore_metadata_errors=True)
    card.data.library_name = "peft" if form == "peft" else "transformers"
    if card.data.get("base_model"):
        card.data.base_model_relation = "adapter" if form == "peft" else "finetune"
    before, _, after = _in_form(card.text, form, with_base).partition(LOADING)
    rest = after.partition("\n## ")[2]
    text = f"{before.lstrip()}{LOADING}\n\n{loading}\n" + (f"\n## {rest}" if rest else "")
    (out / README).write_text(_card(card.data, text), encoding="utf-8")
    for path in sorted((source / EVAL_RESULTS).glob("*.yaml")):
        (out / EVAL_RESULTS).mkdir(exist_ok=True)
        (out / EVAL_RESULTS / path.name).write_bytes(path.read_bytes())


def _in_form(text: str, form: str, with_base: bool) -> str:
    """A card's text with what another form keeps and leaves; as it is of weights that were changed themselves."""
    if with_base:
        text = text.replace(", without its base |", ", and the base that it is on |")
    if form not in _FORMS:
        return text
    kept, left = _FORMS[form]
    kept_here = re.compile(r"^\| Kept here \| the adapter .*$", flags=re.MULTILINE)
    return kept_here.sub(f"| Kept here | {markdown(kept)} |", text).replace(_BESIDE, left)


def _card(data: ModelCardData, text: str) -> str:
    return f"---\n{data.to_yaml()}\n---\n\n{text.strip()}\n"


# --- metadata ---------------------------------------------------------------------------------------------------------


def _metadata(saved: Saved, result: Result | None) -> ModelCardData:
    from huggingface_hub import ModelCardData

    of_hub = is_of_hub(saved.base) or (is_made(saved.base) and bool(HUB_ID.fullmatch(str(saved.base.get("name")))))
    known: dict[str, Any] = {}
    if of_hub:
        known["base_model"] = saved.base["name"]
        known["base_model_relation"] = "adapter" if saved.adapter and not is_made(saved.base) else "finetune"
    if licence := licence_of(saved.base):
        known["license"] = licence
    if result and (sources := data_sets(result)):
        known["datasets"] = sources
    return ModelCardData(
        library_name={None: "transformers", "lora": "peft"}.get(saved.adapter, "grun-bench"),
        pipeline_tag="text-generation",
        tags=["unlearning", "grun-bench", saved.unlearner],
        model_name=_title(saved),
        eval_results=list(eval_results(result)) if result else None,
        **known,
    )


def eval_results(result: Result) -> Iterator[EvalResult]:
    """The headline without attack, and under the worst variant of each."""
    from huggingface_hub import EvalResult

    sources = data_sets(result)
    for key, value in result.worst_values():
        if key.metric not in result.headline:
            continue
        under = f" under the attack {key.attack}" if key.attack else ""
        yield EvalResult(
            task_type="text-generation",
            dataset_type=sources[0] if sources else result.task,
            dataset_name=result.task if result.limit is None else f"{result.task}, first {result.limit} rows a set",
            dataset_config=key.attack or None,
            dataset_args={"sha256": result.dataset_hash, "protocol": result.protocol},
            metric_type=key.metric,
            metric_name=f"{key.metric}{under}",
            metric_value=value,
        )


def _entries(result: Result) -> str:
    """The headline as the Hub's `.eval_results` has it; nothing for rows of no published data set, or not all rows.

    The Hub shows them where the data set is registered as a benchmark with such a task.
    """
    try:
        from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    except ImportError:  # an older version
        return ""
    import yaml

    sources = data_sets(result)
    if result.dataset != "published" or result.limit is not None or not sources:
        return ""
    entries = [
        EvalResultEntry(
            dataset_id=sources[0],
            task_id=f"{result.task}.{metric}",
            value=result.value(metric),
            date=result.date,
            notes=f"{metric}, protocol {result.protocol}, after {result.unlearner.name}",
        )
        for metric in result.headline
        if result.value(metric) is not None
    ]
    return str(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False)) if entries else ""


def licence_of(base: dict[str, Any]) -> Any:
    """The licence that the base's own card names; None where that is not known."""
    from huggingface_hub import ModelCard, hf_hub_download

    name, path = str(base.get("name")), None
    if place := folder_of(name):
        path = place / README
    elif base.get("revision") or is_of_hub(base):
        with suppress(Exception):  # there is none, or the Hub cannot be reached
            path = Path(hf_hub_download(name, README, revision=base.get("revision")))
    if path is None or not path.is_file():
        return None
    with suppress(Exception):  # whatever a stranger's card holds
        return ModelCard.load(path, ignore_metadata_errors=True).data.get("license")
    return None


# --- text -------------------------------------------------------------------------------------------------------------


def _title(saved: Saved) -> str:
    return f"{saved.unlearner} on {saved.base.get('name')}"


def _parts(saved: Saved, result: Result | None, loading: str) -> Iterator[str]:
    yield f"# {markdown(_title(saved))}"
    yield (
        "A language model that was made to forget a part of its training data, by "
        f"grun-bench {grun_bench.__version__}. Read what is not erased before use."
    )
    yield _table(("", ""), list(_facts(saved, result)))
    if result:
        yield "## Results"
        yield "\n\n".join(_results(result))
    yield "## What is not erased"
    yield "\n\n".join(_left(saved, result))
    yield LOADING
    yield loading
    yield "## Licence"
    yield _licence(saved)


def _facts(saved: Saved, result: Result | None) -> Iterator[tuple[str, str]]:
    yield "Method", saved.unlearner
    yield "Kept here", f"the adapter {saved.adapter}, without its base" if saved.adapter else "all weights"
    yield "Base", _base(saved.base)
    if result is None:
        return
    yield "Task", f"{result.task} (data {result.dataset}, SHA-256 {result.dataset_hash})"
    for name, rows in result.data.items():
        if name == "train:forget":
            yield "Forget set", f"{rows.get('rows')} rows"
    yield "Seed", str(result.seed)
    yield "Settings", ", ".join(f"{key}={_short(value)}" for key, value in result.unlearner.told.items())
    yield "Run", f"{result.run_id}, {result.date}, protocol {result.protocol}"


def _base(base: dict[str, Any]) -> str:
    """The base in words: its name, commit or hash, and what was made of it before."""
    content = f"commit {base['revision']}" if "revision" in base else f"SHA-256 {base.get('sha256', 'not known')}"
    made = f", fine-tuned into the {base['finetuned']} of the task" if "finetuned" in base else ""
    return f"{base.get('name')}{made} ({content})" + (f", in {base['quantised']}" if "quantised" in base else "")


def _short(value: Any) -> str:
    return for_others(value) if isinstance(value, str) else json.dumps(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([markdown(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _results(result: Result) -> Iterator[str]:
    if result.status != "ok":
        yield f"The training {result.status}: there are no results."
        return
    if result.limit is not None:
        yield f"A smoke test: only the first {result.limit} rows of each set were asked."
    attacks = [name for name in result.attacks if any(result.metrics(name))]
    rows = []
    for metric in result.headline:
        better = {True: " ↑", False: " ↓", None: ""}[result.better(metric)]
        numbers = [_number(result, metric), *(_number(result, metric, attack) for attack in attacks)]
        rows.append([metric + better, *numbers])
    yield _table(["", "no attack", *attacks], rows)
    yield (
        "95 % bootstrap intervals in brackets; under an attack the worst of its variants. ↑ higher is better, ↓ lower. "
        "The numbers are in this card's metadata too (`model-index`)."
    )


def _number(result: Result, metric: str, attack: str = "") -> str:
    value, interval = result.value(metric, attack), result.interval(metric, attack)
    if value is None:
        return "-"
    return f"{value:.4g}" + (f" [{interval[0]:.4g}, {interval[1]:.4g}]" if interval else "")


def _left(saved: Saved, result: Result | None) -> Iterator[str]:
    """What somebody who has the files still gets."""
    if saved.adapter:
        yield _BESIDE
    else:
        yield (
            "The weights themselves were changed, so there is no adapter to take off. That is no proof of erasure: "
            "attacks with access to the weights (relearning on a few rows, quantisation) may bring things back."
        )
    tried = [name for name, info in result.attacks.items() if info.access == "weights"] if result else []
    if result and tried and (forgotten := _forgotten(result)):
        said = [f"{name}: {_number(result, forgotten, name)}" for name in tried]
        yield f"{forgotten}: {_number(result, forgotten)} as it is; under attacks on the weights {'; '.join(said)}."
    elif result:
        yield "No attack with access to the weights was made on it."
    if result and not any(info.access == "user" for info in result.attacks.values()):
        yield "No attack that only asks the model was made on it."


def _forgotten(result: Result) -> str | None:
    """The metric of the headline by which a row is judged to have forgotten."""
    return leads(result.headline, result.higher_is_better[result.task], result.sets)[0]


def _licence(saved: Saved) -> str:
    licence = licence_of(saved.base)
    if licence:
        return f"That of the base, which its card names: {markdown(str(licence))}. What was trained is under the same."
    return "That of the base, which is not known here: see where the base comes from."
