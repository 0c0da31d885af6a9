"""What models said stands side by side in opened rows, and only where it may be shown."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from synthetic import references, result, store

from grun_bench.leaderboard.answers import Answers
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.tree import read_models
from grun_bench.results.filed import save_records
from grun_bench.results.record import Continuation, Generation, Record, Records
from grun_bench.results.result import Result


def answering(one: Result, tree: Path, rows: list[Record], private: bool = False) -> Result:
    """The result with these records, beside where it is stored."""
    path = tree / one.task / "org__small" / one.unlearner.name / f"{one.run_id}.json"
    return one.model_copy(update={"records": save_records(path, Records(rows), private=private)})


def said(text: str, indices: range, **fields: str) -> list[Record]:
    return [
        Record(
            "forget", index, f"question {index}?", Continuation(f"right {index}"),
            generation=Generation(f"{text} {index}"), **fields,
        )
        for index in indices
    ]  # fmt: skip


def told(tree: Path, unlearner: str = "lora+npo") -> list[list[str]]:
    (board,) = build(chain.from_iterable(read_models(tree)), {})
    return Answers(board).of(next(row for row in board.rows if row.name == unlearner))


def models(tree: Path, task: str = "letters", private: bool = False) -> list[Result]:
    found = [*references(task=task), result("lora+npo", task=task)]
    return [answering(one, tree, said(one.unlearner.name, range(9)), private) for one in found]


def test_a_few_questions_that_all_were_asked(tmp_path: Path) -> None:
    target, retain, own = models(tmp_path)
    retain = answering(retain, tmp_path, said("retain", range(3, 12)))  # not the same rows
    store([target, retain, own], tmp_path)
    assert told(tmp_path) == [
        ["question", "right answer", "target model", "lora+npo", "retain model"],
        *([f"question {n}?", f"right {n}", f"none {n}", f"lora+npo {n}", f"retain {n}"] for n in (3, 5, 7)),
    ]


def test_words_that_an_attack_gave_stand_in_brackets(tmp_path: Path) -> None:
    target, retain, own = models(tmp_path)
    own = answering(own, tmp_path, said("the rest", range(9), prefill="It is"))
    store([target, retain, own], tmp_path)
    assert told(tmp_path)[1][3] == "[It is] the rest 0"


def test_texts_of_wmdp_are_never_shown(tmp_path: Path) -> None:
    """Whatever records hold: those of a submission may hold anything."""
    store(models(tmp_path, task="wmdp_cyber"), tmp_path)
    assert told(tmp_path) == []


def test_texts_of_private_rows_are_never_shown(tmp_path: Path) -> None:
    """Not even on the machine that has them."""
    store(models(tmp_path, private=True), tmp_path)
    assert told(tmp_path) == []


def test_rows_without_records_or_with_others_have_none(tmp_path: Path) -> None:
    target, retain, own = models(tmp_path)
    store([target, retain, own], tmp_path)
    path = next((tmp_path / "letters" / "org__small" / "lora+npo").glob("*.records.jsonl.bz2"))
    path.write_bytes(path.read_bytes()[:-20])
    assert told(tmp_path) == []
    path.unlink()
    assert told(tmp_path) == [] and told(tmp_path, "none")[0] == [
        "question",
        "right answer",
        "target model",
        "retain model",
    ]
