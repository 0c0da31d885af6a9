"""An audit of gates as an SVG picture, light and dark: how the gates of each set spread, and every threshold."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, groupby, pairwise, repeat

from grun_bench.core.escaping import html
from grun_bench.core.svg import COLOURS
from grun_bench.metrics.gate_audit import THRESHOLD, Audit
from grun_bench.metrics.gate_words import HEADINGS, WRONG, lines, named
from grun_bench.results.metric_key import CLEAN
from grun_bench.results.result import GateSpread

WIDTH = 760
#: the axis of gates from 0 to 1, and where the columns of numbers end
LEFT, RIGHT = 270, 560
COLUMNS = {"n": 598, "wrong": 676, "AUC": 744}
LINE, STRIP = 21, 16
#: the square of the curves, and how many ways of asking have one beside the usual way
START, TOP, SIDE, WORST = 150, 32, 220, 3
#: how many characters of a name are shown, and in how many parts a strip is cut
NAME, PARTS = 38, 29
#: its name, and the rows that it is of
_Curve = tuple[str, GateSpread]
_STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#24292f}.back{fill:#fff}"
    ".title{font-size:13px;font-weight:600}.head{font-weight:600}.soft{fill:#57606a}.end{text-anchor:end}.mid{text-anchor:middle}"
    ".grid{stroke:#8c959f;stroke-opacity:.35;fill:none}.half{stroke:#57606a;stroke-dasharray:3 3}"
    ".open{fill:#d9822b}.shut{fill:#3b82c4}.median{stroke:#24292f;stroke-width:2}.curve{fill:none;stroke-width:2}"
    ".worst{stroke-dasharray:5 3}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.back{fill:#14181d}.soft{fill:#9198a1}.half{stroke:#9198a1}"
    ".median{stroke:#e6edf3}}"
)


def gate_picture(title: str, gates: Audit) -> str:
    """The picture of an audit that has the gates of questions as they are."""
    parts = [f'<text class="title" x="16" y="24">{html(_short(title, 96))}</text>']
    top = 44
    for opens, heading in HEADINGS.items():
        rows = list(lines(gates, opens))
        parts += _strips(heading, WRONG[opens], rows, top)
        top += 2 * LINE + LINE * len(rows) + 18
    usual, worst = _drawn(gates)
    if usual or worst:
        parts += _square(top)
        curves = [*zip(usual, cycle(COLOURS), repeat("curve")), *zip(worst, cycle(COLOURS), repeat("curve worst"))]
        for place, ((name, spread), colour, kind) in enumerate(curves):
            parts += _curve(name, spread, top, place, f'class="{kind}" stroke="{colour}"')
        top += TOP + SIDE + 44
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        f'role="img" aria-label="{html(title)}"><style>{_STYLE}</style>\n'
        '<rect class="back" width="100%" height="100%" rx="8"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _strips(heading: str, wrong: str, rows: Sequence[tuple[str, str, GateSpread]], top: int) -> list[str]:
    """A block: its heading, a strip for each line, and the axis below them."""
    middle, bottom = (LEFT + RIGHT) / 2, top + LINE + LINE * len(rows)
    parts = [f'<text class="head" x="16" y="{top + 12}">{heading}</text>']
    columns = zip(("n", wrong, "AUC"), COLUMNS.values(), strict=True)
    parts += [f'<text class="soft end" x="{at}" y="{top + 12}">{name}</text>' for name, at in columns]
    parts += [f'<path class="grid" d="M{at} {top + LINE}V{bottom}"/>' for at in (LEFT, RIGHT)]
    parts.append(f'<path class="grid half" d="M{middle:g} {top + LINE}V{bottom}"/>')
    for place, (label, name, spread) in enumerate(rows):
        parts += _strip(label, name, spread, top + LINE + LINE * place + LINE // 2)
    ticks = ((LEFT, "0"), (middle, f"{THRESHOLD}"), (RIGHT, "1"))
    parts += [f'<text class="soft mid" x="{at:g}" y="{bottom + 14}">{tick}</text>' for at, tick in ticks]
    return parts


def _strip(label: str, name: str, spread: GateSpread, middle: int) -> list[str]:
    """One line: its name, the share of rows along the axis, the median, and the numbers."""
    kind, median = ("open" if spread.opens else "shut"), LEFT + (RIGHT - LEFT) * spread.quantiles[10]
    numbers = (str(spread.n), f"{spread.wrong:.2f}", "-" if spread.auc is None else f"{spread.auc:.3f}")
    said = zip(numbers, COLUMNS.values(), strict=True)
    return [
        f'<text x="16" y="{middle + 4}">{html(_short(named(label, name)))}</text>',
        f'<path class="{kind}" d="{_outline(spread.quantiles, middle)}"/>',
        f'<path class="median" d="M{median:.1f} {middle - STRIP // 2}v{STRIP}"/>',
        *(f'<text class="end" x="{at}" y="{middle + 4}">{number}</text>' for number, at in said),
    ]


def _short(text: str, limit: int = NAME) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shares(quantiles: Sequence[float], parts: int = PARTS) -> list[float]:
    """The share of rows in each of so many parts of [0, 1], those between two quantiles evenly spread."""
    found = [0.0] * parts
    each = 1 / (len(quantiles) - 1)
    for low, high in pairwise(quantiles):
        first, last = (min(int(end * parts), parts - 1) for end in (low, high))
        for place in range(first, last + 1):
            within = min(high, (place + 1) / parts) - max(low, place / parts)
            found[place] += each * (within / (high - low) if high > low else 1)
    return found


def _outline(quantiles: Sequence[float], middle: int) -> str:
    """A band around the line, as high as the root of the share of rows in each part: few rows are seen too."""
    heights = [round(STRIP * share**0.5) / 2 for share in shares(quantiles)]
    step, upper, lower, before = (RIGHT - LEFT) // PARTS, "", "", 0.0
    for height, run in groupby(heights):
        rise, width = height - before, step * len(list(run))
        upper += f"v{-rise:g}h{width}"
        lower = f"h-{width}v{-rise:g}{lower}"
        before = height
    return f"M{LEFT} {middle}{upper}v{2 * before:g}{lower}z"


def _drawn(gates: Audit) -> tuple[list[_Curve], list[_Curve]]:
    """The curves that are shown: usual questions against each kept set, and the ways that are told apart worst."""
    usual = [
        (f"as usual, {name}", each)
        for name, each in gates.get(CLEAN, {}).items()
        if _has_curve(each) and not each.opens
    ]
    asked = [line for opens in (True, False) for line in lines(gates, opens) if line[0] != CLEAN]
    others = [(named(label, name), each) for label, name, each in asked if _has_curve(each)]
    worst = sorted(others, key=lambda curve: curve[1].auc or 0)[:WORST]
    return usual, worst


def _has_curve(spread: GateSpread) -> bool:
    return spread.auc is not None and bool(spread.roc)


def _square(top: int) -> list[str]:
    """The axes: forget rows with an open gate over kept rows with an open gate, as the threshold falls."""
    upper, lower, right = top + TOP, top + TOP + SIDE, START + SIDE
    parts = [
        f'<text class="head" x="16" y="{top + 12}">every threshold (ROC): usual questions, and the worst ways</text>',
        f'<path class="grid" d="M{START} {upper}H{right}V{lower}H{START}z"/>',
        f'<path class="grid half" d="M{START} {lower}L{right} {upper}"/>',
        f'<text class="soft end" x="{START - 10}" y="{upper + SIDE // 2 - 4}">share of forget</text>',
        f'<text class="soft end" x="{START - 10}" y="{upper + SIDE // 2 + 12}">questions open</text>',
        f'<text class="soft mid" x="{START + SIDE // 2}" y="{lower + 32}">share of kept questions open</text>',
    ]
    for end, x, y in (("0", START, lower), ("1", right, upper)):
        parts.append(f'<text class="soft mid" x="{x}" y="{lower + 16}">{end}</text>')
        parts.append(f'<text class="soft end" x="{START - 10}" y="{y + 4}">{end}</text>')
    return parts


def _curve(name: str, spread: GateSpread, top: int, place: int, look: str) -> list[str]:
    """One curve, and its line of the legend."""
    upper, lower, right = top + TOP, top + TOP + SIDE, START + SIDE
    points = "L".join(f"{START + SIDE * x:.1f} {lower - SIDE * y:.1f}" for x, y in spread.roc)
    level = upper + 10 + 22 * place
    return [
        f'<path {look} d="M{points}"/>',
        f'<path {look} d="M{right + 24} {level}h22"/>',
        f'<text x="{right + 54}" y="{level + 4}">{html(_short(name))}, AUC {spread.auc:.3f}</text>',
    ]
