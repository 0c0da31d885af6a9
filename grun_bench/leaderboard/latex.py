"""Boards -> LaTeX: tables with booktabs, the best of each column in bold, marks as signs, papers as \\cite."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from grun_bench.core.escaping import clean, latex
from grun_bench.core.sources import PLUGIN, file_of_plugin, papers_of_unlearner
from grun_bench.leaderboard import words
from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.ranking import ABOVE_TARGET, LIKE_TARGET
from grun_bench.leaderboard.tables import RANKING, Entry, Table
from grun_bench.leaderboard.told_apart import NOT_TOLD
from grun_bench.leaderboard.tree import SUBMISSIONS

#: the signs of the marks that say what a difference is worth; any other mark gets a letter
_SIGNS = {NOT_TOLD: r"\dagger", LIKE_TARGET: r"\ddagger", ABOVE_TARGET: r"\S"}
_PARETO = r"\ast"
#: what a table that is wider than the text is made as wide as
_FIT = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
#: tables that LaTeX holds back at most is twice as many
_FLOATS = 9


@dataclass
class _Marks:
    """The signs of one table's marks, in the order of their use: mark -> sign."""

    signs: dict[str, str] = field(default_factory=dict)

    def sign(self, mark: str) -> str:
        known = next((start for start in _SIGNS if mark.startswith(start)), "")
        if known:
            return self.signs.setdefault(known, _SIGNS[known])
        letters = sum(sign.isalpha() for sign in self.signs.values())
        return self.signs.setdefault(mark, chr(ord("a") + letters) if letters < 26 else str(letters))

    def over(self, marks: Iterable[str]) -> str:
        signs = ",".join(dict.fromkeys(map(self.sign, marks)))
        return f"$^{{{signs}}}$" if signs else ""


def document(boards: Sequence[tuple[Board, Sequence[Table]]]) -> str:
    """Table after table, to be `\\input`; what they need is said in comments at the top."""
    keys = sorted({row.name for board, _ in boards for row in board.rows if papers_of_unlearner(row.name)})
    lines = [
        "% Printed by `grun-bench leaderboard --format latex` from the result files.",
        r"% \usepackage[T1]{fontenc} \usepackage{booktabs} \usepackage{graphicx}",
    ]
    if keys and any(table.name == RANKING for _, tables in boards for table in tables):
        files = [(row.name, file) for board, _ in boards for row in board.rows if (file := _plugin(row))]
        by_name = dict(sorted(files, key=lambda each: (each[1] != PLUGIN, each)))  # one that is known is the last
        included = (word for file in sorted(set(by_name.values())) for word in ("--include-path", str(file)))
        lines.append(f"% BibTeX: {clean(shlex.join(('grun-bench', 'cite', *keys, *included)), 10_000)}")
    every = [(board, table) for board, tables in boards for table in tables]
    for place, (board, table) in enumerate(every, 1):
        lines += ["", *_table(board, table), *[r"\clearpage"] * (place % _FLOATS == 0)]
    return "\n".join(lines) + "\n"


def _plugin(row: Row) -> Path | None:
    """The file that knows a row's method, where this package does not; a submission brings its own."""
    place = file_of_plugin(row.name) if papers_of_unlearner(row.name) else None
    if place != PLUGIN:
        return place
    filings = (filed for run in row.runs for filed in run.filings if filed.submission)
    brought = (filed.root / SUBMISSIONS / filed.submission / "plugin.py" for filed in filings)
    return next(filter(Path.is_file, brought), place)


def _table(board: Board, table: Table) -> list[str]:
    marks, best = _Marks(), _best(table)
    head = [*["rank"] * table.ranks, "unlearner", *map(latex, table.head)]
    sides = "r" * table.ranks + "l" + "".join("l" if name in table.left else "r" for name in table.head)
    body, group = [], None
    for row, entries in table.lines:
        if group not in (None, _group(row, table.ranks)):
            body.append(r"\midrule")
        group = _group(row, table.ranks)
        cells = [_rank(row, marks)] * table.ranks + [_name(row, table.ranks, marks)]
        cells += [_cell(entry, bool(row.rank) and entry.text in best[at], marks) for at, entry in enumerate(entries)]
        body.append(" & ".join(cells) + r" \\")
    if table.foot:
        title, texts = table.foot
        cells = [*[""] * table.ranks, *(rf"{{\scriptsize {latex(text)}}}" if text else "" for text in (title, *texts))]
        body += [r"\midrule", " & ".join(cells) + r" \\"]
    caption = f"{words.title(board)}: {table.title[:1].lower()}{table.title[1:]}. {words.data_line(board)}"
    return [
        r"\begin{table}[tbp]",
        r"\centering",
        rf"\caption{{{latex(caption)}}}",
        rf"\label{{tab:{_label(board.first.task)}-{board.id}-{table.name}}}",
        _FIT,
        rf"\begin{{tabular}}{{{sides}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        *_notes(table, marks, any(best)),
        r"\end{table}",
    ]


def _best(table: Table) -> list[set[str]]:
    """Of each column the best number among the ranked rows as it is shown; none where no value is better."""
    found = []
    for at, better in enumerate(table.better):
        ranked = [entries[at] for row, entries in table.lines if row.rank and entries[at].value is not None]
        known = [entry.value for entry in ranked if entry.value is not None]
        top = None if better is None or not known else (max if better else min)(known)
        found.append({entry.text for entry in ranked if entry.value == top})
    return found


def _notes(table: Table, marks: _Marks, best: bool) -> list[str]:
    said = [f"$^{{{sign}}}$ {latex(mark)}" for mark, sign in marks.signs.items()]
    if best:
        said.append(r"best of the ranked rows in \textbf{bold}")
    if table.ranks:
        said.append(latex("in brackets the 95 % interval over examples, after ± half of that over seeds"))
    return [rf"\par\smallskip{{\footnotesize {'; '.join(said)}.\par}}"] if said else []


def _group(row: Row, ranks: bool) -> int:
    """Rows between two rules: references, ranked above the floor, below it, and without a rank."""
    if row.pinned or not ranks:
        return -1 if row.pinned else 0
    return 2 if row.rank is None else int(row.below)


def _rank(row: Row, marks: _Marks) -> str:
    if row.rank is None:
        return ""
    if row.pareto:
        marks.signs.setdefault("on the Pareto front", _PARETO)
    return f"{row.rank}{f'$^{{{_PARETO}}}$' if row.pareto else ''}"


def _name(row: Row, full: bool, marks: _Marks) -> str:
    name = rf"\textit{{{row.label}}}" if row.pinned else latex(row.name)
    if row.shown:
        name += rf" {{\scriptsize {latex(row.shown)}}}"
    if not full:
        return name
    keys = ",".join(paper.key for paper in papers_of_unlearner(row.name))
    cited = rf"~\cite{{{keys}}}" if keys and not row.pinned else ""
    return f"{name}{marks.over([*row.marks, *(f'unreliable: {reason}' for reason in row.flags)])}{cited}"


def _cell(entry: Entry, best: bool, marks: _Marks) -> str:
    if entry.reason:
        return "--"
    text = _number(entry.text) if entry.value is not None else latex(entry.text)
    if best and entry.value is not None:
        text = rf"\textbf{{{text}}}"
    noted = marks.over([entry.note] if entry.note else [])
    return "".join([text, noted, *(rf" {{\scriptsize {_interval(small)}}}" for small in entry.small)])


def _number(text: str) -> str:
    """A number with its power of ten as people write it."""
    mantissa, e, power = text.partition("e")
    minus = "$-$" if mantissa.startswith("-") and mantissa != "-" else ""
    mantissa = mantissa.removeprefix("-") if minus else mantissa
    times = rf"$\cdot10^{{{int(power)}}}$" if e else ""
    return f"{minus}{mantissa}{times}"


def _interval(text: str) -> str:
    """An interval, or the name of an attack."""
    if re.fullmatch(r"[-±\d.,e+ \[\]]+", text):
        return re.sub(r"-?\d+\.\d+(e[-+]\d+)?", lambda found: _number(found[0]), text).replace("±", r"$\pm$")
    return latex(text)


def _label(text: str) -> str:
    """A part of a label: letters, digits and hyphens."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text)
