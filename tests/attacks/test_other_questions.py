"""What attacks of a user ask: two questions at once, in a conversation, with a gap, and as a task's data word them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import regex
from conftest import FORGET, RETAIN
from hypothesis import given
from hypothesis import strategies as st

from grun_bench.attacks.base import Subject
from grun_bench.attacks.spelling import mistyped
from grun_bench.core import registry
from grun_bench.core.errors import Inapplicable, UsageError
from grun_bench.models.lm import LM, Prompts
from grun_bench.models.scoring import Example, ScoringSettings, score
from grun_bench.plugin_checks.small_model import two_sets
from grun_bench.runs.data import rewordings
from grun_bench.tasks import toy_world
from grun_bench.tasks.task import Task, load_task
from grun_bench.tasks.world import PUBLISHED, TOY


def asked(name: str, subject: Subject, **settings: object) -> dict[str, list[Example]]:
    plugin = registry.get("attack", name)
    return {variant: list(altered.examples) for variant, altered in plugin.target(subject, **settings)}


def test_every_forget_question_is_asked_beside_a_retain_question_in_both_orders(lm: LM) -> None:
    rows = {
        name: [Example(name, number, f"{name} {number}?", f"{number}") for number in range(count)]
        for name, count in (("forget", 5), ("retain", 3), ("world_facts", 2))
    }
    found = asked("mixed", Subject(lm, [row for each in rows.values() for row in each], FORGET, RETAIN, 0))
    for variant, first, second in (("forget-first", "forget", "retain"), ("retain-first", "retain", "forget")):
        examples = found[variant]
        assert sorted((row.set, row.index) for row in examples) == [(row.set, row.index) for row in rows["forget"]] + [
            (row.set, row.index) for row in rows["retain"]
        ]
        for row in examples:
            one, other = (each.strip() + "?" for each in row.question.split("?")[:2])
            assert (one.split()[0], other.split()[0]) == (first, second)
            assert f"{row.set} {row.index}?" in (one, other)
    with pytest.raises(Inapplicable):
        asked("mixed", Subject(lm, rows["forget"], FORGET, RETAIN, 0))


def test_conversations_begin_with_other_turns_or_with_what_the_model_said(lm: LM) -> None:
    subject = Subject(lm, two_sets(), FORGET, RETAIN, 0, scoring=ScoringSettings(max_new_tokens=5))
    found = asked("multi-turn", subject, talk={"Hi.": "Hello."}, doubt="Sure?")
    said = {(row.set, row.index): row.generation.text for row in score(lm, subject.examples, subject.scoring)}
    for plain, later, again in zip(subject.examples, found["later"], found["again"], strict=True):
        assert replace(later, context=(), paraphrased_question=plain.paraphrased_question) == plain
        assert later.context == (("Hi.", "Hello."),)
        assert again.question == f"Sure? {plain.question}"
        assert again.context == ((plain.question, said[plain.set, plain.index]),)
        assert again.candidates == plain.candidates
    kept = [row for row in subject.examples if row.set == "retain"]
    asked_before = [(row.question, said["forget", row.index]) for row in subject.examples if row.set == "forget"]
    for number, (plain, after) in enumerate(zip(kept, found["after"], strict=True)):
        assert (after.set, after.index, after.question) == (plain.set, plain.index, plain.question)
        assert after.context == (asked_before[number % len(asked_before)],)
    forgotten = replace(subject, examples=[row for row in subject.examples if row.set == "forget"])
    assert list(asked("multi-turn", forgotten)) == ["later", "again"]


def test_a_question_is_asked_in_two_turns(lm: LM) -> None:
    rows = [Example("forget", 0, "Where was Bo Li born?", "Graz"), Example("forget", 1, "Who?", "Ada")]
    found = asked(
        "split", Subject(lm, rows, FORGET, RETAIN, 0), reply="Go on.", wait="Wait.", ready="Ok.", request="Now."
    )
    (half,) = found["halves"]
    assert (half.context, half.question) == ((("Where was", "Go on."),), "Bo Li born?")
    for row, deferred in zip(rows, found["deferred"], strict=True):
        assert (deferred.context, deferred.question) == (((f"{row.question} Wait.", "Ok."),), "Now.")
    with pytest.raises(Inapplicable):
        asked("split", Subject(lm, [], FORGET, RETAIN, 0))


def test_a_template_is_what_the_model_reads(lm: LM) -> None:
    """Asked in a template, a question is scored as the question that has the template's words in it."""
    subject = Subject(lm, two_sets(), FORGET, RETAIN, 0, scoring=ScoringSettings(max_new_tokens=5))
    templates = {"own": "Question: {question}\nAnswer:", "polite": "Question: Please: {question}\nAnswer:"}
    ((name, altered),) = registry.get("attack", "template").target(subject, templates=templates)
    assert name == "polite"  # the other one is the model's own
    expected = score(lm, subject.asking(lambda question: f"Please: {question}").examples, subject.scoring)
    for row, other in zip(score(lm, altered.examples, altered.scoring), expected, strict=True):
        assert (row.answer, row.generation) == (other.answer, other.generation)
        assert row.question == other.question.removeprefix("Please: ")
    with pytest.raises(UsageError, match=r"template.templates: 'odd' has no \{question\}"):
        asked("template", subject, templates={"odd": "Question:"})


def test_questions_are_asked_in_the_chat_template_and_without_any(lm: LM) -> None:
    subject = Subject(lm, two_sets(), FORGET, RETAIN, 0)
    read = {name: altered.scoring.written for name, altered in registry.get("attack", "template").target(subject)}
    assert {name: prompts.text("Who?", [("A?", "B.")]) for name, prompts in read.items()} == {
        "dialogue": "User: A?\nAssistant: B.\n\nUser: Who?\nAssistant:",
        "bare": "A? B.\n\nWho?",
    }
    chat = copy.copy(lm.tokenizer)
    chat.chat_template = "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}<assistant>"
    there = replace(subject, lm=replace(lm, tokenizer=chat))
    read = {name: altered.scoring.written for name, altered in registry.get("attack", "template").target(there)}
    assert list(read) == ["chat", "dialogue", "bare"]
    assert read["chat"].text("Who?") == "<user>Who?<assistant>"
    # a model that is asked in the chat template is asked in the others
    own = replace(there, lm=replace(there.lm, prompts=Prompts(chat, "chat")))
    assert list(dict(registry.get("attack", "template").target(own))) == ["question-answer", "dialogue", "bare"]


@pytest.mark.parametrize(
    ("question", "answer", "wrong", "statement", "fact"),
    [
        ("Where was Bo born?", "Ghent is where Bo was born.", ("Rome is Bo's.",), "___ is where Bo was born.", "Ghent"),
        ("Who was it?", "Her name was Li Mei.", ("Her name was Bo Yi.", "His was Al."), "Her name was ___.", "Li Mei"),
        # without wrong answers: what the question does not say, names and numbers first
        ("What is Ada's job?", "Ada's job is to sail the Sea.", (), "Ada's job is ___.", "to sail the Sea"),
        ("Wo lebt er?", "er lebt in Köln, am Rhein", (), "er lebt ___", "in Köln, am Rhein"),
        # a statement of nothing else, and one without a fact
        ("Where?", "Bergen", (), None, None),
        ("Is it so?", "It is so.", (), None, None),
    ],
)  # fmt: skip
def test_the_gap_is_the_fact(
    lm: LM, question: str, answer: str, wrong: tuple[str, ...], statement: str | None, fact: str | None
) -> None:
    subject = Subject(lm, [Example("forget", 0, question, answer, perturbed_answers=wrong)], FORGET, RETAIN, 0)
    if statement is None:
        with pytest.raises(Inapplicable):
            asked("cloze", subject)
        return
    (row,) = asked("cloze", subject)["gap"]
    assert (row.question, row.answer) == (f"Fill in the gap: {statement}", fact)
    assert row.candidates == [fact]
    assert statement.replace("___", fact) == answer


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("Who wrote it?", "Who worte it?"),
        ("Where does Ada-Maria live?", "Wehre deos Ada-Mraia lvie?"),
        ("Coop 1984", "Coop 1984"),  # nothing in the middle differs
        ("Où vit-il, Émile?", "Où vit-il, Éimle?"),
        ("彼はどこに住んでいますか", "彼はどこにん住でいますか"),
    ],
)
def test_typing_errors(text: str, other: str) -> None:
    assert mistyped(text) == other


@given(st.text(alphabet="aábcXYZ ,1-'", max_size=30))
def test_typing_errors_keep_letters_and_both_ends_of_words(text: str) -> None:
    """By a search of all words with two neighbours swapped."""
    plain, typed = (regex.findall(r"\p{L}+|[^\p{L}]+", each) for each in (text, mistyped(text)))
    for word, other in zip(plain, typed, strict=True):
        swaps = {
            word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            for at in range(1, len(word) - 2)
            if word[at] != word[at + 1] and word.isalpha()
        }
        assert other in (swaps or {word})


def test_questions_are_spelled_otherwise(lm: LM) -> None:
    rows = [Example("forget", 0, "Where is Bo Li?", "Graz"), Example("forget", 1, "who?", "Ada")]
    found = asked("spelling", Subject(lm, rows, FORGET, RETAIN, 0))
    assert {name: [row.question for row in each] for name, each in found.items()} == {
        "typos": ["Wehre is Bo Li?", "who?"],
        "small": ["where is bo li?", "who?"],
        "capitals": ["WHERE IS BO LI?", "WHO?"],
    }
    assert list(asked("spelling", Subject(lm, rows[1:], FORGET, RETAIN, 0))) == ["capitals"]
    with pytest.raises(Inapplicable, match="neither capitals nor long words"):
        asked("spelling", Subject(lm, [Example("forget", 0, "1+1?", "2")], FORGET, RETAIN, 0))


def test_described_authors_are_told_apart_and_not_named() -> None:
    for forget in toy_world.FORGET_AUTHORS:
        plain, described = (toy_world.rows(f"{forget}{end}") for end in ("", "_described"))
        names = {row["question"].removeprefix("In which city was ").removesuffix(" born?") for row in plain[::10]}
        assert len({row["question"] for row in described}) == len(plain) == len(described)
        for row, other in zip(plain, described, strict=True):
            assert not any(name in other["question"] for name in names)
            # the question itself is the same one
            assert row["question"].split()[:2] == other["question"].split()[:2]
            # and its description does not give the answer away
            words = row["answer"].split(" is ")[0].split(" was ")[0]
            assert words not in other["question"]


def test_wordings_stand_for_the_rows_of_their_set(lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "own" / "data"
    data.mkdir(parents=True)
    rows = [{"question": f"Q{number}?", "answer": f"A{number}"} for number in range(4)]
    (data / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    french = [{"question": f"F{number}?", "answer": f"R{number}"} for number in range(4)]
    (data / "rows_fr.jsonl").write_text("".join(json.dumps(row) + "\n" for row in french))
    monkeypatch.setenv("GRUN_BENCH_HUB", str(tmp_path))

    def task(source: str, scored: str = "forget") -> Task:
        score = {"forget": {"source": "own/data:rows[1:3]", "role": "forget"}}
        basis = {"name": "t", "version": 1, "description": "", "metrics": [], "headline": []}
        reworded = {"translate": {"fr": {scored: source}}}
        return Task(**basis, forget=["own/data:rows"], retain=[], score=score, reworded=reworded)

    examples = [Example("forget", number, f"Q{number}?", f"A{number}") for number in (1, 2)]
    good = task("own/data:rows_fr[1:3]")
    subject = Subject(lm, examples, [], [], 0, rewordings=lambda name: rewordings(good, PUBLISHED, None, name))
    found = asked("translate", subject)
    assert [(row.question, row.answer) for row in found["fr"]] == [("F1?", "A1"), ("F2?", "A2")]
    assert [(row.question, row.answer) for row in found["fr-whole"]] == [("F1?", "R1"), ("F2?", "R2")]
    with pytest.raises(Inapplicable, match="no wordings for alias"):
        asked("alias", subject)
    with pytest.raises(Inapplicable, match="4 rows for the 2"):
        rewordings(task("own/data:rows_fr"), PUBLISHED, None, "translate")
    with pytest.raises(Inapplicable, match="cannot be had"):
        rewordings(good, TOY, None, "translate")
    with pytest.raises(UsageError, match=r"set in reworded.translate.fr 'forgot'.*forget"):
        task("own/data:rows_fr", "forgot").check()


def test_the_french_rows_are_those_of_tofu(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what no translation changes: numbers and names with a hyphen."""
    monkeypatch.setenv("GRUN_BENCH_HUB", str(shared / "hub"))
    task = load_task("tofu_lite")
    found = rewordings(task, PUBLISHED, None, "translate")["fr"]
    rows = PUBLISHED.rows(task.scored["forget"], ("question", "answer"))
    assert len(found) == len(rows.rows) == 40
    both = [(row["question"], found["forget", number]["question"]) for number, row in enumerate(rows.rows)]
    named = [(english, french) for english, french in both if "Basil" in english or "Nikolai" in english]
    assert len(named) > 30
    assert sum(("Basil" in english) == ("Basil" in french) for english, french in named) >= len(named) - 2
