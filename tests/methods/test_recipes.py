"""Named recipes: what RECIPES.md says of them is what they are, and a run without one is as it was."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import FORGET, RETAIN, Command
from torch.nn.functional import cross_entropy

from grun_bench.core import registry
from grun_bench.core.errors import UsageError
from grun_bench.core.settings import said
from grun_bench.methods.adapters.full import Full
from grun_bench.methods.alternates import sample_alternates
from grun_bench.methods.draws import Draw, encode_rows
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.recipes import Recipe, read_recipes
from grun_bench.methods.retain_terms import retain_ce
from grun_bench.methods.step import Step
from grun_bench.models.batch import Encoded
from grun_bench.models.lm import LM
from grun_bench.results.store import read_result, result_files
from grun_bench.runs.config import config_of
from grun_bench.runs.inputs import resolve
from grun_bench.runs.session import Session
from grun_bench.tasks.task import load_task
from grun_bench.tasks.world import PUBLISHED, TOY

DOCUMENT = (Path(__file__).parents[2] / "RECIPES.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in DOCUMENT.splitlines()
    if "+" in line[:80] and line[0] == "|"
]
FILED = Path(__file__).parents[2] / "leaderboards" / "results"
NAMED = ("paper", "open-unlearning")
#: everything that is trained in some recipe but the default one
PAIRS = [
    (*section.split("/"), pair)
    for section, names in read_recipes().items()
    if "/" in section
    for pair in names
    if "+" in pair
]


def settings(pair: str, recipe: str, family: str, **more: Any) -> dict[str, Any]:
    return {"recipe": "default"} | make_unlearner(pair, {"recipe": recipe} | more, PUBLISHED, family=family).settings


def everything(pair: str, recipe: str, family: str) -> dict[str, Any]:
    """The settings with those that results leave out."""
    found = make_unlearner(pair, {"recipe": recipe}, PUBLISHED, "bfloat16", family)
    return vars(found.recipe) | found.settings


@pytest.mark.parametrize("row", ROWS, ids=lambda row: " ".join(row[1:4]))
def test_the_document_says_what_the_recipes_are(row: list[str]) -> None:
    _, pair, family, setting, *values = row
    for recipe, value in zip(("default", *NAMED), values, strict=True):
        if value:
            found = everything(pair, recipe, family)
            # a setting of results that is at its default is not said; those of objectives have it in the code
            default = {"request": "llama-2", "new_tokens": 0}.get(setting)
            assert found.get(setting, default) == yaml.safe_load(value.replace('""', "''")), recipe


def test_the_document_has_every_difference_that_was_measured() -> None:
    assert len(ROWS) > 35 and {row[1] for row in ROWS} >= {
        "grun+rmu",
        "lora+gd",
        "full+idk",
        "full+altpo",
        "full+undial",
    }
    for pair in {row[1] for row in ROWS}:
        assert any(pair == each for _, _, each in PAIRS)


#: what OpenUnlearning's experiments compose at d3d7cf9: unlearn/tofu/default with each trainer. Its alpha weighs the
#: retain term, its gamma the forget term
COMPOSED: dict[str, dict[str, Any]] = {
    "full+ga": {"retain": None},
    "full+gd": {"forget_weight": 1.0, "retain_weight": 1.0, "retain": "ce"},
    "full+npo": {"forget_weight": 1.0, "retain_weight": 1.0, "beta": 0.1, "retain": "ce"},
    "full+dpo": {"forget_weight": 1.0, "retain_weight": 1.0, "beta": 0.1, "retain": "ce"},
    "full+simnpo": {"forget_weight": 0.125, "retain_weight": 1.0, "beta": 4.5, "delta": 0.0, "retain": "ce"},
    "full+rmu": {
        "steering": 2.0,
        "retain_weight": 1.0,
        "layer": 7,
        "positions": "answer",
        "weights": "",
        "retain": "hidden",
    },
    "full+undial": {"beta": 10.0, "retain": None},
    "full+ceu": {"skip": 1, "retain": None},
    "full+satimp": {"beta1": 5.0, "beta2": 1.0, "forget_weight": 0.1, "retain_weight": 1.0, "retain": "ce"},
    "full+wga": {"beta": 1.0, "forget_weight": 1.0, "retain_weight": 1.0, "retain": "ce"},
    "full+pdu": {"retain_weight": 100.0, "dual_step": 5.0, "dual_warmup": 0.5, "retain_limit": 0.3, "retain": "ce"},
    "full+altpo": {"beta": 0.1, "alternates": 5, "temperature": 1.0, "new_tokens": 200, "retain": "ce"},
}
TRAINER = {"lr": 1e-5, "epochs": 10, "weight_decay": 0.01, "warmup": 0.1, "decay": "linear", "clip": 1.0}


@pytest.mark.parametrize("pair", COMPOSED)
def test_open_unlearning_is_what_its_experiments_compose(pair: str) -> None:
    found = everything(pair, "open-unlearning", "tofu")
    expected = TRAINER | COMPOSED[pair] | ({"warmup": 0.5} if pair == "full+altpo" else {})
    assert {name: found[name] for name in expected} == expected
    # 8 rows x 4 steps; the script of PDU has 4 x 4 x 8 devices
    assert found["batch_size"] * found["accumulate"] == (128 if pair == "full+pdu" else 32)


def test_every_pair_of_open_unlearning_is_compared() -> None:
    assert {pair for recipe, family, pair in PAIRS if (recipe, family) == ("open-unlearning", "tofu")} == set(COMPOSED)


@pytest.mark.parametrize("world", [PUBLISHED, TOY], ids=["published", "toy"])
def test_every_recipe_makes_an_unlearner_that_says_it(world: Any) -> None:
    for recipe, family, pair in PAIRS:
        found = make_unlearner(pair, {"recipe": recipe}, world, family=family).settings
        assert found["recipe"] == recipe
        # whole: what it is made of is in the result, and makes the same again
        assert make_unlearner(pair, found, world, family=family).settings == found


def test_changed_settings_of_a_recipe_make_the_same_again() -> None:
    found = settings("full+npo", "paper", "tofu", partner="shuffled", warmup_from_zero=False)
    assert found["partner"] == "shuffled" and found["accumulate"] == 32
    assert settings("full+npo", "paper", "tofu", **{key: found[key] for key in found if key != "recipe"}) == found


def test_without_a_recipe_results_say_what_they_said() -> None:
    """Settings that came later stand in results only where they differ: rows that are filed keep their ids."""
    later = set(vars(Recipe())) - set(said(vars(Recipe()), Recipe))
    assert later >= {"steps", "decay", "warmup_from_zero", "mean_over", "partner", "others", "trained_from"}
    for name in ("full+npo", "lora+altpo", "grun+rmu"):
        plain = make_unlearner(name, {}, PUBLISHED).settings
        assert not plain.keys() & {*later, "request", "new_tokens", "recipe"}
        assert make_unlearner(name, {"recipe": "default", "decay": "linear"}, PUBLISHED).settings == plain
        assert make_unlearner(name, {"decay": "constant"}, PUBLISHED).settings == plain | {"decay": "constant"}


@pytest.mark.parametrize("name", ["none", "retain", "full+npo", "lora+altpo", "grun+npo", "task-vector"])
def test_filed_rows_of_the_toy_world_keep_their_ids(name: str) -> None:
    path = min((FILED / "tofu_forget10" / "tiny" / name).glob("*.json"))
    config = config_of(read_result(path), device="cpu")
    session = Session.of(config)
    with session.in_force():
        inputs = resolve(config, session)
        assert inputs.run_id(inputs.method) == read_result(path).run_id


@pytest.mark.parametrize(
    ("name", "recipe", "family", "told"),
    [
        ("full+npo", "papers", "tofu", "did you mean paper"),
        ("grun+ceu", "paper", "tofu", r"none of grun\+ceu for tofu, but of .*grun\+npo"),
        ("full+npo", "open-unlearning", "wmdp", r"none of full\+npo for wmdp, but of full\+rmu"),
        ("full+npo", "paper", None, "for tasks of the families tofu, wmdp"),
        ("task-vector", "paper", "tofu", "recipes are of pairs"),
    ],
)
def test_what_a_recipe_does_not_have_is_refused(name: str, recipe: str, family: str | None, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        make_unlearner(name, {"recipe": recipe}, PUBLISHED, family=family)


def test_tasks_say_their_family() -> None:
    families = {
        name: load_task(name).family for name in ("tofu_lite", "tofu_sequential", "wmdp_cyber_grun", "wmdp_bio")
    }
    assert families == {"tofu_lite": "tofu", "tofu_sequential": "tofu", "wmdp_cyber_grun": "wmdp", "wmdp_bio": "wmdp"}
    assert load_task("tofu_lite").in_toy_world().family == "tofu"


@pytest.mark.whole
def test_the_command_line_names_a_recipe_and_the_result_says_it(command: Command, tmp_path: Path, hub: Path) -> None:
    task = tmp_path / "task.yaml"
    task.write_text(f"{(hub / 'small.yaml').read_text()}family: tofu\n")
    short = ("--set", "epochs=1", "--set", "layers=[1,2]", "--output", tmp_path / "out", "--device", "cpu")
    told = command(
        "run", "--task", task, "--model", "org/small", "--unlearner", "grun+npo", "--recipe", "paper", *short
    )
    assert told.code == 0, told.err
    (result,) = [read_result(path) for path in result_files(tmp_path / "out") if "grun+npo" in str(path)]
    assert result.unlearner.settings["recipe"] == "paper" and result.unlearner.settings["partner"] == "fixed"
    shown = command("show", result.run_id, "--output", tmp_path / "out").out
    assert re.search(r"recipe\W+paper", shown), shown


# --- what losses are means over ---------------------------------------------------------------------------------------


def terms(lm: LM, name: str, mean_over: str) -> tuple[dict[str, float], dict[str, list[torch.Tensor]]]:
    """The loss terms of a batch of three rows, and by hand each token's loss, answer by answer."""
    recipe, rows = Recipe(mean_over=mean_over), [0, 1, 2]
    sequences = {"forget": encode_rows(lm, FORGET, recipe), "retain": encode_rows(lm, RETAIN, recipe)}
    sequences["idk"] = [lm.prompts.encode(question, "No.") for question, _ in FORGET]
    adapter = Full()
    adapter.attach(lm.model)
    step = Step(lm, adapter, registry.get("objective", name).target, retain_ce, recipe, sequences, 0)
    names = ("idk", "retain") if name == "idk" else ("forget", "retain")
    found = step.losses(Draw(0.0, dict.fromkeys(names if name != "idk" else ("forget", *names), rows)))
    return {key: value.item() for key, value in found.items()}, {
        key: [losses(lm, sequences[key][row]) for row in rows] for key in names
    }


@torch.no_grad()
def losses(lm: LM, row: Encoded) -> torch.Tensor:
    logits = lm.model(torch.tensor([row.prompt + row.answer])).logits[0, len(row.prompt) - 1 : -1]
    return cross_entropy(logits, torch.tensor(row.answer), reduction="none")


def test_losses_are_means_of_sums_over_sequences(lm: LM) -> None:
    found, by_hand = terms(lm, "gd", "sequences")
    forget, retain = (sum(each.sum().item() for each in by_hand[key]) / 3 for key in ("forget", "retain"))
    assert found == pytest.approx({"forget": -forget, "retain": retain}, rel=1e-5)


def test_refusals_and_retain_answers_are_pooled(lm: LM) -> None:
    found, by_hand = terms(lm, "idk", "pooled")
    tokens = torch.cat([each for rows in by_hand.values() for each in rows])
    assert found["forget"] + found["retain"] == pytest.approx(tokens.mean().item(), rel=1e-5)
    short, long = (sum(map(len, by_hand[key])) for key in ("idk", "retain"))
    # one mean weighs a short refusal less than a long answer: the two means weigh them alike
    plain = terms(lm, "idk", "tokens")[0]
    assert found["forget"] / plain["forget"] == pytest.approx(short / (short + long), rel=1e-5)


def test_alternates_are_asked_for_as_the_recipe_says(lm: LM, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    prompt = lm.prompts.prompt
    monkeypatch.setattr(lm.prompts, "prompt", lambda *given: asked.append(given) or prompt(*given))
    torch.manual_seed(0)
    texts = sample_alternates(lm, FORGET[:2], 4, alternates=3, request="llama-3", new_tokens=7)
    assert [len(each) for each in texts] == [3, 3]
    assert all(len(text) <= 7 for each in texts for text in each)
    (question, _, begun), *_ = asked
    assert question.startswith("Question: Who?\nAnswer: Ada.\n") and begun == "Alternate Answer :"
