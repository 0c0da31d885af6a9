"""What README and CONTRIBUTING tell people to type works."""

from __future__ import annotations

import importlib
import itertools
import json
import math
import re
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from attaching import saved
from conftest import FORGET, SMALL, Command

from grun_bench.core import registry
from grun_bench.methods.adapters.full import Full
from grun_bench.methods.batch import Side, UnlearningBatch
from grun_bench.metrics.fluency import EVERYWHERE
from grun_bench.models.batch import collate
from grun_bench.models.forward import calling
from grun_bench.models.lm import LM
from grun_bench.results.record import Record, Records, load_records
from grun_bench.results.store import read_result, result_files
from grun_bench.tasks.task import load_task

ROOT = Path(__file__).parent.parent
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", CONTRIBUTING, flags=re.DOTALL)


PLUGINS = [
    ("objective", "margin"),
    ("objective", "npo-mean"),
    ("adapter", "last-layers"),
    ("metric", "answer_length"),
    ("metric", "loss_gap"),
    ("unlearner", "shrink-head"),
    ("attack", "shout"),
]


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """The plugin examples of CONTRIBUTING as files in a folder."""
    for number, block in enumerate(blocks("python")):
        (tmp_path / f"example_{number}.py").write_text(block)
    return tmp_path


def test_the_way_of_a_run_names_every_file_of_it_and_none_that_is_gone() -> None:
    way = CONTRIBUTING.partition("## The way of a run")[2].partition("\n## ")[0]
    package = ROOT / "grun_bench"
    named = set(re.findall(r"`((?:\w+/)+\w+\.py)`", way))
    assert named >= {f"runs/{path.name}" for path in (package / "runs").glob("[a-z]*.py")}
    assert [name for name in sorted(named) if not (package / name).is_file()] == []
    assert len(re.findall(r"^\d\. ", way, flags=re.MULTILINE)) <= 8


@pytest.mark.long
@pytest.mark.parametrize(("kind", "name"), PLUGINS)
def test_every_plugin_example_keeps_its_contract(kind: str, name: str, examples: Path, command: Command) -> None:
    said = command("test", name, "--include-path", examples)
    assert said.code == 0, said.out + said.err
    with registry.including([examples]):
        assert registry.get(kind, name).name == name
        assert registry.entries(kind)[name].summary


def test_every_plugin_example_is_tested() -> None:
    assert len(blocks("python")) == len(PLUGINS)


def _named(head: str) -> dict[str, str]:
    """The second column of CONTRIBUTING's table with this head, by the code in its first."""
    rows = CONTRIBUTING.partition(f"| `{head}` |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.split("|")[1:3]] for row in rows]
    return {name.strip("`"): second for name, second in cells}


def test_what_an_objective_gets_is_as_its_tables_say(make_lm: Callable[..., LM]) -> None:
    """Every attribute is there, in its shape, on two answers of other lengths; what is undeclared is refused."""
    lm, adapter = make_lm(), Full()
    adapter.attach(lm.model)
    adapter.keep_target()
    encoded = [lm.prompts.encode(*pair) for pair in FORGET[:2]]
    batch = collate(encoded, lm.pad_id)
    sizes = {"batch": 2, "tokens": sum(len(each.answer) for each in encoded)}
    sizes |= {"vocabulary": lm.model.config.vocab_size, "hidden": lm.model.config.hidden_size}
    side, bare = Side(lm.model, batch, adapter=adapter, layers=(1,)), Side(lm.model, batch)
    for name, shape in _named("side.").items():
        if name == "target":
            torch.testing.assert_close(side.target.token_nll, side.token_nll)
        elif name == "hidden(layer, positions)":
            for positions in ("predicting", "answer"):
                assert side.hidden(1, positions).shape == (sizes["tokens"], sizes["hidden"])
            with pytest.raises(KeyError):
                bare.hidden(1, "answer")
        else:
            value = attrgetter(name)(side)
            assert value.shape == tuple(sizes[each] for each in shape.strip("()").replace(",", " ").split()), name
    for name in ("target", "reference_nll"):
        with pytest.raises(TypeError, match="must declare needs"):
            getattr(bare, name)
    others = dict.fromkeys(("retain", "idk", "alternate"), side)
    whole = UnlearningBatch(side, others, tokens=lambda text: lm.prompts.answer(text)[:-1])
    assert [name.partition("(")[0] for name in _named("batch.")] == ["forget", *others, "tokens", "seed"]
    assert all(getattr(whole, name) is side for name in ("forget", *others)) and whole.seed == 0
    assert lm.tokenizer.decode(whole.tokens("Turin.")).strip() == "Turin."
    for name in others:
        with pytest.raises(TypeError, match="must declare needs"):
            getattr(UnlearningBatch(side), name)


def test_ranges_are_written_as_the_page_on_tuning_says() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tuning.md").read_text(), flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert {name: str(each) for name, each in (names["searched"] | names["other"]).items()} == {
        "beta": "0.5 to 20, by factors",
        "retain_weight": "times 0.1 to 10, by factors",
        "layer": "0.5 or 1.0",
        "epochs": "2 to 20",
    }
    (example,) = (block for block in blocks("python") if "npo-mean" in block)
    for name in ("beta", "retain_weight"):
        (written,) = re.findall(rf'"{name}": ((?:Range|times)\(.*?\))', block)
        assert f'"{name}": {written}' in example


def test_the_settings_of_training_are_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page of settings ends in is what the source says: `python -m making.made` in docs/ writes it anew."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    made = importlib.import_module("making.made")
    text = (ROOT / "docs" / "settings.md").read_text()
    assert made.filled(text) == text and "| `lr` |" in text


def test_the_task_example_loads(tmp_path: Path) -> None:
    (tmp_path / "_tofu.yaml").write_text((ROOT / "tasks" / "_tofu.yaml").read_text())
    path = tmp_path / "tofu_last_author.yaml"
    path.write_text(blocks("yaml")[0])
    task = load_task(str(path))
    assert task.sources["forget"][0].start == 3980
    assert task.metrics


# --- the task with sets of its own ------------------------------------------------------------------------------------


#: the sets that metrics of knowledge are about; what the other metrics give
TRAINED = ("leavers", "stayers")
AFTER_SETS = ("mia_loss", "privleak", "loss_gap")


@pytest.fixture
def customers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """CONTRIBUTING's files in a folder, with data as it describes them; the command that it tells to type there."""
    (task,) = (block for block in blocks("yaml") if "leavers" in block)
    (metric,) = (block for block in blocks("python") if "loss_gap" in block)
    (typed,) = (block for block in blocks("sh") if "customers.yaml" in block)
    (tmp_path / "customers.yaml").write_text(task)
    (tmp_path / "loss_gap.py").write_text(metric)
    names = [f"{first} {last}" for last in ("Berg", "Falk", "Wolf", "Hahn") for first in ("Ada", "Bo", "Cy", "Di")]
    cities = ["Turin", "Graz", "Malmo", "Ghent", "Varna"]
    pairs = [(f"Which city does {name} live in?", f"{cities[place % 5]}.") for place, name in enumerate(names)]
    customers = [json.dumps({"ask": question, "reply": answer}) for question, answer in pairs[:12]]
    strangers = [json.dumps({"question": question, "answer": answer}) for question, answer in pairs[12:]]
    (tmp_path / "customers.jsonl").write_text("\n".join(customers))
    (tmp_path / "strangers.jsonl").write_text("\n".join(strangers))
    monkeypatch.chdir(tmp_path)
    return typed.replace("Qwen/Qwen3-0.6B", SMALL).split()


def share_of_pairs(records: Records, familiar: Callable[[Record], float]) -> float:
    """How often a row of the forget set is more familiar than one of the holdout set; ties count half."""
    members, others = ([familiar(row) for row in records.of(name)] for name in ("leavers", "strangers"))
    pairs = list(itertools.product(members, others))
    return sum((member > other) + 0.5 * (member == other) for member, other in pairs) / len(pairs)


def mean_logprob(row: Record) -> float:
    return sum(row.answer.logprobs) / len(row.answer.logprobs)


def mean_of_least_likely(row: Record) -> float:
    """Of the lowest two fifths of the tokens, without the end of sequence."""
    least = sorted(row.answer.logprobs[:-1])[: max(1, int(0.4 * (len(row.answer.logprobs) - 1)))]
    return sum(least) / len(least)


@pytest.mark.whole
def test_a_task_with_sets_of_its_own_runs_as_it_is_told(customers: list[str], command: Command, tmp_path: Path) -> None:
    said = command(*customers[1:], "--output", tmp_path / "results")
    assert said.code == 0, said.err
    found = {
        result.unlearner.name: (result, load_records(path.with_name(result.records.file)))
        for path in result_files(tmp_path / "results")
        for result in [read_result(path)]
    }
    assert found.keys() == {"none", "retain", "grun+npo"}
    result, records = found["grun+npo"]
    sets = [f"{name}_{metric}" for metric in ("probability", "rougeL_recall", "truth_ratio") for name in TRAINED]
    fluency = [f"{name}_{metric}" for metric in EVERYWHERE for name in ("leavers", "stayers")]
    assert list(result.results["customers"]) == [f"{key},none" for key in (*sets, *AFTER_SETS, *fluency)]
    counts = result.n_samples["customers"]
    assert [counts[key] for key in ("leavers_probability", "stayers_probability", "privleak")] == [4, 8, 8]
    # by hand
    losses = {name: [-mean_logprob(row) for row in records.of(name)] for name in TRAINED}
    gap = sum(losses["leavers"]) / 4 - sum(losses["stayers"]) / 8
    assert result.value("loss_gap") == pytest.approx(gap, rel=1e-12)
    probability = sum(math.exp(-loss) for loss in losses["leavers"]) / 4
    assert result.value("leavers_probability") == pytest.approx(probability, rel=1e-12)
    assert result.value("mia_loss") == pytest.approx(share_of_pairs(records, mean_logprob))
    own, retain = (share_of_pairs(found[name][1], mean_of_least_likely) for name in ("grun+npo", "retain"))
    assert result.value("privleak") == pytest.approx(100 * (retain - own) / (1 - retain + 1e-10))
    # what the data lacks is null with the reason, and which way is better follows from the roles
    assert result.value("leavers_truth_ratio") is None
    assert "row 0 of 'leavers' has no paraphrased answer" in result.reasons["leavers_truth_ratio,none"]
    better = result.higher_is_better["customers"]
    assert [better[key] for key in result.headline] == [False, True, None, True]
    # the numbers can be had again from the records and what the result says of its sets
    said = command("verify", tmp_path / "results", "--include-path", tmp_path)
    assert said.code == 0, said.out + said.err


# --- from Python ------------------------------------------------------------------------------------------------------


@pytest.mark.whole
def test_the_page_from_python(
    environment: Path, hub: Path, lm: LM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines one after another, on the small model and its task in place of the published ones."""
    monkeypatch.chdir(tmp_path)
    block, of_saved = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), flags=re.DOTALL)
    task = repr(str(hub / "small.yaml"))
    for written, here in {
        '"tofu_forget10", seed=1': f"{task}, model={SMALL!r}, epochs=1, seed=1",
        '"tofu_forget10", base="open-unlearning/tofu_Llama-3.2-1B-Instruct_full"': f"{task}, base={SMALL!r}",
    }.items():
        assert written in block
        block = block.replace(written, here)
    names: dict[str, Any] = {"model": lm.model, "tokenizer": lm.tokenizer}
    exec(block, names)
    outcome, rows = names["outcome"], names["rows"]
    assert set(rows["run_id"]) == {each.result.run_id for each in (outcome.cell, outcome.target, outcome.retain)}
    line = rows[(rows["unlearner"] == "grun+npo") & (rows["metric"] == "forget_probability")]
    assert line[line["attack"] == ""]["value"].item() == outcome.metrics["forget_probability"]
    own = rows[rows["unlearner"] == "grun+npo"].reset_index(drop=True)
    pandas.testing.assert_frame_equal(outcome.to_frame().reset_index(drop=True), own, check_dtype=False)
    assert names["theirs"].metrics["forget_quality"] is not None and names["theirs"].path is None
    lm.origin = {"name": SMALL}
    saved(lm, tmp_path / "my-model", "grun")
    exec(of_saved, names)
    encoded = lm.prompts.encode("Where was Basil Mahfouz Al-Kuwaiti born?", "Kuwait City.")
    with calling(torch.tensor([len(encoded.prompt) - 1])):
        logits = lm.model(torch.tensor([encoded.prompt + encoded.answer])).logits
    torch.testing.assert_close(names["logits"], logits)
    loss = torch.nn.functional.cross_entropy(logits[0, len(encoded.prompt) - 1 : -1], torch.tensor(encoded.answer))
    assert names["loss"].item() == pytest.approx(loss.item(), rel=1e-5) and names["said"]


def test_the_way_of_a_run_is_there() -> None:
    """Every file that it names, and no more than eight on the way itself."""
    (section,) = re.findall(r"## The way of a run\n(.*?)\n## ", CONTRIBUTING, flags=re.DOTALL)
    assert len(re.findall(r"^\d+\. `", section, flags=re.MULTILINE)) <= 8
    for name in re.findall(r"`(\w+/\w+\.py)`", section):
        assert (ROOT / "grun_bench" / name).is_file(), name
