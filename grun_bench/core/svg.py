"""Line charts as SVG text, readable on light and dark pages. No dependencies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle

#: of the lines, in their order: distinguishable with common colour blindness, visible on white and on dark grey
COLOURS = ("#3b82c4", "#d9822b", "#2a9d6f", "#b5569b", "#8a7d2a", "#c94f4f")
WIDTH, PANEL = 760, 270
LEFT, RIGHT, TOP, BOTTOM, GAP = 64, 180, 48, 56, 28
#: what a letter of a name takes at most, on average
_LETTER = 8
_STYLE = (
    "text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#24292f}"
    ".title{font-size:15px;font-weight:600}.grid{stroke:#8c959f;stroke-opacity:.35}.axis{stroke:#57606a}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.axis{stroke:#9198a1}}"
)


@dataclass(frozen=True)
class Line:
    """One line: its values at the ticks, from 0 to 1, None where there is none. `mark` is the tick with a large dot."""

    name: str
    values: Sequence[float | None]
    mark: int | None = None
    dashed: bool = False


def line_chart(title: str, x_label: str, ticks: Sequence[str], panels: Mapping[str, Sequence[Line]]) -> str:
    """An SVG picture of lines over named ticks: one panel below another by the name of its vertical axis, 0 to 1.

    The legend is the first panel's; lines of the same place have the same colour in all.
    """
    right, height = WIDTH - RIGHT, TOP + len(panels) * (PANEL + GAP) - GAP + BOTTOM
    legend = next(iter(panels.values()), ())
    width = max(WIDTH, right + 58 + max((_LETTER * len(line.name) for line in legend), default=0))
    step = (right - LEFT) / max(len(ticks) - 1, 1)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>',
        _text(LEFT, 24, title, 'class="title"'),
    ]
    for number, (label, lines) in enumerate(panels.items()):
        top = TOP + number * (PANEL + GAP)
        bottom = top + PANEL
        for fifth in range(6):
            level = bottom - PANEL * fifth / 5
            parts.append(f'<path class="{"grid" if fifth else "axis"}" d="M{LEFT} {level:.1f}H{right}"/>')
            parts.append(_text(LEFT - 8, level + 4, f"{fifth / 5:.1f}", 'text-anchor="end"'))
        place = f'text-anchor="middle" transform="rotate(-90 20 {top + PANEL / 2:.1f})"'
        parts.append(_text(20, top + PANEL / 2, label, place))
        for line, colour in zip(lines, cycle(COLOURS), strict=False):
            points = [
                None if value is None else (LEFT + step * at, bottom - PANEL * min(max(value, 0.0), 1.0))
                for at, value in enumerate(line.values)
            ]
            parts += _line(line, points, colour)
    for at, tick in enumerate(ticks):
        parts.append(_text(LEFT + step * at, height - BOTTOM + 20, tick, 'text-anchor="middle"'))
    parts.append(_text((LEFT + right) / 2, height - 12, x_label, 'text-anchor="middle"'))
    for number, (line, colour) in enumerate(zip(legend, cycle(COLOURS), strict=False)):
        level = TOP + 8 + 24 * number
        parts.append(f'<path fill="none" {_stroke(line, colour)} d="M{right + 24} {level}h26"/>')
        parts.append(_text(right + 58, level + 4, line.name))
    return "\n".join([*parts, "</svg>"]) + "\n"


def bar_chart(title: str, series: Sequence[str], rows: Mapping[str, Sequence[float | None]]) -> str:
    """An SVG picture of horizontal bars from 0 to 1: of each row one a series, none where there is no value."""
    bar, left, right = 11, 300, WIDTH - 40
    height = bar * len(series) + 9
    bottom = TOP + 24 + height * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 30}" width="{WIDTH}" '
        f'height="{bottom + 30}" role="img" aria-label="{escape(title)}"><style>{_STYLE}</style>',
        _text(16, 24, title, 'class="title"'),
    ]
    for number, (name, colour) in enumerate(zip(series, cycle(COLOURS), strict=False)):
        parts.append(f'<rect x="{left + 150 * number}" y="36" width="14" height="{bar}" fill="{colour}"/>')
        parts.append(_text(left + 150 * number + 20, 46, name))
    for fifth in range(6):
        x = left + (right - left) * fifth / 5
        parts.append(f'<path class="{"grid" if fifth else "axis"}" d="M{x:.1f} {TOP + 16}V{bottom}"/>')
        parts.append(_text(x, bottom + 18, f"{fifth / 5:.1f}", 'text-anchor="middle"'))
    for row, (name, values) in enumerate(rows.items()):
        top = TOP + 24 + height * row
        parts.append(_text(left - 8, top + height / 2, name, 'text-anchor="end"'))
        for number, (value, colour) in enumerate(zip(values, cycle(COLOURS), strict=False)):
            if value is not None:
                width = (right - left) * min(max(value, 0.0), 1.0)
                place = f'x="{left}" y="{top + bar * number}" width="{width:.1f}" height="{bar - 2}"'
                parts.append(f'<rect {place} fill="{colour}"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(text)}</text>'


def _stroke(line: Line, colour: str) -> str:
    return f'stroke="{colour}" stroke-width="2"' + (' stroke-dasharray="6 4"' if line.dashed else "")


def _line(line: Line, points: Sequence[tuple[float, float] | None], colour: str) -> list[str]:
    """The line through the points, broken where one is missing, and its dots."""
    path, pen = "", "M"
    for point in points:
        path, pen = (path, "M") if point is None else (f"{path}{pen}{point[0]:.1f} {point[1]:.1f}", "L")
    dots = [
        f'<circle cx="{point[0]:.1f}" cy="{point[1]:.1f}" r="{6 if at == line.mark else 3}" fill="{colour}"/>'
        for at, point in enumerate(points)
        if point is not None
    ]
    return [f'<path fill="none" {_stroke(line, colour)} d="{path}"/>', *dots]
