#!/usr/bin/env python3
"""How well similarity tells TOFU's paraphrased answers from its wrong ones, beside ROUGE-L.

    python benchmarks/similarity_auc.py [--model sentence-transformers/all-MiniLM-L6-v2] [--rows 400]

Of each row of forget10_perturbed and retain_perturbed the answer is compared with its paraphrase and with its wrong
answers, by the cosine of their embeddings and by ROUGE-L recall and F1. The AUC is the probability that a paraphrase is
more alike than a wrong answer: of all pairs, and within rows, where both are of one question. The threshold is the one
that errs least on the set (equal weight to both kinds). Needs the data set and the model, from the Hub or a mirror.
"""

from __future__ import annotations

import argparse

import numpy as np
from rich.console import Console
from rich.table import Table

from grun_bench.metrics.rouge import rouge
from grun_bench.metrics.similarity import MODEL
from grun_bench.metrics.trust import faithfulness, threshold
from grun_bench.models.sentences import Sentences, load_sentences
from grun_bench.results.record import Continuation, Record
from grun_bench.tasks.dataset import Row, Source
from grun_bench.tasks.world import PUBLISHED

SETS = ("forget10_perturbed", "retain_perturbed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--rows", type=int, default=400)
    given = parser.parse_args()
    sentences = load_sentences(given.model)
    table = Table(title=f"a paraphrase against a wrong answer, {given.model}", title_justify="left")
    for name in ("set", "measure", "AUC", "AUC within rows", "threshold", "share right at it"):
        table.add_column(name)
    for name in SETS:
        rows = PUBLISHED.read(Source.parse(f"locuslab/TOFU:{name}"))[0][: given.rows]
        for measure, (right, wrong) in _measures(sentences, rows).items():
            table.add_row(name, measure, *(f"{value:.3f}" for value in _told(right, wrong)))
    Console().print(table)


def _measures(sentences: Sentences, rows: list[Row]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Measure -> how alike the paraphrase is, (rows,), and the wrong answers are, (rows, wrong answers)."""
    texts = [[str(row["answer"]), str(row["paraphrased_answer"]), *row["perturbed_answer"]] for row in rows]
    vectors = sentences.embed([text for of_row in texts for text in of_row]).reshape(len(rows), len(texts[0]), -1)
    cosine = np.einsum("rtd,rd->rt", vectors[:, 1:], vectors[:, 0])
    scores = [
        [rouge(Record("s", 0, "", Continuation(first)), Continuation(first), text, unicode=False) for text in others]
        for first, *others in texts
    ]
    recall, f1 = (np.array([[getattr(s, name) for s in of_row] for of_row in scores]) for name in ("recall", "f1"))
    named = {"cosine": cosine, "ROUGE-L recall": recall, "ROUGE-L F1": f1}
    return {name: (values[:, 0], values[:, 1:]) for name, values in named.items()}


def _told(right: np.ndarray, wrong: np.ndarray) -> tuple[float, float, float, float]:
    cut = threshold(right.tolist(), wrong.ravel().tolist())
    within = ((right[:, None] > wrong) + 0.5 * (right[:, None] == wrong)).mean()
    share = (np.mean(right > cut) + np.mean(wrong <= cut)) / 2
    return faithfulness(right.tolist(), wrong.ravel().tolist()), float(within), cut, float(share)


if __name__ == "__main__":
    main()
