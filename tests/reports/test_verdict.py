"""Was it forgotten? Verdicts against shares worked out by hand, with and without retain model and records."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from synthetic import references, result, store

from grun_bench.core import libraries, registry
from grun_bench.core.sources import file_of_plugin
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.ranking import ABOVE_TARGET, LIKE_TARGET
from grun_bench.leaderboard.tree import read_models
from grun_bench.reports.examples import examples
from grun_bench.reports.leaks import leaks
from grun_bench.reports.rows import Row, read_row
from grun_bench.reports.verdict import verdict
from grun_bench.reports.words import amount, attack_command, lines, measured
from grun_bench.results.filed import save_records
from grun_bench.results.record import Choices, Continuation, Generation, Record, Records
from grun_bench.results.result import Result
from grun_bench.runs.config import RESULTS
from grun_bench.runs.next_command import on_row

#: of the target model 0.9 of the answers is extracted, of the retain model 0.05
KNOWN, UNKNOWN = 0.9, 0.05


def row_of(tmp_path: Path, own: Result, *others: Result) -> Row:
    return read_row(store([own, *others], tmp_path)[0])


def attacked(es: float = 0.06, utility: float = 0.79, **attacks: tuple[str, float]) -> Result:
    made: dict[str, Any] = {name: (access, {"one": value, "two": 0.0}) for name, (access, value) in attacks.items()}
    return result("grun+npo", es=es, utility=utility, attacks=made)


@pytest.mark.parametrize(
    ("own", "answer", "share"),
    [
        (attacked(es=0.8, prefix=("user", 0.1)), "Not forgotten", (0.8 - UNKNOWN) / (KNOWN - UNKNOWN)),
        (attacked(prefix=("user", 0.5)), "Not forgotten", (0.5 - UNKNOWN) / (KNOWN - UNKNOWN)),
        (attacked(prefix=("user", 0.3)), "Forgotten in part", (0.3 - UNKNOWN) / (KNOWN - UNKNOWN)),
        (attacked(), "no attack of a user was tried", (0.06 - UNKNOWN) / (KNOWN - UNKNOWN)),
        (attacked(strip=("weights", 0.9)), "no attack of a user was tried", (0.06 - UNKNOWN) / (KNOWN - UNKNOWN)),
        (attacked(prefix=("user", 0.01)), "what an owner of the weights gets was not tried", 0.01 / 0.85),
        (attacked(prefix=("user", 0.05), strip=("weights", 0.9)), "Hidden, not erased", 0.01 / 0.85),
        (attacked(prefix=("user", 0.05), relearn=("weights", 0.1)), "under every attack that was made", 0.01 / 0.85),
    ],
)
def test_the_answer_follows_the_share_that_is_left(tmp_path: Path, own: Result, answer: str, share: float) -> None:
    found = verdict(row_of(tmp_path, own, *references()))
    assert answer in found.answer
    assert found.user is not None and found.user.share == pytest.approx(share)
    assert (found.user.known, found.user.unknown, found.user.against) == (KNOWN, UNKNOWN, "the retain model")


def test_less_than_the_retain_model_is_none_and_more_than_the_target_is_all(tmp_path: Path) -> None:
    own = attacked(es=0.0, prefix=("user", 0.99))
    plain, under = leaks(row_of(tmp_path, own, *references()))
    assert (plain.share, under.share, under.variant) == (0.0, 1.0, "one")
    assert (amount(plain.share), amount(under.share)) == ("none of it", "all of it")


def test_the_retain_model_is_asked_under_the_same_attack(tmp_path: Path) -> None:
    target, _ = references()
    retain = result("retain", es=0.05, seed=None, settings={}, attacks={"prefill": ("user", {"words1": 0.3})})
    (_, under) = leaks(row_of(tmp_path, attacked(prefill=("user", 0.3)), target, retain))
    assert under.unknown == 0.3 and under.share == 0.0


def test_the_target_model_is_asked_under_the_same_attack_where_it_was(tmp_path: Path) -> None:
    """Of an answer that is begun the rest is scored: another scale than that of the whole answers."""
    under_attack = {"prefill": ("user", {"words1": 0.5})}
    target = result("none", es=KNOWN, seed=None, settings={}, attacks=under_attack)
    retain = result("retain", es=UNKNOWN, seed=None, settings={}, attacks={"prefill": ("user", {"words1": 0.3})})
    own = attacked(prefill=("user", 0.4), strip=("weights", 0.9))
    _, prefill, strip = leaks(row_of(tmp_path, own, target, retain))
    assert (prefill.known, prefill.plain, prefill.share) == (0.5, False, pytest.approx(0.5))
    assert (strip.known, strip.plain) == (KNOWN, True)
    assert "target model 0.500, the retain" in measured(prefill, own)
    assert "target model 0.900 without attack, the retain" in measured(strip, own)


@pytest.mark.parametrize(
    ("own", "mark", "said"),
    [
        (attacked(prefix=("user", 0.89)), "", "still gets at it."),
        (attacked(prefix=("user", 0.9)), LIKE_TARGET, "it is not distinguishable from the target."),
        (attacked(prefix=("user", 0.91)), ABOVE_TARGET, "In the worst case it leaks more than the target."),
        (attacked(strip=("weights", 0.9)), "", "texts are not."),
    ],
)
def test_what_is_not_told_from_the_target_is_said_as_boards_say_it(
    tmp_path: Path, own: Result, mark: str, said: str
) -> None:
    found = verdict(row_of(tmp_path, own, *references()))
    assert found.mark == mark and found.answer.endswith(said)
    (board,) = build(chain.from_iterable(read_models(tmp_path)), {})
    assert [each for each in board.rows[-1].marks if "target" in each] == [mark] * bool(mark)


def test_attacks_of_a_user_that_were_not_tried_are_counted_in_a_good_answer(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    users = [name for name, entry in registry.entries("attack").items() if entry.declared["access"] == "user"]
    found = verdict(row_of(tmp_path / "part", attacked(prefix=("user", 0.01)), *references()))
    assert f"{len(users) - 1} of {len(users)} attacks of a user were not tried." in found.answer
    own = attacked(**dict.fromkeys(users, ("user", 0.01)))
    assert "not tried" not in verdict(row_of(tmp_path / "all", own, *references())).answer.replace(
        "an owner of the weights gets was not tried", ""
    )


@pytest.mark.parametrize(("own", "target", "told"), [(0.82, 0.0, True), (0.82, 0.8, False), (None, None, False)])
def test_answers_that_do_not_end_are_spoken_of_where_the_targets_do(
    tmp_path: Path, own: float | None, target: float | None, told: bool
) -> None:
    row, first = attacked(prefix=("user", 0.01)), references()
    for each, share in ((row, own), (first[0], target)):
        each.results[each.task]["forget_runaway_answers,none"] = share
    read = row_of(tmp_path, row, *first)
    (said,) = [line.text for line in lines(read, verdict(read), tmp_path) if line.about == "Who may only ask"]
    assert said.startswith("gets none of it by the plain questions")
    assert ("82 % of its answers do not end (the target model's: 0 %)" in said) == told


def test_lost_utility_is_part_of_the_answer(tmp_path: Path) -> None:
    found = verdict(row_of(tmp_path, attacked(utility=0.4), *references()))
    assert found.answer.endswith("50 % of the target's utility is left.")
    assert found.utility is not None and found.utility.kept == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("utility", "told"),
    [
        (0.76, "utility 0.760, of the target model's 0.800 (95 %);"),
        (0.801, "utility 0.801, of the target model's 0.800 (100 %);"),
        (0.84, "utility 0.840, above the target model's 0.800 (105 %): no cost by this metric;"),
    ],
)
def test_more_utility_than_the_target_has_is_no_cost(tmp_path: Path, utility: float, told: str) -> None:
    row = row_of(tmp_path, attacked(utility=utility), *references())
    (said,) = [line.text for line in lines(row, verdict(row), tmp_path) if line.about == "What it cost:"]
    assert said.startswith(told)


def test_attacks_that_the_task_has_no_data_for_are_named_apart(tmp_path: Path) -> None:
    """As a result says of its own task; one that says nothing of it, as older ones, leaves them among the others."""
    wording = {"alias": {"described": {"forget": "there.jsonl"}}}
    users = sum(entry.declared["access"] == "user" for entry in registry.entries("attack").values())
    for place, (config, lacking) in enumerate(
        [({}, []), ({"reworded": wording, "entities": {}}, ["depth", "translate"]), ({"reworded": {}}, ["alias"])]
    ):
        own = attacked(prefix=("user", 0.01))
        own.configs[own.task] = config
        row = row_of(tmp_path / str(place), own, *references())
        found = verdict(row)
        (said,) = [line.text for line in lines(row, found, tmp_path) if line.about == "What was not tried:"]
        tried, _, without = said.partition(" The task has no data for ")
        for name in lacking:
            assert name in found.lacking and name not in tried.rstrip(".").split(", ") and name in without
        assert bool(found.lacking) == bool(lacking) == bool(without)
        possible = users - len({"alias", "translate"} & {*found.lacking})
        assert f"{possible - 1} of {possible} attacks of a user were not tried." in found.answer


@pytest.mark.parametrize(("nats", "told"), [(0.02, ""), (0.5, "goes on otherwise from texts that have nothing to do")])
def test_how_far_the_model_moved_elsewhere_is_part_of_the_answer(tmp_path: Path, nats: float, told: str) -> None:
    own, name = attacked(prefix=("user", 0.05)), "neutral_texts_kl_to_target"
    own.results[own.task][f"{name},none"] = nats
    own.headline.append(name)
    row = row_of(tmp_path, own, *references())
    found = verdict(row)
    assert found.moved == nats and ("The model paid for it" in found.answer) == bool(told) and told in found.answer
    assert any(f"{nats:.3f} nats a token from the target model" in str(line) for line in lines(row, found, tmp_path))


@pytest.mark.parametrize(
    ("own", "answer"),
    [
        (result("none", es=KNOWN, seed=None, settings={}), "Nothing was unlearned"),
        (result("retain", es=UNKNOWN, seed=None, settings={}), "This is the retain model"),
        (
            result("grun+npo", es=None, status="diverged", error="loss inf."),
            "No verdict: training diverged (loss inf.)",
        ),
        (result("grun+npo", es=None), "no metric of forgetting with a value"),
        (result("grun+npo", headline=["utility"]), "no metric of forgetting with a value"),
    ],
)
def test_where_there_is_nothing_to_judge_it_says_why(tmp_path: Path, own: Result, answer: str) -> None:
    assert answer in verdict(row_of(tmp_path, own)).answer


def test_without_a_target_model_no_share_is_made_up(tmp_path: Path) -> None:
    found = verdict(row_of(tmp_path, attacked(prefix=("user", 0.5)), references()[1]))
    assert "the target model was not scored" in found.answer
    assert found.user is not None and found.user.share is None and found.user.value == 0.5


def test_a_target_that_knows_nothing_leaves_nothing_to_judge(tmp_path: Path) -> None:
    target, retain = (result(name, es=0.05, seed=None, settings={}) for name in ("none", "retain"))
    assert "knows no more than one that never saw" in verdict(row_of(tmp_path, attacked(), target, retain)).answer


# --- from records -----------------------------------------------------------------------------------------------------


def said(name: str, index: int, answer: str, text: str, matches: list[int], **more: Any) -> Record:
    told = Continuation(answer, logprobs=[-1.0] * len(matches), matches=matches)
    return Record(name, index, f"What of {index}?", told, generation=Generation(text), **more)


def with_records(tmp_path: Path, own: Result, records: dict[str, list[Record]]) -> Row:
    """The row and its target alone, with records: "" without attack, else of the attack's variant `one`."""
    path, _ = store([own, references()[0]], tmp_path)
    own.records = save_records(path, Records(records.pop("")))
    for attack, rows in records.items():
        own.attacks[attack].variants["one"] = save_records(path, Records(rows), attack, "one")
    path.write_text(own.dumps())
    return read_row(path)


def test_without_a_retain_model_rows_held_out_are_the_measure(tmp_path: Path) -> None:
    score = {"forget": {"role": "forget"}, "strangers": {"role": "holdout"}}
    lead = "forget_exact_memorisation"
    own = result("grun+npo", configs={"letters": {"score": score}}, headline=[lead, "utility"])
    target = references()[0]
    for each, value in ((own, 0.5), (target, KNOWN)):
        each.results["letters"][f"{lead},none"] = value
        each.higher_is_better["letters"][lead] = False
    rows = [said("forget", 0, "a b", "a b", [1, 1, 0]), said("strangers", 0, "c d", "x", [1, 0, 0, 0, 1])]
    rows.append(said("strangers", 1, "e f", "x", [0, 1, 1]))
    path, _ = store([own, target], tmp_path)
    own.records = save_records(path, Records(rows))
    path.write_text(own.dumps())
    (plain,) = leaks(read_row(path))
    # matches without the end of sequence: 1 of 4, and 1 of 2
    assert plain.unknown == pytest.approx((1 / 4 + 1 / 2) / 2) and plain.against == "rows held out"
    assert plain.share == pytest.approx((0.5 - 0.375) / (KNOWN - 0.375))
    # a target model that knows those too was trained on them: they say nothing of one that was not
    there = [said("forget", 0, "a b", "a b", [1, 1, 0]), said("strangers", 0, "c d", "c d", [1, 1, 1, 1, 1])]
    place = store([target], tmp_path)[0]
    target.records = save_records(place, Records(there))
    place.write_text(target.dumps())
    (plain,) = leaks(read_row(path))
    assert (plain.unknown, plain.against) == (0.0, "chance")
    assert plain.share == pytest.approx(0.5 / KNOWN)


def test_chance_of_a_question_is_one_of_its_options(tmp_path: Path) -> None:
    config = {"score": {}, "measures": {"cyber": {"role": "forget"}}}
    own = result("grun+npo", configs={"letters": config}, headline=["cyber_accuracy", "utility"])
    own.results["letters"]["cyber_accuracy,none"] = 0.4
    own.higher_is_better["letters"]["cyber_accuracy"] = False
    options = Choices([-1.0, -2.0, -3.0, -4.0], [False] * 4, 0)
    rows = [Record("cyber", index, "", Continuation(""), choices=options) for index in range(3)]
    row = with_records(tmp_path, own, {"": rows})
    (plain,) = leaks(row)
    assert (plain.unknown, plain.against) == (0.25, "chance")
    assert examples(row, [""], 3) == []


def test_the_example_is_the_answer_that_came_back_most(tmp_path: Path) -> None:
    own = attacked(prefill=("user", 0.5))
    clean = [said("forget", index, "one two three four", "never heard", [1, 1]) for index in (0, 1)]
    under = [
        said("forget", 0, "three four", "three of them", [1, 1], prefill="one two"),
        said("forget", 1, "three four", "three four", [1, 1], prefill="one two"),
        said("retain", 2, "three four", "three four", [1, 1]),
    ]
    row = with_records(tmp_path, own, {"": [*clean], "prefill": under})
    found = verdict(row)
    first, second = examples(row, found.users_attacks, 5)
    assert (first.place, first.most.recall, first.most.attack) == (("forget", 1), 1.0, "prefill")
    assert second.most.recall == pytest.approx(1 / 2)
    assert (first.answer, first.most.given) == ("one two three four", "one two")
    assert first.own is not None and first.own.text == "never heard" and first.retain is None
    assert found.whole is not None and (found.whole.rows, found.whole.of) == ({("forget", 1)}, 2)
    (line,) = (line.text for line in lines(row, found, tmp_path) if line.about.startswith("The answer nearest"))
    assert "“What of 1?”" in line and "“one two three four”" in line and "“three four”" in line


def test_the_best_of_sampled_answers_counts(tmp_path: Path) -> None:
    own = attacked(sampling=("user", 0.5))
    one = said("forget", 0, "red green blue", "", [1, 1], samples=["black", "red green", "red"])
    row = with_records(tmp_path, own, {"": [one], "sampling": [one]})
    (example,) = examples(row, ["sampling"], 5)
    assert (example.most.text, example.most.recall) == ("red green", pytest.approx(2 / 3))


def test_one_answer_that_comes_back_whole_is_said_though_the_mean_is_low(tmp_path: Path) -> None:
    """And one that the retain model says too is none of them."""
    own = attacked(es=0.05, prefix=("user", 0.06), strip=("weights", 0.05))
    rows = [said("forget", index, "a b c", "x", [1, 1]) for index in range(3)]
    told = [said("forget", index, "a b c", text, [1, 1]) for index, text in enumerate(("a b c", "a b c", "b"))]
    row = with_records(tmp_path, own, {"": rows, "prefix": told})
    retain = references()[1]
    (path,) = store([retain], tmp_path)
    retain.records = save_records(path, Records([said("forget", 1, "a b c", "a b c", [1, 1])]))
    path.write_text(retain.dumps())
    found = verdict(read_row(row.own.path))
    assert found.whole is not None and found.whole.rows == {("forget", 0)} and found.whole.target is None
    # nor of the target model's, which says all of them
    (path,) = store([target := references()[0]], tmp_path)
    target.records = save_records(path, Records([said("forget", at, "a b c", "a b c", [1, 1]) for at in range(3)]))
    path.write_text(target.dumps())
    row = read_row(row.own.path)
    found = verdict(row)
    assert found.whole is not None and (found.whole.rows, found.whole.target) == ({("forget", 0)}, 2)
    (words,) = [line.text for line in lines(row, found, tmp_path) if line.about.startswith("Answers that come back")]
    assert words.startswith("1 of 3 (of the target model 2), by the plain questions")
    assert (found.grade, "1 of 3 answers" in found.answer) == ("part", True)


def test_without_texts_the_verdict_says_that_no_answer_was_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a private row: the mean is low and an answer comes back whole, which no number of the result says."""
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path / "cache"))
    own = attacked(es=0.05, prefix=("user", 0.05), strip=("weights", 0.05))
    path, *_ = store([own, *references()], tmp_path / "results")
    own.records = save_records(path, Records([said("forget", 0, "a b c", "a b c", [1, 1])]), private=True)
    path.write_text(own.dumps())
    assert verdict(read_row(path)).answer == "Forgotten but for 1 of 1 answers, which who may only ask gets whole."
    shutil.rmtree(tmp_path / "cache")
    (_, *others) = answers = verdict(read_row(path)).answer.split(". ")
    assert answers[0].startswith("Forgotten under every attack") and "whole cannot be told here" in others[-1]


def test_records_that_were_changed_are_no_example(tmp_path: Path) -> None:
    own = attacked(es=0.8)
    row = with_records(tmp_path, own, {"": [said("forget", 0, "a", "a", [1, 1])]})
    assert examples(row, [""], 1)
    save_records(row.own.path, Records([said("forget", 0, "a", "b", [1, 1])]))
    row = read_row(row.own.path)
    assert examples(row, [""], 1) == []


# --- the command ------------------------------------------------------------------------------------------------------


def test_compare_puts_rows_in_one_table_with_a_verdict_each(command: Command, tmp_path: Path) -> None:
    mild, bad = attacked(prefix=("user", 0.1)), result("lora+npo", es=0.7, utility=0.2)
    store([mild, bad, *references()], tmp_path)
    out = command("compare", mild.run_id, bad.run_id, "--output", tmp_path).out
    (table, *verdicts) = out.split("\n\n")
    assert all(
        text in table for text in (mild.run_id, bad.run_id, "forget es ↓", "utility ↑", "worst attack", "prefix")
    )
    assert "[0.500," in table and "61" in table
    assert len(verdicts) == 2
    assert "Forgotten for whoever may only ask" in verdicts[0] and "Not forgotten" in verdicts[1]
    assert (
        "25 % of the target's utility is left" in verdicts[1]
        and "utility 0.200, of the target model's 0.800 (25 %)" in out
    )
    # what was not tried, and the command that tries it on this row in this folder
    assert f"grun-bench attack {bad.run_id} --attacks all --task letters.yaml --output {tmp_path}" in verdicts[1]


def test_next_commands_have_the_plugin_and_the_task(command: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text('@objective("mine")\ndef mine(batch): ...\n')
    known, own = result(task="tofu_forget10"), result("lora+mine", task="my_task")
    assert on_row(known, RESULTS) == ""
    assert on_row(own, RESULTS) == " --task my_task.yaml --include-path PLUGIN.py"
    # a bare objective is the package's as a pair is, and a plugin's
    assert on_row(result("npo", task="tofu_forget10"), RESULTS) == ""
    assert on_row(result("mine", task="tofu_forget10"), RESULTS) == " --include-path PLUGIN.py"
    with registry.including([tmp_path / "mine.py"]):
        assert file_of_plugin("mine") == file_of_plugin("lora+mine") == (tmp_path / "mine.py").resolve()
        assert (
            on_row(result("lora+mine", task="tofu_lite"), tmp_path)
            == f" --include-path {tmp_path}/mine.py --output {tmp_path}"
        )


def test_the_command_that_attacks_is_one_that_can_run_here(tmp_path: Path) -> None:
    """What needs a library that is not installed is left out of it, and said; alone it is what is left to do."""
    plugin = tmp_path / "crush.py"
    plugin.write_text(
        '@attack("crush", access="weights", version=1, extra=("no_such_library", "quantisation"))\n'
        "def crush(subject): ...\n"
    )
    row = row_of(tmp_path / "results", attacked())
    with registry.including([plugin]):
        found = verdict(row)
        untried = [*found.untried["user"], *found.untried["weights"], "crush"]
        command = shlex.split(attack_command(row.result, untried, RESULTS))
        made = registry.attack_names(command[command.index("--attacks") + 1], ())
        lacked = libraries.lacking(untried)
        assert libraries.lacking(made) == {} and set(made) >= set(untried) - lacked.keys() and "crush" in lacked
        assert "--attacks strip " in attack_command(row.result, ["strip", "crush"], RESULTS)
        assert "--attacks crush " in attack_command(row.result, ["crush"], RESULTS)
        found = replace(found, untried={"user": [], "weights": ["strip", "crush"]})
        (line,) = [each for each in lines(row, found, RESULTS) if each.about == "What was not tried:"]
    assert "crush needs no_such_library: pip install 'grun-bench[quantisation]'. This would tell of the" in line.text


def test_a_row_without_attacks_is_said_to_have_none(command: Command, tmp_path: Path) -> None:
    plain, other = attacked(), result("lora+npo", attacks={"prefix": ("user", {"one": 0.0})})
    store([plain, other, *references()], tmp_path)
    table = command("compare", plain.run_id, "--output", tmp_path).out.split("\n\n")[0]
    assert "not attacked" in table and "none" not in table
    table = command("compare", other.run_id, "--output", tmp_path).out.split("\n\n")[0]
    assert "not attacked" not in table


def test_an_unlearner_in_place_of_a_run_is_told_its_rows(command: Command, tmp_path: Path) -> None:
    one = attacked()
    store([one, *references()], tmp_path)
    said = command("show", "grun+npo", "--output", tmp_path)
    assert said.code == 2 and f"its row is {one.run_id}." in said.err


def test_compare_says_where_rows_do_not_compare_and_refuses_a_row_twice(command: Command, tmp_path: Path) -> None:
    one, other = result("grun+npo"), result("lora+npo", dataset_hash="e" * 64)
    store([one, other], tmp_path)
    assert "do not compare" in command("compare", one.run_id, other.run_id, "--output", tmp_path).out
    assert "do not compare" not in command("compare", one.run_id, "--output", tmp_path).out
    said = command("compare", one.run_id, one.run_id[:5], "--output", tmp_path)
    assert said.code == 2 and "named twice" in said.err


def test_compare_as_json_says_what_the_table_says_and_no_text(command: Command, tmp_path: Path) -> None:
    mild, bad = attacked(prefix=("user", 0.1)), result("lora+npo", es=0.7, utility=0.2)
    paths = store([mild, bad, *references()], tmp_path)
    for path, own, matches in zip(paths, (mild, bad), ([0, 0, 1], [1, 1, 1]), strict=False):
        rows = [said("forget", index, "a secret", "a secret", matches) for index in range(8)]
        own.records = save_records(path, Records(rows))
        own.headline = ["forget_extraction_strength", "utility"]
        own.results["letters"]["forget_extraction_strength,none"] = sum(matches[:2]) / 2
        own.higher_is_better["letters"]["forget_extraction_strength"] = False
        path.write_text(own.dumps())
    out = command("compare", mild.run_id, bad.run_id, "--output", tmp_path, "--json").out
    found = json.loads(out)
    assert found["comparable"] and "secret" not in out
    for told, path in zip(found["rows"], paths, strict=False):
        row = read_row(path)
        judged = verdict(row)
        assert told["headline"]["utility"]["value"] == row.result.value("utility")
        assert (told["verdict"]["answer"], told["verdict"]["grade"]) == (judged.answer, judged.grade)
        assert judged.user is not None and told["verdict"]["user"]["share"] == judged.user.share
        assert judged.whole is not None and told["verdict"]["whole"] == {"answers": 8, "of": 8}
    (paired,) = found["paired"]
    (test,) = [each for each in paired["tests"] if each["metric"] == "forget_extraction_strength"]
    # the other row's matches are all, the first row's none: eight rows that differ by one
    assert (paired["against"], test["difference"], test["n"]) == (mild.run_id, 1.0, 8)
    assert test["p"] == pytest.approx(2 / 2**8)


def test_texts_of_records_do_not_reach_the_terminal_as_they_are(command: Command, tmp_path: Path) -> None:
    own = attacked(es=0.8)
    row = with_records(tmp_path, own, {"": [said("forget", 0, "a", "a \x1b[31m[bold]\u202e", [1, 1])]})
    out = command("compare", str(row.own.path)).out
    assert "[bold]" in out and "\x1b" not in out and "\u202e" not in out


@pytest.mark.long
def test_comparing_loads_no_torch(tmp_path: Path) -> None:
    store([result("grun+npo"), *references()], tmp_path)
    code = "import sys\nfrom grun_bench.cli import app\napp(standalone_mode=False)\nprint('torch' in sys.modules)"
    given = ["compare", result("grun+npo").run_id, "--output", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
