"""The same words spelled otherwise, as people type: a gate that knows a name's tokens may not know these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import regex

from grun_bench.attacks.base import Subject
from grun_bench.core.errors import Inapplicable
from grun_bench.core.registry import attack

#: words that are long enough to have letters between the first and the last that can change places
_WORD = regex.compile(r"\p{L}{4,}")


@attack("spelling", access="user", version=1)
def spelling(subject: Subject) -> Iterator[tuple[str, Subject]]:
    """Questions with typing errors (two letters of every long word change places), in small letters and in capitals.

    A spelling that leaves every question as it is, in scripts without capitals or of few letters a word, is not asked.
    """
    subject = replace(subject.without_texts(), measures=())
    found = False
    for name, change in {"typos": mistyped, "small": str.lower, "capitals": str.upper}.items():
        altered = subject.asking(change)
        if any(row.question != plain.question for row, plain in zip(altered.examples, subject.examples, strict=True)):
            found = True
            yield name, altered
    if not found:
        raise Inapplicable("no question of the task can be spelled otherwise: it has neither capitals nor long words.")


def mistyped(text: str) -> str:
    """The text with two neighbouring letters swapped in the middle of every word of four letters or more.

    First and last letter stay; of a word whose inner letters are all alike, all.
    """
    return _WORD.sub(lambda word: _swapped(word[0]), text)


def _swapped(word: str) -> str:
    places = sorted(range(1, len(word) - 2), key=lambda at: abs(2 * at + 2 - len(word)))
    at = next((at for at in places if word[at] != word[at + 1]), None)
    return word if at is None else word[:at] + word[at + 1] + word[at] + word[at + 2 :]
