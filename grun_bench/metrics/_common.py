"""What several metrics read from a record, and the reasons they give when it is not there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from grun_bench.core.errors import MissingReference
from grun_bench.results.record import Continuation, Record
from grun_bench.tasks.roles import Role

#: the roles of sets of which it matters what a model knows
KNOWN: tuple[Role, ...] = ("forget", "retain", "utility", "neighbour")
#: those of them that a model may have been trained on word by word
TRAINED: tuple[Role, ...] = ("forget", "retain", "neighbour")
#: OpenUnlearning's guard against dividing by zero (d3d7cf9, src/evals/metrics)
EPSILON = 1e-10
NEEDS_RETAIN = (
    "needs the retain model's records: give a retain model with --retain-model, or its published log with --retain-log."
)

_RESCORE = "score the model itself; an imported log may not have it"
#: what brings answers that are in the data or nowhere, where the rows are somebody's own
AUGMENT = "with --forget also --augment"
_COLUMN = {
    "paraphrased": f"the data have none, or an imported log: a column paraphrased_answer brings it, {AUGMENT}",
    "perturbed": f"the data have none, or an imported log: a column perturbed_answer brings them, {AUGMENT}",
}


def check_texts(row: Record) -> None:
    """Raises MissingReference where a record has hashes in the place of its texts."""
    if row.hidden:
        raise MissingReference("the texts are private and not on this machine: the one that made the row has them.")


def missing(row: Record, what: str, hint: str = _RESCORE) -> MissingReference:
    """The reason for a metric that is null because one row lacks its input, and what brings it."""
    return MissingReference(f"row {row.index} of '{row.set}' has no {what} ({hint}).")


def written(row: Record) -> str:
    """The greedy answer's text."""
    if row.generation is None:
        raise missing(row, "generated text")
    check_texts(row)
    return row.generation.text


def ngrams(words: list[str], size: int) -> list[tuple[str, ...]]:
    """All runs of so many words, in order."""
    return [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]


def loss_of(row: Record, answer: Continuation | None, what: str) -> float:
    """Mean negative log-likelihood of an answer, in nats a token."""
    if answer is None:
        raise missing(row, what.removeprefix("loss of the "), _COLUMN["paraphrased"])
    if answer.loss is None:
        raise missing(row, what)
    return answer.loss


def probability_of(row: Record, answer: Continuation | None, what: str) -> float:
    """exp(-loss); the log's own value, rounded as it was, for an imported record."""
    if answer is not None and answer.probability is not None:
        return answer.probability
    return float(np.exp(-loss_of(row, answer, what)))


def right_answer(row: Record, role: Role) -> Continuation | None:
    """The true answer that a truth ratio compares with: the paraphrased one.

    Of a utility set it may be the answer itself: its wording was not trained on, so it needs no paraphrase.
    """
    return row.answer if row.paraphrased is None and role == "utility" else row.paraphrased


def wrong_losses(row: Record) -> np.ndarray:
    """The losses of the perturbed answers of a row."""
    if not row.perturbed:
        raise missing(row, "perturbed answers", _COLUMN["perturbed"])
    return np.array([loss_of(row, answer, "loss of a perturbed answer") for answer in row.perturbed])


def wrong_probabilities(row: Record) -> np.ndarray:
    """The probabilities of the perturbed answers of a row."""
    if not row.perturbed:
        raise missing(row, "perturbed answers", _COLUMN["perturbed"])
    return np.array([probability_of(row, answer, "loss of a perturbed answer") for answer in row.perturbed])


def without_paraphrase(row: Record, role: Role) -> str | None:
    """For `leaves_out`: rows without a paraphrased answer, where others have one."""
    return "it has no paraphrased answer" if row.paraphrased is None else None


def without_wrong(row: Record, role: Role) -> str | None:
    """For `leaves_out`: rows without wrong answers, where others have some."""
    return None if row.perturbed else "it has no perturbed answers"


def without_pair(row: Record, role: Role) -> str | None:
    """For `leaves_out`: rows that lack either side of a truth ratio, where others have both."""
    return without_wrong(row, role) or (without_paraphrase(row, role) if role != "utility" else None)


def without_tokens(score: str) -> Callable[[Record, Role], str | None]:
    """For `leaves_out`: rows whose answer has no token before its end, unless a log stored this score of them."""

    def why(row: Record, role: Role) -> str | None:
        known = score in row.scores or row.answer.tokens is None or row.answer.tokens > 1
        return None if known else "the answer has no token before its end"

    return why


def stored_or(rows: Sequence[Record], name: str, values: Iterable[float]) -> np.ndarray:
    """The scores that an imported log stored under `name`, if every row has one, else the (lazy) `values`."""
    if rows and all(name in row.scores for row in rows):
        return np.array([row.scores[name] for row in rows])
    return np.array(list(values))


def per_row(values: Iterable[float]) -> np.ndarray:
    """One float per row."""
    return np.array(list(values), dtype=float)
