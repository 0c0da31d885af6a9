"""What a task file names as data, and the rows that it stands for, checked. No torch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from grun_bench.core.errors import DataError, UsageError
from grun_bench.core.escaping import clean
from grun_bench.tasks.chats import question_of
from grun_bench.tasks.sets import PAIR

Row = dict[str, Any]
#: our names of the columns of questions and answers; a training set of plain texts has `text` instead
Column = Literal["question", "answer", "paraphrased_answer", "perturbed_answer", "paraphrased_question"]
COLUMNS: tuple[Column, ...] = get_args(Column)

#: what the name of a Git repository begins with
REPOSITORY = "git+"
_SOURCE = re.compile(
    r"(?P<data>git\+\w+://[^\[\]]+@[0-9a-f]{40}|(?!git\+)[^:\[\]]+)(:(?P<config>[^\[\]]+))?"
    r"(\[(?P<start>\d{0,15}):(?P<stop>\d{0,15})\])?$"
)


@dataclass(frozen=True)
class Source:
    """A data set in a task file: `org/name:config[start:stop]`, or the path of a file or a folder.

    Files and folders are those of `grun_bench.tasks.tables`.

    Or a file of a Git repository, `git+https://github.com/org/name@<commit>:path[start:stop]`; `repository` is such a
    name, with `{config}` in it, of what stands for a data set where no mirror has it.

    The split is `train`, or `config/split` names it. `columns` maps our columns to the data's own names; what is not
    mapped is found under its own name. `where` maps columns of the data to patterns, as of file names, that their
    values match in the rows of the range that count.
    """

    data: str
    config: str | None = None
    start: int = 0
    stop: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)
    where: Mapping[str, str] = field(default_factory=dict, hash=False)
    repository: str | None = None

    @classmethod
    def parse(
        cls, text: str, columns: Mapping[str, str] | None = None, where: Mapping[str, str] | None = None
    ) -> Source:
        """Raises UsageError when the text has another shape."""
        match = _SOURCE.fullmatch(text)
        if match is None:
            raise UsageError(
                f"'{clean(text, 100)}' is not a data source: write org/name:config or org/name:config[0:360], or for a "
                "file of a Git repository git+https://<host>/<org>/<name>@<commit, 40 hexadecimal digits>:<path>."
            )
        start, stop = match["start"], match["stop"]
        places = int(start) if start else 0, int(stop) if stop else None
        return cls(match["data"], match["config"], *places, columns or {}, where or {})

    @property
    def split(self) -> tuple[str | None, str]:
        """The configuration and the split of it."""
        config, _, split = (self.config or "").rpartition("/")
        return (config, split) if config else (self.config, "train")

    def __str__(self) -> str:
        name = self.data + (f":{self.config}" if self.config else "")
        return (
            name
            if not self.start and self.stop is None
            else f"{name}[{self.start}:{'' if self.stop is None else self.stop}]"
        )


@dataclass(frozen=True)
class Rows:
    """Rows of one source, with what a result must say about them; `numbers` are their places in the data set."""

    rows: list[Row]
    origin: str
    sha256: str
    numbers: list[int]


def checked(table: list[Row], origin: str, source: Source, needed: tuple[str, ...] | None, limit: int | None) -> Rows:
    """The rows of a source out of its data set's table, under our names of the columns.

    The `needed` columns are in every row, or beside question and answer in none, and so are those that the source maps.
    A row without question and answer may have `text` in their place. None stands for what a training set needs: of a
    row that has both, what the source maps. Wrong answers are a list, one alone is a list of one. Raises DataError with
    the row and column that is wrong, or where there are no rows.
    """
    place = origin if origin == source.data else f"{source} ({origin})"
    found = enumerate(table[source.start : source.stop], source.start)
    chosen = [(number, row) for number, row in found if _matches(row, source.where, f"{place}, row {number}")][:limit]
    if not chosen:
        wanted = "".join(f", {column} {pattern!r}" for column, pattern in source.where.items())
        raise DataError(f"{source} ({origin}){clean(wanted, 200)}: no rows.")
    rows = [_ours(row, source.columns) for _, row in chosen]
    there = {column for row in rows for column in row if row[column] is not None}
    scored = tuple(column for column in needed or () if column in (*PAIR, *there))
    for row, (number, theirs) in zip(rows, chosen, strict=True):
        required = _scored(row, scored) if needed else _trained(row, f"{place}, row {number}", source)
        for column in dict.fromkeys([*required, *source.columns, *(COLUMNS if needed else ())]):
            named = source.columns.get(column, column)
            if row.get(column) is not None:
                _check(row[column], column, f"{place}, row {number}, column '{named}'")
            elif column in required or column in source.columns:
                known = clean(", ".join(theirs), 300)
                raise DataError(f"{place}, row {number}: column '{named}' is missing; the columns are {known}.")
    return Rows(rows, origin, _sha256(rows), [number for number, _ in chosen])


def _matches(row: Row, where: Mapping[str, str], place: str) -> bool:
    """Whether the values of a row are those that a source asks for. Raises DataError where it lacks a column."""
    for column in where:
        if row.get(column) is None:
            known = clean(", ".join(row), 300)
            raise DataError(f"{place}: where: column '{column}' is missing; the columns are {known}.")
    return all(fnmatchcase(str(row[column]), pattern) for column, pattern in where.items())


def _scored(row: Row, needed: tuple[str, ...]) -> tuple[str, ...]:
    """The columns that a row of a scored set has: the needed ones, or of a text that alone."""
    has_pair = any(row.get(column) is not None for column in PAIR)
    return ("text",) if row.get("text") is not None and not has_pair and set(PAIR) <= set(needed) else needed


def _trained(row: Row, place: str, source: Source) -> tuple[str, ...]:
    """The columns of a row that are trained on. Raises DataError where either could be meant."""
    has_text, has_pair = (any(row.get(column) is not None for column in each) for each in (("text",), PAIR))
    if "text" in source.columns or (has_text and not has_pair):
        return ("text",)
    if has_text:
        raise DataError(
            f"{place}: it has 'text' beside 'question' and 'answer'; say which is trained on, as in "
            f"{{source: {source}, columns: {{text: text}}}} or columns: {{question: question, answer: answer}}."
        )
    return PAIR


def training_pair(row: Row) -> tuple[str, str]:
    """What is trained on, or scored, in a checked row: (question, answer), or ("", text)."""
    return ("", row["text"]) if row.get("question") is None else (question_of(row), row["answer"])


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of several ranges of one data set as one."""
    rows = [row for part in parts for row in part.rows]
    return Rows(rows, parts[0].origin, _sha256(rows), [number for part in parts for number in part.numbers])


def _sha256(rows: list[Row]) -> str:
    return hashlib.sha256(json.dumps(rows, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _ours(row: Row, columns: Mapping[str, str]) -> Row:
    """A row under our names; where columns are mapped, without what else the data has."""
    if columns:
        named = {name: name for name in COLUMNS if "text" not in columns or name not in PAIR} | dict(columns)
        row = {ours: row[theirs] for ours, theirs in named.items() if theirs in row}
    wrong = row.get("perturbed_answer")
    return row | {"perturbed_answer": [wrong]} if isinstance(wrong, str) else row


def _check(value: Any, column: str, place: str) -> None:
    """Raises DataError for what is not text, or, of wrong answers, a list of texts."""
    values = value if column == "perturbed_answer" else [value]
    if not isinstance(values, list) or not values:
        raise DataError(f"{place}: expected a list of answers.")
    for text in values:
        if not isinstance(text, str) or not text.strip():
            found = "an empty one" if text == "" else clean(repr(text), 60)
            raise DataError(f"{place}: expected text, found {found}.")
