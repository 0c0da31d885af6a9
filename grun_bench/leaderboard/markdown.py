"""Boards -> Markdown: an overview, and a page for each task and model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from grun_bench.core.escaping import markdown, path_link
from grun_bench.leaderboard import gates, words
from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.cells import Cell
from grun_bench.leaderboard.filings import Column
from grun_bench.leaderboard.least import LEAST, least_differences, least_rule
from grun_bench.metrics.gate_words import LEGEND, WRONG, named, worst
from grun_bench.results.metric_key import CLEAN
from grun_bench.results.result import GateSpread
from grun_bench.results.words import number


@dataclass
class Notes:
    """Numbered footnotes; one reason has one number."""

    texts: dict[str, int] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        return f"<sup>{self.texts.setdefault(text, len(self.texts) + 1)}</sup>"

    def lines(self) -> list[str]:
        return [f"{number}. {markdown(text)}" for text, number in self.texts.items()]


def overview(pages: Mapping[str, Sequence[Board]]) -> str:
    """README.md: one line for each board, by page path."""
    lines = ["# Leaderboards", "", f"<!-- {words.MARKER} -->", ""]
    lines += [
        "`grun-bench leaderboard` makes `index.html` here: all boards on one page, to sort, filter and open rows.",
        "",
    ]
    for toy in (False, True):
        listed = [(path, board) for path, boards in pages.items() for board in boards if board.toy == toy]
        if not listed:
            continue
        lines += [f"## {words.TOY_TITLE if toy else words.REAL_TITLE}", ""]
        lines += [words.TOY, ""] if toy else []
        head = ("task", "model", "best row", "forgetting, worst case ↓", "utility ↑", "rows", "runs", "data, protocol")
        lines += _table(head, (_summary(path, board) for path, board in listed), "lllrrrrl")
        lines.append("")
    lines += ["The best row is the first in the ranking, whose rule each page states.", ""]
    return "\n".join(lines)


def _summary(path: str, board: Board) -> list[str]:
    first, best = board.first, board.best
    numbers = ["-", "-", "-"]
    if best:
        utility = best.cells[board.utility].value if board.utility else None
        numbers = [_name(best), f"{number(best.worst.value)}{_under(best)}", number(utility)]
    note = f"; --limit, {words.NO_BENCHMARK}" if first.limit else ""
    data = f"{markdown(first.dataset_hash[:8])}, {markdown(first.protocol)}{note}"
    task = f"[{markdown(first.task)}]({path_link(path)})"
    return [task, markdown(first.model), *numbers, str(len(board.rows)), str(board.runs), data]


def page(boards: Sequence[Board], files: dict[str, str], home: str) -> str:
    """The page of one task and model; `files` has the picture and CSV of each board by id, `home` the overview."""
    first = boards[0]
    toy = " (toy)" if first.toy else ""
    lines = [f"# {markdown(words.title(first))}{toy}", "", f"<!-- {words.MARKER} -->", "", f"[All boards]({home})", ""]
    if first.toy:
        lines += [f"> **{words.TOY}**", ""]
    if len(boards) > 1:
        lines += [
            "Rows of different data, protocols, versions or limits do not compare: each has a table of its own.",
            "",
        ]
    notes = Notes()
    for board in boards:
        lines += _board(board, files[board.id], notes)
    if notes.texts:
        lines += ["## Notes", "", *notes.lines(), ""]
    return "\n".join(lines)


def _board(board: Board, file: str, notes: Notes) -> list[str]:
    lines = [f"## {markdown(words.data_line(board))}", ""]
    if board.utility and any(row.placed and not row.pinned for row in board.rows):
        lines += [f"![Forgetting against utility]({path_link(file)}.svg)", ""]
    lines += [
        *_headline(board, board.rows, notes),
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
            lines += [f"### {title}", "", *_headline(board, some, notes), ""]
    if board.attacks and board.lead:
        lines += [
            f"### {markdown(words.heading(board, board.lead))} under attack",
            "",
            *_attacks(board, board.lead, notes),
            "",
        ]
    if gated := [row for row in board.rows if gates.is_gated(board, row)]:
        lines += ["### Gates", "", *_gates(board, gated, file, notes), "", f"{LEGEND} {gates.LEAST}", ""]
    if board.others:
        lines += ["### Other metrics", "", *_others(board, notes), ""]
    return lines


def _headline(board: Board, shown: Sequence[Row], notes: Notes) -> list[str]:
    head = ["rank", "unlearner"]
    if board.lead and board.attacked:
        head.append(f"{markdown(words.heading(board, board.lead))} worst case")
    head += [markdown(words.heading(board, column)) for column in board.headline]
    head += ["n", "attacks", *words.costs(board.rows[0]), "source"]
    rows = []
    for row in shown:
        rank = f"{row.rank}{f' {words.PARETO}' if row.pareto else ''}" if row.rank else ""
        cells = [rank, _label(row, notes)]
        if board.attacked:
            cells.append(f"{_cell(row.worst, notes)}{_under(row)}")
        cells += [_cell(row.cells[column], notes) for column in board.headline]
        cells += [str(len(row.runs)), str(len(row.attacked_by)), *words.costs(row).values(), _source(row)]
        rows.append(cells)
    least = least_differences(board)
    if any(least.values()):
        differences = [f"<sub>{text}</sub>" if text else "" for text in least.values()]
        cells = ["", f"<sub>{LEAST}</sub>", *[""] * board.attacked, *differences]
        rows.append([*cells, *[""] * (len(head) - len(cells))])
    return _table(head, rows, "rl" + "r" * (len(head) - 3) + "l")


def _attacks(board: Board, lead: Column, notes: Notes) -> list[str]:
    columns = [(name, metric) for name in board.attacks for metric in board.under[name]]
    head = ["unlearner", "no attack"]
    for name, metric in columns:
        other = "" if metric == lead.metric else f": {markdown(words.heading(board, Column(metric, '1')))}"
        head.append(f"{markdown(name)} ({board.access[name]}){other}")
    rows = []
    for row in board.rows:
        under = [row.attacks.get(name, {}).get(metric) for name, metric in columns]
        shown = [_cell(cell, notes, brief=True) if cell else "" for cell in under]
        rows.append([_name(row), _cell(row.cells[lead], notes, brief=True), *shown])
    return [*_table(head, rows, "l" + "r" * (len(head) - 1)), "", "An empty place: the row was not attacked so."]


def _gates(board: Board, rows: Sequence[Row], file: str, notes: Notes) -> list[str]:
    """How gated rows tell forget questions from others: their mean gates, and as far as they were audited the rest."""
    means = gates.columns(board)
    head = ["unlearner", *(markdown(words.heading(board, column)) for column in means)]
    for wrong in WRONG.values():
        head += [f"{wrong}, as usual", f"{wrong}, worst"]
    head += ["AUC, as usual", "picture"]
    lines = []
    for row in rows:
        shown = [_name(row), *(_cell(row.cells[column], notes, brief=True) for column in means)]
        found = gates.audited(row)
        if found is None:
            shown += [f"-{notes.mark(gates.MISSING)}", *[""] * 5]
        else:
            asked = ({CLEAN: found.gates[CLEAN]}, found.gates)
            shown += [_wrong(worst(each, opens)) for opens in WRONG for each in asked]
            least = [each.auc for each in found.gates[CLEAN].values() if each.auc is not None]
            shown += [number(min(least, default=None)), f"[seen]({path_link(gates.file(file, row))})"]
        lines.append(shown)
    return _table(head, lines, "l" + "r" * (len(head) - 2) + "l")


def _wrong(line: tuple[str, str, GateSpread] | None) -> str:
    return "-" if line is None else f"{number(line[2].wrong)} <sub>{markdown(named(*line[:2]))}</sub>"


def _others(board: Board, notes: Notes) -> list[str]:
    columns = board.others
    head = ["unlearner", *(markdown(words.heading(board, column)) for column in columns)]
    rows = [[_name(row), *(_cell(row.cells[column], notes, brief=True) for column in columns)] for row in board.rows]
    return _table(head, rows, "l" + "r" * len(columns))


def _cell(cell: Cell, notes: Notes, brief: bool = False) -> str:
    if cell.value is None:
        return f"-{notes.mark(cell.reason)}"
    spread = "" if brief else words.interval(cell)
    return f"{number(cell.value)}{f' <sub>{spread}</sub>' if spread else ''}"


def _name(row: Row) -> str:
    name = f"**{row.label}**" if row.pinned else markdown(row.name)
    if row.flags:
        name = f"~~{name}~~"
    return f"{name} <sub>{markdown(row.shown)}</sub>" if row.shown else name


def _label(row: Row, notes: Notes) -> str:
    flags = "".join(notes.mark(f"unreliable: {reason}") for reason in dict.fromkeys(row.flags))
    marks = f" <sub>({markdown(', '.join(row.marks))})</sub>" if row.marks else ""
    return f"{_name(row)}{marks}{flags}"


def _source(row: Row) -> str:
    imported = row.runs[0].result.imported
    return f"{row.tier} ({markdown(imported.tool)})" if imported else row.tier


def _under(row: Row) -> str:
    return f" <sub>{markdown(row.worst_attack)}</sub>" if row.worst_attack else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> list[str]:
    rule = ["---:" if side == "r" else "---" for side in align]
    return ["| " + " | ".join(cells) + " |" for cells in (head, rule, *rows)]
