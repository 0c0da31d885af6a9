"""Boards -> Markdown: an overview, and a page for each task and model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from grun_bench.core.escaping import markdown, path_link
from grun_bench.leaderboard import words
from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.least import least_rule
from grun_bench.leaderboard.tables import RANKING, Entry, Table, ranking, tables
from grun_bench.results.words import number

#: above a table of some rows of a board
_OF_ALL = "Ranks and marks are those among all rows."
#: numbers and intervals, which mean nothing else in Markdown
_NUMBERS = re.compile(r"[-±+\d.,e \[\]]*")


@dataclass
class Notes:
    """Numbered footnotes; one reason has one number."""

    texts: dict[str, int] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        return f"<sup>{self.texts.setdefault(text, len(self.texts) + 1)}</sup>"

    def lines(self) -> list[str]:
        return [f"{number}. {markdown(text)}" for text, number in self.texts.items()]


@dataclass(frozen=True)
class Line:
    """What the overview has of a board."""

    toy: bool
    methods: bool
    cells: Sequence[str]


def line(path: str, board: Board) -> Line:
    """The line of a board on the page with this path."""
    return Line(board.toy, board.methods, _summary(path, board) if board.methods else _bare(path, board))


def overview(lined: Iterable[Line]) -> str:
    """README.md: one line for each board; boards without a method are folded away."""
    boards = list(lined)
    lines = ["# Leaderboards", "", f"<!-- {words.MARKER} -->", ""]
    lines += [
        "`grun-bench leaderboard` makes `index.html` here: all boards on one page, to sort, filter and open rows.",
        "",
    ]
    for toy in (False, True):
        listed = [board for board in boards if board.toy == toy]
        if not listed:
            continue
        lines += [f"## {words.TOY_TITLE if toy else words.REAL_TITLE}", ""]
        lines += [words.TOY, ""] if toy else []
        if some := [board.cells for board in listed if board.methods]:
            head = (
                "task", "model", "best row", "forgetting, worst case ↓", "utility ↑", "rows", "runs", "data, protocol",
            )  # fmt: skip
            lines += [*_table(head, some, "lllrrrrl"), ""]
        if bare := [board.cells for board in listed if not board.methods]:
            lines += folded(words.BARE, _table(("task", "model", "rows", "runs", "data, protocol"), bare, "llrrl"))
    lines += [
        "The best row is the first in the ranking, whose rule each page states; there is none where no row forgot "
        "anything that can be seen and kept its utility. One that was under fewer attacks than another, or under none, "
        "says so beside its name: those missing can only lower its rank.",
        "",
    ]
    return "\n".join(lines)


def folded(title: str, lines: Iterable[str]) -> list[str]:
    """Lines that are shown when their title is clicked, where Markdown is shown as HTML."""
    return [f'<details markdown="1"><summary>{title}</summary>', "", *lines, "", "</details>", ""]


def _summary(path: str, board: Board) -> list[str]:
    best, numbers = board.best, ["-", "-", "-"]
    if best:
        utility = best.cells[board.utility].value if board.utility else None
        under = f" <sub>{markdown(best.worst_attack)}</sub>" if best.worst_attack else ""
        numbers = [_marked(best), f"{number(best.worst.value)}{under}", number(utility)]
    task, model, *rest = _bare(path, board)
    return [task, model, *numbers, *rest]


def _bare(path: str, board: Board) -> list[str]:
    first = board.first
    note = f"; --limit, {words.NO_BENCHMARK}" if first.limit else ""
    data = f"{markdown(first.dataset_hash[:8])}, {markdown(first.protocol)}{note}"
    task = f"[{markdown(first.task)}]({path_link(path)})"
    return [task, markdown(first.model), str(len(board.rows)), str(board.runs), data]


def page(boards: Sequence[Board], files: dict[str, str], home: str) -> str:
    """The page of one task and model; `files` has the picture and CSV of each board by id, `home` the overview."""
    first = boards[0]
    toy = " (toy)" if first.toy else ""
    lines = [f"# {markdown(words.title(first))}{toy}", "", f"<!-- {words.MARKER} -->", "", f"[All boards]({home})", ""]
    if first.toy:
        lines += [f"> **{words.TOY}**", ""]
    if len(boards) > 1:
        lines += [
            "Rows of different data, protocols, dtypes, versions, limits or target models do not compare: each has a "
            "table of its own.",
            "",
        ]
    notes = Notes()
    for board in boards:
        lines += _board(board, files[board.id], notes)
    return "\n".join([*lines, *_noted(notes)])


def _noted(notes: Notes) -> list[str]:
    return ["## Notes", "", *notes.lines(), ""] if notes.texts else []


def _board(board: Board, file: str, notes: Notes) -> list[str]:
    lines = [f"## {markdown(words.data_line(board))}", ""]
    if board.utility and any(row.placed and not row.pinned for row in board.rows):
        lines += [f"![Forgetting against utility]({path_link(file)}.svg)", ""]
    first, *others = tables(board, file)
    lines += [
        *drawn(first, notes),
        "",
        words.INTERVALS,
        "",
        *(f"- {markdown(line)}" for line in [*words.rules(board), least_rule(board)] if line),
    ]
    tiers = dict.fromkeys(row.tier for row in board.rows)
    lines += [f"- Source “{tier}”: {words.TIERS[tier]}." for tier in words.TIERS if tier in tiers]
    lines += ["", f"Every number with its interval: [CSV]({path_link(file)}.csv)", ""]
    if board.tuned:
        for title, tuned in (("Default settings alone", False), ("Tuned settings alone", True)):
            some = [row for row in board.rows if row.pinned or bool(row.tuned) == tuned]
            lines += [f"### {title}", "", _OF_ALL, "", *drawn(ranking(board, some, title), notes), ""]
    for table in others:
        lines += _part(table, notes)
    return lines


def _part(table: Table, notes: Notes) -> list[str]:
    """A table under its heading, or folded."""
    if table.folded:
        return folded(markdown(table.title), drawn(table, notes))
    below = [table.below, ""] if table.below else []
    return [f"### {markdown(table.title)}", "", *drawn(table, notes), "", *below]


def export(board: Board, shown: Sequence[Table]) -> str:
    """Tables of a board as Markdown of their own, with the rule of the ranking where that is among them."""
    notes = Notes()
    lines = [f"# {markdown(words.title(board))}", "", markdown(words.data_line(board)), ""]
    for table in shown:
        lines += _part(table, notes)
        if table.name == RANKING:
            lines += [words.INTERVALS, "", *(f"- {markdown(line)}" for line in words.rules(board)), ""]
    return "\n".join([*lines, *_noted(notes)])


def drawn(table: Table, notes: Notes) -> list[str]:
    """A table's lines."""
    head = [*["rank"] * table.ranks, "unlearner", *map(markdown, table.head)]
    rows = []
    for row, entries in table.lines:
        names = [_rank(row), _label(row, notes)] if table.ranks else [_name(row)]
        rows.append([*names, *(_entry(entry, notes) for entry in entries)])
    if table.foot:
        title, texts = table.foot
        cells = [f"<sub>{text}</sub>" if text else "" for text in (title, *texts)]
        rows.append([*[""] * table.ranks, *cells])
    sides = "".join("l" if name in table.left else "r" for name in table.head)
    return _table(head, rows, "r" * table.ranks + "l" + sides)


def _entry(entry: Entry, notes: Notes) -> str:
    if entry.reason:
        return f"-{notes.mark(entry.reason)}"
    text = f"[{entry.text}]({path_link(entry.link)})" if entry.link else _text(entry.text)
    noted = notes.mark(entry.note) if entry.note else ""
    return "".join([text, noted, *(f" <sub>{_text(small)}</sub>" for small in entry.small)])


def _text(text: str) -> str:
    """A number or an interval as it is, any other text as plain words."""
    return text if _NUMBERS.fullmatch(text) else markdown(text)


def _rank(row: Row) -> str:
    return f"{row.rank}{f' {words.PARETO}' if row.pareto else ''}" if row.rank else ""


def _name(row: Row) -> str:
    name = f"**{row.label}**" if row.pinned else markdown(row.name)
    if row.flags:
        name = f"~~{name}~~"
    return f"{name} <sub>{markdown(row.shown)}</sub>" if row.shown else name


def _marked(row: Row) -> str:
    """Its name with what must be known beside its numbers."""
    return _name(row) + (f" <sub>({markdown(', '.join(row.marks))})</sub>" if row.marks else "")


def _label(row: Row, notes: Notes) -> str:
    flags = "".join(notes.mark(f"unreliable: {reason}") for reason in dict.fromkeys(row.flags))
    return f"{_marked(row)}{flags}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> list[str]:
    rule = ["---:" if side == "r" else "---" for side in align]
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]
