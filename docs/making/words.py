"""Docstrings and tables as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from typing import Any

from grun_bench.core.papers import NUMBER, numbers, paper


def docstring(of: object) -> str:
    """What it says of itself, as Markdown: blocks after `::` are code, papers are links."""
    text = inspect.getdoc(of) or ""
    return papers_linked(re.sub(r"``(.+?)``", r"`\1`", re.sub(r"::$", ":", text, flags=re.MULTILINE)))


def parts(of: object) -> tuple[str, str]:
    """The first line of a docstring, and the rest of it."""
    first, _, rest = docstring(of).partition("\n")
    return first.strip(), rest.strip("\n")


def sources(text: str, name: str) -> list[str]:
    """A section on the papers on arXiv that a text names, and how they are cited; nothing where it names none."""
    found = [paper(number) for number in numbers(text)]
    if not found:
        return []
    lines = [f"- {each.words().removesuffix(each.number)}[{each.number}]({each.address})" for each in found]
    entries = "\n".join(each.bibtex() for each in found)
    cited = f"As BibTeX, which `grun-bench cite {name}` prints:"
    return ["## Source", "\n".join(lines), cited, f"```bibtex\n{entries}\n```"]


def papers_linked(text: str) -> str:
    def link(found: re.Match[str]) -> str:
        return f"[{found[0]}](https://arxiv.org/abs/{found[1]})"

    lines = text.split("\n")
    return "\n".join(line if line.startswith("    ") else NUMBER.sub(link, line) for line in lines)


def cell(value: Any) -> str:
    """A value in a table, as code; "" for nothing."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else repr(list(value) if isinstance(value, tuple) else value)
    return code(text) if text else '`""`'


def code(text: str) -> str:
    """Text as code, in a table too."""
    return f"`{text}`".replace("|", "\\|").replace("\n", " ")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; nothing without rows. Columns whose head ends in ` #` are numbers, on the right."""
    rows = list(rows)
    if not rows:
        return ""
    ends = ["---:" if name.endswith(" #") else "---" for name in head]
    names = [name.removesuffix(" #") for name in head]
    return "\n".join(f"| {' | '.join(line)} |" for line in (names, ends, *rows)) + "\n"


def page(title: str, *texts: str) -> str:
    return f"# {title}\n\n" + "\n\n".join(text.strip("\n") for text in texts if text.strip()) + "\n"
