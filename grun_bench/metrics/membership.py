"""Membership inference: can the forget rows be told from rows the model never saw? AUCs and privleak.

Members are the forget sets, non-members the holdout sets. The AUC is the probability that a member looks more
familiar (a lower score) than a non-member, ties counting half: 1 when the forget rows are far more familiar, 0.5 when
they cannot be told apart, below 0.5 when they are stranger than unseen rows. The aim is the retain model's AUC, so
there is no direction. n is members and non-members together.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from grun_bench.core.errors import MissingReference
from grun_bench.core.registry import metric
from grun_bench.metrics._common import EPSILON, NEEDS_RETAIN, check_texts, loss_of, missing, stored_or, without_tokens
from grun_bench.metrics.scored import ScoredRecords
from grun_bench.results.record import Record
from grun_bench.tasks.roles import Role

#: share of the least likely tokens that min-k and min-k++ average (OpenUnlearning's choice for TOFU)
K = 0.4
_WITHOUT_TOKENS = without_tokens("mia_min_k")


def auc(members: np.ndarray, others: np.ndarray) -> float:
    """Area under the ROC curve of "the lower score is the member" (Mann-Whitney, ties half)."""
    if not (np.isfinite(members).all() and np.isfinite(others).all()):
        return float("nan")
    ranks = rankdata(np.concatenate([members, others]))[len(members) :]
    return float((ranks.sum() - len(others) * (len(others) + 1) / 2) / (len(members) * len(others)))


def _attack(records: ScoredRecords, name: str, score: Callable[[Record], float]) -> float:
    sides = records.of("forget"), records.of("holdout")
    return auc(*(stored_or(rows, name, (score(row) for row in rows)) for rows in sides))


def _loss(row: Record) -> float:
    return loss_of(row, row.answer, "loss of the answer")


def _without_text(row: Record, role: Role) -> str | None:
    known = "mia_zlib" in row.scores or (row.answer.text and row.answer.tokens != 0)
    return None if known else "the answer is empty"


def _zlib(row: Record) -> float:
    if not row.answer.text:
        raise missing(row, "answer text")
    check_texts(row)
    return _loss(row) / len(zlib.compress(row.answer.text.encode("utf-8")))


def _lowest(values: np.ndarray) -> float:
    """Minus the mean of the lowest share K of the values, at least one; NaN where one is."""
    if np.isnan(values).any():  # sorting would put it behind those that count
        return float("nan")
    return -float(np.sort(values)[: max(1, int(len(values) * K))].mean())


def _token_logprobs(row: Record) -> np.ndarray:
    """Log probabilities of the answer's tokens without the end of sequence."""
    if row.answer.logprobs is None or len(row.answer.logprobs) < 2:
        raise missing(row, "per-token log probabilities of the answer")
    return np.array(row.answer.logprobs[:-1])


def _min_k(row: Record) -> float:
    return _lowest(_token_logprobs(row))


def _min_k_plus_plus(row: Record) -> float:
    logprobs, answer = _token_logprobs(row), row.answer
    if answer.means is None or answer.deviations is None:
        raise missing(row, "per-token means and deviations")
    deviations = np.maximum(np.array(answer.deviations[:-1]), 1e-3)
    return _lowest((logprobs - np.array(answer.means[:-1])) / deviations)


@metric("mia_loss", over=("forget", "holdout"), higher_is_better=None, bounds=(0.0, 1.0))
def mia_loss(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Membership inference by the loss of the answer: AUC, 0 to 1; the aim is the retain model's.

    Source: Yeom et al. 2018 (arXiv 1709.01604), as OpenUnlearning @ d3d7cf9 (`mia_loss`).
    """
    return _attack(records, "mia_loss", _loss)


@metric("mia_zlib", over=("forget", "holdout"), higher_is_better=None, bounds=(0.0, 1.0), leaves_out=_without_text)
def mia_zlib(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Membership inference by loss / length of the zlib-compressed answer: AUC, 0 to 1; the aim is the retain model's.

    Source: Carlini et al. 2021 (arXiv 2012.07805), as OpenUnlearning @ d3d7cf9 (`mia_zlib`).
    """
    return _attack(records, "mia_zlib", _zlib)


@metric("mia_min_k", over=("forget", "holdout"), higher_is_better=None, bounds=(0.0, 1.0), leaves_out=_WITHOUT_TOKENS)
def mia_min_k(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Membership inference by the mean log probability of the 40 % least likely tokens: AUC; aim: the retain model's.

    The end of sequence is left out. Source: Shi et al. 2023 (arXiv 2310.16789), as OpenUnlearning @ d3d7cf9
    (`mia_min_k`, k = 0.4).
    """
    return _attack(records, "mia_min_k", _min_k)


@metric(
    "mia_min_k_plus_plus",
    over=("forget", "holdout"),
    higher_is_better=None,
    bounds=(0.0, 1.0),
    leaves_out=without_tokens("mia_min_k_plus_plus"),
)
def mia_min_k_plus_plus(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Min-k with log probabilities standardised by the next-token distribution: AUC; the aim is the retain model's.

    The end of sequence is left out, the deviation at least 1e-3. Source: Zhang et al. 2024 (arXiv 2404.02936), as
    OpenUnlearning @ d3d7cf9 (`mia_min_k_plus_plus`, k = 0.4).
    """
    return _attack(records, "mia_min_k_plus_plus", _min_k_plus_plus)


@metric("mia_reference", over=("forget", "holdout"), higher_is_better=None, bounds=(0.0, 1.0))
def mia_reference(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Membership inference by the loss minus the retain model's loss on the same row: AUC, 0 to 1; aim: 0.5.

    Source: Watson et al. 2021 (arXiv 2111.08440), as OpenUnlearning @ d3d7cf9 (`mia_reference`), with the retain model
    as the reference.
    """
    known = {} if reference is None else {(row.set, row.index): row for row in reference}

    def score(row: Record) -> float:
        if not known:
            raise MissingReference(NEEDS_RETAIN)
        if (row.set, row.index) not in known:
            raise MissingReference(f"the retain model's records lack row {row.index} of '{row.set}'.")
        return _loss(row) - _loss(known[row.set, row.index])

    return _attack(records, "mia_reference", score)


@metric(
    "mia_gradnorm",
    over=("forget", "holdout"),
    higher_is_better=None,
    bounds=(0.0, 1.0),
    leaves_out=without_tokens("mia_gradnorm"),
    gradients=True,
)
def mia_gradnorm(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Membership inference by the norm of the loss's gradient: AUC, 0 to 1; the aim is the retain model's.

    The mean over the weight tensors of the gradient's 2-norm; the end of sequence is left out. Source: OpenUnlearning @
    d3d7cf9 (`mia_gradnorm`, p = 2; Wang et al. 2024, arXiv 2402.17012).
    """
    return _attack(records, "mia_gradnorm", _gradient_norm)


def _gradient_norm(row: Record) -> float:
    if "gradient_norm" not in row.scores:
        raise missing(row, "gradient norm, which weights that are quantised or in float16 do not have")
    return row.scores["gradient_norm"]


def _leak(own: float, retain: float) -> float:
    return ((1.0 - own) - (1.0 - retain)) / ((1.0 - retain) + EPSILON) * 100.0


@metric(
    "privleak",
    over=("forget", "holdout"),
    reference="retain",
    higher_is_better=None,
    bounds=(-100.0, float("inf")),
    leaves_out=_WITHOUT_TOKENS,
)
def privleak(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Privacy leakage in percent: relative gap of 1 - AUC (min-k) to the retain model's; the aim is 0.

    -100 when every forget row is more familiar than any unseen one (not forgotten), above 0 when they are stranger than
    to the retain model (over-unlearnt). Source: MUSE (arXiv 2407.06460, section 3), as OpenUnlearning @ d3d7cf9
    (`privleak` with retain logs; AUC turned round and 1e-10 in the denominator). Leaderboards use this one.
    """
    if reference is None or not (reference.of("forget") and reference.of("holdout")):
        raise MissingReference("the retain model's records have no rows of the forget and the holdout set.")
    return _leak(mia_min_k(records, None), mia_min_k(reference, None))


def _published(records: ScoredRecords, retain: float) -> float:
    return (1.0 - mia_min_k(records, None) - retain) / retain * 100.0


@metric(
    "privleak_muse_news",
    over=("forget", "holdout"),
    higher_is_better=None,
    bounds=(-100.0, float("inf")),
    leaves_out=_WITHOUT_TOKENS,
)
def privleak_muse_news(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Privacy leakage in percent against the published AUC of MUSE-News's retrained model, .4772; the aim is 0.

    Source: as `privleak`; the AUC by min-k of Llama-2-7B, of which alone it holds, as MUSE's code has it.
    """
    return _published(records, 0.4772)


@metric(
    "privleak_muse_books",
    over=("forget", "holdout"),
    higher_is_better=None,
    bounds=(-100.0, float("inf")),
    leaves_out=_WITHOUT_TOKENS,
)
def privleak_muse_books(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Privacy leakage in percent against the published AUC of MUSE-Books' retrained model, .5393; the aim is 0.

    Source: as `privleak_muse_news`.
    """
    return _published(records, 0.5393)


@metric(
    "privleak_half",
    over=("forget", "holdout"),
    higher_is_better=None,
    bounds=(-100.0, 100.0),
    leaves_out=_WITHOUT_TOKENS,
)
def privleak_half(records: ScoredRecords, reference: ScoredRecords | None) -> float:
    """Privacy leakage in percent against an AUC of one half in place of the retain model's; the aim is 0.

    Source: OpenUnlearning @ d3d7cf9 (`privleak` when no retain logs are given). No leaderboard uses it.
    """
    return _leak(mia_min_k(records, None), 0.5)
