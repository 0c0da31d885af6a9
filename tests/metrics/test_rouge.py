"""ROUGE in any script: a perfect answer scores 1, and what the published definition cannot read is null, never 0."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grun_bench.core import registry
from grun_bench.core.words import UNSPACED, begun, mostly_ascii, spaced, words
from grun_bench.metrics.evaluate import evaluate
from grun_bench.metrics.recovery import recoveries
from grun_bench.results.record import Continuation, Generation, Record, Records
from grun_bench.tasks.sets import USUAL_SETS, ScoredSet, ScoredSets

FORGET = ScoredSets((ScoredSet("forget", "forget"),))
#: the metrics that compare texts with the answers, as published and for any script
PUBLISHED = [
    *("rouge1_recall", "rougeL_recall", "rouge1_f1", "rougeL_f1", "paraphrased_rougeL_recall"),
    *("perturbed_rougeL_recall", "sampled_rougeL_recall", "leak"),
]
ANY_SCRIPT = ["rougeL_recall_unicode", "rougeL_f1_unicode", "sampled_rougeL_recall_unicode", "leak_unicode"]
LATIN = ["Geboren in Zürich, Straße 7", "André naît à Málaga", "O'Brien's book", "3.14", "C++"]
OTHER = [
    *(
        "Она родилась в Москве.",
        "张伟出生于北京。",
        "東京で生まれた。",
        "وُلدت في القاهرة.",
        "भारत में",
        "서울에서 태어났다",
    ),
    *("เกิดที่กรุงเทพ", "Γεννήθηκε στην Αθήνα", "היא נולדה", "1979年に生まれました", "!", "😀"),
]


def told(answer: str, written: str, index: int = 0, name: str = "forget") -> Record:
    """A row to which a model that is sure of its tokens wrote this."""
    sure, wrong = Continuation(answer, loss=0.0), Continuation(answer, loss=9.0)
    return Record(name, index, "?", sure, sure, [wrong], Generation(written))


def values(name: str, *rows: Record) -> tuple[float | None, str | None]:
    value = evaluate(Records(rows), None, [name], FORGET)[f"forget_{name}"]
    return value.value, value.reason


# --- any script -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", LATIN + OTHER)
def test_the_same_text_scores_one_in_any_script(text: str) -> None:
    for name in ANY_SCRIPT:
        assert values(name, told(text, text)) == (1.0, None)
        assert values(name, told(text, "quite other words"))[0] == 0.0


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_definition_is_null_where_it_cannot_read_and_names_what_can(name: str) -> None:
    for text in OTHER:
        value, reason = values(name, told("in Rome", "in Rome"), told(text, text, index=1))
        assert value is None
        assert "row 1 of 'forget'" in reason and "rougeL_recall_unicode" in reason
    for text in LATIN:
        assert values(name, told(text, text)) == (1.0, None)


def test_letters_with_accents_are_told_apart() -> None:
    """As published, z and rich are two words of Zürich."""
    assert values("rougeL_recall", told("Zürich", "Z rich"))[0] == 1.0
    assert values("rougeL_recall_unicode", told("Zürich", "Z rich"))[0] == 0.0
    assert values("rougeL_recall_unicode", told("Zürich", "Zu\u0308rich"))[0] == 1.0


def test_scripts_without_spaces_are_compared_by_characters() -> None:
    """5 of the 7 characters of the answer, in order, are in 大阪で生まれた; of its 7, too."""
    assert values("rougeL_recall_unicode", told("東京で生まれた。", "大阪で生まれた"))[0] == pytest.approx(5 / 7)
    assert values("rougeL_f1_unicode", told("東京で生まれた。", "大阪で生まれた。はい"))[0] == pytest.approx(10 / 16)


def test_what_is_recalled_under_attack_is_told_in_any_script() -> None:
    target, before, after = (
        [told("東京で生まれた", text)] for text in ("東京で生まれた", "知りません", "東京で生まれ")
    )
    found = evaluate(Records(after), None, ["rougeL_recall_unicode"], FORGET)
    back = recoveries(found, Records(after), Records(before), Records(target), "grun-bench", FORGET)
    assert back["recovery_forget_rougeL_recall_unicode"].value == pytest.approx((6 / 7 - 1 / 7) / (1 - 1 / 7))


def test_a_loop_is_a_repetition_in_any_script() -> None:
    """はいはいはい...: 37 character 4-grams, two of them different."""
    assert values("repetition", told("はい", "はい" * 20))[0] == pytest.approx(1 - 2 / 37)
    assert values("repetition", told("да", "да " * 20))[0] == pytest.approx(1 - 1 / 17)


# --- the words ------------------------------------------------------------------------------------------------------


@given(st.text(st.characters(codec="latin-1")))
def test_in_latin_letters_white_space_parts_words(text: str) -> None:
    assert spaced(text) == text.split()


@given(st.text(st.characters(codec="latin-1")), st.integers(1, 4))
def test_texts_with_spaces_are_begun_with_their_first_words(text: str, count: int) -> None:
    pieces = text.split()
    given = min(count, len(pieces) - 1)
    assert begun(text, count) == ((" ".join(pieces[:given]), " ", " ".join(pieces[given:])) if given > 0 else None)


@given(st.text(st.sampled_from("a1。 東で")), st.integers(1, 4))
def test_a_begun_text_is_the_text(text: str, count: int) -> None:
    parts = begun(text, count)
    assert (parts is None) == (len(spaced(text)) < 2)
    if parts is not None:
        assert "".join(parts) == " ".join(text.split())
        assert [*spaced(parts[0]), *spaced(parts[2])] == spaced(text) and len(spaced(parts[0])) <= count


@given(st.text())
def test_every_text_that_is_not_blank_has_a_word(text: str) -> None:
    assert bool(words(text)) == bool(text.strip())


def test_words_of_mixed_text() -> None:
    assert words("Dr. Ａ１ ﬁnds C++ in ＴＯＫＹＯ") == ["dr", "a1", "finds", "c", "+", "+", "in", "tokyo"]
    assert words("1979年、ラーメン") == ["1979", "年", "ラ", "ー", "メ", "ン"]
    assert words("भारत में ٣٤ लोग") == ["भारत", "में", "٣٤", "लोग"]
    assert len(UNSPACED) == len(set(UNSPACED))


def test_half_of_the_letters_make_a_text_readable() -> None:
    assert mostly_ascii("ab вг") and not mostly_ascii("a вг") and not mostly_ascii("...")


# --- TOFU in other languages ----------------------------------------------------------------------------------------

FOLDER = "hub/alirezafarashah/multilingual-tofu"
FILES = {
    "forget": "forget01_perturbed",
    "retain": "retain_perturbed",
    "real_authors": "real_authors_perturbed",
    "world_facts": "world_facts_perturbed",
}


@pytest.mark.parametrize("language", ["fr", "ja", "ar"])
def test_a_perfect_model_scores_one_on_tofu_in_other_languages(shared: Path, language: str) -> None:
    rows = []
    for name, file in FILES.items():
        lines = (shared / FOLDER / f"{file}_{language}.jsonl").read_text(encoding="utf-8").splitlines()
        answers = [json.loads(line)["answer"] for line in lines]
        rows += [told(answer, answer, index, name) for index, answer in enumerate(answers)]
    names = ["rougeL_recall", "model_utility", *ANY_SCRIPT, "model_utility_unicode"]
    found = evaluate(Records(rows), None, names, USUAL_SETS, intervals=False)
    for key, value in found.items():
        if "unicode" in key and not key.startswith("model"):
            assert value.value == 1.0, key
    # P is 1, R is exp(-9), and so is what of P the wrong answer takes
    near_one = 1 - np.exp(-9)
    assert near_one < found["model_utility_unicode"].value < 1
    read = language == "fr"
    for key in ("model_utility", *(f"{name}_rougeL_recall" for name in FILES)):
        value = found[key]
        assert (value.value is not None) == read, key
        assert read or "rougeL_recall_unicode and model_utility_unicode" in value.reason
    if read:
        assert found["model_utility"].value == found["model_utility_unicode"].value


def test_every_variant_for_any_script_has_the_bounds_and_the_direction_of_the_published_one() -> None:
    for name in [*ANY_SCRIPT, "model_utility_unicode"]:
        variant, published = (registry.get("metric", each) for each in (name, name.removesuffix("_unicode")))
        for option in ("roles", "over", "bounds", "higher_is_better", "reference"):
            assert getattr(variant, option) == getattr(published, option)
