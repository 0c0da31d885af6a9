"""What is wrong with a paraphrase or a wrong answer that a model wrote, so that none is taken for what it is not.

Reasons have no text of the row in them: results may say them. No torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import regex

from grun_bench.core.words import words
from grun_bench.tasks.dataset import Column, Row

EMPTY = "empty"
SAME = "the same as the original"
ECHO = "the question once more"
RIGHT = "a wrong answer that says what the right one says"
TWICE = "the same as another one"
REFUSAL = "a refusal"
NOISE = "no text, or a loop"
LENGTH = "less than a third or more than twice as long as the original"
CONTEXT = "with its request it is longer than the writer's context"
LOST = "a name or a number of the original is gone"
ADDED = "a name or a number that the original has not"
UNASKED = "a statement in place of a question, or a question in place of an answer"
GIVEN = "the answer is in the question"

#: words with a capital letter or a digit
_FACT = regex.compile(r"[\p{L}\p{M}\p{N}]*[\p{Lu}\p{Lt}\p{Nd}][\p{L}\p{M}\p{N}]*")
_MARK = re.compile("[?？؟]")
_REFUSAL = re.compile(
    r"\b(as an ai|i['’]m sorry|i am sorry|i (cannot|can['’]?t|am unable)|language model)\b", re.IGNORECASE
)
#: words by which a text may be longer than twice the original, and how many may be half repetitions
_SPARE, _LOOP = 6, 6


def fault_of(column: Column, text: str, row: Row, others: Sequence[str] = ()) -> str:
    """Why a text cannot stand in a column of a row, whoever wrote it; "" where it can.

    `row` has `question`, `answer` and perhaps `paraphrased_answer`; `others` are the wrong answers that it has already.
    """
    if not text.strip():
        return EMPTY
    said = words(text)
    if column == "paraphrased_question":
        return SAME if said == words(row["question"]) else ""
    if said == words(row["question"]):
        return ECHO
    if column == "paraphrased_answer":
        return SAME if said == words(row["answer"]) else ""
    if said in [words(row[name]) for name in ("answer", "paraphrased_answer") if row.get(name)]:
        return RIGHT
    return TWICE if said in [words(each) for each in others] else ""


def doubt_of(column: Column, text: str, row: Row, others: Sequence[str] = ()) -> str:
    """Why a text that a model wrote is not to be trusted in a column of a row; "" where nothing speaks against it.

    Beside `fault_of` what is refused, run on, lost or given away. These rules are rough, and a person may write what
    they would not take: names are told by their capital letters, so in scripts without those by the whole wording.
    """
    if fault := fault_of(column, text, row, others):
        return fault
    original = row["question"] if column == "paraphrased_question" else row["answer"]
    if fault := _form(text, original):
        return fault
    said, asked = {*words(text)}, {*words(row["question"])}
    known = asked | {*words(row["answer"])}
    if column == "perturbed_answer":
        # what has no word of its own is the right answer or a part of it
        return RIGHT if _tells(said, row) or said <= known else ""
    if column == "paraphrased_question" and _tells(said, row):
        return GIVEN
    told = _facts(original) if column == "paraphrased_question" else _facts(original) - asked
    return LOST if told - said else ADDED if _facts(text) - known else ""


def _form(text: str, original: str) -> str:
    """What is wrong with a text whatever it says."""
    said, length = words(text), len(words(original))
    if "\ufffd" in text or (len(said) > _LOOP and len({*said}) <= len(said) / 2):
        return NOISE
    if _REFUSAL.search(text) and not _REFUSAL.search(original):
        return REFUSAL
    if _MARK.search(original) is None and _MARK.search(text):
        return UNASKED
    if _MARK.search(original.rstrip()[-1:]) and not _MARK.search(text.rstrip()[-1:]):
        return UNASKED
    return "" if length / 3 <= len(said) <= 2 * length + _SPARE else LENGTH


def _tells(said: set[str], row: Row) -> bool:
    """Whether words tell the answer of a row: the names and numbers that its question has not, or all of its words."""
    asked = {*words(row["question"])}
    told = (_facts(row["answer"]) or {*words(row["answer"])}) - asked
    return bool(told) and told <= said


def _facts(text: str) -> set[str]:
    """The names and numbers of a text, without regard to case; not a word that begins a sentence, or is one letter."""
    found = [each for each in _FACT.finditer(text) if len(each[0]) > 1 or each[0].isdigit()]
    return {word for each in found if _named(text, each) for word in words(each[0])}


def _named(text: str, found: regex.Match[str]) -> bool:
    before = text[: found.start()].rstrip(" \t\n\"'“”‘’«»(")
    return any(character.isdigit() for character in found[0]) or (bool(before) and before[-1] not in ".!?:;…。？！")
