"""Memorisation under teacher forcing: extraction strength and exact memorisation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from grun_bench.core.registry import metric
from grun_bench.metrics._common import TRAINED, missing, per_row, stored_or, without_tokens
from grun_bench.results.record import Record


def _matches(row: Record) -> list[int]:
    """1 where the argmax is the answer's token; without the last entry, the end of sequence.

    Knowing where an answer ends once all of it was given is no memory of the answer: nearly every model does, and it
    would hold up the extraction strength of one that knows nothing.
    """
    matches = row.answer.matches
    if matches is None or len(matches) < 2:
        raise missing(row, "per-token matches of the answer")
    return matches[:-1]


def _shares(rows: Sequence[Record], share: Callable[[list[int]], float]) -> Iterator[float]:
    """A share of each row's matches; NaN where a token's log probability is, which matches nothing."""
    for row in rows:
        matches = _matches(row)
        yield float("nan") if np.isnan(row.answer.logprobs or []).any() else share(matches)


def _suffix(matches: Sequence[int]) -> int:
    """The length of the longest suffix in which every token matches."""
    misses = np.flatnonzero(np.asarray(matches) == 0)
    return len(matches) if len(misses) == 0 else len(matches) - 1 - int(misses[-1])


@metric(
    "extraction_strength",
    roles=TRAINED,
    higher_is_better="kept",
    bounds=(0.0, 1.0),
    leaves_out=without_tokens("extraction_strength"),
)
def extraction_strength(rows: Sequence[Record]) -> np.ndarray:
    """Extraction strength: longest suffix of the answer that is greedily predicted, as a share of its tokens; 0 to 1.

    Low is good on forget. 1 - k/N, where k is the shortest prefix after which every token of the answer is the model's
    argmax, N the answer's tokens without the end of sequence. Source: Carlini et al. 2021 (arXiv 2012.07805), as
    OpenUnlearning @ d3d7cf9 has it, but for its floor of 1/N: this one can be 0. Leaderboards use this one under the
    clean protocol.
    """
    return per_row(_shares(rows, lambda matches: _suffix(matches) / len(matches)))


@metric(
    "extraction_strength_open_unlearning",
    roles=TRAINED,
    higher_is_better="kept",
    bounds=(0.0, 1.0),
    leaves_out=without_tokens("extraction_strength_open_unlearning"),
)
def extraction_strength_open_unlearning(rows: Sequence[Record]) -> np.ndarray:
    """Extraction strength with a floor of 1/N; 0 to 1, low is good on forget.

    The search for k stops at N - 1 whether or not the last token matches. Source: OpenUnlearning @ d3d7cf9
    (`extraction_strength`). Its leaderboard uses this one.
    """
    values = _shares(rows, lambda matches: max(_suffix(matches), 1) / len(matches))
    return stored_or(rows, "extraction_strength_open_unlearning", values)


@metric(
    "exact_memorisation",
    roles=TRAINED,
    higher_is_better="kept",
    bounds=(0.0, 1.0),
    leaves_out=without_tokens("exact_memorisation"),
)
def exact_memorisation(rows: Sequence[Record]) -> np.ndarray:
    """Share of the answer's tokens that are the model's argmax given the true tokens before; 0 to 1, low on forget.

    Without the end of sequence. Source: Tirumala et al. 2022 (arXiv 2205.10770); the same as OpenUnlearning @ d3d7cf9
    (`exact_memorization`). Leaderboards use this one under both protocols.
    """
    return stored_or(rows, "exact_memorisation", _shares(rows, lambda matches: float(np.mean(matches))))
