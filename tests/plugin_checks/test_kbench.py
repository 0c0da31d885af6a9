"""`test --kbench`: a port of GRUN to K-Bench's contract, written here from the format, and what is wrong with others.

K-Bench's own port is held against ours where KBENCH_CLONE names a clone of it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from attaching import chat_tokenizer, saved
from conftest import SMALL, Said

import grun_bench
from grun_bench.integrations.pyreft import export_pyreft, import_pyreft
from grun_bench.models.lm import LM
from grun_bench.plugin_checks.kbench import PORT, conformance
from grun_bench.plugin_checks.small_model import small_lm

LAYERS = [1, 3, 5]
#: the forward pass of the format in plain hooks; `{...}` are where a port can be wrong
WRITTEN = """
import json
from pathlib import Path
import torch

class GRUNIntervention:
    def __init__(self, reft_path):
        self.folder, self.hooks, self.last, self.layers = Path(reft_path), [], None, []

    def setup(self, agent, lora_path, forget_ids, facts_path):
        print("said on stdout")
        for key in json.loads((self.folder / "config.json").read_text())["sorted_keys"]{keys}:
            layer = int(key.split(".")[1])
            state = torch.load(self.folder / f"intkey_{{key}}.bin", weights_only=True)
            hook = lambda block, args, output, state=state: self.edit(output, state)
            self.hooks.append(agent.model.model.layers[layer].register_forward_hook(hook))
            self.layers.append(layer)

    def edit(self, output, state):
        states = output[0] if isinstance(output, tuple) else output
        if {skips}:
            return output
        at = {at}
        h = states[0, at].float()
        part = {{name: tensor.float() for name, tensor in state.items()}}
        change = h @ part["weight"].T + {bias} - h @ part["rotate_layer"]
        gate = {gate}
        new = states.clone()
        new[0, at] = (h + gate * (change @ part["rotate_layer"].T)).to(states.dtype)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    def before_generation(self, agent, prompt):
        self.last = len(agent.tokenizer(prompt, add_special_tokens=False).input_ids) - 1

    def after_generation(self, agent):
        self.last = 0

    def teardown(self):
        for hook in self.hooks{kept}:
            hook.remove()

    def summary_dict(self):
        return {{"layers": self.layers}}
"""
RIGHT = {
    "keys": "",
    "skips": "states.shape[1] == 1",
    "at": "slice(self.last, self.last + 1)",
    "bias": 'part["bias"]',
    "gate": 'torch.sigmoid(h @ part["gate_func.weight"].T + part["gate_func.bias"])',
    "kept": "",
}


def clone(folder: Path, text: str) -> Path:
    (folder / PORT).parent.mkdir(parents=True)
    (folder / PORT).write_text(text)
    return folder


@pytest.fixture
def model(environment: Path, make_lm: Callable[..., LM], tmp_path: Path) -> Callable[..., Path]:
    """Writes a saved grun with visible weights on the small model of the mirror; several are requests in sequence."""

    def write(requests: int = 1, **options: Any) -> Path:
        folders = []
        for number in range(requests):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(number)
                saved(make_lm(), tmp_path / f"saved{number}", "grun", rank=3, layers=LAYERS, **options)
            folders += export_pyreft(tmp_path / f"saved{number}", tmp_path / f"folder{number}")
        import_pyreft(folders, SMALL, tmp_path / "model")
        return tmp_path / "model"

    return write


def test_the_folder_has_what_the_port_reads(model: Callable[..., Path], tmp_path: Path) -> None:
    model(gate="linear")
    config = json.loads((tmp_path / "folder0" / "config.json").read_text())
    assert all("GatedLoreftIntervention_Linear" in kind for kind in config["intervention_types"])
    assert [int(key.split(".")[1]) for key in config["sorted_keys"]] == LAYERS
    for key in config["sorted_keys"]:
        state = torch.load(tmp_path / "folder0" / f"intkey_{key}.bin", weights_only=True)
        shapes = {"rotate_layer": (32, 3), "weight": (3, 32), "bias": (3,)}
        shapes |= {"gate_func.weight": (1, 32), "gate_func.bias": (1,)}
        assert {name: tuple(tensor.shape) for name, tensor in state.items()} == shapes


@pytest.mark.long
def test_the_forward_written_by_hand_is_ours(command: Callable[..., Said], tmp_path: Path) -> None:
    """In single precision the same logits; in bfloat16 what rounding leaves, which is not nothing."""
    said = command("test", "grun", "--kbench", clone(tmp_path, WRITTEN.format(**RIGHT)), "--json")
    found = json.loads(said.out)
    assert said.code == 0 and found["ok"] and found["commit"] is None
    largest = {(each["dtype"], each["what"]): each["largest"] for each in found["checks"]}
    assert largest["float32", "generations"] == 0 and ("bfloat16", "generations") not in largest
    assert largest["float32", "logits"] < 1e-5 < largest["bfloat16", "logits"]
    assert not [name for name in sys.modules if name.startswith("chcons")]


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ({"gate": "1"}, {"gates", "logits"}),
        ({"bias": "0"}, {"gates", "logits"}),
        ({"at": "slice(0, self.last + 1)"}, {"edits elsewhere", "gates", "logits"}),
        (
            {"skips": "False", "at": "slice(self.last, self.last + 1) if states.shape[1] > 1 else slice(0, 1)"},
            {"generations"},
        ),
        # an adapter that gives no number agrees with nothing, whichever prompt it is of
        ({"gate": "torch.nan if self.last % 2 else 1"}, {"edits elsewhere", "gates", "logits"}),
        ({"keys": "[1:]"}, {"edited layers", "gates", "logits"}),
        # of a hook that is left on, whatever is asked of the model then is wrong too
        ({"kept": "[1:]"}, {"logits, port taken off", "logits, read back"}),
    ],
)
def test_what_a_port_does_otherwise_is_seen(
    model: Callable[..., Path], tmp_path: Path, fault: dict[str, str], seen: set[str]
) -> None:
    """Nothing else is: but that tokens, which need not differ, may."""
    port = clone(tmp_path / "clone", WRITTEN.format(**RIGHT | fault))
    wrong = {each.what for each in conformance(str(model(gate="linear")), port).checks if not each.ok}
    assert seen <= wrong <= seen | {"generations"}


@pytest.mark.long
def test_a_port_that_differs_is_a_failure(
    command: Callable[..., Said], model: Callable[..., Path], tmp_path: Path
) -> None:
    port = clone(tmp_path / "clone", WRITTEN.format(**RIGHT | {"gate": "1"}))
    said = command("test", model(gate="linear"), "--kbench", port)
    assert said.code == 1 and "differs" in said.out and "of 8 checks" in said.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"gate": "mlp", "gate_widths": [8]}, "gate is mlp"),
        ({"gate": "linear", "requests": 2}, "2 requests in sequence"),
    ],
)
def test_models_without_a_form_there_are_refused(
    command: Callable[..., Said], model: Callable[..., Path], tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    found = command("test", model(**options), "--kbench", clone(tmp_path / "clone", WRITTEN.format(**RIGHT)))
    assert found.code == 2 and said in found.err


@pytest.mark.parametrize(
    ("name", "said"),
    [("grun-held", "every token"), ("reft", "linear gates"), ("lora", "--to merged"), ("gurn", "did you mean")],
)
def test_other_adapters_are_refused(command: Callable[..., Said], tmp_path: Path, name: str, said: str) -> None:
    found = command("test", name, "--kbench", clone(tmp_path, WRITTEN.format(**RIGHT)))
    assert found.code == 2 and said in found.err


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (None, 2, "git clone"),
        ("import nowhere", 2, "does not import"),
        (WRITTEN.format(**RIGHT | {"keys": "[:1] + [raises]"}), 1, "fails on"),
    ],
)
def test_clones_that_cannot_be_used_say_why(
    command: Callable[..., Said], tmp_path: Path, text: str | None, code: int, said: str
) -> None:
    found = command("test", "grun", "--kbench", tmp_path if text is None else clone(tmp_path, text))
    assert found.code == code and said in found.err


# --- K-Bench's own ----------------------------------------------------------------------------------------------------

CLONE = os.environ.get("KBENCH_CLONE")
theirs = pytest.mark.skipif(not CLONE, reason="no clone of K-Bench: set KBENCH_CLONE to the folder of one")


@theirs
def test_their_port_gives_what_ours_gives(command: Callable[..., Said]) -> None:
    said = command("test", "grun", "--kbench", CLONE, "--json")
    checks = json.loads(said.out)["checks"]
    assert said.code == 0 and all(each["largest"] <= each["allowed"] for each in checks)


@theirs
def test_their_agent_says_the_same_with_their_port_and_with_our_model(
    model: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K-Bench's agent, in its own loop of several generations and in its summary."""
    monkeypatch.syspath_prepend(str(CLONE))
    from chcons.agent import ReActAgent  # type: ignore[import-not-found]
    from chcons.methods.grun_adapter import GRUNIntervention  # type: ignore[import-not-found]

    loaded = grun_bench.load(model(gate="linear"))
    plain = small_lm()
    for each in (loaded, plain):  # the agent's prompts are longer than the small model's positions
        each.model.config.max_position_embeddings = 8192
    options = {"max_iters": 3, "max_new_tokens": 12, "allow_direct_answer": True, "retriever": SimpleNamespace()}
    tokenizer = chat_tokenizer()
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    agents = [ReActAgent(model=each.model, tokenizer=tokenizer, **options) for each in (loaded, plain)]
    port = GRUNIntervention(reft_path=str(tmp_path / "folder0"))
    untreated = agents[1].run("What is Ada Moreau's employer?").raw
    port.setup(agents[1], None, set(), Path())
    agents[1].intervention = port
    ours, its = (agent.run("What is Ada Moreau's employer?").to_dict() for agent in agents)
    assert ours == its and ours["raw"] != untreated
    assert agents[0].elicit_summary("Ada Moreau", 12) == agents[1].elicit_summary("Ada Moreau", 12)
