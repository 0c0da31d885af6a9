"""Scoring: examples in, records out. Everything token-level comes from one pass over each sequence."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from grun_bench.core.errors import UsageError
from grun_bench.core.progress import bar
from grun_bench.models.engine import Engine
from grun_bench.models.forward import evaluating
from grun_bench.models.head import TokenScores
from grun_bench.models.lm import LM, turns
from grun_bench.models.work import Counts, Scored, Work
from grun_bench.results.record import Continuation, Generation, Record, Records


@dataclass(frozen=True)
class Example:
    """A question, its answer, and where the set has them a paraphrase and wrong answers.

    `context`: questions with their answers that are shown before the question. `prefill`: the first words of an answer
    that are given; the answers are then what comes after them.
    """

    set: str
    index: int
    question: str
    answer: str
    paraphrased_answer: str | None = None
    perturbed_answers: tuple[str, ...] = ()
    paraphrased_question: str | None = None
    context: tuple[tuple[str, str], ...] = ()
    prefill: str = ""

    @property
    def candidates(self) -> list[str]:
        """The answers that are scored: the reference first, then the paraphrase if any, then the wrong ones."""
        paraphrased = [] if self.paraphrased_answer is None else [self.paraphrased_answer]
        return [self.answer, *paraphrased, *self.perturbed_answers]


@dataclass(frozen=True)
class ScoringSettings:
    """How to score. `batch_size` None finds the largest batches that fit; `protocol` is a name of PROTOCOLS."""

    max_new_tokens: int = 200
    batch_size: int | None = None
    protocol: str = "grun-bench"
    generate: bool = True


@dataclass(frozen=True)
class Protocol:
    """What differs between ways of scoring.

    `encode(lm, example)` makes the prompt and the scored tokens of each of its candidates. `hides_padding` masks every
    token whose id is the padding token, real ones of the prompt too. `cleans_spaces` removes spaces before punctuation
    in generations.
    """

    encode: Callable[[LM, Example], tuple[list[int], list[list[int]]]]
    hides_padding: bool
    cleans_spaces: bool


def _clean(lm: LM, example: Example) -> tuple[list[int], list[list[int]]]:
    prompt = lm.prompts.prompt(example.question, example.context, example.prefill)
    return prompt, [lm.prompts.answer(answer, example.prefill) for answer in example.candidates]


def _open_unlearning(lm: LM, example: Example) -> tuple[list[int], list[list[int]]]:
    """Prompt and scored tokens of OpenUnlearning (src/data/utils.py, preprocess_chat_instance, at d3d7cf9).

    The whole conversation goes through the chat template at once; what follows the prompt's tokens is scored, the
    template's tail included, and an end of sequence is added where the template does not end with one.
    """
    if lm.prompts.style != "chat":
        raise UsageError("The protocol open-unlearning needs a model with a chat template.")
    template = lm.tokenizer.apply_chat_template
    system = {"role": "system", "content": "You are a helpful assistant."}
    asked = [system, *turns(example.context), {"role": "user", "content": example.question}]
    options = {"tokenize": False, "date_string": OPEN_UNLEARNING_DATE}
    text = template(asked, add_generation_prompt=True, **options) + example.prefill
    prompt = lm.tokenizer(text, add_special_tokens=False).input_ids

    def scored(answer: str) -> list[int]:
        content = f"{example.prefill} {answer}" if example.prefill else answer
        answered = [*asked, {"role": "assistant", "content": content}]
        whole = lm.tokenizer(template(answered, **options), add_special_tokens=False).input_ids
        return (whole if whole[-1] == lm.tokenizer.eos_token_id else [*whole, lm.tokenizer.eos_token_id])[len(prompt) :]

    return prompt, [scored(answer) for answer in example.candidates]


#: the date in the prompts of OpenUnlearning's Llama 3 models (its configs/model/Llama-3.2-1B-Instruct.yaml)
OPEN_UNLEARNING_DATE = "10 Apr 2025"

#: `grun-bench` is clean: every token of the prompt is attended to, the answer ends with one end of sequence.
#: `open-unlearning` is for comparison with that tool's published tables. Where the padding token is the end of turn, it
#: masks every end of turn of the prompt; positions then differ between scoring and generation; the template's tail is
#: scored. Its extraction strength, exact memorisation and min-k drop the last scored token.
PROTOCOLS = {
    "grun-bench": Protocol(_clean, hides_padding=False, cleans_spaces=False),
    "open-unlearning": Protocol(_open_unlearning, hides_padding=True, cleans_spaces=True),
}


def score(
    lm: LM, examples: Sequence[Example], settings: ScoringSettings = ScoringSettings(), counts: Counts | None = None
) -> Records:
    """Score and answer every example with the model: one record per example, in the order given.

    `counts`, where given, gets the costs added. Raises UsageError for an unknown protocol.
    """
    if settings.protocol not in PROTOCOLS:
        raise UsageError(f"Unknown protocol '{settings.protocol}'. Choose from: {', '.join(PROTOCOLS)}.")
    protocol = PROTOCOLS[settings.protocol]
    engine = Engine(
        lm.model,
        stops=stop_tokens(lm),
        max_new_tokens=settings.max_new_tokens,
        batch_size=settings.batch_size,
        hidden=lm.pad_id if protocol.hides_padding else None,
        counts=counts,
    )
    with evaluating(lm.model):
        works = [Work(*protocol.encode(lm, each), generate=settings.generate, moments=True) for each in examples]
        scored = _run(engine, "scoring", works)
        records = [_record(lm, protocol, *each) for each in zip(examples, works, scored, strict=True)]
        asked = [place for place, each in enumerate(examples) if each.paraphrased_question and scored[place].gates]
        paraphrased = [replace(examples[place], question=examples[place].paraphrased_question or "") for place in asked]
        prompts = [Work(protocol.encode(lm, each)[0]) for each in paraphrased]
        for place, found in zip(asked, _run(engine, "gates on paraphrased questions", prompts), strict=True):
            records[place].gates_paraphrased = _gates(found)
    return Records(records)


def stop_tokens(lm: LM) -> set[int]:
    """The tokens that end a generation: the model's own and the tokenizer's end of sequence."""
    configured = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    stops = set(configured) if isinstance(configured, list) else {configured}
    return {token for token in stops | {lm.tokenizer.eos_token_id} if token is not None}


def _run(engine: Engine, label: str, works: Sequence[Work]) -> list[Scored]:
    """Run works through the engine with a progress bar; what they gave, in the order of the works."""
    scored: dict[int, Scored] = {}
    if works:
        with bar(label, len(works)) as advance:
            for number, each in engine.run(works):
                scored[number] = each
                advance()
    return [scored[number] for number in range(len(works))]


def _record(lm: LM, protocol: Protocol, example: Example, work: Work, scored: Scored) -> Record:
    answer, *others = (
        _continuation(text, tokens, scores)
        for text, tokens, scores in zip(example.candidates, work.continuations, scored.continuations, strict=True)
    )
    paraphrased = others.pop(0) if example.paraphrased_answer is not None else None
    generation = None if scored.generated is None else _generation(lm, protocol, scored.generated)
    return Record(
        example.set,
        example.index,
        example.question,
        answer,
        paraphrased,
        others,
        generation,
        _gates(scored),
        prefill=example.prefill or None,
    )


def _continuation(text: str, tokens: Sequence[int], scores: TokenScores) -> Continuation:
    matches = [int(token == best) for token, best in zip(tokens, scores.argmax, strict=True)]
    values = (scores.logprobs, scores.means or None, scores.deviations or None)
    logprobs, means, deviations = (None if each is None else [_float32(value) for value in each] for each in values)
    return Continuation(text, logprobs, matches, means, deviations)


def _float32(value: float) -> float:
    """The number with the nine digits that tell any two of float32 apart: half the size of a records file."""
    return float(f"{value:.9g}")


def _generation(lm: LM, protocol: Protocol, tokens: list[int]) -> Generation:
    clean = protocol.cleans_spaces
    text = lm.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=clean).strip()
    return Generation(text, len(tokens), tokens[-1] in stop_tokens(lm))


def _gates(scored: Scored) -> dict[str, float] | None:
    # no logit so low that its exponential has no float
    return {str(layer): 1 / (1 + math.exp(min(-logit, 700.0))) for layer, logit in scored.gates.items()} or None
