"""One's own rows as a task: what is to be forgotten, kept and asked, made of files, and the world that they are in.

No YAML, no retain model. What is measured, and what is not, follows from the files. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

from grun_bench.core.errors import DataError, unknown
from grun_bench.core.words import mostly_ascii
from grun_bench.tasks.dataset import Row, Rows, Source
from grun_bench.tasks.made import MadeRows, made_rows, made_words
from grun_bench.tasks.neutral import QUESTIONS, SENTENCES
from grun_bench.tasks.own_rows import MAPPED, OwnRows, read_own
from grun_bench.tasks.roles import Role
from grun_bench.tasks.task import Made, Measure, OwnFile, OwnRole, ScoredData, Task
from grun_bench.tasks.world import World

#: rows of a set that are scored: as many as TOFU's largest has
MOST = 400
#: one row in so many of the retain file is held out; a holdout of fewer rows than the second tells nothing
HELD_OUT, LEAST = 5, 5
#: what is taken of neutral texts: how likely they are, and how far the model went from the target; nothing is generated
_OF_TEXTS = ("probability", "gate", "kl_to_target")
#: the sets of every task of own rows, in the order of tables
_ROLES: dict[str, Role] = {
    "forget": "forget",
    "retain": "retain",
    "holdout": "holdout",
    "neighbours": "neighbour",
    "neutral_texts": "utility",
    "neutral_questions": "utility",
}
#: what is measured with paraphrases or wrong answers
_OF_OTHER_ANSWERS = (
    *("paraphrased_probability", "perturbed_probability", "normalised_probability"),
    *("forget_quality", "truth_ratio", "model_utility"),
)
#: tokens of an answer, or of what goes on from the beginning of a text, at the least and the most: between the two as
#: many as the longest has characters, which is room enough in any script
_SHORT, _LONG = 32, 128


@dataclass(frozen=True)
class OwnData:
    """What was asked for: the files by the option that named them, columns (ours -> theirs), and lm-eval's tasks.

    `private` rows stay on this machine. `writer` is the name of the model that writes paraphrases and wrong answers for
    them; "" where none does.
    """

    forget: Path
    retain: Path | None = None
    neighbours: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    utility: Sequence[str] = ()
    private: bool = True
    writer: str = ""


@dataclass(frozen=True)
class _Table:
    """Rows with their places in the file that they are of, and how a result calls that."""

    rows: list[Row]
    numbers: list[int]
    label: str

    def part(self, places: Sequence[int]) -> _Table:
        return _Table([self.rows[at] for at in places], [self.numbers[at] for at in places], self.label)

    def sample(self, count: int) -> _Table:
        """So many rows, evenly spread; all where there are no more."""
        size = len(self.rows)
        return self if count >= size else self.part([at * size // count for at in range(count)])


class Own(World):
    """The rows of one's own files, and neutral ones of ours beside them; questions are lm-eval's."""

    name = "own"
    sections = ("default", "own")
    question_tasks = None
    no_retain = (
        "own rows have no retain model, so forgetting is judged against rows held out and against chance; "
        "--retain-model names a model that never saw them, if there is one."
    )

    def __init__(self, data: OwnData) -> None:
        """Reads the files. Raises DataError or UsageError for what is not as it must be."""
        for name in data.columns:
            if name not in MAPPED:
                raise unknown("column in --columns", name, MAPPED)
        files = _files(data)
        self.made = {role: made_rows(own.path, data.writer) for role, own in files.items() if data.writer}
        self.files = files = {role: _with_made(own, self.made.get(role)) for role, own in files.items()}
        self._tables, held = _tables(files)
        marked = {role: made.marked(self._tables[role].rows) for role, made in self.made.items()}
        self.notes = (
            *(note for own in files.values() for note in own.notes),
            *_notes(files, self._tables, held),
            *_made_notes(files, self.made, marked),
        )
        self._task = _task(data, files, self._tables, marked)

    def load(self, name: str, include: Sequence[Path] = ()) -> Task:
        return self._task

    def task(self, task: Task) -> Task:
        return task

    def read(self, source: Source) -> tuple[list[Row], str]:
        table = self._tables[source.data]
        return table.rows, table.label

    def rows(self, source: Source, needed: tuple[str, ...] | None = None, limit: int | None = None) -> Rows:
        found = super().rows(source, needed, limit)
        numbers = self._tables[source.data].numbers[: len(found.rows)]
        return Rows(found.rows, found.origin, found.sha256, numbers)

    def questions(self, name: str) -> None:
        return None

    def wanting(self, limit: int | None = None) -> dict[OwnRole, list[Row]]:
        """The rows among the first `limit` of each scored set that lack what a writer is yet to be asked for."""
        found = {role: made.wanting(self._tables[role].rows[:limit]) for role, made in self.made.items()}
        return {role: rows for role, rows in found.items() if rows}


def _with_made(own: OwnRows, made: MadeRows | None) -> OwnRows:
    return own if made is None else replace(own, rows=[made.with_made(row) for row in own.rows])


# --- files -> tables --------------------------------------------------------------------------------------------------


def _files(data: OwnData) -> dict[OwnRole, OwnRows]:
    """The rows of each file, by the option that named it."""
    named: dict[OwnRole, Path | None] = {
        "forget": data.forget,
        "retain": data.retain,
        "neighbours": data.neighbours,
    }
    return {
        name: read_own(path, f"--{name}", data.columns, first=name == "forget") for name, path in named.items() if path
    }


def _tables(files: Mapping[OwnRole, OwnRows]) -> tuple[dict[str, _Table], _Table | None]:
    """The tables of all sets, and what is held out: `<set>` is scored, `train-<set>` is trained on.

    Raises DataError where a row is both to be forgotten and to be kept.
    """
    _check_apart(files)
    forget, held = _table(files["forget"]), None
    kept = _neutral(slice(None, None, 2), "neutral rows of grun-bench")
    if "retain" in files:
        kept, held = _held_out(_table(files["retain"]), min(len(forget.rows), MOST))
    tables = {"train-forget": forget, "train-retain": kept}
    tables |= {"forget": forget.sample(MOST), "retain": kept.sample(MOST), **({"holdout": held} if held else {})}
    if "neighbours" in files:
        tables["neighbours"] = _table(files["neighbours"]).sample(MOST)
    # every other row, none of which is trained on
    tables["neutral_texts"] = _texts(SENTENCES[1::2], "neutral texts of grun-bench")
    tables["neutral_questions"] = _questions(list(QUESTIONS)[1::2], "neutral questions of grun-bench")
    return tables, held


def _notes(files: Mapping[OwnRole, OwnRows], tables: Mapping[str, _Table], held: _Table | None) -> Iterator[str]:
    """What a reader of the numbers must know of the sets."""
    if "retain" not in files:
        yield (
            f"no --retain: {len(tables['train-retain'].rows)} sentences and questions about everyday matters, which "
            "come with grun-bench, are what is kept."
        )
    elif held is None:
        yield f"{_few(files['retain'])} With {HELD_OUT * LEAST} or more a part is held out to compare with."
    else:
        yield (
            f"{len(held.rows)} rows of {files['retain'].path.name}, always the same, are held out: unlearning does not "
            "see them, and rows to forget are compared with them."
        )
    for own in (files[name] for name in ("forget", "neighbours") if name in files):
        if len(own.rows) > MOST:
            yield f"{MOST} of the {len(own.rows)} rows of {own.path.name} are scored, evenly spread."


def _made_notes(
    files: Mapping[OwnRole, OwnRows], made: Mapping[OwnRole, MadeRows], marked: Mapping[OwnRole, Made | None]
) -> Iterator[str]:
    """What was made for the rows, where it lies, and of which rows nothing can be."""
    for role, rows in made.items():
        own, mark = files[role], marked[role]
        if mark:
            yield f"{made_words(own.path.name, mark)} It is in {rows.path}, to be read and mended."
        texts = sum("text" in row for row in own.rows)
        if texts:
            yield f"{own.path.name}: {texts} texts have no question, so nothing is made for them."


def _few(own: OwnRows) -> str:
    return f"{own.path.name} has {len(own.rows)} rows."


def _table(own: OwnRows) -> _Table:
    return _Table(own.rows, own.numbers, own.label)


def _held_out(table: _Table, most: int) -> tuple[_Table, _Table | None]:
    """The rows that are trained on and those held out: one in `HELD_OUT`, drawn at random and always the same."""
    size = len(table.rows)
    count = min(size // HELD_OUT, max(most, LEAST))
    if count < LEAST:
        return table, None
    held = set(Random(0).sample(range(size), count))
    return table.part([at for at in range(size) if at not in held]), table.part(sorted(held))


def _texts(texts: Sequence[str], label: str) -> _Table:
    return _Table([{"text": text} for text in texts], list(range(len(texts))), label)


def _questions(asked: Sequence[str], label: str) -> _Table:
    rows: list[Row] = [
        {"question": question, "answer": QUESTIONS[question][0], "perturbed_answer": list(QUESTIONS[question][1])}
        for question in asked
    ]
    return _Table(rows, list(range(len(rows))), label)


def _neutral(part: slice, label: str) -> _Table:
    """Neutral sentences and questions to train on."""
    texts, questions = _texts(SENTENCES[part], label), _questions(list(QUESTIONS)[part], label)
    rows = [*texts.rows, *({name: row[name] for name in ("question", "answer")} for row in questions.rows)]
    return _Table(rows, list(range(len(rows))), label)


def _check_apart(files: Mapping[OwnRole, OwnRows]) -> None:
    """Raises DataError where a row is both to be forgotten and to be kept."""
    forget = files["forget"]
    places = dict(zip(map(_content, forget.rows), forget.numbers, strict=True))
    for kept in (files[name] for name in ("retain", "neighbours") if name in files):
        pairs = zip(map(_content, kept.rows), kept.numbers, strict=True)
        both = [(places[row], number) for row, number in pairs if row in places]
        if both:
            more = f", and so are {len(both) - 1} more" if len(both) > 1 else ""
            raise DataError(
                f"row {both[0][0]} of {forget.path} is to be forgotten and is row {both[0][1]} of {kept.path} too"
                f"{more}: take what is to be forgotten out of what is to be kept."
            )


def _content(row: Row) -> tuple[str, str]:
    return row.get("question", ""), row.get("answer") or row["text"]


# --- the task ---------------------------------------------------------------------------------------------------------


def _task(
    data: OwnData,
    files: Mapping[OwnRole, OwnRows],
    tables: Mapping[str, _Table],
    made: Mapping[OwnRole, Made | None],
) -> Task:
    """What is measured of these rows; metrics that lack something are among them, and say what would bring it."""
    forget = files["forget"]
    answers = [_content(row)[1] for row in forget.rows]
    rouge = "rougeL_recall" if all(map(mostly_ascii, answers)) else "rougeL_recall_unicode"
    measures = {name: Measure(role="utility") for name in data.utility}
    metrics = [
        *("probability", rouge, "extraction_strength", "exact_memorisation", "gate", "repetition"),
        *("mia_loss", "mia_min_k", "privleak", "kl_to_target", *_OF_OTHER_ANSWERS),
        *(("accuracy",) if measures else ()),
        *(("sampled_rougeL_recall_unicode", "leak_unicode") if rouge.endswith("unicode") else ()),
    ]
    task = Task(
        name=f"{re.sub(r'[^A-Za-z0-9_-]+', '-', forget.path.stem).strip('-') or 'own'}-{forget.sha256[:8]}",
        version=1,
        description=f"Own rows: {forget.label}.",
        forget=["train-forget"],
        retain=["train-retain"],
        score={name: _scored(name, role) for name, role in _ROLES.items() if name in tables},
        measures=measures,
        metrics=metrics,
        headline=[
            *("forget_extraction_strength", f"forget_{rouge}", "forget_probability", "mia_loss"),
            *(f"retain_{rouge}", "neutral_texts_kl_to_target", "neutral_questions_probability"),
            *(("neighbours_probability",) if "neighbours" in tables else ()),
            *(("forget_truth_ratio",) if made.get("forget") else ()),
            *(f"{name}_accuracy" for name in measures),
        ],
        max_new_tokens=min(_LONG, max(_SHORT, *map(len, answers))),
        private=data.private,
        own={
            role: OwnFile(
                file=own.path.resolve().name, sha256=own.sha256, columns=dict(data.columns), made=made.get(role)
            )
            for role, own in files.items()
        },
        absent={} if "holdout" in tables else {"holdout": f"a --retain file of {HELD_OUT * LEAST} rows brings one"},
    )
    task.check()
    return task


def _scored(name: str, role: Role) -> ScoredData:
    if name == "neutral_texts":
        return ScoredData(source=name, role=role, max_new_tokens=0, metrics=list(_OF_TEXTS))
    return ScoredData(source=name, role=role)
