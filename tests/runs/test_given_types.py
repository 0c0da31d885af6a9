"""Options from Python: what is of another type is refused in words, and what the command line takes is taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import grun_bench
from grun_bench.core.errors import UsageError
from grun_bench.core.given import listed
from grun_bench.runs.config import RunConfig
from grun_bench.runs.given_types import check_given


def test_every_default_is_of_its_kind() -> None:
    check_given(vars(RunConfig("npo")))


@pytest.mark.parametrize(
    "given",
    [
        {"seed": np.int64(3), "limit": 1, "eval_every": None},
        {"strengths": np.linspace(0.5, 1.5, 3)},
        {"strengths": (1.5,), "attacks": ["prefill"], "track": "wandb,mlflow", "include": [Path("a.py"), "b"]},
        {"save": Path("model"), "output": "results", "model": Path("model"), "target_model": "org/name"},
        {"device_map": {"model": "cpu"}, "columns": {"question": "Q"}, "lr": "a setting and none of these"},
    ],
)
def test_what_is_of_its_kind_is_taken(given: dict[str, Any]) -> None:
    check_given(given)


WRONG = {
    "seed": ["1", -1, 2**32, 1.0, True, None],
    "limit": [0, -1, 2.5, "4"],
    "strengths": ["0.5", 0.5, ["a"], [True], [float("nan")], {}, None],
    "track": [3, None, [3]],
    "attacks": [3, {"prefill": 1}],
    "save": [3, "", b"model", "mod\0el"],
    "device_map": [3, ["cpu"], {1: "cpu"}],
    "output": [None],
    "model": [3, ""],
    "include": ["plugin.py", [3]],
    "augment": ["yes", 1],
    "dtype": [32],
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_of_another_kind_is_refused_by_its_name(name: str) -> None:
    assert name in {each.name for each in fields(RunConfig)}
    for value in WRONG[name]:
        with pytest.raises(UsageError, match=rf"^{name}=.*: must be "):
            grun_bench.run("grun+npo", "tofu_forget10", **{name: value})


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: grun_bench.run(3, "tofu_forget10"), "unlearner=3"),
        (lambda: grun_bench.run("npo", 3), "task=3"),
        (lambda: grun_bench.run("npo", None), "task=None"),
        (lambda: grun_bench.run("npo", torch.zeros(2)), "task=tensor"),
        (lambda: grun_bench.run("npo", "tofu_forget10", settings=[1]), "settings="),
        (lambda: grun_bench.run("npo", "tofu_forget10", settings={1: 2}), "settings="),
        (lambda: grun_bench.evaluate(3, None, 3), "task=3"),
        (lambda: grun_bench.evaluate(3, None, "tofu_forget10", name=3), "name=3"),
        (lambda: grun_bench.evaluate(3, None, "tofu_forget10", settings="lr"), "settings='lr'"),
        (lambda: grun_bench.evaluate(3, None, "tofu_forget10"), "model=3"),
        (lambda: grun_bench.evaluate(nn.Linear(1, 1), "tofu", "tofu_forget10"), "tokenizer='tofu'"),
        (lambda: grun_bench.load_results(3), "folder=3"),
        (lambda: grun_bench.load(3), "folder=3"),
        (lambda: grun_bench.load(None), "folder=None"),
        (lambda: grun_bench.load(b"model"), "folder=b'model'"),
        (lambda: grun_bench.load("model", base=3), "base=3"),
        (lambda: grun_bench.push_to_hub(3, "org/name"), "folder=3"),
        (lambda: grun_bench.push_to_hub("model", 3), "repository=3"),
        (lambda: grun_bench.push_to_hub("model", "org/name", private="no"), "private='no'"),
    ],
)
def test_what_is_no_option_is_refused_by_its_name_too(call: Callable[[], Any], name: str) -> None:
    with pytest.raises(UsageError, match=rf"^{re.escape(name)}.*: must be "):
        call()


def test_a_dtype_is_one_of_those_by_name() -> None:
    with pytest.raises(UsageError, match=r"--dtype 'torch\.float32': did you mean float32"):
        grun_bench.load("model", dtype=torch.float32)  # type: ignore[arg-type]


def test_how_settings_were_found_is_no_option() -> None:
    with pytest.raises(UsageError, match="--tuned is `tuning`"):
        grun_bench.run("npo", "tofu_forget10", tuned=3)


# --- texts with commas between ----------------------------------------------------------------------------------------


def test_what_stands_between_commas() -> None:
    assert listed("--track", "a, b ,c") == ["a", "b", "c"]
    assert listed("--track", "") == listed("--track", " ") == []


@pytest.mark.parametrize("text", ["a,,b", ",a", "a,", ",", "a, ,b"])
def test_nothing_beside_a_comma_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"^--track {text}: nothing stands beside one of its commas"):
        listed("--track", text)


def test_of_numbers_of_hundreds_of_digits_the_first_are_told() -> None:
    for given in ({"seed": 10**400}, {"seed": 10**5000}, {"lr": 10**400}, {"lr": 10**5000}, {"limit": [10**5000]}):
        with pytest.raises(UsageError, match=f"{next(iter(given))}=.*(100000000000…|thousands of digits)") as raised:
            grun_bench.run("full+npo", "tofu_forget10", **given)
        assert len(str(raised.value)) < 200
