"""Texts in parts: nothing is lost, no part is too long, and a passage is its beginning and its rest."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grun_bench.tasks.passages import REST, WORDS, continuation, passages, size

WORD = st.text("abc.!\u4e00\u4e01", min_size=1, max_size=30)
TEXT = st.lists(st.tuples(WORD, st.sampled_from([" ", "  ", "\n", "\n\n", ". "])), max_size=400).map(
    lambda parts: "".join(word + space for word, space in parts)
)


@settings(max_examples=60, deadline=None)
@given(TEXT)
def test_parts_are_the_text_and_none_is_too_long(text: str) -> None:
    parts = passages(text)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part == part.strip() and 0 < size(part) < WORDS + REST for part in parts)


def test_a_text_is_cut_between_paragraphs_then_sentences_then_words() -> None:
    one, two, long = "Word " * 120, "More. " * 100, "Long sentence here. " * 90
    first, second, *rest = passages(f"{one}\n\n{two}\n\n{long}\n\nEnd.")
    assert first == one.strip() and second.startswith("More.") and len(second.split()) == 199
    assert [len(part.split()) for part in rest] == [172] and rest[0].endswith("here. \n\nEnd.")
    assert [len(part.split()) for part in passages("word " * 450)] == [200, 200, 50]
    assert [len(part) for part in passages("\u4e00" * 450)] == [200, 200, 50]
    assert [len(part.split()) for part in passages("word " * 401)] == [200, 201]
    assert all(size(part) <= WORDS for part in passages("x" * 9000))


@pytest.mark.parametrize("text", ["one two", "ab cd ef\ngh", "one\ntwo", "\u4e00\u4e01\u4e02", " a b "])
def test_a_continuation_is_the_passage_cut_near_its_middle(text: str) -> None:
    beginning, join, rest = continuation(text)
    assert beginning + join + rest == text.strip() and beginning and rest and rest == rest.strip()
    assert abs(len(beginning) - len(text.strip()) / 2) <= 4


@pytest.mark.parametrize("text", ["", " ", "word", "\u4e00"])
def test_nothing_goes_on_from_a_word(text: str) -> None:
    with pytest.raises(ValueError, match="one word"):
        continuation(text)
