"""Texts that stay on this machine: records without them beside a result, and the whole ones in the cache. No torch.

A result of private rows names records in which each text is its hash. What the texts were is kept in the cache, under
the SHA-256 of the records that are named, and read from there by whoever reads records: on this machine metrics,
verdict and report have the texts, anywhere else the numbers alone. `grun-bench cache --clear texts` removes them.

A short answer, as a city or a telephone number, is found by trying all there are if its hash can be computed. So
hashes have a key (HMAC, RFC 2104): 32 random bytes, made once and kept in the cache, which no result has. Equal texts
have equal hashes on one machine, and others on another. Where the key is lost, records have their numbers, and a model
that is made again is compared by them. Results of older versions have hashes without a key, and are read too.
"""

from __future__ import annotations

import gzip
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path

from grun_bench.core.environment import cache_folder
from grun_bench.core.errors import GrunBenchError
from grun_bench.core.files import part_of, write_whole
from grun_bench.results.record import Continuation, Record, Records, load_records

#: characters of a hash in the place of a text
_DIGITS = 16
#: bytes of the key of this machine
_KEY = 32


def hidden(records: Records, key: bytes) -> Records:
    """The records with a hash in the place of each text; equal texts have equal ones. No `key`: as older versions."""
    return replaced(records, lambda text: _hash(text, key))


def replaced(records: Records, by: Callable[[str], str]) -> Records:
    """The records with something else in the place of each text."""

    def short(answer: Continuation) -> Continuation:
        return replace(answer, text=by(answer.text))

    def of(record: Record) -> Record:
        said = record.generation
        return replace(
            record,
            question=by(record.question),
            answer=short(record.answer),
            paraphrased=record.paraphrased and short(record.paraphrased),
            perturbed=[short(answer) for answer in record.perturbed],
            generation=said and replace(said, text=by(said.text)),
            prefill=record.prefill and by(record.prefill),
            samples=[by(text) for text in record.samples],
            hidden=True,
        )

    return Records(map(of, records))


def _hash(text: str, key: bytes) -> str:
    if not text:
        return ""
    if not key:
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]}"
    return f"hmac:{hmac.digest(key, text.encode(), 'sha256').hex()[:_DIGITS]}"


def hashed_otherwise(before: Records, records: Records) -> bool:
    """Whether records without texts say what these do, to the bit, with other hashes: of a lost key, or without one."""
    same = replaced(before, _is_there).dumps() == replaced(records, _is_there).dumps()
    return same and before.dumps() != hidden(records, machine_key()).dumps()


def _is_there(text: str) -> str:
    return "x" if text else ""


# --- the key of this machine ------------------------------------------------------------------------------------------


def machine_key() -> bytes:
    """The key of this machine, made where there is none; where the cache cannot be written, one of this process."""
    try:
        place = _key_place()
        if not place.exists():
            _make_key(place)
        if len(key := place.read_bytes()) == _KEY:
            return key
        place.unlink()  # it is none, so nothing can have been made with it
        _make_key(place)
        return place.read_bytes()
    except (OSError, GrunBenchError):
        return _of_this_process()


def _known_key() -> bytes:
    """The key of this machine; none where there is none, and none is made."""
    with suppress(OSError, GrunBenchError):
        return _key_place().read_bytes()
    return b""


def _make_key(place: Path) -> None:
    """Write a new key, for its owner's eyes alone. Of two processes that do so one is the first, and both have its."""
    with part_of(place) as part:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_KEY))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(part, place)


@cache
def _of_this_process() -> bytes:
    return secrets.token_bytes(_KEY)


def _key_place() -> Path:
    return cache_folder() / "private.key"


# --- what is kept -----------------------------------------------------------------------------------------------------


def keep(records: Records) -> Records:
    """The records without their texts, which are kept on this machine; where they cannot be, they are gone."""
    bare = hidden(records, machine_key())
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
        if any(_sha256(hidden(whole, key)) == sha256 for key in (_known_key(), b"")):
            return whole
    return records


def _place(sha256: str) -> Path:
    return cache_folder() / "texts" / f"{sha256[:24]}.records.jsonl.gz"


def _sha256(records: Records) -> str:
    return hashlib.sha256(records.dumps().encode()).hexdigest()
