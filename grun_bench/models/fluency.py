"""How fluent answers are, as a published classifier of gibberish sees them: a value of each record."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from grun_bench.core.errors import GrunBenchError
from grun_bench.core.patches import no_bars
from grun_bench.core.progress import say
from grun_bench.models.places import check_whole, locate, not_loaded, source_of
from grun_bench.results.record import Record, Records

#: the key in a record's scores
SCORE = "fluency"
#: the class whose probability it is, and how many tokens the classifier sees: as OpenUnlearning @ d3d7cf9 has both
CLEAN, LENGTH = 0, 32
_BATCH = 32


@dataclass(frozen=True)
class Classifier:
    """A sequence classifier of transformers with its tokenizer."""

    model: Any
    tokenizer: Any

    @torch.no_grad()
    def clean(self, texts: Sequence[str]) -> list[float]:
        """The probability of the first class, from 0 to 1, of the first 32 tokens of each text."""
        return [float(each) for start in range(0, len(texts), _BATCH) for each in self._batch(texts[start:][:_BATCH])]

    def _batch(self, texts: Sequence[str]) -> Iterator[float]:
        encoded = self.tokenizer(list(texts), padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
        yield from self.model(**encoded).logits.softmax(-1)[:, CLEAN].tolist()


def load_classifier(name: str) -> Classifier:
    """A classifier by Hub id or folder, found as language models are, in fp32 on the CPU.

    Raises ModelError for what is nowhere, or is no classifier.
    """
    place = locate(name)
    source, options = source_of(place)
    if isinstance(place, Path):
        check_whole(place)
    try:
        with no_bars():
            from transformers import AutoModelForSequenceClassification, AutoTokenizer

            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModelForSequenceClassification.from_pretrained(source, **options).float().eval()
    except Exception as error:  # whatever strangers' files make of a foreign library
        raise not_loaded(name, error) from None
    return Classifier(model, tokenizer)


@cache
def classifier(name: str) -> Classifier | None:
    """The classifier, loaded once; None, and a line that says why, where it cannot be had."""
    try:
        return load_classifier(name)
    except GrunBenchError as error:
        say(f"no fluency: {error}")
        return None


def with_fluency(records: Records, sets: Collection[str], judge: Classifier) -> Records:
    """The records, those of these sets with how likely the greedy answer is no gibberish."""
    found = list(records)
    places = [place for place, record in enumerate(found) if record.set in sets and record.generation]
    for place, value in zip(places, judge.clean([_written(found[place]) for place in places]), strict=True):
        found[place] = replace(found[place], scores=found[place].scores | {SCORE: round(value, 6)})
    return Records(found)


def _written(record: Record) -> str:
    return record.generation.text.strip() if record.generation else ""
