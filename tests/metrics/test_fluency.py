"""Fluency against scipy's entropy, and answers that a reader would call empty, endless or a loop."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import entropy

from grun_bench.core import registry
from grun_bench.core.errors import MissingReference
from grun_bench.metrics import fluency
from grun_bench.metrics.evaluate import evaluate, keys_of
from grun_bench.results.record import Continuation, Generation, Record, Records
from grun_bench.tasks.sets import USUAL_SETS, ScoredSet, ScoredSets

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "de"]), max_size=30).map(" ".join)


def said(text: str, finished: bool | None = True) -> Record:
    return Record("forget", 0, "question", Continuation("answer"), generation=Generation(text, finished=finished))


@given(TEXTS)
def test_entropy_is_the_weighted_mean_of_scipys(text: str) -> None:
    words, total = text.split(), 0.0
    for size, weight in ((2, 2 / 3), (3, 4 / 3)):
        counts = list(Counter(tuple(words[at : at + size]) for at in range(len(words) - size + 1)).values())
        total += weight * (entropy(counts, base=2) if counts else 0.0)
    assert fluency.ngram_entropy([said(text)])[0] == pytest.approx(total / 2, abs=1e-12)


def test_loops_have_little_entropy_and_sentences_much() -> None:
    sentence = "the author was born in a small town near the sea and wrote nine novels about sailors"
    loop, refusal, plain = fluency.ngram_entropy([said("no " * 200), said("I do not know."), said(sentence)])
    assert loop == 0 < refusal < plain


@pytest.mark.parametrize(("text", "empty"), [("", 1), (" \n", 1), ("...!?", 1), ("7", 0), ("是", 0), ("a", 0)])
def test_an_answer_is_empty_without_letter_and_digit(text: str, empty: int) -> None:
    assert fluency.empty_answers([said(text)]) == [empty]


def test_runaway_answers_are_those_that_did_not_end() -> None:
    assert list(fluency.runaway_answers([said("a"), said("a", finished=False)])) == [0, 1]
    with pytest.raises(MissingReference, match="came to an end"):
        fluency.runaway_answers([said("a", finished=None)])


def test_tasks_of_questions_alone_have_no_texts_to_look_at() -> None:
    assert list(fluency.everywhere(USUAL_SETS)) == list(fluency.EVERYWHERE)
    for name, keys in fluency.everywhere(USUAL_SETS).items():
        assert keys == keys_of(registry.get("metric", name), USUAL_SETS)
    assert fluency.everywhere(ScoredSets((ScoredSet("wmdp", "forget", "questions"),))) == {}


def test_a_set_that_names_its_metrics_has_those_of_every_result_too() -> None:
    sets = ScoredSets((ScoredSet("a", "forget", metrics=("probability",)), ScoredSet("b", "retain")))
    rows = [Record(name, 0, "?", Continuation("x"), generation=Generation("One.", 2, True)) for name in "ab"]
    keys = fluency.everywhere(sets)
    for name in fluency.EVERYWHERE:
        found = evaluate(Records(rows), None, [name], sets, intervals=False)
        assert set(keys[name]) <= found.keys() and all(found[key].value is not None for key in keys[name])
