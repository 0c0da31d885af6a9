"""Attacks on plain texts: what needs a question says that there is none, others leave a text's beginning whole."""

from __future__ import annotations

import pytest

from grun_bench.attacks.base import Answers, Subject, make_attacks
from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError
from grun_bench.models.lm import LM
from grun_bench.models.scoring import Example, ScoringSettings
from grun_bench.results.record import Records
from grun_bench.tasks.passages import continuation
from grun_bench.tasks.sets import ScoredSet, ScoredSets
from grun_bench.tasks.world import PUBLISHED

TEXTS = ["Ada Berg moved to Turin in the spring.", "The lamp of Bo Falk is still here.", "Cy Wolf paid by card."]
USERS = [name for name, entry in registry.entries("attack").items() if entry.declared.get("access") == "user"]


@pytest.mark.parametrize("name", USERS)
def test_a_users_attack_leaves_the_beginning_of_a_text_before_the_answer(name: str, lm: LM) -> None:
    parts = [continuation(text) for text in TEXTS]
    examples = [Example("forget", at, begun, rest, join=join) for at, (begun, join, rest) in enumerate(parts)]
    pairs = [("", text) for text in TEXTS]
    scoring = ScoringSettings(max_new_tokens=2)
    sets = ScoredSets((ScoredSet("forget", "forget"),))
    subject = Subject(lm, examples, pairs, pairs, 0, sets=sets, scoring=scoring)
    asked: list[Example] = []

    def answer(altered: Subject) -> Answers:
        asked.extend(altered.examples)
        return Answers(Records([]))

    (attack,) = make_attacks([name], {}, PUBLISHED)
    attacked = attack.run(subject, answer)
    assert asked or attacked.reason
    for row in asked:
        begun, join, rest = parts[row.index]
        given = f"{row.prefill} " if row.prefill else ""
        assert row.question.endswith(begun) and row.join == join and not row.context
        assert rest == given + row.answer


def test_texts_are_left_out_beside_questions_and_missed_where_there_is_nothing_else() -> None:
    subject = Subject(None, [Example("forget", 0, "a b", "c", join=" ")], [], [], 0)  # type: ignore[arg-type]
    with pytest.raises(GrunBenchError, match="plain texts, in which nothing is asked"):
        subject.without_texts()
    mixed = Subject(None, [*subject.examples, Example("forget", 1, "Who?", "Ada.")], [], [], 0)  # type: ignore[arg-type]
    assert [row.index for row in mixed.without_texts().examples] == [1]
