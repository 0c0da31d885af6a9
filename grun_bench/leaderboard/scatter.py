"""A board -> SVG: forgetting in the worst case against utility, with the Pareto front. Light and dark."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from grun_bench.core.escaping import clean, html
from grun_bench.leaderboard import words
from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.cells import Cell
from grun_bench.leaderboard.filings import Column

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 44, 52
#: rows up to this rank have their names beside their points
NAMED = 8
#: left, top, right, bottom in pixels
_Box = tuple[float, float, float, float]
#: adapters get these in the order of their names: (in light, in dark); told apart by people with colour blindness too
COLOURS = (
    ("#2563c9", "#6ea8fe"),
    ("#0a8754", "#3fd097"),
    ("#c2570c", "#fb9a52"),
    ("#8b3fc7", "#c792f5"),
    ("#b3224f", "#f77ea1"),
    ("#6f6a10", "#d6cb4a"),
)
_LIGHT = {"--bg": "#ffffff", "--ink": "#1c2128", "--soft": "#5b6470", "--line": "#d9dee4", "--front": "#8a94a0"}
_DARK = {"--bg": "#14181d", "--ink": "#e8ebee", "--soft": "#a2abb6", "--line": "#2d343d", "--front": "#77828f"}
#: how the picture's parts look; the page of all boards uses it too
STYLE = """
.plot text{font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:var(--soft)}
.plot .name{fill:var(--ink);paint-order:stroke;stroke:var(--bg);stroke-width:3px;stroke-linejoin:round}
.plot .axis{font-weight:600}
.plot .grid{stroke:var(--line);stroke-width:1}
.plot .front{fill:none;stroke:var(--front);stroke-width:1.5}
.plot .floor{stroke:var(--front);stroke-width:1.2;stroke-dasharray:5 4}
.plot .bar{stroke:currentColor;stroke-width:1.2;opacity:.45}
.plot .dot{fill:currentColor;stroke:var(--bg);stroke-width:1.5}
.plot .low .dot{fill:var(--bg);stroke:currentColor}
.plot .pin{color:var(--ink)}
""" + "".join(f".c{number}{{color:var(--c{number})}}" for number in range(len(COLOURS)))


def palette(adapters: Iterable[str]) -> dict[str, int]:
    """Adapter -> the number of its colour."""
    named = sorted(set(adapters) - {"reference"})
    return {name: number % len(COLOURS) for number, name in enumerate(named)}


def theme(selector: str) -> str:
    """CSS: the colours as variables of the selected element, for light and for dark."""
    return f"{selector}{{{_variables(False)}}}@media(prefers-color-scheme:dark){{{selector}{{{_variables(True)}}}}}"


def _variables(dark: bool) -> str:
    return (
        ";".join(f"{name}:{value}" for name, value in (_DARK if dark else _LIGHT).items())
        + ";"
        + ";".join(f"--c{number}:{pair[dark]}" for number, pair in enumerate(COLOURS))
    )


@dataclass(frozen=True)
class _Scale:
    """Values -> pixels along one axis, with round ticks."""

    low: float
    high: float
    start: float
    end: float
    step: float

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float) -> _Scale:
        low, high = min(values), max(values)
        span = max(high - low, abs(high) * 0.02, 1e-9)
        raw = span * 1.16 / 6
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw)
        return cls(low - 0.08 * span, high + 0.08 * span, start, end, step)

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + min(max(share, 0.0), 1.0) * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        first = math.ceil(self.low / self.step)
        return [number * self.step for number in range(first, math.floor(self.high / self.step) + 1)]

    def label(self, value: float) -> str:
        digits = max(0, min(6, math.ceil(-math.log10(self.step) + 0.7)))
        return f"{value + 0.0:.{digits}f}" if value else "0"


def points(board: Board) -> list[tuple[Row, float, float]]:
    """(row, forgetting, utility) of the rows that have both and are trusted."""
    if board.lead is None or board.utility is None:
        return []
    found = []
    for row in board.rows:
        x, y = row.worst.value, row.cells[board.utility].value
        if x is not None and y is not None and row.placed:
            found.append((row, x, y))
    return found


def drawing(board: Board, colours: dict[str, int]) -> str:
    """The picture's elements; "" for a board with nothing to draw. Each point has `data-row`, the row's id."""
    drawn = points(board)
    if not board.lead or not board.utility or all(row.pinned for row, _, _ in drawn):
        return ""
    ys = [y for _, _, y in drawn] + ([board.floor] if board.floor is not None else [])
    lines = _lines(board)
    ends = [point for line in lines.values() for point in line]
    across = _Scale.over([x for _, x, _ in drawn] + [x for x, _ in ends], LEFT, WIDTH - RIGHT)
    up = _Scale.over(ys + [y for _, y in ends], HEIGHT - BOTTOM, TOP)
    parts = [*_axes(board, board.lead, board.utility, across, up)]
    if lines:
        note = "dotted: one training at other strengths, without attack"
        parts.append(f'<text x="{WIDTH - RIGHT}" y="38" text-anchor="end">{note}</text>')
    for row, _, _ in drawn:
        if line := lines.get(row.id):
            path = "L".join(f"{across(x)} {up(y)}" for x, y in line)
            # not in STYLE, which every picture has
            look = 'fill="none" stroke="currentColor" stroke-width="1.2" stroke-dasharray="2 3"'
            parts.append(f'<path class="c{colours[row.adapter]}" {look} data-row="{row.id}" d="M{path}"/>')
    front = sorted((x, y) for row, x, y in drawn if row.pareto)
    if len(front) > 1:
        path = f"M{across(front[0][0])} {up(front[0][1])}"
        path += "".join(f"H{across(x)}V{up(y)}" for x, y in front[1:])
        parts.append(f'<path class="front" d="{path}"/>')
    # the front on top of the rest, the references on top of all
    drawn.sort(key=lambda point: (point[0].pinned, point[0].pareto, -(point[0].rank or 0)))
    parts += [_point(row, row.cells[board.utility], across(x), up(y), across, up, colours) for row, x, y in drawn]
    placed = [(row, across(x), up(y)) for row, x, y in drawn]
    taken = [(x - 9, y - 9, x + 9, y + 9) for _, x, y in placed]
    if board.floor is not None:
        y = up(board.floor)
        boxes = [(x, y - 18, x + 84, y) for x in range(LEFT, WIDTH - RIGHT - 84, 40)]
        box = next((box for box in boxes if not any(_meet(box, other) for other in taken)), boxes[0])
        taken.append(box)
        parts.append(f'<text x="{box[0] + 5}" y="{y - 6}">utility floor</text>')
    parts += _names(placed, taken)
    return "".join(parts)


def _lines(board: Board) -> dict[str, list[tuple[float, float]]]:
    """(forgetting, utility) without attack of rows that were scored at other strengths, from the target's on."""
    if not board.lead or not board.utility:
        return {}
    names = board.lead.metric, board.utility.metric
    found = {row.id: [(x, y) for _, x, y in row.strengths(*names)] for row, _, _ in points(board) if not row.pinned}
    return {row: line for row, line in found.items() if len(line) > 1}


def _axes(board: Board, lead: Column, utility: Column, across: _Scale, up: _Scale) -> list[str]:
    parts = []
    bottom, top, right = HEIGHT - BOTTOM, TOP, WIDTH - RIGHT
    for tick in across.ticks():
        x = across(tick)
        parts.append(f'<path class="grid" d="M{x} {top}V{bottom}"/>')
        parts.append(f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{across.label(tick)}</text>')
    for tick in up.ticks():
        y = up(tick)
        parts.append(f'<path class="grid" d="M{LEFT} {y}H{right}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{up.label(tick)}</text>')
    if board.floor is not None:
        y = up(board.floor)
        parts.append(f'<path class="floor" d="M{LEFT} {y}H{right}"/>')
    name = html(words.plain(board, lead))
    parts.append(f'<text class="axis" x="{right}" y="{HEIGHT - 10}" text-anchor="end">{name}, worst case</text>')
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 10}">← forgets more</text>')
    parts.append(f'<text class="axis" x="{LEFT - 52}" y="22">{html(words.plain(board, utility))}</text>')
    parts.append(f'<text x="{right}" y="22" text-anchor="end">better: up and to the left</text>')
    return parts


def _point(row: Row, utility: Cell, x: float, y: float, across: _Scale, up: _Scale, colours: dict[str, int]) -> str:
    bars = ""
    for cell, scale, flat in ((row.worst, across, True), (utility, up, False)):
        if cell.over == "seeds" and cell.low is not None and cell.high is not None:
            ends = scale(cell.low), scale(cell.high)
            bars += (
                f'<path class="bar" d="M{ends[0]} {y}H{ends[1]}"/>'
                if flat
                else (f'<path class="bar" d="M{x} {ends[0]}V{ends[1]}"/>')
            )
    if row.role == "target":
        shape = f'<path class="dot" d="M{x} {y - 8}l8 8l-8 8l-8 -8z"/>'
    elif row.role == "retain model":
        shape = f'<path class="dot" d="M{x} {y - 9}l8.5 15h-17z"/>'
    else:
        shape = f'<circle class="dot" cx="{x}" cy="{y}" r="{7 if row.pareto else 5.5}"/>'
    classes = "pin" if row.pinned else f"c{colours[row.adapter]}{'' if row.pareto else ' low'}"
    return f'<g class="pt {classes}" data-row="{row.id}"><title>{html(row.named)}</title>{bars}{shape}</g>'


def _names(drawn: Sequence[tuple[Row, float, float]], taken: Sequence[_Box]) -> list[str]:
    """Names beside the references, the front and the first ranks, where they cover no point and no other name.

    Where several points have one name their settings are with it, in whole.
    """
    taken, parts = list(taken), []
    shared = Counter(row.label for row, _, _ in drawn)
    for row, x, y in sorted(drawn, key=lambda point: (not point[0].pinned, not point[0].pareto, point[0].rank or 0)):
        if not (row.pinned or row.pareto or (row.rank or 0) <= NAMED):
            continue
        text = row.named if shared[row.label] > 1 else clean(row.label, 28)
        width = 7.3 * len(text)
        places = ((x + 11, y + 4, "start"), (x - 11, y + 4, "end"), (x, y - 13, "middle"), (x, y + 22, "middle"))
        for at, base, anchor in places:
            left = at if anchor == "start" else at - width if anchor == "end" else at - width / 2
            box = (left, base - 11, left + width, base + 3)
            inside = box[0] >= LEFT and box[2] <= WIDTH - 4 and box[1] >= TOP - 6 and box[3] <= HEIGHT - BOTTOM
            own = (x - 9, y - 9, x + 9, y + 9)
            if inside and not any(_meet(box, other) for other in taken if other != own):
                taken.append(box)
                attributes = f'x="{round(at, 1)}" y="{round(base, 1)}" text-anchor="{anchor}"'
                main = " main" if row.pinned or row.rank == 1 else ""
                parts.append(f'<text class="name{main}" data-name="{row.id}" {attributes}>{html(text)}</text>')
                break
    return parts


def _meet(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def legend(board: Board, colours: dict[str, int]) -> str:
    """A line that names the adapters' colours."""
    adapters = sorted({row.adapter for row, _, _ in points(board) if not row.pinned})
    x, parts = LEFT, []
    for adapter in adapters:
        parts.append(f'<circle class="dot c{colours[adapter]}" cx="{x + 5}" cy="{HEIGHT + 12}" r="5"/>')
        parts.append(f'<text x="{x + 15}" y="{HEIGHT + 16}">{html(adapter)}</text>')
        x += 34 + round(6.8 * len(adapter))
    note = "filled: Pareto front; bars: 95 % over seeds"
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT + 16}" text-anchor="end">{note}</text>')
    return f'<g class="legend">{"".join(parts)}</g>'


def picture(board: Board, colours: dict[str, int]) -> str:
    """A whole SVG file, "" for a board with nothing to draw. It follows the reader's light or dark theme."""
    inside = drawing(board, colours)
    if not inside:
        return ""
    name = html(f"{words.title(board)}: forgetting against utility")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH} {HEIGHT + 32}" width="{WIDTH}" '
        f'height="{HEIGHT + 32}" role="img" aria-label="{name}">\n<style>'
        f'{theme(".plot")}{STYLE}</style>\n<rect width="100%" height="100%" rx="8" style="fill:var(--bg)"/>\n'
        f"{inside}{legend(board, colours)}\n</svg>\n"
    )
