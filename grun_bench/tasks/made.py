"""Paraphrases and wrong answers that a model wrote for own rows: the file beside these that has them. No torch.

The file is theirs who read it: what it says when the next run begins is what counts, whoever wrote it.
"""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from grun_bench.core import processes
from grun_bench.core.cache import digest
from grun_bench.core.errors import DataError, UsageError
from grun_bench.core.files import write_whole
from grun_bench.core.strict_json import checked, parse_json
from grun_bench.tasks.dataset import Row
from grun_bench.tasks.faults import fault_of
from grun_bench.tasks.task import Made

#: what is made, in the order in which it is: a wrong answer must not be the paraphrased one
MadeColumn = Literal["paraphrased_question", "paraphrased_answer", "perturbed_answer"]
MADE: tuple[MadeColumn, ...] = ("paraphrased_question", "paraphrased_answer", "perturbed_answer")
_NOTE = (
    "Paraphrases and wrong answers that a model wrote. Read them, and mend or set to null what is not right: the next "
    "run takes what it finds here, and has written what rows are missing."
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Shown(_Strict):
    """A row with the reply to it, as the writer is shown it."""

    question: str
    answer: str
    reply: str


class Asked(_Strict):
    """How the writer is asked for a column: see writer.yaml."""

    request: str
    tries: int
    keep: int
    temperature: float
    shown: list[Shown]


@cache
def requests() -> Mapping[MadeColumn, Asked]:
    """What writer.yaml says."""
    said = yaml.safe_load(Path(__file__).with_name("writer.yaml").read_text(encoding="utf-8"))
    return {column: Asked.model_validate(said[column]) for column in MADE}


class MadeRow(_Strict):
    """What was made for a row; null where nothing was, or nothing that could stand, and `left_out` says why.

    `asked` is the user's last turn where the question is a conversation: that is what is paraphrased.
    """

    question: str
    answer: str
    asked: str | None = None
    paraphrased_question: str | None = None
    paraphrased_answer: str | None = None
    perturbed_answer: list[str] | None = None
    left_out: dict[MadeColumn, str] = {}

    @property
    def columns(self) -> Row:
        """The columns that there are."""
        return {name: value for name in MADE if (value := getattr(self, name))}

    def standing(self) -> MadeRow:
        """The row without what cannot stand, whoever wrote it."""
        row: Row = {"question": self.asked or self.question, "answer": self.answer}
        left = {name: why for name, why in self.left_out.items() if not getattr(self, name)}
        for name in MADE:
            value = getattr(self, name)
            kept, whys = _standing(name, [value] if isinstance(value, str) else value or [], row)
            if kept:
                row[name] = kept if isinstance(value, list) else kept[0]
            elif whys:
                left[name] = whys[0]
        return MadeRow(**row | {"question": self.question, "asked": self.asked}, left_out=left)


def _standing(column: MadeColumn, texts: Iterable[str], row: Row) -> tuple[list[str], list[str]]:
    """Of several texts for a column those that can stand in it, and why the others cannot."""
    kept: list[str] = []
    whys: list[str] = []
    for text in texts:
        fault = fault_of(column, text, row, kept)
        (whys if fault else kept).append(fault or text)
    return kept, whys


class _File(_Strict):
    """The file: `as_made` is the hash of its rows when they were written, `edited` whether they were others before."""

    note: str
    made_by: str
    writer: dict[str, Any]
    requests: str
    as_made: str
    edited: bool
    rows: list[MadeRow]


@dataclass(frozen=True)
class MadeRows:
    """The made rows of a file of own rows: where they lie, who wrote them, and each by its question and answer.

    `writer` is the origin of the model that wrote, `requests` the hash of what it was asked.
    """

    path: Path
    made_by: str
    writer: Mapping[str, Any] = field(default_factory=dict)
    requests: str = ""
    edited: bool = False
    rows: Mapping[tuple[str, str], MadeRow] = field(default_factory=dict)

    def wanting(self, rows: Iterable[Row]) -> list[Row]:
        """The rows that lack something which was never asked for; plain texts are not gone on with in other words."""
        return [row for row in rows if row.get("question") and _key(row) not in self.rows and set(MADE) - row.keys()]

    def with_made(self, row: Row) -> Row:
        """The row with what was made for it; what it has itself stays."""
        made = self.rows.get(_key(row))
        return made.standing().columns | row if made else row

    def marked(self, rows: Sequence[Row]) -> Made | None:
        """What a result says of these rows: of each column how many have it, and why others have not.

        None where nothing was made for any of them.
        """
        keys = [_key(row) for row in rows]
        there = [self.rows[key] for key in keys if key in self.rows]
        if not there:
            return None
        standing = [row.standing() for row in there]
        return Made(
            by=self.made_by,
            writer=dict(self.writer),
            requests=self.requests,
            edited=self.edited,
            sha256=_hash(there),
            counts={name: sum(bool(getattr(row, name)) for row in standing) for name in MADE},
            left_out={name: dict(Counter(why for row in standing if (why := row.left_out.get(name)))) for name in MADE},
        )

    def adding(self, rows: Iterable[MadeRow], writer: Mapping[str, Any]) -> MadeRows:
        """The same with more rows, written to the file. Raises GrunBenchError where that cannot be."""
        new = {(row.question, row.answer): row for row in rows}
        found = replace(self, writer=writer, requests=_requests_hash(), rows={**self.rows, **new})
        content = _File(
            note=_NOTE,
            made_by=found.made_by,
            writer=dict(found.writer),
            requests=found.requests,
            as_made=_hash(found.rows.values()),
            edited=found.edited,
            rows=list(found.rows.values()),
        )
        text = json.dumps(content.model_dump(), ensure_ascii=False, indent=1) + "\n"
        processes.only_first(lambda: write_whole(self.path, text))
        return found


def made_rows(own: Path, writer: str) -> MadeRows:
    """What a model of this name wrote for a file of own rows, as it lies beside it; empty where nothing does.

    Raises DataError where the file is not as it must be, UsageError where another model of such a name wrote it.
    """
    path = own.resolve().parent / f"{own.stem}.made-by-{writer.rsplit('/')[-1]}.json"
    if not path.exists():
        return MadeRows(path, writer)
    try:
        content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        found = checked(_File, parse_json(content, path), path)
    except UsageError as error:
        raise DataError(f"{error} Mend it, or take it away to have it made again.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    if found.made_by != writer:
        raise UsageError(
            f"{path} was made by {found.made_by}, and not by {writer}: keep it elsewhere, or take it away."
        )
    edited = found.edited or _hash(found.rows) != found.as_made
    rows = {(row.question, row.answer): row for row in found.rows}
    return MadeRows(path, writer, found.writer, found.requests, edited, rows)


def made_words(file: str, made: Made) -> str:
    """What a reader of the numbers must know of what was made for the rows of a file."""
    counts = [f"{count} {name.replace('_', ' ')}s" for name, count in made.counts.items()]
    whys = Counter({why: count for each in made.left_out.values() for why, count in each.items()})
    left = "".join(f", {count}: {why}" for why, count in whys.most_common())
    edited = ", and somebody edited it since" if made.edited else ""
    said = f"{file}: made by {made.by}{edited}: {', '.join(counts)}"
    return f"{said}. Not taken of it{left}." if left else f"{said}."


def _key(row: Row) -> tuple[str, str]:
    return row.get("question", ""), row.get("answer", "")


def _hash(rows: Iterable[MadeRow]) -> str:
    return digest([row.model_dump(exclude={"left_out"}) for row in rows])


def _requests_hash() -> str:
    return digest({column: asked.model_dump() for column, asked in requests().items()})
