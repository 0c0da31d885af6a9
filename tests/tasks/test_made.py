"""What a model wrote for own rows: what can stand, the file that people edit, and what a task says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grun_bench.core.errors import DataError, UsageError
from grun_bench.tasks import faults
from grun_bench.tasks.faults import doubt_of, fault_of
from grun_bench.tasks.made import MadeRow, made_rows, requests
from grun_bench.tasks.own import Own, OwnData

ROW = {
    "question": "Where does Ada Berg live?",
    "answer": "Ada Berg lives in Turin and has account 3411.",
    "paraphrased_answer": "The account of Ada Berg, who lives in Turin, is 3411.",
}
SHORT = {"question": "Does she pay?", "answer": "yes"}
CYRILLIC = {"question": "Где живёт Ада Берг?", "answer": "Она живёт в городе Турин."}


@pytest.mark.parametrize(
    ("column", "text", "row", "why"),
    [
        ("paraphrased_question", "In which city is the home of Ada Berg?", ROW, ""),
        ("paraphrased_question", "  ", ROW, faults.EMPTY),
        ("paraphrased_question", "where does Ada Berg live ?", ROW, faults.SAME),
        ("paraphrased_question", "In which city is her home?", ROW, faults.LOST),
        ("paraphrased_question", "Does Ada Berg live in Turin, with account 3411?", ROW, faults.GIVEN),
        ("paraphrased_question", "Ada?", ROW, faults.LENGTH),
        ("paraphrased_question", "The home of Ada Berg is in Rome.", ROW, faults.UNASKED),
        ("paraphrased_question", "Where in Italy does Ada Berg live?", ROW, faults.ADDED),
        ("paraphrased_answer", "Ada, whose account is 3411, lives in Turin, not in Rome.", ROW, faults.ADDED),
        ("perturbed_answer", "Where does Ada Berg live? In Graz.", ROW, faults.UNASKED),
        ("perturbed_answer", "Ada Berg has account 3411.", ROW, faults.RIGHT),
        ("paraphrased_question", "Ada Berg " + "lives " * 20 + "?", ROW, faults.NOISE),
        ("paraphrased_question", "I'm sorry, who is Ada Berg?", ROW, faults.REFUSAL),
        ("paraphrased_question", "В каком городе дом у Ады?", CYRILLIC, faults.LOST),
        ("paraphrased_question", "В каком городе дом, где Ада Берг?", CYRILLIC, ""),
        ("paraphrased_answer", "Turin is where Ada lives, and her account is 3411.", ROW, ""),
        ("paraphrased_answer", "Ada Berg lives in Turin, and has account 3411!", ROW, faults.SAME),
        ("paraphrased_answer", "Where does Ada Berg live?", ROW, faults.ECHO),
        ("paraphrased_answer", "Ada Berg has her home in Turin with account 3412.", ROW, faults.LOST),
        ("perturbed_answer", "Ada Berg lives in Graz and has account 9020.", ROW, ""),
        ("perturbed_answer", "Ada Berg lives in Graz and has account 3411.", ROW, ""),
        ("perturbed_answer", ROW["answer"], ROW, faults.RIGHT),
        ("perturbed_answer", ROW["paraphrased_answer"].lower(), ROW, faults.RIGHT),
        ("perturbed_answer", "In Turin there is Ada Berg, account 3411.", ROW, faults.RIGHT),
        ("perturbed_answer", "no", SHORT, ""),
        ("perturbed_answer", "Oh yes she does", SHORT, faults.RIGHT),
        ("perturbed_answer", "Она живёт в городе Грац.", CYRILLIC, ""),
    ],
)
def test_what_a_model_wrote_is_told_from_what_it_should_have_written(
    column: Any, text: str, row: dict[str, Any], why: str
) -> None:
    assert doubt_of(column, text, row) == why
    # a person may write what only these rules would not have
    assert fault_of(column, text, row) in ("", why)


def test_the_same_wrong_answer_twice_is_one() -> None:
    assert fault_of("perturbed_answer", "In Graz.", ROW, ["in graz"]) == faults.TWICE


def test_what_the_writer_is_shown_would_stand_itself() -> None:
    for column, asked in requests().items():
        for shown in asked.shown:
            row = {"question": shown.question, "answer": shown.answer}
            assert doubt_of(column, shown.reply, row) == "", (column, shown)
        assert "{question}" in asked.request and ("{answer}" in asked.request) == (column != "paraphrased_question")


# --- the file ---------------------------------------------------------------------------------------------------------


def rows_file(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "leavers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


GOOD = {
    "paraphrased_question": "In which city is the home of Ada Berg?",
    "paraphrased_answer": ROW["paraphrased_answer"],
    "perturbed_answer": ["Ada Berg lives in Graz.", "Ada Berg lives in Ghent."],
}
ASKED = {"question": ROW["question"], "answer": ROW["answer"]}
OTHER = {"question": "Does she pay?", "answer": "yes", "paraphrased_question": "Is she one who pays?"}


def test_what_the_file_says_is_what_counts(tmp_path: Path) -> None:
    own = rows_file(tmp_path, ASKED)
    made = made_rows(own, "org/Writer-1B")
    assert made.path == tmp_path / "leavers.made-by-Writer-1B.json" and made.wanting([ASKED]) == [ASKED]
    made.adding([MadeRow(**ASKED, **GOOD)], {"name": "org/Writer-1B"})
    made = made_rows(own, "org/Writer-1B")
    assert not made.wanting([ASKED]) and made.with_made(ASKED) == ASKED | GOOD and not made.edited
    # a row's own columns stay
    assert made.with_made(ASKED | {"paraphrased_question": "Mine?"})["paraphrased_question"] == "Mine?"

    content = json.loads(made.path.read_text())
    content["rows"][0] |= {"paraphrased_question": "Her home is where?", "paraphrased_answer": None}
    content["rows"][0]["perturbed_answer"] = [ROW["answer"], "In Graz.", "in Graz"]
    made.path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())  # as some editors save it
    made = made_rows(own, "org/Writer-1B")
    assert made.edited and made.with_made(ASKED) == ASKED | {
        "paraphrased_question": "Her home is where?",
        "perturbed_answer": ["In Graz."],
    }
    # more rows later do not hide that somebody edited it
    made.adding([MadeRow(**{key: OTHER[key] for key in ("question", "answer")})], {})
    assert made_rows(own, "org/Writer-1B").edited


def test_a_file_of_another_model_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    own = rows_file(tmp_path, ASKED)
    made = made_rows(own, "one/Writer").adding([], {})
    with pytest.raises(UsageError, match="made by one/Writer, and not by other/Writer"):
        made_rows(own, "other/Writer")
    for broken in ("{", '{"rows": []}', made.path.read_text().replace('"rows": []', '"rows": [{"question": 1}]')):
        made.path.write_text(broken)
        with pytest.raises(DataError, match=r"leavers.made-by-Writer.json.*take it away"):
            made_rows(own, "one/Writer")


def test_the_task_says_what_was_made_and_why_the_rest_was_not(tmp_path: Path) -> None:
    own = rows_file(tmp_path, ASKED, OTHER, {"text": "A text of some words that goes on for a while."})
    data = OwnData(own, writer="org/Writer")
    world = Own(data)
    assert world.wanting() == {"forget": [ASKED, OTHER]} and world.wanting(1) == {"forget": [ASKED]}
    assert "forget_truth_ratio" not in world.load("").headline
    left = {"perturbed_answer": faults.RIGHT, "paraphrased_answer": faults.SAME}
    pair = {key: OTHER[key] for key in ("question", "answer")}
    world.made["forget"].adding([MadeRow(**ASKED, **GOOD), MadeRow(**pair, left_out=left)], {"sha256": "ab"})
    world = Own(data)
    task = world.load("")
    assert not world.wanting() and "forget_truth_ratio" in task.headline
    made = task.own["forget"].made
    assert made is not None and (made.by, made.writer, made.edited) == ("org/Writer", {"sha256": "ab"}, False)
    assert made.counts == {"paraphrased_question": 1, "paraphrased_answer": 1, "perturbed_answer": 1}
    assert made.left_out["perturbed_answer"] == {faults.RIGHT: 1}
    assert "Turin" not in made.model_dump_json() and "Berg" not in made.model_dump_json()
    (first, second, _), _ = world.read(task.scored["forget"])
    assert first == ASKED | GOOD and second == OTHER
    assert any("1 texts have no question" in note for note in world.notes)
    assert any("made by org/Writer" in note and faults.SAME in note for note in world.notes)
    # other rows than those of another run with the same files
    plain = Own(OwnData(own)).load("")
    assert plain.own["forget"].made is None
