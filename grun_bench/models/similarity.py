"""How alike answers are to the right ones, by the embeddings of both: a value of each record."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache

import numpy as np

from grun_bench.core.errors import GrunBenchError
from grun_bench.core.progress import say
from grun_bench.models.sentences import Sentences, load_sentences
from grun_bench.results.record import Record, Records

#: the key in a record's scores
SCORE = "similarity"


@cache
def judge(name: str) -> Sentences | None:
    """The embedding model, loaded once; None, and a line that says why, where it cannot be had."""
    try:
        return load_sentences(name)
    except GrunBenchError as error:
        say(f"no similarity: {error}")
        return None


def with_similarity(records: Records, sets: Collection[str], sentences: Sentences) -> Records:
    """The records, those of these sets with the cosine of what was written and the answer; of samples the largest.

    Records without a text that was written are left as they are.
    """
    texts = {place: _written(record) for place, record in enumerate(records) if record.set in sets}
    flat = [text for place, written in texts.items() if written for text in (records[place].answer.text, *written)]
    if not flat:
        return records
    vectors, found, start = sentences.embed(flat), list(records), 0
    for place, written in texts.items():
        if written:
            answer, others = vectors[start], vectors[start + 1 : start + 1 + len(written)]
            start += 1 + len(written)
            largest = float(np.clip((others @ answer).max(), -1.0, 1.0))
            found[place] = replace(found[place], scores=found[place].scores | {SCORE: round(largest, 6)})
    return Records(found)


def _written(record: Record) -> list[str]:
    return record.samples or ([record.generation.text] if record.generation else [])
