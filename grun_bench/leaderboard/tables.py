"""Boards -> tables as plain data: what pages and exports show alike. Texts are not escaped. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from grun_bench.leaderboard import gates, words
from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.cells import NOTHING, Cell
from grun_bench.leaderboard.filings import Column
from grun_bench.leaderboard.least import LEAST
from grun_bench.leaderboard.themes import FORGOTTEN, GATES, KEPT, LAYERS, MEMBERS, OTHERWISE, REST, WRITING
from grun_bench.metrics.gate_words import LEGEND, WRONG, named, worst
from grun_bench.metrics.strengths import SHARES, Equal, equal_utility
from grun_bench.results.metric_key import CLEAN
from grun_bench.results.result import GateSpread
from grun_bench.results.words import metric_number, number

RANKING, COST, EQUAL, AUDIT = "ranking", "cost", "equal-utility", "gate-audit"
#: by what access attacks need -> table
ATTACKS = {"user": "user-attacks", "weights": "owner-attacks"}
#: table -> theme of the metrics in it
THEMED = {
    "forgotten": FORGOTTEN,
    "kept": KEPT,
    "otherwise": OTHERWISE,
    "membership": MEMBERS,
    "writing": WRITING,
    "other": REST,
    "gates": GATES,
    "gate-layers": LAYERS,
}
#: all tables that a board may have, in the order of pages
NAMES = (RANKING, COST, EQUAL, *ATTACKS.values(), *THEMED, AUDIT)
_STRENGTHS = (
    "Without attack, at the strength of one training that forgets most there, on straight lines between the strengths "
    "that were scored; “or more”: at the largest of them."
)
_WHO = {"user": "a user", "weights": "an owner of the weights"}


class Entry(NamedTuple):
    """What stands in a place: a number or a text; `small` beside it, an interval or a name; where there is none, the
    `reason`. `link` is an address that it leads to; `note` says what a number is not made of."""

    text: str = ""
    small: Sequence[str] = ()
    reason: str = ""
    value: float | None = None
    link: str = ""
    note: str = ""


@dataclass(frozen=True)
class Table:
    """One table of a board: a line for each row, headed by its name (and, where `ranks`, by its rank and marks).

    `better` says of each column whether a higher value is; `left` are the columns of texts, `foot` a last line with its
    name, `below` what is said under it. A `folded` table is of use to few.
    """

    name: str
    title: str
    head: Sequence[str]
    lines: Sequence[tuple[Row, Sequence[Entry]]]
    better: Sequence[bool | None]
    ranks: bool = False
    left: frozenset[str] = frozenset()
    foot: tuple[str, Sequence[str]] | None = None
    below: str = ""
    folded: bool = False


def tables(board: Board, stem: str = "") -> Iterator[Table]:
    """All tables of a board that have anything, in the order of `NAMES`. `stem` is the name of the board's pictures."""
    yield ranking(board, board.rows)
    yield cost(board)
    if (equal := _equal(board)).lines:
        yield equal
    if board.lead:
        for access in ATTACKS:
            if access in board.access.values():
                yield attacks(board, board.lead, access)
    for name, theme in THEMED.items():
        themed = _themed(board, name, board.themes.get(theme, []))
        if themed.head and themed.lines:
            yield themed
    if gated := [row for row in board.rows if gates.is_gated(board, row)]:
        yield _audit(board, gated, stem)


def ranking(board: Board, rows: Sequence[Row], title: str = "Ranking") -> Table:
    """Ranks, the worst case and the headline of these rows."""
    columns, by_attack = board.headline, bool(board.lead and board.attacked)
    head = [f"{words.heading(board, board.lead)} worst case"] if board.lead and by_attack else []
    lines = []
    for row in rows:
        entries = [_worst(row)] if by_attack else []
        lines.append((row, [*entries, *(entry(column, row.cells[column]) for column in columns)]))
    least = list(board.least.values())
    return Table(
        RANKING,
        title,
        [*head, *(words.heading(board, column) for column in columns)],
        lines,
        [*[False] * by_attack, *(board.directions.get(column.metric) for column in columns)],
        ranks=True,
        foot=(LEAST, [*[""] * by_attack, *least]) if any(least) else None,
    )


def cost(board: Board) -> Table:
    """What the rows are made of and took: runs, attacks, training, and how far they were verified."""
    head = ["n", "attacks", *words.costs(board.rows[0]), "source"]
    lines = []
    for row in board.rows:
        counts = [str(len(row.runs)), str(len(row.attacked_by)), *words.costs(row).values()]
        lines.append((row, [*(Entry(text) for text in counts), Entry(_source(row))]))
    return Table(COST, "Runs and cost", head, lines, [None] * len(head), left=frozenset({"source"}))


def _equal(board: Board) -> Table:
    """Forgetting where a share of the target's utility is kept, of rows that were scored at other strengths."""
    head, lines = [f"with {100 * share:g} % of the target's utility" for share in SHARES], []
    if board.lead and board.utility:
        for row in board.rows:
            if places := row.strengths(board.lead.metric, board.utility.metric):
                lines.append((row, [_kept(board.lead.metric, equal_utility(places, share)) for share in SHARES]))
    title = f"{words.heading(board, board.lead)} at equal utility" if board.lead else "At equal utility"
    return Table(EQUAL, title, head, lines, [False] * len(head), below=_STRENGTHS)


def _kept(metric: str, equal: Equal | None) -> Entry:
    if equal is None:
        return Entry(reason="the target has no utility that could be kept")
    at = f"at strength {equal.strength:.2g}{' or more' if equal.ends else ''}"
    return Entry(metric_number(metric, equal.forgetting), (at,), value=equal.forgetting)


def attacks(board: Board, lead: Column, access: str) -> Table:
    """The metric of forgetting under each attack that needs this access."""
    names = [name for name in board.attacks if board.access[name] == access]
    columns = [(name, metric) for name in names for metric in board.under[name]]
    head = ["no attack"]
    for name, metric in columns:
        head.append(name if metric == lead.metric else f"{name}: {words.heading(board, Column(metric, '1'))}")
    lines = []
    for row in board.rows:
        under = [(metric, row.attacks.get(name, {}).get(metric)) for name, metric in columns]
        shown = [_brief(metric, cell) if cell else Entry() for metric, cell in under]
        lines.append((row, [_brief(lead.metric, row.cells[lead]), *shown]))
    title = f"{words.heading(board, lead)} under attacks of {_WHO[access]}"
    better = [board.directions.get(metric) for metric in (lead.metric, *(metric for _, metric in columns))]
    return Table(ATTACKS[access], title, head, lines, better, below="An empty place: the row was not attacked so.")


def _audit(board: Board, rows: Sequence[Row], stem: str) -> Table:
    """How gated rows tell forget questions from others, as far as they were audited."""
    head = [f"{wrong}, {when}" for wrong in WRONG.values() for when in ("as usual", "worst")]
    head += ["AUC, as usual", *["picture"] * bool(stem)]
    lines = []
    for row in rows:
        found = gates.audited(row)
        if found is None:
            lines.append((row, [Entry(reason=gates.MISSING), *[Entry()] * (len(head) - 1)]))
            continue
        asked = ({CLEAN: found.gates[CLEAN]}, found.gates)
        entries = [_wrong(worst(each, opens)) for opens in WRONG for each in asked]
        least = min((each.auc for each in found.gates[CLEAN].values() if each.auc is not None), default=None)
        entries.append(Entry(number(least), value=least))
        lines.append((row, entries + [Entry("seen", link=gates.file(stem, row))] * bool(stem)))
    better = [*[False] * (2 * len(WRONG)), True, *[None] * bool(stem)]
    below = f"{LEGEND} {gates.LEAST}"
    return Table(AUDIT, "Where gates open", head, lines, better, left=frozenset({"picture"}), below=below)


def _wrong(line: tuple[str, str, GateSpread] | None) -> Entry:
    return Entry("-") if line is None else Entry(number(line[2].wrong), (named(*line[:2]),), value=line[2].wrong)


def _themed(board: Board, name: str, columns: Sequence[Column]) -> Table:
    lines = [(row, [_brief(column.metric, row.cells[column]) for column in columns]) for row in board.rows]
    if name in ("gates", "gate-layers"):  # most rows have none
        lines = [(row, entries) for row, entries in lines if any(each.value is not None for each in entries)]
    head = [words.heading(board, column) for column in columns]
    better = [board.directions.get(column.metric) for column in columns]
    return Table(name, THEMED[name], head, lines, better, folded=name == "gate-layers")


def _worst(row: Row) -> Entry:
    found = entry(None, row.worst)
    return found._replace(small=(*found.small, row.worst_attack)) if row.worst_attack else found


def entry(column: Column | None, cell: Cell) -> Entry:
    """A number with its interval."""
    if cell.value is None:
        return Entry(reason=cell.reason)
    spread = words.interval(cell)
    text = metric_number(column.metric if column else "", cell.value)
    return Entry(text, (spread,) * bool(spread), value=cell.value, note=cell.reason)


def _brief(metric: str, cell: Cell) -> Entry:
    if cell.value is None:
        return Entry(reason=cell.reason or NOTHING.reason)
    return Entry(metric_number(metric, cell.value), value=cell.value, note=cell.reason)


def _source(row: Row) -> str:
    imported = row.runs[0].result.imported
    return f"{row.tier} ({imported.tool})" if imported else row.tier
