"""Scoring: examples in, records out. Everything token-level comes from one pass over each sequence."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from grun_bench.core import processes
from grun_bench.core.progress import bar
from grun_bench.models.batch import Encoded, collate
from grun_bench.models.engine import Engine
from grun_bench.models.finite import check_finite
from grun_bench.models.forward import evaluating
from grun_bench.models.gradients import gradient_norm
from grun_bench.models.head import TokenScores
from grun_bench.models.lm import LM, Prompts
from grun_bench.models.protocols import CLEAN, Protocol, prompts_under, protocol_of
from grun_bench.models.text_prompts import TextPrompts
from grun_bench.models.work import Counts, Scored, Work
from grun_bench.results.record import Continuation, Generation, Record, Records


@dataclass(frozen=True)
class Example:
    """A question, its answer, and where the set has them a paraphrase and wrong answers.

    Without a question the answer is a whole text: its first token is the prompt, and nothing is generated.

    `context`: questions with their answers that are shown before the question. `prefill`: the first words of an answer
    that are given; the answers are then what comes after them, and `gap` is what stands between the two. `join`: of a
    plain text, whose beginning is the question and whose rest the answer, what stands between those; None where there
    is a question. `prompt`, `max_new_tokens` and `until` say how it is asked where its set is asked in its own way
    (`grun_bench.tasks.task.ScoredData`).
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
    gap: str = " "
    join: str | None = None
    prompt: str | None = None
    max_new_tokens: int | None = None
    until: tuple[str, ...] = ()

    @property
    def candidates(self) -> list[str]:
        """The answers that are scored: the reference first, then the paraphrase if any, then the wrong ones."""
        paraphrased = [] if self.paraphrased_answer is None else [self.paraphrased_answer]
        return [self.answer, *paraphrased, *self.perturbed_answers]


@dataclass(frozen=True)
class ScoringSettings:
    """How to score. `batch_size` None finds the largest batches that fit; `protocol` is a name of PROTOCOLS.

    `gradients_of` are the sets of whose rows gradient norms are kept. `written` are prompts in place of the protocol's.
    """

    max_new_tokens: int = 200
    batch_size: int | None = None
    protocol: str = CLEAN
    generate: bool = True
    gradients_of: frozenset[str] = frozenset()
    written: Prompts | None = None

    def prompts(self, lm: LM, template: str | None = None) -> Prompts:
        """How a model is asked, in a form of the task's own if any. Raises UsageError for an unknown protocol."""
        return self.written or prompts_under(self.protocol, lm, template)


def score(
    lm: LM, examples: Sequence[Example], settings: ScoringSettings = ScoringSettings(), counts: Counts | None = None
) -> Records:
    """Score and answer every example with the model: one record per example, in the order given.

    `counts`, where given, gets the costs added. Raises UsageError for an unknown protocol, and Diverged for a model
    whose scores are not finite.
    """
    protocol, forms = protocol_of(settings.protocol), forms_of(lm, examples, settings)

    def run(label: str, works: Sequence[Work], new: int = 1) -> list[Scored]:
        engine = Engine(
            lm.model,
            stops=stop_tokens(lm),
            max_new_tokens=new,
            batch_size=settings.batch_size,
            hidden=lm.pad_id if protocol.hides_padding else None,
            counts=counts,
        )
        return _run(engine, label, works)

    with evaluating(lm.model):
        news = [new_tokens(each, settings) for each in examples]
        asked = [works_of(forms[each.prompt], each, new > 0) for each, new in zip(examples, news, strict=True)]
        for example, works, new in zip(examples, asked, news, strict=True):
            lm.check_length(longest(works, new), f"row {example.index} of '{example.set}'")
        scored: dict[int, Scored] = {}
        for most in sorted(set(news)):
            places = [place for place, new in enumerate(news) if new == most]
            gave = iter(run("scoring", [work for place in places for work in asked[place]], max(most, 1)))
            scored |= {place: joined(list(islice(gave, len(asked[place])))) for place in places}
        records = [_record(lm, protocol, each, asked[place], scored[place]) for place, each in enumerate(examples)]
        places = [place for place, each in enumerate(examples) if each.paraphrased_question and scored[place].gates]
        rows = [replace(examples[place], question=examples[place].paraphrased_question or "") for place in places]
        again = [Work(prompt_of(forms[row.prompt], row)) for row in rows]
        for place, found in zip(places, run("gates on paraphrased questions", again), strict=True):
            records[place].gates_paraphrased = _gates(found)
        chosen = [place for place, example in enumerate(examples) if example.set in settings.gradients_of]
        norms = _gradient_norms(lm, forms, protocol.hides_padding, [examples[place] for place in chosen])
        for place, norm in zip(chosen, norms, strict=True):
            records[place].scores |= {} if norm is None else {"gradient_norm": norm}
    check_finite(records, lm.model.dtype)
    return Records(records)


#: how questions are put to a model, by the form of their own that examples have
Forms = Mapping[str | None, Prompts]


def forms_of(lm: LM, examples: Iterable[Example], settings: ScoringSettings) -> Forms:
    """Raises UsageError for an unknown protocol."""
    return {template: settings.prompts(lm, template) for template in {each.prompt for each in examples}}


def new_tokens(example: Example, settings: ScoringSettings) -> int:
    """The most tokens that are generated after an example's prompt; 0 where nothing is, as of a whole text."""
    own = example.max_new_tokens
    asked = settings.generate and example.question
    return (settings.max_new_tokens if own is None else own) if asked else 0


def prompt_of(prompts: Prompts, example: Example) -> list[int]:
    """Token ids of an example's prompt, by these prompts where it is a question."""
    if not example.question:
        return encoded(prompts, example, [example.answer])[0].prompt
    return _asking(prompts, example).prompt(example.question, example.context, example.prefill)


def encoded(prompts: Prompts, example: Example, answers: Sequence[str]) -> list[Encoded]:
    """An example's prompt with each of several answers; a whole text with the end that an answer has."""
    if example.question:
        given = (example.context, example.prefill, example.gap)
        return _asking(prompts, example).encode_answers(example.question, answers, *given)
    whole = prompts.encode_text(example.answer, length=sys.maxsize)
    return [Encoded(whole.prompt, [*whole.answer, prompts.tokenizer.eos_token_id])]


def _asking(prompts: Prompts, example: Example) -> Prompts:
    return prompts if example.join is None else TextPrompts(prompts.tokenizer, example.join)


def works_of(prompts: Prompts, example: Example, generate: bool) -> list[Work]:
    """The prompt with all answers; where tokens of both merge, the prompt alone, then each answer after its own."""
    prompt = prompt_of(prompts, example)
    found = encoded(prompts, example, example.candidates)
    if all(each.prompt == prompt for each in found):
        return [Work(prompt, [each.answer for each in found], generate=generate, moments=True)]
    answers = [Work(each.prompt, [each.answer], moments=number == 0) for number, each in enumerate(found)]
    return [Work(prompt, generate=generate), *answers]


def longest(works: Sequence[Work], new: int) -> int:
    """The most tokens that an example may come to: the prompt with an answer, or with `new` generated tokens."""
    after = [(each.prompt, max([new * each.generate, *map(len, each.continuations)])) for each in works]
    return max(len(prompt) + most for prompt, most in after)


def joined(parts: Sequence[Scored]) -> Scored:
    """What the works of one example gave: their continuations together, the rest from the prompt alone."""
    return replace(parts[0], continuations=[scores for part in parts for scores in part.continuations])


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
            others = len(works) - len(scored)
            scored = processes.merged(scored)
            advance(others)
    return [scored[number] for number in range(len(works))]


def _gradient_norms(lm: LM, forms: Forms, hides: bool, examples: Sequence[Example]) -> list[float | None]:
    """The `gradient_norm` of each example's answer; `hides` masks tokens with the id of padding."""
    found = {}
    own = processes.own(range(len(examples)))
    with bar("gradients", len(own)) as advance:
        for place in own:
            row = examples[place]
            batch = collate(encoded(forms[row.prompt], row, [row.answer]), lm.pad_id)
            if hides:
                batch = replace(batch, attention_mask=(batch.input_ids != lm.pad_id).long())
            found[place] = gradient_norm(lm, batch)
            advance()
    found = processes.merged(found) if examples else {}
    return [found[place] for place in range(len(examples))]


def _record(lm: LM, protocol: Protocol, example: Example, works: Sequence[Work], scored: Scored) -> Record:
    tokens = [each for work in works for each in work.continuations]
    answer, *others = map(_continuation, example.candidates, tokens, scored.continuations)
    paraphrased = others.pop(0) if example.paraphrased_answer is not None else None
    generation = None if scored.generated is None else _generation(lm, protocol, scored.generated, example.until)
    return Record(
        example.set,
        example.index,
        example.question,
        answer,
        paraphrased,
        [_loss_alone(other) for other in others],
        generation,
        _gates(scored),
        prefill=example.prefill or None,
    )


def _continuation(text: str, tokens: Sequence[int], scores: TokenScores) -> Continuation:
    matches = [int(token == best) for token, best in zip(tokens, scores.argmax, strict=True)]
    values = (scores.logprobs, scores.means or None, scores.deviations or None)
    logprobs, means, deviations = (None if each is None else [_float32(value) for value in each] for each in values)
    return Continuation(text, logprobs, matches, means, deviations)


def _loss_alone(wrong: Continuation) -> Continuation:
    """Of a wrong answer no metric reads more than its loss; the tokens of all five were half of a records file."""
    return Continuation(wrong.text, loss=wrong.loss, tokens=wrong.tokens)


def _float32(value: float) -> float:
    """The number with the nine digits that tell any two of float32 apart: half the size of a records file."""
    return float(f"{value:.9g}")


def _generation(lm: LM, protocol: Protocol, tokens: list[int], until: Sequence[str] = ()) -> Generation:
    text = lm.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if protocol.cleans_spaces:  # in decode transformers 5 ignores it for BPE, which that tool's version does not
        text = lm.tokenizer.clean_up_tokenization(text)
    return Generation(cut(text, until).strip(), len(tokens), tokens[-1] in stop_tokens(lm))


def cut(text: str, until: Sequence[str]) -> str:
    """The text as far as none of these has begun."""
    return text[: min((place for mark in until if (place := text.find(mark)) >= 0), default=len(text))]


def _gates(scored: Scored) -> dict[str, float] | None:
    # no logit so low that its exponential has no float
    return {str(layer): 1 / (1 + math.exp(min(-logit, 700.0))) for layer, logit in scored.gates.items()} or None
