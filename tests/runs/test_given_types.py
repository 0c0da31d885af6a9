"""Options from Python: what is of another type is refused in words, and what the command line takes is taken."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import grun_bench
from grun_bench.core.errors import UsageError
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
    "save": [3, "", b"model"],
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
