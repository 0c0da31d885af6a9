"""Whether an answer means what the right one does: a judge beside ROUGE, which counts words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grun_bench.core.registry import metric
from grun_bench.metrics._common import KNOWN, missing, per_row
from grun_bench.results.record import Record

#: the model whose embeddings are compared; another one would be another metric
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
#: the cosine that best parts TOFU's paraphrased answers from its wrong ones: 0.827 on forget10, 0.838 on retain rows
SAME = 0.83


@metric("similarity", roles=KNOWN, higher_is_better="kept", bounds=(-1.0, 1.0), sentences=True)
def similarity(rows: Sequence[Record]) -> np.ndarray:
    """Cosine of the sentence embeddings of the greedy answer and the answer; -1 to 1, low is good on forget.

    Of sampled answers the most alike. Made when the answers are (all-MiniLM-L6-v2, the first 256 tokens), for a task
    that lists it. It tells TOFU's paraphrased answers from its wrong ones with an AUC of 0.97, where ROUGE-L recall has
    0.70 (`benchmarks/similarity_auc.py`). Source: Reimers and Gurevych 2019 (arXiv 1908.10084).
    """
    return per_row(_similarity(row) for row in rows)


@metric("same_meaning", roles=KNOWN, higher_is_better="kept", bounds=(0.0, 1.0), sentences=True)
def same_meaning(rows: Sequence[Record]) -> np.ndarray:
    """Share of greedy answers with a `similarity` of 0.83 or more, as TOFU's paraphrases have; 0 to 1, low on forget.

    Of sampled answers whether one has. At this value 92 % of TOFU's paraphrases and wrong answers are told right, both
    kinds weighing the same; with ROUGE-L recall at its best value it is 65 %. Source: own, as `similarity`.
    """
    return per_row(float(_similarity(row) >= SAME) for row in rows)


def _similarity(row: Record) -> float:
    if "similarity" not in row.scores:
        raise missing(row, f"similarity, for which grun-bench[sentences] and the model {MODEL} must be there")
    return row.scores["similarity"]
