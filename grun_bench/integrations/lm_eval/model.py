"""Our models as a model of lm-eval (0.4.13).

lm-eval's `hf` model is what ours is made of; the difference is that a forward pass is told where each request's context
ends, since that is where GRUN and ReFT edit. On a model without an adapter every value is the one that lm-eval's `hf`
gives.

lm-eval's command line comes here by `--model grun_bench --model_args adapter=DIR`, with DIR from `run --save DIR`: by
the entry point `lm_eval.models` of this package in versions after 0.4.13, which look for it, and in 0.4.13 by
`grun-bench lm-eval` or a task file (see `registered`). A script gives `HarnessLM(DIR)` to `lm_eval.simple_evaluate`.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import Collator
from lm_eval.models.utils_hf import pad_and_concat

from grun_bench.core.errors import ModelError
from grun_bench.core.patches import mirrored_datasets, offline_if_unreachable, quiet_lm_eval
from grun_bench.core.progress import bar, say
from grun_bench.methods.saving import load
from grun_bench.models.forward import calling
from grun_bench.models.lm import LM

#: sequences at once where nothing is said
BATCH_SIZE = 16

#: a request of lm-eval: (context, continuation) as strings or None, then both as token ids
Request = tuple[tuple[str, str] | None, list[int], list[int]]


class HarnessLM(HFLM):
    """lm-eval's `hf` model around one of ours.

    `adapter` is the folder of a saved unlearned model, `base` that of its base where that is not found, `lm` a loaded
    model; `device` and `dtype` are for the first, the rest is as for `hf`. Raises ModelError for a folder that holds no
    model.

    Every request is edited at the last token of its context: in scoring the token before the continuation's first, in
    generation the last one of the prompt, in rolling log-likelihoods the last token of a window's own context.
    """

    def __init__(
        self,
        adapter: str | None = None,
        *,
        base: str | None = None,
        lm: LM | None = None,
        device: str | None = None,
        dtype: str = "auto",
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        if lm is None:
            lm = _load_saved(adapter, device, dtype, base)
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
        # of a spread model the first weight may be nowhere
        self._device = lm.device

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
        size = self.batch_size
        if size != "auto":
            return int(size), None
        if override:
            return override, None
        self.batch_sizes: dict[int, int] = {}
        firsts = [requests[numbers[0]] for numbers in ordered]
        return 0, lambda place, _: self._batch_scheduler(place, firsts)

    def _detect_batch_size(self, requests: Sequence[Request] | None = None, pos: int = 0) -> int:
        """As lm-eval's, on tokens that are no prompt of anything."""
        with calling(None):
            return super()._detect_batch_size(requests, pos)

    def _logprobs(self, requests: Sequence[Request]) -> Iterator[torch.Tensor]:
        """(continuation, vocabulary) log-probabilities of each request, run as one right-padded batch.

        What does not fit the model is cut from the left of the context, as lm-eval does.
        """
        inputs = [(context + continuation)[-(self.max_length + 1) : -1] for _, context, continuation in requests]
        ends = [len(tokens) - len(request[2]) for tokens, request in zip(inputs, requests, strict=True)]
        edited = [self._prompt_end(tokens, end) for tokens, end in zip(inputs, ends, strict=True)]
        rows = [torch.tensor(tokens, device=self.device) for tokens in inputs]
        batch = pad_and_concat(max(map(len, inputs)), rows, padding_side="right")
        with calling(torch.tensor(edited, device=self.device)):
            logits = self._model_call(batch)
        logprobs = torch.nn.functional.log_softmax(logits, dim=-1, dtype=self.softmax_dtype)
        for row, tokens, end in zip(logprobs, inputs, ends, strict=True):
            yield row[end : len(tokens)]

    def _prompt_end(self, tokens: list[int], end: int) -> int:
        """Where a prompt ends whose context does at index `end`.

        lm-eval counts the white space behind a context to the continuation, also where a chat template ends with it.
        """
        start = self.lm.prompts.answer_start
        begins = range(max(0, end + 1 - len(start)), end + 1)
        return next((begin + len(start) - 1 for begin in begins if tokens[begin : begin + len(start)] == start), end)


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


def _load_saved(adapter: str | None, device: str | None, dtype: str, base: str | None) -> LM:
    """The model of a folder. Without CUDA, lm-eval's own default of `cuda:0` means what there is, as for its `hf`."""
    if adapter is None:
        raise ModelError("--model_args adapter=DIR is needed: the folder that `grun-bench run --save DIR` wrote.")
    if device and device.startswith("cuda") and not torch.cuda.is_available():
        say(f"no CUDA here: the model runs on the CPU, not on {device}.")
        device = None
    return load(adapter, device=device or "auto", dtype=dtype, base=base)
