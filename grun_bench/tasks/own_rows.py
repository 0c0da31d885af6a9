"""Rows of one's own: questions with answers, chats or texts, under whatever names a file has for them. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from grun_bench.core.errors import DataError, UsageError, unknown
from grun_bench.core.escaping import clean
from grun_bench.tasks.chats import Turn, flat
from grun_bench.tasks.dataset import COLUMNS, Row
from grun_bench.tasks.passages import continuation, passages, size
from grun_bench.tasks.sets import PAIR
from grun_bench.tasks.tables import left_out, read_file, read_texts, text_files

#: our columns that a row is found by -> what they are usually called, without regard to case
USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "question": ("question", "prompt", "instruction", "query", "input"),
    "answer": ("answer", "response", "output", "completion", "reply"),
    "text": ("text", "content", "document", "passage", "body"),
    "messages": ("messages",),
}
#: what `--columns` may map
MAPPED = (*USUAL_NAMES, *(column for column in COLUMNS if column not in PAIR))
#: words of a question with its answer, which are trained on and scored in one piece, at the most; texts are cut
LONGEST = 2000
#: so many files of a folder are named
_FEW = 5
#: roles of messages -> those that turns have
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True)
class OwnRows:
    """The rows of a file or a folder, none twice; `numbers` are their places in it, from 0.

    `sha256` is that of the content, of a folder over the names and contents of its files. `notes` say what a reader of
    the numbers must know of how the rows were read.
    """

    path: Path
    sha256: str
    rows: list[Row]
    numbers: list[int]
    notes: tuple[str, ...]

    @property
    def label(self) -> str:
        """The name of the file, and what tells its content apart."""
        return f"{self.path.name} (sha256 {self.sha256[:12]})"


def content_sha256(path: Path) -> str:
    """SHA-256 of a file, or over the names and contents of a folder's texts. Raises DataError where there is none."""
    try:
        if not path.is_dir():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha256()
        for each in text_files(path):
            name = each.relative_to(path).as_posix().encode()
            total.update(name + b"\0" + hashlib.sha256(each.read_bytes()).digest())
        return total.hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None


def read_own(path: Path, option: str, columns: Mapping[str, str], first: bool = True) -> OwnRows:
    """The rows of a file of one's own; `option` is what named it, `columns` our columns -> the file's.

    A file that is not the `first` need not have these columns. Chats become a question and an answer, long texts
    passages. Raises DataError, with the file and the row, for what is neither a question with its answer nor a chat nor
    a text, and UsageError for columns that could be meant otherwise.
    """
    sha256 = content_sha256(path)
    table = read_texts(path) if path.is_dir() else read_file(path)
    if not table:
        raise DataError(f"{option} {path}: no rows.")
    if not first:
        columns = {ours: theirs for ours, theirs in columns.items() if any(theirs in row for row in table)}
    named = _named(table, f"{option} {path}", columns)
    found: dict[tuple[str, str], tuple[int, Row]] = {}
    read, chats, cut = 0, 0, 0
    for number, row in enumerate(table):
        place = f"{path}, row {number}"
        if path.is_dir():
            place = f"{path / row['file']}"
        parts = list(_ours(row, named, place))
        read, cut = read + len(parts), cut + (len(parts) > 1)
        chats += any("turns" in part for part in parts)
        for part in parts:
            found.setdefault((part.get("question", ""), part.get("answer") or part["text"]), (number, part))
    rows = [row for _, row in found.values()]
    texts = any("text" in row for row in rows)
    numbers = list(range(len(rows))) if texts else [number for number, _ in found.values()]
    notes = [*_of_folder(path)] if path.is_dir() else []
    notes += _notes(path.name, read - len(found), chats, cut, len(rows))
    return OwnRows(path, sha256, rows, numbers, tuple(notes))


def _of_folder(folder: Path) -> Iterator[str]:
    """Which files of a folder are read, and which are not."""
    names = [clean(path.relative_to(folder).as_posix(), 60) for path in text_files(folder)]
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    yield f"{folder.name}: {len(names)} files are read, a text each: {', '.join(names[:_FEW])}{more}."
    about, hidden = left_out(folder)
    if about:
        of = ", ".join(clean(path.relative_to(folder).as_posix(), 60) for path in about)
        yield f"{folder.name}: left out is what says what the folder is: {of}; named by itself such a file is read."
    if hidden:
        yield f"{folder.name}: {len(hidden)} hidden files are left out."


def _notes(name: str, twice: int, chats: int, cut: int, count: int) -> Iterator[str]:
    if twice:
        yield f"{name}: {twice} rows are there more than once, and are taken once."
    if chats:
        yield (
            f"{name}: {chats} chats have more than one turn before the answer; a model without a chat template gets "
            "each as one prompt."
        )
    if cut:
        yield f"{name}: {cut} texts are too long to be taken whole; with their passages there are {count} texts."


# --- columns ----------------------------------------------------------------------------------------------------------


def _named(table: list[Row], where: str, columns: Mapping[str, str]) -> dict[str, str]:
    """Our columns -> the file's, of those that it has. Raises UsageError where that is not clear, or nothing is."""
    there = list(dict.fromkeys(name for row in table for name in row if row[name] not in (None, "")))
    for ours, theirs in columns.items():
        if theirs not in there:
            raise unknown(f"column of {where}", theirs, there, f"--columns {ours}=... names one.")
    found = dict(columns) or {ours: name for ours in USUAL_NAMES if (name := _usual(ours, there, where))}
    if columns and not found.keys() & USUAL_NAMES.keys():
        found |= {ours: name for ours in USUAL_NAMES if (name := _usual(ours, there, where))}
    found |= {name: name for name in MAPPED if name not in USUAL_NAMES and name in there and name not in found}
    kinds = [kind for kind in (PAIR, ("text",), ("messages",)) if found.keys() & set(kind)]
    if half := [name for name in PAIR if found.keys() & set(PAIR) and name not in found]:
        known = clean(", ".join(there), 300)
        raise UsageError(f"{where}: no column of {half[0]}s among {known}: name it, as in --columns {half[0]}=...")
    if not kinds:
        raise UsageError(
            f"{where}: neither questions and answers nor texts nor messages among {clean(', '.join(there), 300)}: name "
            "them, as in --columns question=...,answer=... or --columns text=..."
        )
    return found


def _usual(ours: str, there: Iterable[str], where: str) -> str | None:
    """The column that is called as ours, or the one that is usually called so. Raises UsageError where two are."""
    known = [name for name in there if name.casefold() in USUAL_NAMES[ours]]
    if ours in known or len(known) < 2:
        return ours if ours in known else next(iter(known), None)
    both = clean(" and ".join(repr(name) for name in known), 200)
    raise UsageError(f"{where}: {both} could be the column {ours}; say which, as in --columns {ours}={known[0]}.")


# --- rows -------------------------------------------------------------------------------------------------------------


def _ours(row: Row, named: Mapping[str, str], place: str) -> Iterator[Row]:
    """A row of a file as ours: of a text its passages. Raises DataError, with the place, for what is none."""
    values = {ours: row[theirs] for ours, theirs in named.items() if row.get(theirs) is not None}
    kinds: list[str] = [kind for kind in ("messages", "text") if kind in values]
    if values.keys() & set(PAIR):
        kinds.append("question and answer")
    if len(kinds) > 1:
        raise DataError(f"{place}: it has {kinds[0]} beside {kinds[1]}; say with --columns which is meant.")
    if kinds == ["text"]:
        yield from _texts(_checked(values["text"], place, named["text"]), place)
        return
    turns: list[Turn] = []
    if kinds == ["messages"]:
        turns, answer = _chat(values["messages"], place)
        question = flat(turns)
    else:
        missing = next((name for name in PAIR if name in named and name not in values), None) if kinds else None
        if not kinds or missing:
            lacking = named[missing] if missing else " or ".join(repr(theirs) for theirs in named.values())
            raise DataError(f"{place}: nothing in the column {lacking}; fill it in, or take the row out.")
        question, answer = (_checked(values[name], place, named[name]) for name in PAIR)
    if (words := size(f"{question} {answer}")) > LONGEST:
        raise DataError(
            f"{place}: a question with an answer of {words:,} words in all, and {LONGEST:,} is the most that is taken "
            "in one piece: shorten it, or give it as a text, which is taken in passages."
        )
    check = partial(_extra, values, named, place)
    several = {"turns": [list(turn) for turn in turns]} if len(turns) > 1 else {}
    yield (
        {"question": question, "answer": answer}
        | several
        | {name: found for name in MAPPED if name not in USUAL_NAMES and (found := check(name)) is not None}
    )


def _extra(values: Mapping[str, Any], named: Mapping[str, str], place: str, name: str) -> str | list[str] | None:
    """A paraphrase, or the wrong answers, of a row that has them."""
    value = values.get(name)
    if value is None:
        return None
    if name != "perturbed_answer":
        return _checked(value, place, named[name])
    return [_checked(each, place, named[name]) for each in (value if isinstance(value, list) else [value])]


def _texts(text: str, place: str) -> Iterator[Row]:
    for passage in passages(text):
        try:
            continuation(passage)
        except ValueError as error:
            raise DataError(f"{place}: {error}, which nothing goes on from; take it out.") from None
        yield {"text": passage}


def _checked(value: Any, place: str, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        found = "an empty one" if isinstance(value, str) else clean(repr(value), 60)
        raise DataError(f"{place}, column '{column}': expected text, found {found}.")
    return value


def _chat(turns: Any, place: str) -> tuple[list[Turn], str]:
    """What precedes a chat's last answer, and that answer."""
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DataError(
            f"{place}, column 'messages': expected a list of {{role, content}}, found {clean(repr(turns), 60)}."
        )
    said = []
    for at, turn in enumerate(turns):
        if turn.get("role") not in _ROLES:
            raise DataError(
                f"{place}, message {at}: the role {clean(repr(turn.get('role')), 40)} is not system, user or assistant."
            )
        said.append((_ROLES[str(turn["role"])], _checked(turn.get("content"), f"{place}, message {at}", "content")))
    last = max((at for at, (role, _) in enumerate(said) if role == "assistant"), default=0)
    before = said[:last]
    if not last or not any(role == "user" for role, _ in before):
        raise DataError(f"{place}: no turn of the assistant after one of the user.")
    return before, said[last][1]
