"""Text from result files is untrusted: one function for each place that it is shown in. No torch."""

from __future__ import annotations

import html as _html
import json
import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

#: ASCII punctuation that means something in Markdown; an underscore inside a word does not
_MARKS = re.compile(r"[\\`*\[\]<>#|~&$]|(?<![^\W_])_|_(?![^\W_])|^[-+=]|:(?=//)|(?<=[wW]{3})\.")
#: what would begin a numbered list
_NUMBERED = re.compile(r"^(\d{1,9})(?=[.)])")
#: what means something in LaTeX, and signs of pages -> what is set
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}",
    "<": "$<$", ">": "$>$", "|": "$|$", "[": "{[}", "]": "{]}",
    **{char: f"\\{char}" for char in "{}$&#%_"},
    "↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$", "·": r"$\cdot$", "≥": r"$\geq$", "…": r"\ldots{}",
    "“": r"\textquotedblleft{}", "”": r"\textquotedblright{}", "‘": r"\textquoteleft{}", "’": r"\textquoteright{}",
    "–": r"\textendash{}", "—": r"\textemdash{}", "\u2212": "$-$",
}  # fmt: skip
#: combining accents -> LaTeX's commands
_ACCENTS = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0308": '"', "\u030a": "r", "\u030c": "v"} | {
    "\u0327": "c"
}

#: paths that are links as they are, as nearly all of tens of thousands
_SAFE_PATH = re.compile(r"[A-Za-z0-9/+._,-]*", re.ASCII).fullmatch


def clean(text: str, limit: int = 1000) -> str:
    """The text on one line of at most `limit` characters.

    Blanks of any kind become spaces. Other characters that cannot be seen (controls, bidirectional overrides, zero
    widths, surrogates, private use) become U+FFFD.
    """
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)
    text = text.strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


#: as many digits as no number has that means something; a hash in letters and digits has fewer in a row
_DIGITS = re.compile(r"(\d{12})\d{88,}")


def shown(value: Any, write: Callable[[Any], str] = str) -> str:
    """A value of any kind in an error, as `write` has it but short."""
    try:
        text = write(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        text = "(a number of thousands of digits)"
    return clean(_DIGITS.sub(r"\1…", text), 100)


def lines(text: str) -> str:
    """Text of our own making with names and texts from files in it: each line that cannot be printed is `clean`.

    Of numbers of hundreds of digits the first are there.
    """
    text = _DIGITS.sub(r"\1…", text)
    return "\n".join(line if line.isprintable() else clean(line, limit=10_000) for line in text.split("\n"))


@lru_cache(maxsize=2**12)  # names and reasons come again and again
def markdown(text: str) -> str:
    """Text as plain words in a Markdown table cell, heading or list item: no markup, no link, no HTML."""
    return _NUMBERED.sub(r"\1\\", _MARKS.sub(lambda match: "\\" + match.group(), clean(text)))


def html(text: str) -> str:
    """Text in an HTML or SVG element or in a quoted attribute."""
    return _html.escape(clean(text), quote=True)


def terminal(text: str) -> str:
    """Text in rich's console markup: no markup, no control sequence."""
    from rich.markup import escape  # takes a moment, and files are read without

    return escape(clean(text, limit=10_000))


def cell(text: str) -> str:
    """Text in a CSV file that a spreadsheet opens: nothing that begins as a formula does."""
    text = clean(text, limit=10_000)
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text


def latex(text: str) -> str:
    """Text as plain words in LaTeX, in a table too: no command, no group, no ligature of hyphens or quotes.

    Accents become commands and arrows mathematics, so that every engine sets them; what is in no font of theirs, as
    other scripts are not, becomes a question mark.
    """
    text = clean(text)
    pairs = zip(text, f"{text[1:]} ", strict=False)
    said = "".join(_LATEX.get(char, char) + "{}" * (char == after and char in "-',") for char, after in pairs)
    return "".join(char if char.isascii() else "?" for char in accents_set(said))


def accents_set(text: str) -> str:
    """The text with accents as LaTeX's commands; other characters stay as they are."""
    found = ""
    for char in text:
        base, *accents = list(unicodedata.normalize("NFD", char))
        known = len(accents) == 1 and base.isascii() and accents[0] in _ACCENTS
        found += f"{{\\{_ACCENTS[accents[0]]}{{{base}}}}}" if known else char
    return found


def script(data: Any) -> str:
    """Data as JSON inside an HTML script element, which no text in it can close."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, check_circular=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def path_link(path: str) -> str:
    """A relative path as the target of a link in Markdown or HTML."""
    return path if _SAFE_PATH(path) else quote(path, safe="/+._-,", errors="replace")


def web_link(address: str) -> str | None:
    """An http(s) address as the target of a link in Markdown or HTML; None for any other (javascript:, data:, ...)."""
    if clean(address, limit=2000) != address or not re.match(r"https?://[\w.-]+(:\d+)?([/?#]|$)", address):
        return None
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    return quote(address, safe="/:?#@!$,;=+%._-~", errors="replace") if parts.hostname else None
