"""Each patch of a foreign library: what it changes is there, is really used by the library, and is put back."""

from __future__ import annotations

import ast
import datetime
import importlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from grun_bench.core import patches
from grun_bench.models.lm import LM

NOON = datetime.datetime(1999, 12, 31, 12)
PACKAGE = Path(patches.__file__).parents[1]


# --- the Hub ----------------------------------------------------------------------------------------------------------

#: asks the Hub for a model within the block and after it; says how many names were looked up for it
ASKING = """
import json, os, socket, time
{first}
from grun_bench.core.patches import offline_if_unreachable
looked_up = []
def lookup(host, *args, **options):
    looked_up.append(host)
    raise OSError("no such name")
socket.getaddrinfo, time.sleep = lookup, lambda seconds: None
def ask():
    from transformers import AutoConfig
    before = len(looked_up)
    try:
        AutoConfig.from_pretrained("someone/nothing")
    except (OSError, ValueError):
        return len(looked_up) - before
with offline_if_unreachable():
    inside = ask()
print(json.dumps([inside, ask(), "HF_HUB_OFFLINE" in os.environ]))
"""


@pytest.mark.long
@pytest.mark.parametrize("first", ["", "import transformers, datasets; transformers.AutoConfig"])
def test_an_unreachable_hub_is_not_asked_within_the_block_alone(first: str, tmp_path: Path) -> None:
    """Whether its libraries are imported in the block or before."""
    environment = {key: value for key, value in os.environ.items() if "OFFLINE" not in key}
    done = subprocess.run(
        [sys.executable, "-c", ASKING.format(first=first)],
        env=environment | {"HF_HOME": str(tmp_path), "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    inside, after, left = json.loads(done.stdout.splitlines()[-1])
    assert inside == 0 and after > 0 and not left


@pytest.mark.parametrize("module", patches.HUB_SWITCHES)
def test_the_switches_of_the_hub_are_where_they_were(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.import_module(module)
    name = patches.HUB_SWITCHES[module]
    if module == "transformers.utils.hub" and not hasattr(found, name):
        # transformers 5: huggingface_hub is asked, whose switch is in the table
        assert found.is_offline_mode is importlib.import_module("huggingface_hub").is_offline_mode
        return
    assert isinstance(getattr(found, name), bool)
    monkeypatch.setattr(found, name, False)
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)

    def lookup(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    with patches.offline_if_unreachable():
        assert getattr(found, name) is True and os.environ["HF_HUB_OFFLINE"] == "1"
    assert getattr(found, name) is False and "HF_HUB_OFFLINE" not in os.environ
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with patches.offline_if_unreachable():
        assert getattr(found, name) is False, "a setting of the user's own is left alone"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "hub" / "someone" / "quiz"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text(json.dumps({"question": "Who?", "answer": "Ada"}) + "\n")
    monkeypatch.setenv("GRUN_BENCH_HUB", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return folder


def test_lm_eval_loads_data_sets_from_mirrors(mirror: Path) -> None:
    """lm-eval's own task, given the Hub's id, through whatever it calls."""
    import datasets
    from lm_eval.tasks import TaskManager

    task = {
        "task": "quiz",
        "dataset_path": "someone/quiz",
        "output_type": "generate_until",
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
    }
    before = datasets.load_dataset
    with patches.mirrored_datasets():
        loaded = TaskManager(include_defaults=False).load([task])["tasks"]["quiz"]
    assert loaded.dataset["test"].to_list() == [{"question": "Who?", "answer": "Ada"}]
    assert datasets.load_dataset is before


# --- transformers -----------------------------------------------------------------------------------------------------


def test_chat_templates_read_the_clock_of_the_block(tokenizer: PreTrainedTokenizerBase) -> None:
    from transformers.utils import chat_template_utils

    def today() -> str:
        return tokenizer.apply_chat_template(
            [{"role": "user", "content": "Who?"}],
            chat_template="{{ strftime_now('%Y') if strftime_now is defined else 'no clock' }}",
            tokenize=False,
        )

    own = chat_template_utils.datetime
    with patches.template_clock(NOON):
        assert today() == "1999"
    assert today() == str(datetime.datetime.now().year)
    assert chat_template_utils.datetime is own


def test_key_heads_reach_attention_unrepeated(lm: LM) -> None:
    """Two key heads for four query heads, as the small model has them, in the call of torch's attention."""
    from torch.overrides import TorchFunctionMode

    attention, seen = torch.nn.functional.scaled_dot_product_attention, []

    class Spy(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if function is attention:
                query, key, value, *rest = args
                seen.append((query.shape[1], key.shape[1]))
                repeated = [each.repeat_interleave(query.shape[1] // each.shape[1], 1) for each in (key, value)]
                return function(query, *repeated, *rest, **(kwargs or {}) | {"enable_gqa": False})
            return function(*args, **(kwargs or {}))

    lm.model.set_attn_implementation("sdpa") if hasattr(lm.model, "set_attn_implementation") else None
    ids = torch.tensor([[5, 6, 7, 8]])
    mask = torch.ones_like(ids)
    mask[0, 0] = 0  # a mask of padding: without one, newer versions let torch share the heads
    with torch.no_grad():
        own = lm.model(ids, attention_mask=mask).logits
        with Spy():
            lm.model(ids, attention_mask=mask)
            assert set(seen) == {(4, 4)}, "unpatched, transformers repeats them: the patch is still needed"
            seen.clear()
            with patches.shared_key_heads(lm.model) as shared:
                patched = lm.model(ids, attention_mask=mask).logits
    assert shared and set(seen) == {(4, 2)}
    torch.testing.assert_close(patched[:, 1:], own[:, 1:])
    groups = {getattr(module, "num_key_value_groups", 2) for module in lm.model.modules()}
    assert groups == {2}


@pytest.mark.parametrize(
    ("patch", "library"), [(patches.no_bars, "transformers"), (patches.no_dataset_bars, "datasets")]
)
def test_bars_of_hugging_face_are_off_within_the_block_alone(
    patch: Callable[[], AbstractContextManager[None]], library: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """The library's own bar: transformers' of weights, datasets' of whatever it reads."""
    bar = {"transformers": "transformers.utils.logging", "datasets": "datasets.utils.tqdm"}[library]
    tqdm = importlib.import_module(bar).tqdm

    def shown() -> str:
        capfd.readouterr()
        list(tqdm([1]))
        return capfd.readouterr().err

    with patch():
        assert shown() == ""
    assert "1/1" in shown(), "outside of the block there is a bar: the patch is still needed"


# --- lm-eval ----------------------------------------------------------------------------------------------------------


def test_lm_eval_is_quiet_within_the_block_alone(mirror: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from lm_eval.tasks import TaskManager

    rows = [{"question": "Who?", "answer": "Ada"}]
    import datasets

    task = TaskManager(include_defaults=False).load(
        [
            {
                "task": "quiz",
                "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)},
                "output_type": "generate_until",
                "test_split": "test",
                "doc_to_text": "{{question}}",
                "doc_to_target": "{{answer}}",
            }
        ]
    )["tasks"]["quiz"]
    logger = logging.getLogger("lm_eval")
    level = logger.level
    capfd.readouterr()
    with patches.quiet_lm_eval():
        task.build_all_requests()
        assert logger.level == logging.ERROR
        assert capfd.readouterr().err == ""
    task.build_all_requests()
    assert "1/1" in capfd.readouterr().err, "outside of the block it shows its bar: the patch is still needed"
    assert logger.level == level


# --- saving -----------------------------------------------------------------------------------------------------------


def test_what_transformers_refuses_to_save_is_saved_within_the_block_alone(lm: LM, tmp_path: Path) -> None:
    said = lm.model.generation_config
    said.temperature = 0.9  # without sampling
    with patches.any_generation_config():
        lm.model.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "generation_config.json").read_text())["temperature"] == 0.9
    with pytest.raises(ValueError, match="temperature"):  # the patch is still needed
        lm.model.save_pretrained(tmp_path / "refused")


# --- all of them ------------------------------------------------------------------------------------------------------


def test_an_error_in_the_block_leaves_nothing_behind(lm: LM) -> None:
    import datasets
    from lm_eval.api import task
    from transformers.utils import chat_template_utils

    config = lm.model.generation_config
    before = datasets.load_dataset, task.tqdm, chat_template_utils.datetime, type(config).validate
    for patch in (
        patches.mirrored_datasets,
        patches.quiet_lm_eval,
        lambda: patches.template_clock(NOON),
        lambda: patches.shared_key_heads(lm.model),
        patches.any_generation_config,
    ):
        with pytest.raises(KeyError), patch():
            raise KeyError
    assert (datasets.load_dataset, task.tqdm, chat_template_utils.datetime, type(config).validate) == before
    assert {getattr(module, "num_key_value_groups", 2) for module in lm.model.modules()} == {2}


@pytest.mark.long
def test_patches_are_in_one_place() -> None:
    """No other file sets an attribute of a module that is not the package's own."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path == Path(patches.__file__):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            (alias.asname or alias.name).split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else []
            for target in targets:
                owner = target
                while isinstance(owner, ast.Attribute):
                    owner = owner.value
                if isinstance(target, ast.Attribute) and isinstance(owner, ast.Name) and owner.id in imported:
                    found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setattr":
                found.append(f"{path.relative_to(PACKAGE)}:{node.lineno}")
    assert not found
