"""Texts that stay on this machine: records without them beside a result, and the whole ones in the cache. No torch.

A result of private rows names records in which each text is its hash. What the texts were is kept in the cache, under
the SHA-256 of the records that are named, and read from there by whoever reads records: on this machine metrics,
verdict and report have the texts, anywhere else the numbers alone. `grun-bench cache --clear texts` removes them.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from grun_bench.core.environment import cache_folder
from grun_bench.core.errors import GrunBenchError
from grun_bench.core.files import write_whole
from grun_bench.results.record import Continuation, Record, Records, load_records

#: characters of a hash in the place of a text
_DIGITS = 16


def hidden(records: Records) -> Records:
    """The records with a hash in the place of each text; equal texts have equal ones."""
    return Records(_hidden(record) for record in records)


def _hidden(record: Record) -> Record:
    def short(answer: Continuation) -> Continuation:
        return replace(answer, text=_hash(answer.text))

    said = record.generation
    return replace(
        record,
        question=_hash(record.question),
        answer=short(record.answer),
        paraphrased=record.paraphrased and short(record.paraphrased),
        perturbed=[short(answer) for answer in record.perturbed],
        generation=said and replace(said, text=_hash(said.text)),
        prefill=record.prefill and _hash(record.prefill),
        samples=[_hash(text) for text in record.samples],
        hidden=True,
    )


def _hash(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}" if text else ""


def keep(records: Records) -> Records:
    """The records without their texts, which are kept on this machine; where they cannot be, they are gone."""
    bare = hidden(records)
    with suppress(GrunBenchError):
        place = _place(_sha256(bare))
        write_whole(place, gzip.compress(records.dumps().encode(), mtime=0))
        with suppress(OSError):
            place.parent.chmod(0o700)
    return bare


def with_texts(records: Records, sha256: str, load: Callable[[Path], Records] = load_records) -> Records:
    """The records that a result names by this SHA-256, with their texts where those are on this machine."""
    place = _place(sha256)
    if not any(record.hidden for record in records) or not place.exists():
        return records
    with suppress(GrunBenchError):
        whole = load(place)
        if _sha256(hidden(whole)) == sha256:
            return whole
    return records


def _place(sha256: str) -> Path:
    return cache_folder() / "texts" / f"{sha256[:24]}.records.jsonl.gz"


def _sha256(records: Records) -> str:
    return hashlib.sha256(records.dumps().encode()).hexdigest()
