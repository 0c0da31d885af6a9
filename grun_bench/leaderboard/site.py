"""Boards -> one self-contained HTML page. Its tables are plain HTML; a script sorts, filters and opens rows."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from grun_bench.core.escaping import html, script
from grun_bench.core.plugins import Control
from grun_bench.leaderboard import scatter, words
from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.cells import Cell
from grun_bench.leaderboard.least import LEAST, least_differences, least_rule
from grun_bench.leaderboard.opened import Opened
from grun_bench.results.words import number

_HERE = Path(__file__).parent
#: the classes of the rows of target and retain model, which have marks of their own in the style
_SHAPES: dict[Control, str] = {"target": "target", "retain model": "retain"}


def site(pages: Mapping[str, Sequence[Board]], colours: dict[str, int], results: str) -> str:
    """The page. `results` is the address of the tree of results, relative to the page."""
    boards = [board for of_page in pages.values() for board in of_page]
    style = scatter.theme(":root") + scatter.STYLE + _asset("site.css")
    code = _asset("site.js")
    opened = Opened(results)
    details = {board.id: opened.board(board) for board in boards}
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src '{_pin(style)}'; script-src '{_pin(code)}'",
        "marker": words.MARKER,
        "style": style,
        "script": code,
        "tasks": _options(board.first.task for board in boards),
        "models": _options(board.first.model for board in boards),
        "adapters": _options(row.adapter for board in boards for row in board.rows if not row.pinned),
        "intervals": html(words.INTERVALS),
        "tiers": "".join(f"<dt>{_tag(tier)}</dt><dd>{html(text)}</dd>" for tier, text in words.TIERS.items()),
        "boards": _sections(boards, colours),
        "details": script(details),
    }
    text = _asset("site.html")
    pieces = text.split("@@")
    # every second piece is a name: what is put in is never searched for names
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _pin(text: str) -> str:
    """The content security policy's name of an inline style or script: no other runs."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _options(names: Iterable[str]) -> str:
    return "".join(f'<option value="{html(name)}">{html(name)}</option>' for name in sorted(set(names)))


def _sections(boards: Sequence[Board], colours: dict[str, int]) -> str:
    parts, toy = [], None
    for board in boards:
        if board.toy != toy:
            toy = board.toy
            note = f"<p>{html(words.TOY)}</p>" if toy else ""
            kind = "toy" if toy else "real"
            heading = words.TOY_TITLE if toy else words.REAL_TITLE
            parts.append(f'<div class="part {kind}" data-part="{kind}"><h2>{heading}</h2>{note}</div>')
        parts.append(_section(board, colours))
    return "\n".join(parts)


def _section(board: Board, colours: dict[str, int]) -> str:
    first = board.first
    drawn = scatter.drawing(board, colours)
    view = f'viewBox="0 0 {scatter.WIDTH} {scatter.HEIGHT + 32}"'
    figure = f'<svg class="plot" {view} role="group" aria-label="Forgetting against utility">{drawn}' if drawn else ""
    figure += f"{scatter.legend(board, colours)}</svg>" if drawn else ""
    rules = "".join(f"<li>{html(line)}</li>" for line in [*words.rules(board), least_rule(board)] if line)
    toy = '<span class="badge">toy</span>' if board.toy else ""
    data = html(words.data_line(board))
    head, sides = _head(board)
    rows = "\n".join(_row(board, row, colours) for row in board.rows)
    above = f"<figure>{figure}</figure>" if figure else ""
    above += (
        f'<details class="rules"{" open" if figure else ""}><summary>How rows are ranked</summary>'
        f"<ul>{rules}</ul></details>"
    )
    return (
        f'<section class="board" id="b-{board.id}" data-board="{board.id}" data-task="{html(first.task)}" '
        f'data-model="{html(first.model)}" data-part="{"toy" if board.toy else "real"}">\n'
        f'<h3>{toy}{html(first.task)} <span class="model">{html(first.model)}</span></h3><p class="meta">{data}</p>\n'
        f'<div class="above">{above}</div>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table"><table><thead><tr>{head}</tr></thead>\n'
        f'<tbody data-sides="{sides}">{rows}</tbody>{_foot(board, sides)}</table></div>\n</section>'
    )


def _foot(board: Board, sides: int) -> str:
    """The line below the rows that says what their numbers can show; it takes no part in sorting."""
    least = list(least_differences(board).values())
    if not any(least):
        return ""
    cells = ["", LEAST, *[""] * board.attacked, *least]
    shown = "".join(f'<td class="{"l" if text == LEAST else "r"}">{html(text)}</td>' for text in cells)
    return f"<tfoot><tr>{shown}{'<td></td>' * (sides - len(cells))}</tr></tfoot>"


def _head(board: Board) -> tuple[str, int]:
    """The header cells, and how many there are. `data-first` is the direction in which a first click sorts."""
    columns: list[tuple[str, str]] = [("rank", "up"), ("unlearner", "text")]
    if board.lead and board.attacked:
        columns.append((f"{words.heading(board, board.lead)} worst case", "up"))
    for column in board.headline:
        columns.append((words.heading(board, column), "down" if board.directions.get(column.metric) else "up"))
    columns += [("n", "down"), ("attacks", "down"), *((name, "up") for name in words.costs(board.rows[0]))]
    columns.append(("source", "text"))
    cells = "".join(
        f'<th scope="col" class="{_side(name)}" aria-sort="none">'
        f'<button type="button" data-first="{first}">{_unbroken(html(name))}</button></th>'
        for name, first in columns
    )
    return cells, len(columns)


def _unbroken(name: str) -> str:
    """A heading whose arrow stays with the word before it."""
    return name.replace(" ↑", "&nbsp;↑").replace(" ↓", "&nbsp;↓")


def _side(name: str) -> str:
    return "l" if name in ("unlearner", "source") else "r"


def _row(board: Board, row: Row, colours: dict[str, int]) -> str:
    classes = ["row", f"pinned {_SHAPES[row.role]}" if row.role else f"c{colours[row.adapter]}"]
    if row.flags:
        classes.append("flagged")
    if row.below and not row.pinned:
        classes.append("below")
    rank = str(row.rank) if row.rank else ""
    pareto = f'<span class="pareto" title="on the Pareto front">{words.PARETO}</span>' if row.pareto else ""
    name = "".join(
        [
            f'<button type="button" class="open" aria-expanded="false"><span class="swatch"></span>'
            f'<span class="label">{html(row.label)}</span></button>',
            f'<span class="shown">{html(row.shown)}</span>' if row.shown else "",
            *(f'<span class="mark">{html(mark)}</span>' for mark in row.marks),
        ]
    )
    cells = [_td(f"{pareto}{rank}", row.rank, "rank"), f'<td class="l name">{name}</td>']
    if board.attacked:
        under = f'<span class="under">{html(row.worst_attack)}</span>' if row.worst_attack else ""
        cells.append(_number(row.worst, under))
    cells += [_number(row.cells[column]) for column in board.headline]
    costs = (row.cost(name) for name in ("trainable_parameters", "training_seconds", "training_peak_bytes"))
    cells += [_td(str(count), count) for count in (len(row.runs), len(row.attacked_by))]
    cells += [_td(text, value) for text, value in zip(words.costs(row).values(), costs, strict=True)]
    cells.append(f'<td class="l">{_tag(row.tier)}</td>')
    text = html(" ".join([row.name, row.label, row.shown, *row.marks, *row.attacks]).lower())
    return (
        f'<tr class="{" ".join(classes)}" data-row="{row.id}" data-adapter="{html(row.adapter)}" '
        f'data-settings="{"" if row.pinned else "tuned" if row.tuned else "default"}" data-text="{text}">'
        f"{''.join(cells)}</tr>"
    )


def _tag(tier: str) -> str:
    return f'<span class="tag {tier}" title="{html(words.TIERS[tier])}">{tier}</span>'


def _td(text: str, value: float | None, classes: str = "") -> str:
    sort = "" if value is None else f' data-v="{value:.12g}"'
    return f'<td class="r {classes}"{sort}>{text}</td>'


def _number(cell: Cell, after: str = "") -> str:
    if cell.value is None:
        return f'<td class="r none" title="{html(cell.reason)}">-</td>'
    spread = words.interval(cell)
    within = f'<span class="ci">{spread}</span>' if spread else ""
    return _td(f"{number(cell.value)}{within}{after}", cell.value)
