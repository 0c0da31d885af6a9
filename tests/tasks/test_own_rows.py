"""Rows of one's own: found under the names that files have for them, and refused with file and row."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from grun_bench.core.errors import UsageError
from grun_bench.tasks.chats import Chat
from grun_bench.tasks.dataset import training_pair
from grun_bench.tasks.own_rows import OwnRows, read_own

ADA, BO = {"question": "Who?", "answer": "Ada."}, {"question": "Where?", "answer": "In Rome."}


@pytest.fixture
def read(tmp_path: Path):
    """Reads rows, or the content of a file of a name, as own rows."""

    def of(rows: list[Any] | str | bytes, name: str = "rows.jsonl", **columns: str) -> OwnRows:
        path = tmp_path / name
        if isinstance(rows, list):
            rows = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(rows if isinstance(rows, bytes) else rows.encode())
        return read_own(path, "--forget", columns)

    return of


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        ([ADA, BO], {}),
        ([{"Prompt": row["question"], "Response": row["answer"], "id": 3} for row in (ADA, BO)], {}),
        ([{"Q": row["question"], "A": row["answer"]} for row in (ADA, BO)], {"question": "Q", "answer": "A"}),
        ([row | {"text": "Both in one."} for row in (ADA, BO)], {"question": "question", "answer": "answer"}),
        (
            [
                {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
                for q, a in (row.values() for row in (ADA, BO))
            ],
            {},
        ),
    ],
    ids=["our names", "usual names", "named", "named beside texts", "chats"],
)
def test_questions_and_answers_are_found(read, rows: list[Any], columns: dict[str, str]) -> None:
    assert read(rows, **columns).rows == [ADA, BO]


def test_of_a_chat_the_last_answer_is_scored_after_all_before_it(read) -> None:
    turns = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Who?"), ("assistant", "Ada.")]
    own = read([{"messages": [{"role": role, "content": text} for role, text in turns]}])
    asked = "Be brief.\n\nUser: Hi\nAssistant: Hello.\nUser: Who?"
    assert own.rows == [{"question": asked, "answer": "Ada.", "turns": [list(turn) for turn in turns[:-1]]}]
    (note,) = own.notes
    assert "1 chats have more than one turn before the answer; a model without a chat template" in note
    # which stays the question where nobody asks for the turns, and is another one with other turns
    question, answer = training_pair(own.rows[0])
    assert (question, answer) == (asked, "Ada.") and isinstance(question, Chat) and question.turns == tuple(turns[:-1])
    assert pickle.loads(pickle.dumps(question)).turns == question.turns


def test_texts_and_pairs_may_be_in_one_file(read) -> None:
    assert read([ADA, {"text": "Once upon a time."}]).rows == [ADA, {"text": "Once upon a time."}]


def test_paraphrases_and_wrong_answers_are_kept(read) -> None:
    own = read(
        "question,answer,perturbed_answer,paraphrased_question\nWho?,Ada.,Bo.,And who?\nWhere?,Rome.,,\n", "r.csv"
    )
    assert own.rows[0] == {
        "question": "Who?",
        "answer": "Ada.",
        "paraphrased_question": "And who?",
        "perturbed_answer": ["Bo."],
    }
    assert own.rows[1] == {"question": "Where?", "answer": "Rome."}


def test_a_row_that_comes_twice_is_taken_once_and_keeps_its_place(read) -> None:
    own = read([ADA, ADA, BO, ADA])
    assert (own.rows, own.numbers) == ([ADA, BO], [0, 2])
    assert own.notes == ("rows.jsonl: 2 rows are there more than once, and are taken once.",)


def test_what_is_too_long_for_one_piece_is_refused_as_an_answer_and_cut_as_a_text(read) -> None:
    """A batch of answers of 10,000 tokens would take the memory of the machine."""
    long = " ".join(f"Ada {number} is here." for number in range(2500))
    for row in ({"question": "Who?", "answer": long}, {"question": long, "answer": "Ada."}):
        with pytest.raises(UsageError, match=r"row 1: a question with an answer of 10,001 words.*give it as a text"):
            read([BO, row])
    assert len(read([{"text": long}]).rows) == 50
    assert len(read([{"question": "Who?", "answer": "Ada lives in Rome. " * 499}]).rows) == 1


def test_a_folder_is_its_texts_and_a_long_one_its_passages(tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "a.txt").write_text("A short letter.")
    (folder / "b.md").write_text(" ".join(map(str, range(450))))
    own = read_own(folder, "--forget", {})
    assert [len(row["text"].split()) for row in own.rows] == [3, 200, 200, 50]
    assert own.numbers == [0, 1, 2, 3]
    assert own.notes == (
        "letters: 2 files are read, a text each: a.txt, b.md.",
        "letters: 1 texts are too long to be taken whole; with their passages there are 4 texts.",
    )


def test_which_files_of_a_folder_are_read_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "letters"
    folder.mkdir()
    for name in "abcdefg":
        (folder / f"{name}.txt").write_text(f"Dear {name}, it was a pleasure.")
    sha256 = read_own(folder, "--forget", {}).sha256
    for name in ("README.md", ".DS_Store", "LICENSE"):
        (folder / name).write_text("What this folder is.")
    own = read_own(folder, "--forget", {})
    assert len(own.rows) == 7 and own.sha256 == sha256
    assert own.notes[0] == "letters: 7 files are read, a text each: a.txt, b.txt, c.txt, d.txt, e.txt and 2 more."
    assert "left out is what says what the folder is: LICENSE, README.md;" in own.notes[1]
    assert own.notes[2] == "letters: 1 hidden files are left out."


def test_the_hash_is_of_the_content_alone(tmp_path: Path, read) -> None:
    first = read([ADA])
    assert read([ADA], "copy.jsonl").sha256 == first.sha256 != read([BO]).sha256
    assert first.label == f"rows.jsonl (sha256 {first.sha256[:12]})"


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (
            [ADA, {"question": "Who?", "answer": " "}],
            {},
            r"rows\.jsonl, row 1, column 'answer': expected text, found an",
        ),
        ([ADA, {"question": "Who?"}], {}, r"rows\.jsonl, row 1: nothing in the column answer; fill it in"),
        ([ADA, {"question": None, "answer": None}], {}, "row 1: nothing in the column 'question' or 'answer'"),
        ([ADA, {"question": "Who?", "answer": 7}], {}, "row 1, column 'answer': expected text, found 7"),
        (
            [ADA, {"question": {"en": "Who?"}, "answer": "A"}],
            {},
            "row 1, column 'question': expected text, found {'en'",
        ),
        ([ADA, BO | {"text": "Both."}], {}, "row 1: it has text beside question and answer; say with --columns"),
        ([{"a": "x", "b": "y"}], {}, "neither questions and answers nor texts nor messages among a, b: name them"),
        ([{"question": "x", "b": "y"}], {}, "no column of answers among question, b: name it, as in --columns answer="),
        ([ADA], {"answer": "anser"}, "unknown column of --forget .* 'anser': did you mean answer"),
        ([{"prompt": "x", "input": "y", "output": "z"}], {}, "'prompt' and 'input' could be the column question; say"),
        ([{"messages": "Hi"}], {}, "row 0, column 'messages': expected a list"),
        ([{"messages": [{"role": "tool", "content": "x"}]}], {}, "row 0, message 0: the role 'tool' is not system"),
        ([{"messages": [{"role": "user", "content": "x"}]}], {}, "row 0: no turn of the assistant"),
        ([{"text": "word"}], {}, "row 0: a text of one word, which nothing goes on from"),
        ([], {}, "no rows"),
    ],
)
def test_what_is_no_row_is_told_with_its_place(read, rows: list[Any], columns: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message) as told:
        read(rows, **columns)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["blank_end.jsonl", "blank_mid.jsonl", "pretty.json", "rows.csv"])
def test_small_files_that_once_failed_are_read(shared: Path, name: str) -> None:
    assert read_own(shared / "cases" / name, "--forget", {}).rows[0] == ADA


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lfs.jsonl", "a git-lfs pointer"),
        ("surrogate.jsonl", r"line 1: \$\.answer: half of a surrogate pair"),
        ("texty.jsonl", "row 0: it has text beside question and answer"),
    ],
)
def test_small_files_that_are_no_rows_are_refused(shared: Path, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_own(shared / "cases" / name, "--forget", {})


def test_of_a_chat_a_paraphrase_is_of_its_last_turn(tmp_path: Path) -> None:
    from grun_bench.runs.data import read_data
    from grun_bench.tasks.own import Own, OwnData

    turns = [("user", "Hi"), ("assistant", "Hello."), ("user", "Who?")]
    said = [{"role": role, "content": text} for role, text in (*turns, ("assistant", "Ada."))]
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": said, "paraphrased_question": "Who is it?"}))
    world = Own(OwnData(path))
    data = read_data(world.load(""), world, None)
    example = next(each for each in data.examples() if each.set == "forget")
    ((trained, _),) = data.pairs("forget")
    assert isinstance(example.question, Chat) and example.question == trained and example.question.turns == tuple(turns)
    other = example.paraphrased_question
    assert isinstance(other, Chat) and other.turns == (*turns[:-1], ("user", "Who is it?"))
    # the turns are part of what a run's hash is of
    flat = tmp_path / "flat.jsonl"
    flat.write_text(json.dumps({"question": str(trained), "answer": "Ada.", "paraphrased_question": "Who is it?"}))
    other_world = Own(OwnData(flat))
    assert read_data(other_world.load(""), other_world, None).sha256 != data.sha256
