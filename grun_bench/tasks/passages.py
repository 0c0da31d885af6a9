"""Texts in parts: passages that a model takes whole, and a passage as a beginning and a rest. No torch."""

from __future__ import annotations

import re
from collections.abc import Iterator

from grun_bench.core.words import spaced

#: words of a passage, in scripts without spaces characters, and of a rest that stays with the passage before it; so
#: texts are within the 512 tokens that are trained on
WORDS, REST = 200, 20
#: where a text is best cut: before a blank line, after the end of a sentence, at white space
_CUTS = (r"\n\s*\n", r"(?<=[.!?。！？])\s+|(?<=[。！？])", r"\s+")


def passages(text: str) -> list[str]:
    """The parts of a text of about `WORDS` words at most, in order, cut where the cut tells least.

    Parts are filled up with whole paragraphs, of those that are longer than a part with sentences, of these with words.
    White space around a part is left out, and nothing else.
    """
    parts: list[str] = []
    part, count = "", WORDS
    for piece in _fitting(text.strip(), _CUTS):
        words = size(piece)
        if count + words > WORDS:
            parts.append(part)
            part, count = "", 0
        part, count = part + piece, count + words
    if count < REST and parts:
        part = parts.pop() + part
    return [found for each in (*parts, part) if (found := each.strip())]


def size(text: str) -> int:
    """The words of a text; ten characters without a space count as one at least."""
    return max(len(spaced(text)), len(text) // 10)


def _fitting(text: str, cuts: tuple[str, ...]) -> Iterator[str]:
    """A text in pieces that are no longer than a passage, cut no finer than it takes."""
    if size(text) <= WORDS:
        yield text
    elif not cuts:  # a word without end
        yield from (text[start : start + WORDS] for start in range(0, len(text), WORDS))
    else:
        for piece in _pieces(text, cuts[0]):
            yield from _fitting(piece, cuts[1:])


def _pieces(text: str, cut: str) -> Iterator[str]:
    """A text cut, with what it is cut at at the end of each piece."""
    start = 0
    for match in re.finditer(cut, text):
        if match.end() > start:
            yield text[start : match.end()]
            start = match.end()
    if start < len(text):
        yield text[start:]


def continuation(text: str) -> tuple[str, str, str]:
    """A text's first passage as (beginning, what stands between, rest): cut in its middle, at a space where it has one.

    Raises ValueError for a text of a single character or word, which nothing goes on from.
    """
    passage = next(iter(passages(text)), "")
    middle = len(passage) // 2
    spaces = [match.start() for match in re.finditer(r"(?<=\S) (?=\S)", passage)]
    if spaces:
        at = min(spaces, key=lambda place: abs(place - middle))
        return passage[:at], " ", passage[at + 1 :]
    if len(spaced(passage)) < 2:
        raise ValueError("a text of one word")
    other = [match.end() for match in re.finditer(r"\s+", passage)]
    at = min(other, key=lambda place: abs(place - middle)) if other else middle
    return passage[:at], "", passage[at:]
