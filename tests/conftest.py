"""Fixtures: a small random Llama with a tokenizer of its own, made in memory."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
import yaml
from transformers import PreTrainedTokenizerBase

from grun_bench import cli
from grun_bench.models.lm import LM
from grun_bench.plugin_checks.small_model import (  # test modules import the pairs from here
    FORGET,  # noqa: F401
    RETAIN,  # noqa: F401
    byte_tokenizer,
    small_lm,
)
from grun_bench.tasks import toy_world as world

#: where the data sets library, imported later, keeps its copies: not in the user's cache
_DATASETS = tempfile.TemporaryDirectory(prefix="grun-bench-tests-")
os.environ["HF_DATASETS_CACHE"] = _DATASETS.name
# now, before any test captures the stream that its logger writes to
import datasets  # noqa: E402, F401

#: files of few tests that take long: processes that are handed whole files begin with them, so that none waits for
#: another at the end
LONG = ("test_executors.py", "test_examples.py", "test_own_runs.py", "test_row.py", "test_tune.py", "test_meta_eval.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first, then those of many tests."""
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.name not in LONG, -tests[item.path]))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their parameter: what packs them may write the time into them, and processes that collect the
    same tests at different seconds must give them the same names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """One token a byte, with the beginning of sequence put before a text."""
    return byte_tokenizer()


@pytest.fixture(scope="session")
def make_lm(tokenizer: PreTrainedTokenizerBase) -> Callable[..., LM]:
    """Builds the same small random Llama on every call: 6 layers, hidden 32, fp32, in evaluation mode."""
    return partial(small_lm, tokenizer=tokenizer)


@pytest.fixture
def lm(make_lm: Callable[..., LM]) -> LM:
    """A fresh small random Llama."""
    return make_lm()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: the tests are small, and sums do not depend on how many cores there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of published data: GRUN_BENCH_SHARED, else `shared` beside the repository."""
    folder = Path(os.environ.get("GRUN_BENCH_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no published data at {folder}; set GRUN_BENCH_SHARED")
    return folder


# --- whole runs: a mirror with a small model and data, and the command line ------------------------------------------

#: configurations of the mirror's data set -> rows taken from the embedded world's one of that name
CONFIGS = {
    "forget01": 4,
    "retain99": 8,
    "forget01_perturbed": 4,
    "retain_perturbed": 4,
    "real_authors_perturbed": 3,
    "world_facts_perturbed": 3,
}
TASK = {
    "version": 1,
    "description": "A task of seconds.",
    "forget": ["locuslab/TOFU:forget01"],
    "retain": ["locuslab/TOFU:retain99"],
    "score": {
        "forget": "locuslab/TOFU:forget01_perturbed",
        "retain": "locuslab/TOFU:retain_perturbed",
        "real_authors": "locuslab/TOFU:real_authors_perturbed",
        "world_facts": "locuslab/TOFU:world_facts_perturbed",
    },
    "metrics": ["forget_quality", "model_utility", "probability", "gate"],
    "headline": ["forget_quality", "model_utility", "forget_probability"],
    "max_new_tokens": 4,
    "finetune": {"lr": 1e-3, "epochs": 1, "batch_size": 4},
}
SMALL = "org/small"


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory, make_lm: Callable[..., LM]) -> Path:
    """A mirror laid out by Hub ids: a small random model with its tokenizer, and TOFU-shaped data of a few rows."""
    folder = tmp_path_factory.mktemp("hub")
    lm = make_lm()
    for part in (lm.model, lm.tokenizer):
        part.save_pretrained(folder / SMALL)
    data = folder / "locuslab" / "TOFU"
    data.mkdir(parents=True)
    for config, count in CONFIGS.items():
        lines = [json.dumps(row) + "\n" for row in world.rows(config)[:count]]
        (data / f"{config}.json").write_text("".join(lines))
    card = {"configs": [{"config_name": config, "data_files": f"{config}.json"} for config in CONFIGS]}
    (data / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    (folder / "small.yaml").write_text(yaml.safe_dump(TASK))
    return folder


@dataclass
class Said:
    """What a command line left: exit code, stdout and stderr."""

    code: int
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def environment(hub: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mirror and a cache of the session in the environment. Returns the cache's folder."""
    cache = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(cache))
    monkeypatch.setenv("GRUN_BENCH_HUB", str(hub))
    monkeypatch.setenv("COLUMNS", "200")
    return cache


@pytest.fixture
def command(
    environment: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """Runs the program's entry point in this process: command("ls", "tasks")."""

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["grun-bench", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Said(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def small_run(hub: Path) -> list[str]:
    """The options of a run of seconds in the mirror; the unlearner and the output folder are to be added."""
    return ["run", "--task", str(hub / "small.yaml"), "--model", SMALL, "--set", "epochs=1"]


@pytest.fixture(scope="session")
def results(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of `grun+npo` on the small model with its target and retain rows. To be read, not changed."""
    from grun_bench.runs.config import RunConfig
    from grun_bench.runs.run import run

    output = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRUN_BENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("GRUN_BENCH_HUB", str(hub))
        run(RunConfig("grun+npo", str(hub / "small.yaml"), output, model=SMALL, overrides={"epochs": 1}))
    return output
