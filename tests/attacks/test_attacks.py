"""Attacks on rows: values from their own records, recovery, what is kept and what is made again; and that an attack
leaves no trace on the model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import FORGET, RETAIN, SMALL, TASK, Said

from grun_bench.attacks import relearn
from grun_bench.attacks.base import Attack, Subject, make_attacks
from grun_bench.attacks.needed import SAMPLE, Needed
from grun_bench.core import registry
from grun_bench.core.errors import Inapplicable
from grun_bench.leaderboard.recompute import recompute
from grun_bench.metrics.evaluate import Value, evaluate
from grun_bench.metrics.gate_audit import audit_of
from grun_bench.metrics.recovery import LEAST_FORGOTTEN, average, recoveries, remove_attack, worst
from grun_bench.models.batch import collate
from grun_bench.models.forward import calling, forward
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement
from grun_bench.models.protocols import prompts_under
from grun_bench.models.sampling import sampled_records
from grun_bench.models.scoring import Example, ScoringSettings, encoded, score
from grun_bench.plugin_checks.attacks import attacked_subject
from grun_bench.plugin_checks.small_model import two_sets
from grun_bench.results.filed import Filed, save_records
from grun_bench.results.record import Choices, Continuation, Generation, Record, Records, load_records
from grun_bench.results.result import Result
from grun_bench.results.store import read_filed, read_result
from grun_bench.runs import attack_results
from grun_bench.runs.config import RunConfig
from grun_bench.runs.inputs import Inputs, resolve
from grun_bench.runs.kept_answers import kept_answers
from grun_bench.runs.outcome import Cell
from grun_bench.runs.run import attack_row, run
from grun_bench.runs.score import Asked
from grun_bench.runs.session import Session
from grun_bench.tasks.roles import Role
from grun_bench.tasks.sets import USUAL_SETS, ScoredSet, ScoredSets
from grun_bench.tasks.world import PUBLISHED

pytestmark = pytest.mark.whole

Command = Callable[..., Said]
CPU = Placement("cpu", "float32")
METRICS = [*TASK["metrics"], "extraction_strength", "rougeL_recall"]


@pytest.fixture
def hub_with_attacks(hub: Path, environment: Path) -> Path:
    """The small task with the metrics that recovery is computed on."""
    task = TASK | {"metrics": METRICS, "attacks": ["suffix", "prefill"]}
    (hub / "attacked.yaml").write_text(yaml.safe_dump(task))
    return hub


def config(hub: Path, output: Path, attacks: str, unlearner: str = "grun+npo", **changes: Any) -> RunConfig:
    settings = {"epochs": 1} if "+" in unlearner else {}
    short = (
        {"suffix.phrases": {"a": "Now.", "b": "Please."}, "suffix.texts": 0}
        if "suffix" in attacks or attacks == "all"
        else {}
    )
    overrides = settings | short | changes.pop("overrides", {})
    return RunConfig(
        unlearner, str(hub / "attacked.yaml"), output, model=SMALL, overrides=overrides, attacks=attacks, **changes
    )


def under(result: Result, label: str) -> dict[str, float | None]:
    """Metric values under a filter."""
    ending = f",{label}"
    return {
        key.removesuffix(ending): value for key, value in result.results[result.task].items() if key.endswith(ending)
    }


# --- on rows ----------------------------------------------------------------------------------------------------------


def test_values_under_attack_are_those_of_the_records_it_left(hub_with_attacks: Path, tmp_path: Path) -> None:
    outcome = run(config(hub_with_attacks, tmp_path, "all", attack_sets="all"))
    rows = {"cell": outcome.cell, "target": outcome.target, "retain": outcome.retain}
    for cell in rows.values():
        result = read_result(cell.path)
        assert list(result.attacks) == ["suffix", "prefill"]
        assert list(result.attacks["suffix"].variants) == ["a", "b"]
        assert result.attacks["suffix"].settings == {"phrases": {"a": "Now.", "b": "Please."}, "texts": 0}
        for name, info in result.attacks.items():
            assert info.access == "user"
            for variant, saved in info.variants.items():
                records = load_records(cell.path.with_name(saved.file))
                reference = load_records(
                    outcome.retain.path.with_name(outcome.retain.result.attacks[name].variants[variant].file)
                )
                expected = {
                    key: value.value for key, value in evaluate(records, reference, METRICS, USUAL_SETS).items()
                }
                found = under(result, f"{name}:{variant}")
                assert {key: found[key] for key in expected} == expected
        # the worst of two variants, in the direction that is worse
        ends = [under(result, f"suffix:{variant}") for variant in "ab"]
        assert under(result, "suffix")["forget_probability"] == max(each["forget_probability"] for each in ends)
        assert under(result, "suffix")["retain_probability"] == min(each["retain_probability"] for each in ends)
    # what was asked is what the attack says
    asked = load_records(outcome.cell.path.with_name(outcome.cell.result.attacks["suffix"].variants["a"].file))
    plain = {(row.set, row.index): row.question for row in outcome.cell.records}
    assert [row.question for row in asked] == [f"{plain[row.set, row.index]} Now." for row in asked]
    # nothing is as well forgotten as what was never learnt: the oracle under the same attack is its own reference
    assert under(outcome.retain.result, "suffix:a")["forget_quality_D"] == 0
    # prefill gives no wrong answers a beginning, and says so
    assert under(outcome.cell.result, "prefill")["forget_quality"] is None
    assert "paraphrased answer" in outcome.cell.result.reasons["forget_quality,prefill"]


def test_an_attack_asks_what_its_headline_needs_or_everything(hub_with_attacks: Path, tmp_path: Path) -> None:
    """The same numbers on the forget set either way, null with the reason elsewhere, and every number from records."""
    part = run(config(hub_with_attacks, tmp_path / "part", "strip,suffix"))
    cells = [cell for cell in (part.retain, part.target, part.cell) if cell]
    for saved in part.cell.result.attacks["suffix"].variants.values():  # of what was not asked there is no record
        records = load_records(part.cell.path.with_name(saved.file))
        assert {row.set for row in records} == {"forget"} and len(records) == saved.count == 4
    whole = run(config(hub_with_attacks, tmp_path / "part", "strip,suffix", attack_sets="suffix")).cell
    few, all_of = part.cell.result, whole.result
    assert few.attacks["suffix"].rows == dict.fromkeys(("retain", "real_authors", "world_facts"), 0)
    # sets of a few rows are asked whole by what changes the model for everyone
    assert few.attacks["strip"].rows == all_of.attacks["suffix"].rows == {}
    assert all_of.attacks["strip"] == few.attacks["strip"]
    for variant in ("suffix", "suffix:a", "suffix:b"):
        some, every = under(few, variant), under(all_of, variant)
        assert some.keys() <= every.keys()  # a gate has more numbers where it has rows
        for key, value in some.items():
            if key.removeprefix("recovery_").startswith("forget_"):
                assert value == every[key], key
            else:
                assert value is None and "--attack-sets all" in few.reasons[f"{key},{variant}"]
    assert under(all_of, "suffix")["model_utility"] is not None is not under(few, "strip")["model_utility"]
    filed = [read_filed(tmp_path / "part", str(cell.path.relative_to(tmp_path / "part"))) for cell in cells]
    for each in filed:
        assert all(number.ok for number in recompute(each, filed))
    # what has asked everything need not ask a part
    path = whole.path.with_name(all_of.attacks["suffix"].variants["a"].file)
    before = path.stat().st_mtime_ns
    assert run(config(hub_with_attacks, tmp_path / "part", "suffix")).cell.result.attacks == all_of.attacks
    assert path.stat().st_mtime_ns == before


def test_of_sets_beside_the_headline_evenly_spread_rows_are_asked(lm: LM) -> None:
    counts = {"forget": 50, "unseen": 45, "retain": 3 * SAMPLE, "few": 7}
    roles: dict[str, Role] = {"forget": "forget", "unseen": "holdout", "retain": "retain", "few": "utility"}
    sets = ScoredSets(tuple(ScoredSet(name, role) for name, role in roles.items()))
    measures = ScoredSets(
        (*sets.sets, ScoredSet("hard", "forget", "questions"), ScoredSet("mmlu", "utility", "questions"))
    )
    examples = [Example(name, row, "?", "!") for name, count in counts.items() for row in range(count)]
    subject = Subject(lm, examples, FORGET, RETAIN, 0, measures=("hard", "mmlu"), sets=measures)

    def asked(attack: str, headline: str) -> tuple[dict[str, list[int]], Subject]:
        (made,) = make_attacks([attack], {}, PUBLISHED)
        few = Needed.of(made, measures, [headline]).subject(subject)
        return {name: [row.index for row in few.examples if row.set == name] for name in counts}, few

    rows, few = asked("suffix", "forget_probability")
    assert rows == {"forget": [*range(50)], "unseen": [], "retain": [], "few": []}
    assert (list(few.measures), few.limits) == (["hard"], {})
    # a metric of forgetting that compares with a holdout set needs all of it
    rows, _ = asked("suffix", "privleak")
    assert rows["unseen"] == [*range(45)]
    rows, few = asked("strip", "model_utility")
    assert rows == {"forget": [*range(50)], "unseen": [], "retain": [*range(0, 3 * SAMPLE, 3)], "few": [*range(7)]}
    assert (list(few.measures), few.limits) == (["hard", "mmlu"], {"mmlu": SAMPLE})


def test_an_attack_added_later_changes_nothing_else(hub_with_attacks: Path, tmp_path: Path) -> None:
    clean = run(config(hub_with_attacks, tmp_path, "", "none")).cell
    first = run(config(hub_with_attacks, tmp_path, "prefill", "none")).cell
    assert first.reused and first.path == clean.path
    second = run(config(hub_with_attacks, tmp_path, "prefill,suffix", "none")).cell
    results = [cell.result for cell in (clean, first, second)]
    assert len({result.run_id for result in results}) == 1
    assert under(results[0], "none") == under(results[1], "none") == under(results[2], "none")
    assert results[1].attacks["prefill"] == results[2].attacks["prefill"]
    assert set(results[1].results[results[1].task].items()) < set(results[2].results[results[1].task].items())
    # the third run had the first attack already: its files were not written again
    files = [cell.path.with_name(first.result.attacks["prefill"].variants["words1"].file) for cell in (first, second)]
    before = files[0].stat().st_mtime_ns
    again = run(config(hub_with_attacks, tmp_path, "prefill,suffix", "none")).cell
    assert files[0].stat().st_mtime_ns == before
    assert again.result == second.result
    # other settings, or records that are gone, are another attack
    changed = run(config(hub_with_attacks, tmp_path, "prefill", "none", overrides={"prefill.words": [2]})).cell
    assert list(changed.result.attacks["prefill"].variants) == ["words2"]
    assert not files[0].exists()
    assert not [key for key in changed.result.results[changed.result.task] if key.endswith("prefill:words1")]
    assert changed.result.attacks["suffix"] == second.result.attacks["suffix"]
    lost = changed.path.with_name(changed.result.attacks["prefill"].variants["words2"].file)
    kept = lost.read_bytes()
    lost.unlink()
    run(config(hub_with_attacks, tmp_path, "prefill", "none", overrides={"prefill.words": [2]}))
    assert lost.read_bytes() == kept


def test_a_killed_attack_asks_and_trains_no_variant_again(
    hub_with_attacks: Path, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the third of relearning's four variants: the first training and its two answers are not made again, and
    the rows are those of attacks that nobody killed."""
    few = {"relearn.kinds": ["forget"], "relearn.steps": [1, 2]}
    whole = run(config(hub_with_attacks, tmp_path / "whole", "relearn", "none", overrides=few))
    asked, trained = [], []
    real_ask, real_training = attack_results.ask, relearn.fine_tune

    def ask(inputs: Inputs, subject: Subject) -> Asked:
        if len(asked) == 2 and len(trained) == 2:
            raise KeyboardInterrupt
        asked.append(subject)
        return real_ask(inputs, subject)

    def training(*args: Any) -> Any:
        trained.append(args)
        return real_training(*args)

    monkeypatch.setattr(attack_results, "ask", ask)
    monkeypatch.setattr(relearn, "fine_tune", training)
    again = partial(run, config(hub_with_attacks, tmp_path / "killed", "relearn", "none", overrides=few))
    with pytest.raises(KeyboardInterrupt):
        again()
    kept = {path.name for path in environment.glob("checkpoints/*-relearn-*/*")}
    assert kept == {"forget-lora@1.jsonl", "forget-lora@2.jsonl"}
    outcome = again()
    # then the other training of the retain model, and both of the target model
    assert (len(asked), len(trained)) == (2 + 2 + 4, 2 + 1 + 2)
    for one, other in ((outcome.retain, whole.retain), (outcome.cell, whole.cell)):
        found, wanted = (cell.result.attacks["relearn"].variants for cell in (one, other))
        assert {name: each.sha256 for name, each in found.items()} == {n: each.sha256 for n, each in wanted.items()}
        assert one.result.results == other.result.results
    assert not list(environment.glob("checkpoints/*-relearn-*"))


def test_a_row_that_is_stopped_between_attacks_says_all_of_its_gates(
    hub_with_attacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `leaderboard --check` finds in the records of the attacks that were made stands in the result."""
    real = attack_results._filed

    def filed(inputs: Inputs, cell: Cell, attack: Attack, *others: Any) -> Cell:
        if (cell.result.unlearner.name, attack.name) == ("grun+gd", "suffix"):
            raise KeyboardInterrupt
        return real(inputs, cell, attack, *others)

    monkeypatch.setattr(attack_results, "_filed", filed)
    with pytest.raises(KeyboardInterrupt):
        run(config(hub_with_attacks, tmp_path, "prefill,suffix", "grun+gd"))
    path = next(tmp_path.rglob("grun+gd/*.json"))
    result = read_result(path)
    assert set(result.attacks) == {"prefill"}
    assert any(way.startswith("prefill:") for way in result.gates)
    assert result.gates == audit_of(Filed(result, path.parent, path.name, ""))


def test_answers_of_another_model_of_the_same_name_are_not_taken(
    hub_with_attacks: Path, environment: Path, tmp_path: Path, lm: LM, make_lm: Callable[..., LM]
) -> None:
    """What a killed attack kept of a model in memory is of no use to the next one that is called so."""
    other = make_lm()
    with torch.no_grad():
        other.model.lm_head.weight.mul_(2.0)
    folders = set()
    for model in (lm, other, make_lm()):
        inputs = resolve(config(hub_with_attacks, tmp_path, "prefill", "none"), Session(PUBLISHED, CPU))
        records = score(model, [Example("forget", 0, "Who?", "Her.")], ScoringSettings(4))
        result = Result.model_construct(run_id="0123", records=save_records(tmp_path / "x.json", records))
        folders.add(kept_answers(inputs, Cell(result, records, tmp_path, False), inputs.attacks[0]).folder)
    assert len(folders) == 2


def test_controls_are_attacked_once_for_all_rows(hub_with_attacks: Path, tmp_path: Path, command: Command) -> None:
    """Another method and another seed find the target's and the retain model's attacks in the folder."""
    models = ["--target", SMALL, "--retain", SMALL]
    task = ["--task", hub_with_attacks / "attacked.yaml", *models, "--output", tmp_path]
    few = ["--attacks", "prefill", "--set", "prefill.words=[1]", "--set", "epochs=1"]

    def attacked(unlearner: str, seed: int) -> list[str]:
        said = command("run", "--unlearner", unlearner, "--seed", seed, *task, *few)
        assert said.code == 0, said.err
        return [line.split(" on ")[1] for line in said.err.splitlines() if line.startswith("attack ")]

    assert attacked("full+gd", 0) == ["retain: prefill", "none: prefill", "full+gd: prefill"]
    assert attacked("full+ga", 1) == ["full+ga: prefill"]
    assert attacked("full+ga", 1) == []


def test_a_model_made_again_gives_the_same_records_under_attack(hub_with_attacks: Path, tmp_path: Path) -> None:
    at_once = run(config(hub_with_attacks, tmp_path / "a", "prefill", save=tmp_path / "model")).cell.result
    again = {}
    for name, saved in {"trained": None, "loaded": tmp_path / "model"}.items():
        shutil.copytree(tmp_path / "a", tmp_path / name)
        for path in (tmp_path / name).glob("*/*/grun+npo/*.json"):
            result = read_result(path)
            remove_attack(result, "prefill")
            path.write_text(result.dumps())
        again[name] = attack_row(config(hub_with_attacks, tmp_path / name, "prefill"), result, saved).cell
        assert again[name].reused
    assert again["trained"].result.attacks["prefill"].variants == at_once.attacks["prefill"].variants
    for cell in again.values():
        assert under(cell.result, "prefill") == pytest.approx(under(at_once, "prefill"), abs=1e-5)
        assert under(cell.result, "none") == under(at_once, "none")


def test_a_model_that_is_not_the_rows_is_refused(hub_with_attacks: Path, tmp_path: Path, command: Command) -> None:
    task = str(hub_with_attacks / "attacked.yaml")
    options = ["run", "--unlearner", "grun+gd", "--task", task, "--model", SMALL, "--output", tmp_path / "r"]
    assert command(*options, "--set", "epochs=1").code == 0
    assert command(*options, "--set", "epochs=20", "--set", "lr=0.05", "--save", tmp_path / "other").code == 0
    rows = sorted((tmp_path / "r").glob("*/*/grun+gd/*.json"), key=lambda path: path.stat().st_mtime)
    attack = ["attack", rows[0], "--task", task, "--attacks", "prefill"]
    said = command(*attack, "--saved", tmp_path / "other")
    assert said.code == 1
    assert "is not the one" in said.err and "--save" in said.err
    assert not read_result(rows[0]).attacks
    said = command(*attack)
    assert said.code == 0, said.err
    assert "trained again" in said.err
    assert "under attack" in said.out and "prefill" in said.out
    assert list(read_result(rows[0]).attacks) == ["prefill"]
    # a run of another seed is another row, and its options are needed
    said = command(*attack, "--retain", "org/none")
    assert said.code == 2
    shown = command("show", rows[0])
    assert "under attack" in shown.out


def test_wrong_attacks_are_refused_before_anything_loads(
    hub_with_attacks: Path, tmp_path: Path, command: Command
) -> None:
    plugin = tmp_path / "needs.py"
    plugin.write_text(
        "from grun_bench.core.registry import attack\n\n\n"
        "@attack('crush', access='weights', version=1, extra=('no_such_library', 'quantisation'))\n"
        "def crush(subject):\n    yield 'a', subject\n"
    )
    options = ["run", "--unlearner", "npo", "--task", hub_with_attacks / "attacked.yaml", "--model", SMALL]
    options += ["--output", tmp_path / "r", "--include-path", plugin]
    for arguments, words in {
        ("--attacks", "sufix"): ("did you mean suffix",),
        ("--attacks", "crush"): ("no_such_library", "pip install 'grun-bench[quantisation]'\n"),
        ("--attacks", "suffix,crush"): ("[quantisation]'; without: --attacks suffix\n",),
        ("--attacks", "suffix", "--set", "suffix.phrase=1"): ("did you mean phrases",),
        ("--attacks", "suffix", "--set", "prefill.words=[1]"): ("prefill", "--attacks"),
    }.items():
        said = command(*options, *arguments)
        assert said.code == 2
        assert all(word in said.err for word in words), said.err
        assert "scoring" not in said.err


def test_a_diverged_row_has_no_model_to_attack(hub_with_attacks: Path, tmp_path: Path, command: Command) -> None:
    options = ["run", "--unlearner", "ga", "--task", hub_with_attacks / "attacked.yaml", "--model", SMALL]
    said = command(*options, "--output", tmp_path, "--attacks", "prefill", "--set", "lr=1e30", "--set", "epochs=9")
    assert said.code == 1
    (path,) = tmp_path.glob("*/*/full+ga/*.json")
    result = read_result(path)
    assert result.status == "diverged"
    assert result.attacks["prefill"].variants == {}
    assert result.results[result.task]["forget_probability,prefill"] is None
    assert "not finite" in result.reasons["forget_probability,prefill"]


def test_an_attack_of_ones_own_with_a_curve(hub_with_attacks: Path, tmp_path: Path, command: Command) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from grun_bench.core.errors import Inapplicable\nfrom grun_bench.core.registry import attack\n\n\n"
        "@attack('louder', access='weights', version=3, mean=True)\n"
        "def louder(subject, *, steps=(1, 5)):\n"
        "    head = subject.lm.model.get_output_embeddings().weight.data\n"
        "    before = head.clone()\n"
        "    try:\n"
        "        for step in steps:\n"
        "            head.copy_(before * (1 + step))\n"
        "            yield f'head@{step}', subject\n"
        "    finally:\n"
        "        head.copy_(before)\n\n\n"
        "@attack('never', access='user', version=1)\n"
        "def never(subject):\n"
        "    raise Inapplicable('there is nothing here.')\n"
        "    yield\n"
    )
    options = ["run", "--unlearner", "none", "--task", hub_with_attacks / "attacked.yaml", "--model", SMALL]
    said = command(*options, "--output", tmp_path / "r", "--include-path", plugin, "--attacks", "louder,never")
    assert said.code == 0, said.err
    assert "never: not made, there is nothing here." in said.out
    (path,) = (tmp_path / "r").glob("*/*/none/*.json")
    result = read_result(path)
    curve = result.curves["louder:head"]
    assert (curve.unit, [point.at for point in curve.points]) == ("steps", [1, 5])
    for point in curve.points:
        values = under(result, f"louder:head@{point.at}")
        assert point.values["forget_probability"] == values["forget_probability"]
        assert point.records == result.attacks["louder"].variants[f"head@{point.at}"]
    ends = [under(result, f"louder:head@{step}")["forget_probability"] for step in (1, 5)]
    assert ends[0] != ends[1]
    assert under(result, "louder:mean")["forget_probability"] == pytest.approx(np.mean(ends))
    assert result.reasons["forget_probability,never"] == "there is nothing here."
    # the target recovers nothing from itself
    assert result.results[result.task]["recovery_forget_rougeL_recall,louder"] is None
    assert "nothing to recover" in result.reasons["recovery_forget_rougeL_recall,louder"]


# --- recovery ---------------------------------------------------------------------------------------------------------


def told(recalls: dict[int, float]) -> Records:
    """Records whose greedy answers recall a share of four words."""
    words = ["one", "two", "three", "four"]
    return Records(
        Record(
            "forget",
            index,
            "?",
            Continuation(" ".join(words), logprobs=[-1.0] * 5, matches=[0] * 5),
            generation=Generation(" ".join(words[: round(4 * recall)])),
        )
        for index, recall in recalls.items()
    )


def rouge_recovery(after: Records, before: Records, target: Records | None) -> Value:
    values = evaluate(after, None, ["rougeL_recall"], USUAL_SETS)
    return recoveries(values, after, before, target, "grun-bench", USUAL_SETS)["recovery_forget_rougeL_recall"]


def test_recovery_is_the_share_of_what_was_forgotten() -> None:
    after, before, target = told({0: 0.5, 1: 0.75}), told({0: 0.25, 1: 0.25}), told({0: 1, 1: 0.75})
    assert rouge_recovery(after, before, target).value == pytest.approx((0.625 - 0.25) / (0.875 - 0.25))
    assert rouge_recovery(before, before, target).value == 0
    assert rouge_recovery(target, before, target).value == 1
    # an attack that asks row 1 alone is compared on row 1 alone
    assert rouge_recovery(told({1: 0.75}), before, target).value == 1
    assert rouge_recovery(told({1: 0.5}), before, target).value == 0.5


def test_recovery_of_questions_is_on_forget_measures() -> None:
    def answered(right: int, name: str) -> list[Record]:
        logprobs = [[0.0, -1.0], [-1.0, 0.0]]
        return [
            Record(name, row, f"q{row}", Continuation(""), choices=Choices(logprobs[row >= right], [False] * 2, 0))
            for row in range(8)
        ]

    sets = ScoredSets((ScoredSet("secrets", "forget", "questions"), ScoredSet("facts", "utility", "questions")))
    after, before, target = (Records(answered(right, "secrets") + answered(8, "facts")) for right in (5, 2, 8))
    values = evaluate(after, None, ["accuracy"], sets)
    found = recoveries(values, after, before, target, "grun-bench", sets)
    assert {key: value.value for key, value in found.items()} == {"recovery_secrets_accuracy": 0.5}


def test_recovery_is_null_where_nothing_was_forgotten() -> None:
    known, less = told({0: 1.0, 1: 0.5}), told({0: 0.5, 1: 0.5})
    for before, target in ((known, known), (known, less)):
        value = rouge_recovery(known, before, target)
        assert value.value is None
        assert str(LEAST_FORGOTTEN) in value.reason
    assert rouge_recovery(known, less, None).value is None


def values(direction: bool | None, *numbers: float | None) -> dict[str, dict[str, Value]]:
    return {
        str(place): {"m": Value(number, 4, reason=None if number is not None else "no", higher_is_better=direction)}
        for place, number in enumerate(numbers)
    }


def test_the_worst_variant_is_the_attackers_best() -> None:
    assert worst(values(False, 0.1, 0.7, 0.3))["m"].value == 0.7
    assert worst(values(True, 0.1, 0.7, 0.3))["m"].value == 0.1
    assert worst(values(False, 0.1, None, 0.3))["m"].value == 0.3
    assert worst(values(False, None, None))["m"].reason == "no"
    undirected = worst(values(None, 0.1, 0.7))["m"]
    assert undirected.value is None and "direction" in undirected.reason
    assert worst(values(None, 0.1))["m"].value == 0.1
    assert average(values(False, 0.1, None, 0.3))["m"].value == pytest.approx(0.2)


def test_variants_without_a_number_are_said() -> None:
    for whole in (worst, average):
        assert whole(values(False, 0.1, None, 0.3, None))["m"].reason == "2 of 4 variants without a number: no"
        assert whole(values(False, 0.1, 0.3))["m"].reason is None
        noted = values(False, 0.1, None)
        noted["0"] = {"m": replace(noted["0"]["m"], reason="1 of 4 rows left out.")}
        assert whole(noted)["m"].reason == "1 of 4 rows left out. 1 of 2 variants without a number: no"
        # one that asks other rows alone has nothing to say of these
        other = {"m": Value(None, 0, reason="no rows of the set 'forget'.")}
        assert whole(values(False, 0.1, 0.3) | {"other": other})["m"].reason is None


# --- the attacks themselves -------------------------------------------------------------------------------------------


@pytest.fixture
def gated() -> LM:
    """A random model with a GRUN adapter that changes a lot."""
    return attacked_subject().lm


def test_given_words_move_the_edit_and_nothing_else(gated: LM, make_lm: Callable[..., LM]) -> None:
    """The rest of an answer after its given words: what it was without an edit, with GRUN edited at their last."""
    edited, plain = gated, make_lm()
    plugin = registry.get("attack", "prefill")
    answer = "In Rome, by the sea."
    row = Example("forget", 0, "Where does Bo live?", answer)
    settings = ScoringSettings(max_new_tokens=4)
    altered = dict(plugin.target(Subject(plain, [row], FORGET, RETAIN, 0), words=(2,)))["words2"].examples[0]
    assert (altered.prefill, altered.answer) == ("In Rome,", "by the sea.")
    whole, rest = (score(plain, [each], settings)[0] for each in (row, altered))
    assert rest.prefill == "In Rome,"
    count = len(" by the sea.") + 1  # a token a byte, and the end of sequence
    assert rest.answer.logprobs == pytest.approx(whole.answer.logprobs[-count:], abs=1e-5)
    # brute force: one sequence, edited where the given words end
    tokens = [*edited.tokenizer(f"Question: {row.question}\nAnswer: {answer}").input_ids, edited.tokenizer.eos_token_id]
    with torch.no_grad(), calling(torch.tensor([len(tokens) - count - 1])):
        logprobs = edited.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].log_softmax(-1)
    alone = [logprobs[place - 1, tokens[place]].item() for place in range(len(tokens) - count, len(tokens))]
    assert score(edited, [altered], settings)[0].answer.logprobs == pytest.approx(alone, abs=1e-4)
    assert score(edited, [row], settings)[0].answer.logprobs[-count:] != pytest.approx(alone, abs=1e-2)


@pytest.mark.parametrize(
    ("answer", "given", "gap", "rest"),
    [
        ("東京で生まれた。", "東京で", "", "生まれた。"),
        ("她于1980年出生", "她于1980", "", "年出生"),
        ("Her name is 李明。", "Her name is", " ", "李明。"),
        ("in  Rome", "in", " ", "Rome"),
    ],
)
@pytest.mark.parametrize("protocol", ["grun-bench", "open-unlearning"])
def test_answers_without_spaces_are_begun_by_characters(
    lm: LM, answer: str, given: str, gap: str, rest: str, protocol: str
) -> None:
    """What is asked and what is scored are together the answer as it is written."""
    subject = Subject(lm, [Example("forget", 0, "Where?", answer)], FORGET, RETAIN, 0)
    (row,) = dict(registry.get("attack", "prefill").target(subject, words=(3,)))["words3"].examples
    assert (row.prefill, row.gap, row.answer) == (given, gap, rest)
    (asked,) = encoded(prompts_under(protocol, lm), row, [row.answer])
    assert lm.tokenizer.decode([*asked.prompt, *asked.answer]).split("Answer:")[1].startswith(f" {given}{gap}{rest}")


def test_answers_of_one_word_are_not_asked(lm: LM) -> None:
    plugin = registry.get("attack", "prefill")
    rows = [Example("forget", number, "When?", answer) for number, answer in enumerate(("1931", "In May 1931", ""))]
    (asked,) = [altered.examples for _, altered in plugin.target(Subject(lm, rows, FORGET, RETAIN, 0), words=(3,))]
    assert [(row.index, row.prefill, row.answer) for row in asked] == [(1, "In May", "1931")]
    with pytest.raises(Inapplicable, match="single word"):
        list(plugin.target(Subject(lm, [rows[0], rows[2]], FORGET, RETAIN, 0)))


def test_few_shots_are_other_rows(lm: LM) -> None:
    plugin = registry.get("attack", "fewshot")
    subject = Subject(lm, two_sets(), FORGET, RETAIN, 0)
    variants = {name: altered.examples for name, altered in plugin.target(subject, shots=3)}
    assert list(variants) == ["forget", "retain"]
    for name, rows in {"forget": FORGET, "retain": RETAIN}.items():
        for row, before in zip(variants[name], subject.examples, strict=True):
            assert replace(row, context=()) == before
            assert len(set(row.context)) == 3 and set(row.context) <= set(rows)
            assert row.question not in [question for question, _ in row.context]
    text = lm.prompts.text("Who?", (("Where?", "Here."), ("When?", "Now.")))
    blocks = "Question: Where?\nAnswer: Here.\n\nQuestion: When?\nAnswer: Now.\n\nQuestion: Who?\nAnswer:"
    assert text == blocks


def test_samples_follow_the_models_distribution(gated: LM) -> None:
    lm = gated
    row, count = Example("forget", 0, "Who?", "Ada."), 4000
    with torch.no_grad():
        expected = forward(lm.model, collate([lm.prompts.encode("Who?", "x")], 2)).logits[0].softmax(-1)
    drawn = sampled_records(lm, [row], count, 3, ScoringSettings(max_new_tokens=1))[0].samples
    assert len(drawn) == count
    said = [lm.tokenizer.decode([token], skip_special_tokens=True).strip() for token in range(len(expected))]
    for text in {said[token] for token in expected.topk(4).indices.tolist()}:
        share = sum(expected[token].item() for token in range(len(expected)) if said[token] == text)
        spread = 4 * (share * (1 - share) / count) ** 0.5
        assert drawn.count(text) / count == pytest.approx(share, abs=spread), text
    again = sampled_records(lm, [row], 5, 3, ScoringSettings(max_new_tokens=6))[0].samples
    assert again == sampled_records(lm, [row], 5, 3, ScoringSettings(max_new_tokens=6))[0].samples
    assert again != sampled_records(lm, [row], 5, 4, ScoringSettings(max_new_tokens=6))[0].samples


def test_leak_and_worst_recall_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    words = ["the", "author", "of", "these", "tales", "was", "born", "by", "a", "river", "in", "spring"]
    from rouge_score.rouge_scorer import RougeScorer  # with nltk, a second to import

    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    rows, best = [], []
    for index in range(12):
        answer = " ".join(rng.permutation(words)[:6])
        samples = [" ".join(rng.permutation(words)[: rng.integers(1, 12)]) for _ in range(4)]
        if index % 3 == 0:
            samples[rng.integers(4)] = f"well, {answer}"
        rows.append(Record("forget", index, "?", Continuation(answer), samples=samples))
        best.append(max(scorer.score(answer, sample)["rougeL"].recall for sample in samples))
    found = evaluate(Records(rows), None, ["sampled_rougeL_recall", "leak"], USUAL_SETS)
    assert found["forget_sampled_rougeL_recall"].value == pytest.approx(np.mean(best))
    assert found["forget_leak"].value == pytest.approx(np.mean([each >= 0.9 for each in best]))
    assert 0 < found["forget_leak"].value < 1
    # one greedy answer is one sample
    greedy = Records([Record("forget", 0, "?", rows[0].answer, generation=Generation(rows[0].samples[1]))])
    one = Records([Record("forget", 0, "?", rows[0].answer, samples=[rows[0].samples[1]])])
    names = ["sampled_rougeL_recall", "leak"]
    assert evaluate(greedy, None, names, USUAL_SETS) == evaluate(one, None, names, USUAL_SETS)
