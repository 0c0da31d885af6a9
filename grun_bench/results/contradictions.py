"""What one record cannot say of one model, whatever the model: forged or broken, known without making it again."""

from __future__ import annotations

import math
from collections.abc import Iterator

from grun_bench.results.record import Continuation, Record

#: what rounding may add to a log probability of 0, and relative to a mean over tokens
ABOVE, ROUNDING = 1e-4, 1e-6
#: what a published log may round a probability to
_ROUNDED = 0.01


def contradictions(record: Record) -> Iterator[str]:
    """Each with its place in the record: log probabilities above 0, a loss that is not minus their mean, and the like.

    A token that is not the most probable one has at most half of the probability.
    """
    answers = [("answer", record.answer), *((f"perturbed.{at}", one) for at, one in enumerate(record.perturbed))]
    if record.paraphrased:
        answers.append(("paraphrased", record.paraphrased))
    for name, answer in answers:
        yield from (f"{name}.{what}" for what in _of_answer(answer))
    for name, gates in (("gates", record.gates), ("gates_paraphrased", record.gates_paraphrased)):
        if any(not 0 <= gate <= 1 for gate in (gates or {}).values()):
            yield f"{name}: not from 0 to 1"
    if record.choices and max(record.choices.logprobs) > ABOVE:
        yield "choices.logprobs: a log probability above 0"


def _of_answer(answer: Continuation) -> Iterator[str]:
    logprobs, loss, probability = answer.logprobs, answer.loss, answer.probability
    if logprobs is not None:
        yield from _of_tokens(logprobs, answer)
    elif loss is not None and loss < -ABOVE:
        yield f"loss: {loss}, below 0"
    if probability is not None:
        if not 0 <= probability <= 1 + ABOVE:
            yield f"probability: {probability}, not from 0 to 1"
        elif loss is not None and abs(probability - math.exp(-loss)) > _ROUNDED:
            yield f"probability: {probability}, and exp(-loss) is {math.exp(-loss)}"


def _of_tokens(logprobs: list[float], answer: Continuation) -> Iterator[str]:
    mean = -math.fsum(logprobs) / len(logprobs)
    if max(logprobs) > ABOVE:
        yield "logprobs: a log probability above 0"
    if answer.loss is None or abs(answer.loss - mean) > ROUNDING * (1 + abs(mean)):
        yield f"loss: {answer.loss}, and minus the mean of its log probabilities is {mean}"
    if set(answer.matches or ()) - {0, 1}:
        yield "matches: neither 0 nor 1"
    likely = math.log(0.5) + ABOVE
    if any(not match and each > likely for match, each in zip(answer.matches or (), logprobs, strict=False)):
        yield "matches: a token of more than half of the probability that is not the most probable one"
    if max(answer.means or [0.0]) > ABOVE:
        yield "means: a mean log probability above 0"
    if min(answer.deviations or [0.0]) < 0:
        yield "deviations: one below 0"
