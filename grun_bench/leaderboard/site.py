"""Boards -> one self-contained HTML page: it explains what it shows, sorts, filters and opens rows.

What rows show once they are opened is packed in the page, and so are its tables where they are many: no file beside it
is asked for, so that it works from a disk too.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from grun_bench.core.escaping import html, script
from grun_bench.core.plugins import Control
from grun_bench.leaderboard import glossary, scatter, words
from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.cells import Cell
from grun_bench.leaderboard.filings import plain
from grun_bench.leaderboard.least import LEAST, least_rule
from grun_bench.leaderboard.opened import Opened
from grun_bench.results.words import number

_HERE = Path(__file__).parent
#: characters of tables that stand in the page as they are; more are packed
PLAIN = 600_000
#: the classes of the rows of target and retain model, which have marks of their own in the style
_SHAPES: dict[Control, str] = {"target": "target", "retain model": "retain"}


@dataclass(frozen=True)
class Shown:
    """What the page has of one board: its section, by the ids of its rows the JSON of what they show once they are
    opened, and what filters and the glossary name."""

    toy: bool
    methods: bool
    task: str
    model: str
    adapters: Set[str]
    section: str
    opened: Mapping[str, str]
    terms: glossary.Terms


def shown(board: Board, colours: dict[str, int], opened: Opened) -> Shown:
    """A board in the colours of all."""
    return Shown(
        toy=board.toy,
        methods=board.methods,
        task=board.first.task,
        model=board.first.model,
        adapters={row.adapter for row in board.rows if not row.pinned},
        section=_section(board, colours),
        opened={row: script(blocks) for row, blocks in opened.board(board).items()},
        terms=glossary.terms(board),
    )


def site(boards: Sequence[Shown]) -> str:
    """The page of these boards."""
    style = scatter.theme(":root") + scatter.STYLE + _asset("site.css")
    code = _asset("site.js")
    rows = {row: blocks for board in boards for row, blocks in board.opened.items()}
    packed = {"packed-rows": "{" + ",".join(f'"{row}":{blocks}' for row, blocks in rows.items()) + "}"}
    sections = _parts(boards)
    if len(sections) > PLAIN:
        packed["packed-boards"], sections = sections, f"<noscript>{html(words.NO_SCRIPT)}</noscript>"
    parts = {
        "policy": f"default-src 'none'; img-src data:; style-src '{_pin(style)}'; script-src '{_pin(code)}'",
        "marker": words.MARKER,
        "style": style,
        "script": code,
        "lede": html(words.LEDE),
        "tasks": _options(board.task for board in boards),
        "models": _options(board.model for board in boards),
        "adapters": _options(adapter for board in boards for adapter in board.adapters),
        "boards": sections,
        "glossary": glossary.glossary([board.terms for board in boards]),
        "packed": "\n".join(_packed(name, text) for name, text in packed.items()),
    }
    text = _asset("site.html")
    pieces = text.split("@@")
    # every second piece is a name: what is put in is never searched for names
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def _packed(name: str, text: str) -> str:
    """Text as a block that runs nothing and is unpacked when it is wanted; the same text gives the same block."""
    content = base64.b64encode(gzip.compress(text.encode(), compresslevel=9, mtime=0)).decode()
    return f'<script type="text/plain" id="{name}">{content}</script>'


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _pin(text: str) -> str:
    """The content security policy's name of an inline style or script: no other runs."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _options(names: Iterable[str]) -> str:
    return "".join(f'<option value="{html(name)}">{html(name)}</option>' for name in sorted(set(names)))


def _parts(boards: Sequence[Shown]) -> str:
    """Real boards, then toy ones; those that have no method yet are folded away at the end of each."""
    parts: list[str] = []
    for toy, title in ((False, words.REAL_TITLE), (True, words.TOY_TITLE)):
        held = [board for board in boards if board.toy == toy]
        if not held:
            continue
        note = f'<p class="warning">{html(words.TOY)}</p>' if toy else ""
        sections = "\n".join(board.section for board in held if board.methods)
        if bare := [board for board in held if not board.methods]:
            names = html(", ".join(dict.fromkeys(board.task for board in bare)))
            inside = "\n".join(board.section for board in bare)
            sections += f'<details class="bare"><summary>{words.BARE}: {names}</summary>{inside}</details>'
        kind = "toy" if toy else "real"
        parts.append(f'<section class="part {kind}" data-part="{kind}"><h2>{title}</h2>{note}{sections}</section>')
    return "\n".join(parts)


def _section(board: Board, colours: dict[str, int]) -> str:
    first = board.first
    drawn = scatter.drawing(board, colours)
    view = f'viewBox="0 0 {scatter.WIDTH} {scatter.HEIGHT + 32}"'
    figure = f'<svg class="plot" {view} role="group" aria-label="Forgetting against utility">{drawn}' if drawn else ""
    figure += f"{scatter.legend(board, colours)}</svg>" if drawn else ""
    toy = '<span class="badge">toy</span>' if board.toy else ""
    data = html(words.data_line(board))
    head, sides = _head(board)
    rows = "\n".join(_row(board, row, colours) for row in board.rows)
    return (
        f'<section class="board" id="b-{board.id}" data-board="{board.id}" data-task="{html(first.task)}" '
        f'data-model="{html(first.model)}" data-part="{"toy" if board.toy else "real"}">\n'
        f'<h3>{toy}{html(first.task)} <span class="model">{html(first.model)}</span></h3><p class="meta">{data}</p>\n'
        f"{_above(figure)}"
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody>{_foot(board, sides)}</table></div>\n{_rules(board)}</section>"
    )


def _above(figure: str) -> str:
    """The picture, with how it is read beside it."""
    if not figure:
        return ""
    lines = "".join(f"<li>{html(line)}</li>" for line in words.READING)
    reading = f'<details class="reading" open><summary>How to read it</summary><ul>{lines}</ul></details>'
    return f'<div class="above"><figure>{figure}</figure>{reading}</div>\n'


def _rules(board: Board) -> str:
    lines = [line for line in [*words.rules(board), least_rule(board)] if line]
    shown = "".join(f"<li>{html(line)}</li>" for line in lines)
    return f'<details class="rules"><summary>How rows are ranked</summary><ul>{shown}</ul></details>\n'


def _foot(board: Board, sides: int) -> str:
    """The line below the rows that says what their numbers can show; it takes no part in sorting."""
    least = list(board.least.values())
    if not any(least):
        return ""
    cells = ["", LEAST, *[""] * board.attacked, *least]
    shown = "".join(f'<td class="{"l" if text == LEAST else "r"}">{html(text)}</td>' for text in cells)
    return f"<tfoot><tr>{shown}{'<td></td>' * (sides - len(cells))}</tr></tfoot>"


def _head(board: Board) -> tuple[str, int]:
    """The header cells, and how many there are. `data-first` is the direction in which a first click sorts, `data-key`
    the column's name in the page's address."""
    columns = [("rank", "rank", "up", "column-rank"), ("unlearner", "unlearner", "text", "column-unlearner")]
    if board.lead and board.attacked:
        columns.append(("worst", f"{words.heading(board, board.lead)} worst case", "up", "column-worst case"))
    for column in board.headline:
        first = "down" if board.directions.get(column.metric) else "up"
        columns.append((column.metric, words.heading(board, column), first, glossary.place_of_metric(column.metric)))
    columns += [(name, name, "down", f"column-{name}") for name in ("n", "attacks")]
    columns += [(name, name, "up", f"column-{name}") for name in words.costs(board.rows[0])]
    columns.append(("source", "source", "text", "column-source"))
    cells = "".join(
        f'<th scope="col" class="{_side(name)}" aria-sort="none"><button type="button" data-key="{html(key)}" '
        f'data-first="{first}"{_described(entry)}>{_unbroken(html(name))}</button></th>'
        for key, name, first, entry in columns
    )
    return cells, len(columns)


def _described(entry: str) -> str:
    """The attribute that says where a heading is explained."""
    if entry.startswith("column-"):
        entry = glossary.place("column", entry.removeprefix("column-"))
    return f' aria-describedby="{html(entry)}-tip"' if entry else ""


def _unbroken(name: str) -> str:
    """A heading whose arrow stays with the word before it."""
    return name.replace(" ↑", "&nbsp;↑").replace(" ↓", "&nbsp;↓")


def _side(name: str) -> str:
    return "l" if name in ("unlearner", "source") else "r"


def _row(board: Board, row: Row, colours: dict[str, int]) -> str:
    classes = ["row", f"pinned {_SHAPES[row.role]}" if row.role else f"c{colours[row.adapter]}"]
    if row.flags:
        classes.append("flagged")
    if (row.below or row.not_forgotten) and not row.pinned:
        classes.append("below")
    rank = str(row.rank) if row.rank else ""
    pareto = f'<span class="pareto" title="on the Pareto front">{words.PARETO}</span>' if row.pareto else ""
    name = "".join(
        [
            f'<button type="button" class="open" aria-expanded="false"><span class="swatch"></span>'
            f'<span class="label">{html(row.label)}</span></button>',
            f'<span class="shown">{html(row.shown)}</span>' if row.shown else "",
            *(f'<span class="mark">{html(mark).replace(" q ", " q&nbsp;")}</span>' for mark in row.marks),
        ]
    )
    cells = [_td(f"{pareto}{rank}", row.rank, "rank"), f'<td class="l name">{name}</td>']
    if board.attacked:
        under = f'<span class="under">{html(row.worst_attack)}</span>' if row.worst_attack else ""
        cells.append(_number(row.worst, under))
    cells += [_number(row.cells[column]) for column in board.headline]
    cells += [_td(str(count), count) for count in (len(row.runs), len(row.attacked_by))]
    trained, *costs = (row.cost(name) for name in ("trainable_parameters", "training_seconds", "training_peak_bytes"))
    cells.append(_td(words.short_count(trained), trained))
    cells += [_td(text, value) for text, value in zip([*words.costs(row).values()][1:], costs, strict=True)]
    cells.append(f'<td class="l">{_tag(row.tier)}</td>')
    settings = (f"{name}={plain(value)}" for name, value in row.settings.items())
    text = html(" ".join([row.name, row.label, row.shown, *row.marks, *row.attacks, *settings]).lower())
    return (
        f'<tr class="{" ".join(classes)}" data-row="{row.id}" data-adapter="{html(row.adapter)}" '
        f'data-settings="{"" if row.pinned else "tuned" if row.tuned else "default"}" data-text="{text}">'
        f"{''.join(cells)}</tr>"
    )


def _tag(tier: str) -> str:
    return f'<span class="tag {tier}" title="{html(words.TIERS[tier])}">{tier}</span>'


def _td(text: str, value: float | None, classes: str = "") -> str:
    """A cell whose column is sorted by a value that its text does not say in whole."""
    sort = "" if value is None else f' data-v="{value:.6g}"'
    return f'<td class="r {classes}"{sort}>{text}</td>'


def _number(cell: Cell, after: str = "") -> str:
    """A metric's value, by which the column is sorted as it is shown."""
    if cell.value is None:
        return f'<td class="r none" title="{html(cell.reason)}">-</td>'
    spread = words.interval(cell)
    within = f'<span class="ci">{spread}</span>' if spread else ""
    noted = f'<sup title="{html(cell.reason)}">*</sup>' if cell.reason else ""
    return f'<td class="r">{number(cell.value)}{noted}{within}{after}</td>'
