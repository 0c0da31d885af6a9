"""Adapters against pyreft's own model, the formulas by hand, and the base model."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from attaching import PROMPTS, attached, logits_of, right_padded
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from grun_bench.core.errors import UsageError
from grun_bench.methods.adapters.base import layer_index
from grun_bench.methods.adapters.grun import Grun
from grun_bench.methods.adapters.lora import Lora
from grun_bench.methods.adapters.reft import Edit, Reft
from grun_bench.methods.make import make_unlearner
from grun_bench.models.batch import collate, collate_prompts
from grun_bench.models.forward import calling, decoder_layers, forward
from grun_bench.models.lm import LM
from grun_bench.tasks.world import TOY

LAYERS = [1, 3, 5]


# --- pyreft -----------------------------------------------------------------------------------------------------------


def pyreft_model(lm: LM, edits: nn.ModuleDict) -> Any:
    """pyreft's model on a copy of the same base, with the R, W, b (and gates) of our edits."""
    pyreft = pytest.importorskip("pyreft", reason="the extra `pyreft` is not installed")

    class GatedLoreft(pyreft.LoreftIntervention):
        """h + sigmoid(g(h)) R^T (W h + b - R h), written into pyreft as the authors of GRUN did."""

        def forward(self, base: Tensor, source: Any = None, subspaces: Any = None) -> Tensor:
            shift = torch.matmul(self.learned_source(base) - self.rotate_layer(base), self.rotate_layer.weight.T)
            return (base + torch.sigmoid(self.gate(base)) * shift).to(base.dtype)

    interventions = []
    for edit in edits.values():
        rank, hidden = edit.source.weight.shape
        cls = pyreft.LoreftIntervention if edit.gate is None else GatedLoreft
        intervention = cls(embed_dim=hidden, low_rank_dimension=rank, dtype=torch.float32)
        rotation = edit.rotation.weight.detach()
        intervention.load_state_dict(edit.source.state_dict() | {"rotate_layer": rotation})
        assert torch.allclose(intervention.rotate_layer.weight, rotation, atol=1e-6)
        if edit.gate is not None:
            intervention.gate = copy.deepcopy(edit.gate)
        interventions.append(intervention)
    places = [
        {
            "layer": int(layer),
            "component": "block_output",
            "low_rank_dimension": interventions[number].learned_source.out_features,
            "intervention": interventions[number],
        }
        for number, layer in enumerate(edits)
    ]
    return pyreft.get_reft_model(lm.model, pyreft.ReftConfig(representations=places))


@pytest.mark.parametrize(
    ("name", "options"), [("reft", {}), ("grun", {"gate": "linear"}), ("grun", {"gate": "mlp", "gate_widths": [16, 8]})]
)
def test_logits_are_those_of_pyreft(make_lm: Callable[..., LM], name: str, options: dict[str, Any]) -> None:
    ours = make_lm()
    adapter = attached(ours, name, layers=LAYERS, rank=3, **options)
    theirs = pyreft_model(make_lm(), adapter.edits)
    ids, mask, end = right_padded(ours)
    with torch.no_grad(), calling(end):
        logits = ours.model(input_ids=ids, attention_mask=mask).logits
    locations = [[[int(position)] for position in end]] * len(LAYERS)
    with torch.no_grad():
        inputs = {"input_ids": ids, "attention_mask": mask}
        base, edited = theirs(inputs, unit_locations={"sources->base": (None, locations)}, output_original_output=True)
    assert len(set(end.tolist())) == len(PROMPTS)
    real = mask.bool()
    assert (logits - edited.logits)[real].abs().max() < 1e-5
    # the edit is large: equality would not come from edits that do nothing
    assert (logits - base.logits)[real].abs().max() > 0.1


# --- the formula ------------------------------------------------------------------------------------------------------


def numpy_edit(edit: Edit, states: np.ndarray) -> np.ndarray:
    """h + s R^T (W h + b - R h), row by row in double precision."""

    def numbers(tensor: Tensor) -> np.ndarray:
        return tensor.detach().numpy().astype(np.float64)

    rows = numbers(edit.rotation.weight).T
    weight, bias = numbers(edit.source.weight), numbers(edit.source.bias)
    edited = []
    for state in states.astype(np.float64):
        scale = 1.0
        if edit.gate is not None:
            value = state
            for layer in edit.gate if isinstance(edit.gate, nn.Sequential) else [edit.gate]:
                if isinstance(layer, nn.Linear):
                    value = numbers(layer.weight) @ value + numbers(layer.bias)
                else:
                    value = np.maximum(value, 0)
            scale = 1 / (1 + math.exp(-value.item()))
        edited.append(state + scale * rows.T @ (weight @ state + bias - rows @ state))
    return np.array(edited)


@pytest.mark.parametrize(
    ("name", "options"), [("reft", {}), ("grun", {"gate": "linear"}), ("grun", {"gate": "mlp", "gate_widths": [16, 8]})]
)
def test_edit_is_the_formula(lm: LM, name: str, options: dict[str, Any]) -> None:
    adapter = attached(lm, name, layers=LAYERS, **options)
    states = torch.randn(9, 32, generator=torch.Generator().manual_seed(1))
    for edit in adapter.edits.values():
        with torch.no_grad():
            edited, gate = edit(states)
        np.testing.assert_allclose(edited.numpy(), numpy_edit(edit, states.numpy()), atol=2e-5)
        assert (gate is None) == (name == "reft")


def test_edit_reaches_the_last_prompt_token_and_no_other(lm: LM) -> None:
    """Hidden states entering the block behind the edited one differ from the base's at one position, by the formula."""
    ids, mask, end = right_padded(lm)
    inputs = {"input_ids": ids, "attention_mask": mask}
    entering: list[torch.Tensor] = []
    decoder_layers(lm.model)[3].register_forward_pre_hook(lambda _, args: entering.append(args[0]))
    with torch.no_grad(), calling(end):
        lm.model(**inputs)
        adapter = attached(lm, "grun", layers=[2], gate="linear")
        lm.model(**inputs)
    before, after = entering
    rows = torch.arange(len(ids))
    expected = numpy_edit(adapter.edits["2"], before[rows, end].numpy())
    np.testing.assert_allclose(after[rows, end].numpy(), expected, atol=1e-4)
    changed = (before != after).any(dim=-1)
    assert changed.nonzero().tolist() == [[row, int(position)] for row, position in enumerate(end)]


def test_rotation_has_orthonormal_rows_and_fp32(make_lm: Callable[..., LM]) -> None:
    lm = make_lm(dtype=torch.bfloat16)
    adapter = attached(lm, "grun", layers=LAYERS, rank=4)
    for edit in adapter.edits.values():
        rotation = edit.rotation.weight
        assert rotation.dtype == torch.float32
        assert torch.allclose(rotation.T @ rotation, torch.eye(4), atol=1e-5)
        assert edit.source.weight.dtype == edit.gate[0].weight.dtype == torch.bfloat16
    # and they stay orthonormal while they are trained
    parameters = adapter.trainable_parameters()
    optimiser = torch.optim.SGD(parameters, lr=0.5)
    batch = collate([lm.prompts.encode("Who?", "Ada.")], lm.pad_id)
    start = adapter.edits["1"].rotation.weight.detach().clone()
    for _ in range(3):
        optimiser.zero_grad()
        nn.functional.cross_entropy(forward(lm.model, batch).logits.float(), batch.targets).backward()
        optimiser.step()
    trained = adapter.edits["1"].rotation.weight
    assert (trained - start).abs().max() > 1e-4
    assert torch.allclose(trained.T @ trained, torch.eye(4), atol=1e-5)


# --- the base model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gate", ["linear", "mlp"])
def test_shut_gate_is_the_base_bit_for_bit(make_lm: Callable[..., LM], gate: str, dtype: torch.dtype) -> None:
    lm = make_lm(dtype=dtype)
    expected = logits_of(lm)
    adapter = attached(lm, "grun", layers=LAYERS, gate=gate)
    assert not torch.equal(logits_of(lm), expected)
    with torch.no_grad():
        for edit in adapter.edits.values():
            (edit.gate[-1] if gate == "mlp" else edit.gate).bias.fill_(-1e4)
    assert torch.equal(logits_of(lm), expected)


@pytest.mark.parametrize("name", ["lora", "reft", "grun"])
def test_disabled_is_the_base_bit_for_bit(lm: LM, name: str) -> None:
    expected = logits_of(lm)
    adapter = attached(lm, name)
    lm.model.eval()
    enabled = logits_of(lm)
    assert not torch.equal(enabled, expected)
    with adapter.disabled():
        assert torch.equal(logits_of(lm), expected)
    assert torch.equal(logits_of(lm), enabled)
    with pytest.raises(RuntimeError, match="inside"), adapter.disabled():
        raise RuntimeError("inside")
    assert torch.equal(logits_of(lm), enabled)


@pytest.mark.parametrize(("name", "mark"), [("lora", "lora_"), ("reft", None), ("grun", None)])
def test_only_adapter_parameters_require_grad(lm: LM, name: str, mark: str | None) -> None:
    base = {id(parameter) for parameter in lm.model.parameters()}
    adapter = attached(lm, name)
    trainable = {id(parameter) for parameter in adapter.trainable_parameters()}
    assert trainable and not trainable & base
    assert all(parameter.requires_grad for parameter in adapter.trainable_parameters())
    wanting = {name: id(parameter) for name, parameter in lm.model.named_parameters() if parameter.requires_grad}
    assert set(wanting.values()) <= trainable
    assert not any(parameter.requires_grad for parameter in lm.model.parameters() if id(parameter) in base)
    if mark:
        assert len(wanting) == len(trainable) and all(mark in name for name in wanting)


def test_full_trains_every_weight(lm: LM) -> None:
    adapter = attached(lm, "full")
    assert {id(each) for each in adapter.trainable_parameters()} == {id(each) for each in lm.model.parameters()}
    assert all(each.requires_grad for each in lm.model.parameters())


# --- generation -------------------------------------------------------------------------------------------------------


def spying_on(edits: nn.ModuleDict) -> list[tuple[int, ...]]:
    """The shapes of the states that the edits see from now on."""
    seen: list[tuple[int, ...]] = []
    for edit in edits.values():
        edit.register_forward_pre_hook(lambda _, args: seen.append(tuple(args[0].shape)))
    return seen


def new_tokens(lm: LM, prompts: Sequence[list[int]]) -> list[list[int]]:
    """Greedy answers by Hugging Face's own `generate`, left padded."""
    ids, mask = collate_prompts(prompts, lm.pad_id)
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None, "pad_token_id": lm.pad_id}
    return lm.model.generate(ids, attention_mask=mask, **options)[:, ids.shape[1] :].tolist()


def test_generate_with_left_padding_gives_each_prompts_own_answer(lm: LM) -> None:
    prompts = [lm.prompts.prompt(question) for question in PROMPTS]
    plain = new_tokens(lm, prompts)
    adapter = attached(lm, "grun", layers=LAYERS)
    seen = spying_on(adapter.edits)
    batched = new_tokens(lm, prompts)
    # once in each edited layer, with one position a prompt: the prefill, and no step after it
    assert seen == [(len(PROMPTS), 32)] * len(LAYERS)
    assert batched != plain
    assert batched == [new_tokens(lm, [prompt])[0] for prompt in prompts]
    assert batched == [without_cache(lm, prompt, 12) for prompt in prompts]


@torch.no_grad()
def without_cache(lm: LM, prompt: list[int], count: int) -> list[int]:
    """Greedy answer by whole passes over the growing sequence, edited at the last token of the prompt alone."""
    tokens = list(prompt)
    for _ in range(count):
        with calling(torch.tensor([len(prompt) - 1])):
            tokens.append(int(lm.model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
    return tokens[len(prompt) :]


# --- depths and sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "expected"), [(32, [20, 25, 31]), (30, [19, 24, 29])])
def test_depths(layers: int, expected: list[int]) -> None:
    assert [layer_index(depth, layers) for depth in (0.65, 0.8, 1.0)] == expected
    assert [layer_index(block, layers) for block in expected] == expected


@pytest.mark.parametrize("depth", [1.01, 2.0, 32, -1, -0.5, 0.0, float("nan"), "a", None])
def test_bad_depth_is_refused(depth: Any) -> None:
    with pytest.raises(UsageError, match=r"\(0 to 31\)"):
        layer_index(depth, 32)


def llama_8b() -> LlamaForCausalLM:
    """Llama 3.1 8B's shape without its memory."""
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config).to(torch.bfloat16)


@pytest.mark.parametrize(("gate", "count"), [("linear", 110_607), ("mlp", 3_294_351)])
def test_trainable_parameters_of_grun_are_the_papers(gate: str, count: int) -> None:
    adapter = Grun(gate=gate)
    with torch.device("meta"):
        adapter.attach(llama_8b())
    assert list(adapter.edits) == ["20", "25", "31"]
    assert sum(parameter.numel() for parameter in adapter.trainable_parameters()) == count


def test_trainable_parameters_of_reft() -> None:
    adapter = Reft(rank=4)
    with torch.device("meta"):
        adapter.attach(llama_8b())
    # R and W of 4 x 4096 and b of 4, in three layers
    assert sum(parameter.numel() for parameter in adapter.trainable_parameters()) == 3 * (2 * 4 * 4096 + 4)


def test_trainable_parameters_of_lora_are_the_papers() -> None:
    adapter = Lora()
    with torch.device("meta"):
        adapter.attach(llama_8b())
    assert sum(parameter.numel() for parameter in adapter.trainable_parameters()) == 10_485_760


# --- the gate's loss --------------------------------------------------------------------------------------------------


def test_gate_loss_by_hand() -> None:
    forget = {1: torch.tensor([0.5, -2.0]), 3: torch.tensor([1.5, 0.0])}
    retain = {1: torch.tensor([-1.0, 3.0, 0.2]), 3: torch.tensor([-4.0, 0.1, 2.0])}

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    of_layers = []
    for layer in (1, 3):
        of_layers.append(-sum(math.log(sigmoid(value)) for value in forget[layer].tolist()) / 2)
        of_layers.append(-sum(math.log(1 - sigmoid(value)) for value in retain[layer].tolist()) / 3)
    terms = Grun(gate_weight=7.0).aux_loss(forget, retain)
    assert list(terms) == ["gate"]
    assert terms["gate"].item() == pytest.approx(7 * sum(of_layers) / 4, rel=1e-6)
    assert Grun().aux_loss(forget, retain)["gate"].item() == pytest.approx(10 * sum(of_layers) / 4, rel=1e-6)
    assert Reft().aux_loss({}, {}) == {}


def test_gates_are_collected_in_a_scored_pass(lm: LM) -> None:
    adapter = attached(lm, "grun", layers=LAYERS, gate="linear")
    batch = collate([lm.prompts.encode(prompt, "Yes.") for prompt in PROMPTS], lm.pad_id)
    gates = forward(lm.model, batch).gates
    assert sorted(gates) == LAYERS
    gate = adapter.edits["1"].gate
    with adapter.disabled(), torch.no_grad():
        # before the first edit the hidden state is the base model's
        plain = lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, output_hidden_states=True)
    unedited = [plain.hidden_states[2][row, end] for row, end in enumerate(batch.prompt_end)]
    by_hand = torch.stack([gate.weight[0] @ state + gate.bias[0] for state in unedited])
    torch.testing.assert_close(gates[1].detach(), by_hand.detach(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"gate": "cubic"}, {"gate_widths": []}, {"gate_widths": [64, 0]}])
def test_bad_gate_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        make_unlearner("grun+npo", options, TOY)


@pytest.mark.parametrize("name", ["reft", "grun"])
def test_a_rank_above_the_hidden_size_is_refused(lm: LM, name: str) -> None:
    with pytest.raises(UsageError, match=r"rank=33: .* 32 dimensions"):
        attached(lm, name, rank=33)
