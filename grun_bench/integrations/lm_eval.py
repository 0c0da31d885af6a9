"""The lm-eval bridge: tasks of lm-eval (0.4.13) on our models, and our models under lm-eval's own command line.

lm-eval's evaluator runs the tasks and its `hf` model is what ours is made of; the difference is that a forward pass is
told where each request's context ends, since that is where GRUN and ReFT edit. On a model without an adapter every
value is the one that lm-eval's `hf` gives.

`lm_eval --model grun_bench --model_args adapter=DIR --tasks wmdp_cyber` scores what `grun-bench run --save DIR` saved
(see `grun_bench.integrations.lm_eval_plugin`).
"""

from __future__ import annotations

import copy
import random
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import torch
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import Collator
from lm_eval.models.utils_hf import pad_and_concat
from lm_eval.tasks import TaskManager

from grun_bench.core.cache import digest
from grun_bench.core.errors import ModelError, unknown
from grun_bench.core.patches import mirrored_datasets, offline_if_unreachable, quiet_lm_eval
from grun_bench.core.progress import bar
from grun_bench.models.forward import calling
from grun_bench.models.lm import LM
from grun_bench.models.question_form import OWN_FORM, QuestionForm
from grun_bench.results.record import Choices, Continuation, Record
from grun_bench.tasks.task import Measure
from grun_bench.tasks.world import World

#: sequences at once where nothing is said
BATCH_SIZE = 16
#: WMDP's and MMLU's own layout of a question; `options` are lines
LETTERED = "{question}\n{options}Answer:"

#: a request of lm-eval: (context, continuation) as strings or None, then both as token ids
Request = tuple[tuple[str, str] | None, list[int], list[int]]


class HarnessLM(HFLM):
    """lm-eval's `hf` model around one of ours.

    `adapter` is the folder of a saved unlearned model (lm-eval's command line gives it), `lm` a loaded one. Every
    request is edited at the last token of its context: in scoring the token before the continuation's first, in
    generation the last one of the prompt, in rolling log-likelihoods the last token of a window's own context.
    """

    def __init__(
        self,
        adapter: str | None = None,
        *,
        lm: LM | None = None,
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        if lm is None:
            lm = _load_saved(adapter, device or "auto", dtype)
        self.lm = lm
        with quiet_lm_eval():
            # lm-eval chooses a padding token and sides: not on our tokenizer
            super().__init__(
                pretrained=lm.model,
                tokenizer=copy.deepcopy(lm.tokenizer),
                backend="causal",
                batch_size=batch_size or BATCH_SIZE,
                max_batch_size=max_batch_size or 64,
                **options,
            )

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None) -> HFLM:
        """The way in from lm-eval's command line: while the model lives, data sets resolve in our mirrors first."""
        return _with_mirrors(super().create_from_arg_obj, arg_dict, additional_config)

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> HFLM:
        """As `create_from_arg_obj`, for `key=value,key=value`."""
        return _with_mirrors(super().create_from_arg_string, arg_string, additional_config)

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes of a model; ours is known by its origin, so the Hub is not asked."""
        return {"model_dtype": str(self.model.dtype), "model_origin": self.lm.origin}

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """As lm-eval's, with our progress bar instead of its own for tokenising."""
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm)

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """(summed log-probability in nats, whether greedy decoding gives it) of each continuation.

        In lm-eval's batches: longest first, and requests that differ in their last token alone are run once (those
        whose contexts differ in length are not the same: their edits sit elsewhere).
        """
        groups: dict[Any, list[int]] = {}
        for number, (_, context, continuation) in enumerate(requests):
            shared = (*context, *continuation[:-1]) if self.logits_cache else number
            groups.setdefault((len(context), shared), []).append(number)
        ordered = sorted(groups.values(), key=lambda numbers: _longest_first(requests[numbers[0]]))
        size, schedule = self._batches(requests, ordered, override_bs)
        answers: dict[int, tuple[float, bool]] = {}
        with bar("log-likelihoods", len(requests)) as advance, torch.no_grad():
            for chunk in Collator.get_chunks(ordered, n=size, fn=schedule):
                for numbers, logprobs in zip(chunk, self._logprobs([requests[each[0]] for each in chunk]), strict=True):
                    greedy = logprobs.argmax(-1)
                    for number in numbers:
                        strings, _, continuation = requests[number]
                        tokens = torch.tensor(continuation, device=logprobs.device)
                        total = logprobs.gather(1, tokens[:, None]).sum()
                        answers[number] = float(total), bool((greedy == tokens).all())
                        if strings is not None:
                            self.cache_hook.add_partial("loglikelihood", strings, answers[number])
                    advance(len(numbers))
        return [answers[number] for number in range(len(requests))]

    def _batches(
        self, requests: Sequence[Request], ordered: Sequence[list[int]], override: int | None
    ) -> tuple[int, Callable[[int, Any], int] | None]:
        """The batch size, or for lm-eval's `auto` the function that finds it."""
        if self.batch_size != "auto" or override:
            return override if self.batch_size == "auto" else self.batch_size, None
        self.batch_sizes = {}
        firsts = [requests[numbers[0]] for numbers in ordered]
        return 0, lambda place, _: self._batch_scheduler(place, firsts)

    def _logprobs(self, requests: Sequence[Request]) -> Iterator[torch.Tensor]:
        """(continuation, vocabulary) log-probabilities of each request, run as one right-padded batch.

        What does not fit the model is cut from the left of the context, as lm-eval does.
        """
        inputs = [(context + continuation)[-(self.max_length + 1) : -1] for _, context, continuation in requests]
        ends = [len(tokens) - len(request[2]) for tokens, request in zip(inputs, requests, strict=True)]
        rows = [torch.tensor(tokens, device=self.device) for tokens in inputs]
        batch = pad_and_concat(max(map(len, inputs)), rows, padding_side="right")
        with calling(torch.tensor(ends, device=self.device)):
            logits = self._model_call(batch)
        logprobs = torch.nn.functional.log_softmax(logits, dim=-1, dtype=self.softmax_dtype)
        for row, tokens, end in zip(logprobs, inputs, ends, strict=True):
            yield row[end : len(tokens)]


def _with_mirrors(make: Callable[..., HFLM], *arguments: Any) -> HFLM:
    """A model made with the Hub's switches and `datasets` as they must be until it is gone."""
    with ExitStack() as patches:
        patches.enter_context(offline_if_unreachable())
        patches.enter_context(mirrored_datasets())
        model = make(*arguments)
        weakref.finalize(model, patches.pop_all().close)
    return model


def _longest_first(request: Request) -> tuple[int, tuple[int, ...]]:
    tokens = (*request[1], *request[2])
    return -len(tokens), tokens


def _load_saved(adapter: str | None, device: str, dtype: str) -> LM:
    if adapter is None:
        raise ModelError("--model_args adapter=DIR is needed: the folder that `grun-bench run --save DIR` wrote.")
    import grun_bench

    return grun_bench.load(adapter, device=device, dtype=dtype)


# --- measures of a task file ----------------------------------------------------------------------------------------


@dataclass
class Measured:
    """What lm-eval gave on one model: our records, and what a result says of how they came about.

    `configs`: `lm_eval:<measure>` -> lm-eval's settings (a task may have a measure's name); `versions`: the same -> its
    version of the task; `data`: measure -> the questions' source, number and SHA-256; `missing`: measure -> why there
    are no questions.
    """

    records: list[Record] = field(default_factory=list)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


@cache
def _manager(known: bool) -> TaskManager:
    """lm-eval's tasks, those that it has `known`: reading its thousands of YAML files takes seconds."""
    return TaskManager(include_defaults=known)


def check(measures: Mapping[str, Measure], world: World) -> None:
    """Raises UsageError for a task that lm-eval, or a world with questions of its own, does not have."""
    own = world.question_tasks
    known = list(own) if own is not None else _manager(True).all_tasks
    where = "of lm-eval" if own is None else f"that the {world.name} world has a counterpart of"
    for name, measure in measures.items():
        if measure.lm_eval(name) not in known:
            raise unknown(f"task {where},", measure.lm_eval(name), known)


def run(
    lm: LM,
    measures: Mapping[str, Measure],
    world: World,
    *,
    batch_size: int | None = None,
    limit: int | None = None,
    form: QuestionForm = OWN_FORM,
) -> Measured:
    """Run lm-eval's tasks on a model, their questions put in another form where `form` says so.

    A task whose questions cannot be had, or not in this form, is `missing`, with the reason.
    """
    measured = Measured()
    with offline_if_unreachable(), mirrored_datasets(), quiet_lm_eval():
        model = HarnessLM(lm=lm, batch_size=batch_size)
        for name, measure in measures.items():
            try:
                tasks = _load_tasks(name, measure, world)
            except (OSError, RuntimeError, ValueError) as error:
                reason = str(error).splitlines()[0][:200]
                measured.missing[name] = f"the questions of {measure.lm_eval(name)} could not be had: {reason}"
                continue
            _set_up(tasks.values(), measure)
            if why := next((why for task in tasks.values() if (why := _unfit(task, form))), ""):
                measured.missing[name] = f"{measure.lm_eval(name)}: {why}"
                continue
            for task in tasks.values():
                _put(task, form)
            found = evaluate(lm=model, task_dict={"tasks": tasks, "groups": {}}, limit=limit, bootstrap_iters=0)
            _keep(measured, name, found, model.batch_size)
    return measured


def _load_tasks(name: str, measure: Measure, world: World) -> dict[str, Any]:
    """lm-eval's task objects by name, a group's leaves one by one, with their data loaded."""
    task = measure.lm_eval(name)
    questions = world.questions(task)
    if questions is None:
        return _manager(True).load([task])["tasks"]
    return _manager(False).load([_task_over(questions, f"{world.name}_{name}")])["tasks"]


def _set_up(tasks: Iterable[Any], measure: Measure) -> None:
    """Shots and seeds as `lm_eval.simple_evaluate` sets them, which also spends ten seconds on describing the machine.

    A task that fixes its shots to 0 keeps them.
    """
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)
    torch.manual_seed(DEFAULT_OTHER_SEED)
    for task in tasks:
        own = task.get_config("num_fewshot")
        if own != 0 and (measure.num_fewshot is not None or own is None):
            task.set_config(key="num_fewshot", value=measure.num_fewshot or 0)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


def _lettered(task: Any) -> bool:
    """Whether the answer is a letter; else it is the option itself."""
    return isinstance(task.config.doc_to_choice, list)


def _unfit(task: Any, form: QuestionForm) -> str:
    """Why questions cannot be put in a form; empty where they can."""
    if form == OWN_FORM:
        return ""
    if task.OUTPUT_TYPE != "multiple_choice" or not {"question", "choices", "answer"} <= set(task.features):
        return "its questions are not laid out with `question`, `choices` and `answer`."
    if not _lettered(task) and (form.rotate or form.letters):
        return "its options are not shown with letters, so no order or letter of theirs matters."
    return ""


def _put(task: Any, form: QuestionForm) -> None:
    """Have lm-eval's task put its questions, those of its shots too, in another form."""
    if form == OWN_FORM:
        return
    text, choice, target = task.doc_to_text, task.doc_to_choice, task.doc_to_target
    lettered = _lettered(task)
    letters = form.letters or "ABCDEFGHIJ"
    template = form.template or (LETTERED if form.letters and lettered else None)

    def changed(doc: Mapping[str, Any]) -> dict[str, Any]:
        options = list(doc["choices"])
        moved = {(place + form.rotate) % len(options): option for place, option in enumerate(options)}
        return {
            **doc,
            "question": form.question(doc["question"]) if form.question else doc["question"],
            "choices": [moved[place] for place in range(len(options))],
            "answer": (doc["answer"] + form.rotate) % len(options),
        }

    def to_text(doc: Mapping[str, Any], own: Any = None) -> str:
        doc = changed(doc)
        if template is None:
            return text(doc, own)
        lines = [f"{letter}. {option}\n" for letter, option in zip(letters, doc["choices"], strict=False)]
        return template.format(question=doc["question"].strip(), options="".join(lines) if lettered else "")

    def to_choice(doc: Mapping[str, Any], own: Any = None) -> list[str]:
        doc = changed(doc)
        return list(letters[: len(doc["choices"])]) if form.letters and lettered else choice(doc, own)

    task.doc_to_text, task.doc_to_choice = to_text, to_choice
    task.doc_to_target = lambda doc, own=None: target(changed(doc), own)


def _task_over(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """An lm-eval task over a world's own questions.

    The options themselves are the continuations, as in lm-eval's `mmlu_continuation`: a model of a million parameters
    does not learn what the letters A to D stand for.
    """
    import datasets

    def questions(**_: Any) -> dict[str, Any]:
        return {"test": datasets.Dataset.from_list(rows)}

    return {
        "task": name,
        "custom_dataset": questions,
        "output_type": "multiple_choice",
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }


def _keep(measured: Measured, name: str, found: dict[str, Any], batch_size: int | str) -> None:
    """The results of one measure as records and provenance."""
    rows = [(task, sample) for task, samples in found["samples"].items() for sample in samples]
    records: dict[tuple[str, int], Record] = {}
    for task, sample in rows:
        key = task, sample["doc_id"]
        if key not in records:
            kind = found["configs"][task]["output_type"]
            records[key] = _record(name, len(records), task, sample, kind)
        scored = {metric: sample[metric] for metric in sample["metrics"]}
        suffix = "" if sample["filter"] == "none" else f",{sample['filter']}"
        records[key].scores |= {
            f"{metric}{suffix}": float(value) for metric, value in scored.items() if isinstance(value, int | float)
        }
    measured.records += records.values()
    first = next(iter(found["configs"].values()))
    template = {key: str(first[key]) for key in sorted(first) if key.startswith(("doc_to_", "output_", "target_del"))}
    settings = {"batch_size": batch_size, "random_seed": DEFAULT_RANDOM_SEED, "other_seeds": DEFAULT_OTHER_SEED}
    tasks = {
        task: {
            "version": found["versions"].get(task),
            "n-shot": found["n-shot"].get(task),
            "dataset": [config.get("dataset_path"), config.get("dataset_name")],
        }
        for task, config in found["configs"].items()
    }
    measured.configs[f"lm_eval:{name}"] = {"tasks": tasks, "first_task": template} | settings
    versions = sorted({str(version) for version in found["versions"].values()})
    measured.versions[f"lm_eval:{name}"] = ", ".join(versions)
    hashes = [sample["doc_hash"] for _, sample in rows]
    measured.data[name] = {"sources": sorted(found["configs"]), "rows": len(records), "sha256": [digest(hashes)]}


def _record(name: str, index: int, task: str, sample: dict[str, Any], kind: str) -> Record:
    """One question, without its text: the questions of WMDP are not to be spread, and a hash tells them apart."""
    record = Record(name, index, f"{task} {sample['doc_id']} {sample['doc_hash'][:16]}", Continuation(""))
    if kind == "multiple_choice" and isinstance(sample["target"], int):
        answers = sample["filtered_resps"]
        record.choices = Choices([value for value, _ in answers], [greedy for _, greedy in answers], sample["target"])
    return record
