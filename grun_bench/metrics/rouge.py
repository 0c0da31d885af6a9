"""ROUGE of a text against a reference (Lin 2004), by the package rouge-score.

Published numbers compare words of a-z and 0-9, stemmed as English; accented and all other letters are cut out. So they
are for English text, hold for other text in Latin letters as far as it has few accents, and are refused for the rest,
where they would call every answer forgotten. The variants named `..._unicode` compare the words of any script, as
`grun_bench.core.words` finds them, without a stemmer: for text in Latin letters a different number.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

from grun_bench.core.errors import MissingReference
from grun_bench.core.patches import quiet
from grun_bench.core.words import mostly_ascii, words
from grun_bench.metrics._common import check_texts, missing
from grun_bench.results.record import Continuation, Record


class Score(NamedTuple):
    """How much of the text is in the reference, how much of the reference is in the text, and their harmonic mean."""

    precision: float
    recall: float
    f1: float


class _Words:
    """The tokenizer of the Unicode variants, as rouge-score takes it."""

    tokenize = staticmethod(words)


@cache
def _scorer(unicode: bool, stemmed: bool) -> Any:
    from rouge_score import rouge_scorer  # nltk behind it takes a second to import

    options = {"tokenizer": _Words()} if unicode else {"use_stemmer": stemmed}
    with quiet("absl"):  # where it says that it uses the default tokenizer
        return rouge_scorer.RougeScorer(["rouge1", "rougeL"], **options)


@lru_cache(maxsize=100_000)
def _scores(reference: str, text: str, unicode: bool, stemmed: bool) -> dict[str, Score]:
    """rouge1 and rougeL; kept, since several metrics ask for the same pairs."""
    return {kind: Score(*score) for kind, score in _scorer(unicode, stemmed).score(reference, text).items()}


def rouge(
    row: Record,
    answer: Continuation | None,
    text: str,
    kind: str = "rougeL",
    *,
    what: str = "answer",
    unicode: bool,
    stemmed: bool = True,
) -> Score:
    """ROUGE of a text against one of a row's answers; `what` names the answer where it is missing.

    Raises MissingReference for an answer without text, or one that the published definition does not read.
    """
    if answer is None or not answer.text:
        raise missing(row, f"text of the {what}")
    check_texts(row)
    if not unicode and not mostly_ascii(answer.text):
        raise MissingReference(
            f"ROUGE as published compares words of a-z and 0-9, which are less than half of the {what} of row "
            f"{row.index} of '{row.set}'; rougeL_recall_unicode and model_utility_unicode take any script."
        )
    return _scores(answer.text, text, unicode, stemmed)[kind]
