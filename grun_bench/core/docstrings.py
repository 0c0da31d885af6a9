"""What docstrings are written in: papers by their numbers on arXiv, code between backticks, indented blocks of code.

The documentation has the same docstrings in Markdown.
"""

from __future__ import annotations

import html
import re

from grun_bench.core.papers import NUMBER, paper

_CODE = re.compile(r"``(.+?)``|`(.+?)`")


def as_html(doc: str) -> str:
    """A docstring as paragraphs and blocks of code; papers are links."""
    return "".join(map(_block, re.split(r"\n\s*\n", doc.strip("\n"))))


def _block(text: str) -> str:
    if text.startswith("    "):
        return f"<pre>{html.escape(text)}</pre>"
    words = html.escape(re.sub(r"\s+", " ", re.sub(r"::$", ":", text)))
    words = _CODE.sub(lambda found: f"<code>{found[1] or found[2]}</code>", words)
    return f"<p>{NUMBER.sub(_link, words)}</p>"


def _link(found: re.Match[str]) -> str:
    return f'<a href="{paper(found[1]).address}" rel="noopener noreferrer">{found[0]}</a>'
