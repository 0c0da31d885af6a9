"""The pieces of HTML that sections are made of: texts are escaped, HTML is passed on where it says so. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from grun_bench.core.escaping import html
from grun_bench.results.words import number


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names, and values that are HTML already; those that are "" are left out."""
    shown = ((name, value) for name, value in pairs if value)
    return f'<dl class="facts">{"".join(f"<dt>{html(name)}</dt><dd>{value}</dd>" for name, value in shown)}</dl>'


def code(text: str) -> str:
    return f"<code>{html(text)}</code>"


def bullets(texts: Iterable[str]) -> str:
    """A list of texts."""
    return f"<ul>{''.join(f'<li>{html(text)}</li>' for text in texts)}</ul>"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int]) -> str:
    """A table whose cells are HTML already; columns of these places are numbers."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if place in numbers else ''}>{text}</{tag}>" for place, text in enumerate(row)
        )

    head = f"<thead><tr>{cells('th', [html(each) for each in columns])}</tr></thead>"
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{head}<tbody>{body}</tbody></table></div>'


def value(found: float | None, interval: tuple[float, float] | None = None) -> str:
    """A number, with its interval below it."""
    spread = f'<span class="ci">{number(interval[0])} to {number(interval[1])}</span>' if interval else ""
    return f"{html(number(found))}{spread}"


def bars(shares: Sequence[tuple[str, float]]) -> str:
    """Shares in [0, 1] as bars between a model that never saw the forget set and the target model."""
    left, width, high = 250, 560, 26
    down, box = high * len(shares), f'x="{left}" height="16" rx="3"'
    parts = [
        f'<text x="0" y="{place * high + 17}">{html(name)}</text>'
        f'<rect class="track" {box} y="{place * high + 5}" width="{width}"/>'
        f'<rect class="bar" {box} y="{place * high + 5}" width="{max(2.0, share * width):.1f}"/>'
        f'<text x="{left + width + 10}" y="{place * high + 17}">{100 * share:.0f} %</text>'
        for place, (name, share) in enumerate(shares)
    ]
    ends = (
        f'<text class="scale" x="{left}" y="{down + 16}">nothing: a model that never saw it</text>'
        f'<text class="scale" x="{left + width}" y="{down + 16}" text-anchor="end">all: the target model</text>'
    )
    label = "How much of what was to go is left"
    return f'<svg viewBox="0 0 876 {down + 22}" role="img" aria-label="{label}">{"".join(parts)}{ends}</svg>'
