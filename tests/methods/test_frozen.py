"""The frozen trunk: the same losses as without it, fewer blocks run, and where it does not apply."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FORGET, RETAIN
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedTokenizerBase,
    Qwen2Config,
)

from grun_bench.core.errors import ModelError, UsageError
from grun_bench.methods import frozen as trunk_module
from grun_bench.methods.adapters.grun import Grun
from grun_bench.methods.base import FitContext, Fitted
from grun_bench.methods.frozen import Trunk, frozen_trunk
from grun_bench.methods.make import make_unlearner
from grun_bench.models.batch import Encoded, collate
from grun_bench.models.forward import decoder_layers, forward
from grun_bench.models.lm import LM, Prompts
from grun_bench.models.loading import Placement
from grun_bench.models.loading import load as load_model
from grun_bench.models.trial import obstacle
from grun_bench.tasks.world import TOY

TEXTS = [("", text * 3) for text in ("The moon is made of rock. ", "Ten small boats. ", "All that is green grows. ")]


class Counted:
    """Makes one model whose decoder blocks count the tokens that their own code runs."""

    def __init__(self, make_lm: Callable[..., LM], prepare: Callable[[LM], None] = lambda lm: None) -> None:
        self._make, self._prepare = make_lm, prepare
        self.tokens: list[int] = []

    def __call__(self) -> LM:
        lm = self._make()
        self._prepare(lm)
        blocks = decoder_layers(lm.model)
        self.tokens = [0] * len(blocks)
        for index, block in enumerate(blocks):
            block.input_layernorm.register_forward_hook(self._count(index))
        return lm

    def _count(self, index: int) -> Callable[..., None]:
        def count(block: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            self.tokens[index] += output[..., 0].numel()

        return count


def fit(load: Callable[[], LM], name: str, trunk_cache: bool = True, rows: Any = FORGET, **overrides: Any) -> Fitted:
    if name.split("+")[0] in ("reft", "grun"):
        overrides.setdefault("layers", [2, 4])
    chosen = {"epochs": 10, "batch_size": 3, "lr": 1e-3, "warmup": 0.0} | overrides
    context = FitContext(rows, RETAIN, load, load, 0, trunk_cache=trunk_cache)
    return make_unlearner(name, chosen, TOY).fit(context)


def steps(fitted: Fitted) -> list[list[float]]:
    """The terms of the first 20 steps."""
    return [list(step.values()) for step in fitted.history[:20]]


def seconds(*parameters: Any) -> Any:
    """One of many of a kind that take seconds together: made with the whole runs."""
    return pytest.param(*parameters, marks=pytest.mark.whole)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "overrides", "skipped"),
    [
        ("grun+npo", {}, 3),
        seconds("grun+idk", {}, 3),
        seconds("grun+dpo", {}, 3),
        seconds("grun+altpo", {"alternates": 2}, 3),
        seconds("grun+kl", {}, 3),
        seconds("grun+rmu", {"layer": 0.75}, 3),
        seconds("grun+gd", {"accumulate": 2, "checkpointing": True}, 3),
        seconds("reft+gd", {}, 3),
        ("reft+undial", {"layers": [5]}, 6),
        ("full+rmu", {"layers": [2, 3], "layer": 0.5}, 2),
        seconds("lora+gd", {}, 0),
        ("full+gd", {}, 0),
    ],
)
def test_losses_are_those_without_the_cache(
    make_lm: Callable[..., LM], name: str, overrides: dict[str, Any], skipped: int
) -> None:
    cached, plain = Counted(make_lm), Counted(make_lm)
    with_it, without = fit(cached, name, **overrides), fit(plain, name, trunk_cache=False, **overrides)
    expected = steps(without)
    assert len(expected) >= 10
    torch.testing.assert_close(torch.tensor(steps(with_it)), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    shares = [ours / theirs for ours, theirs in zip(cached.tokens, plain.tokens, strict=True)]
    # blocks of the trunk run to fill it, and for answers that are drawn
    drawn = name in ("grun+idk", "grun+dpo", "grun+altpo")
    assert all(share < (0.9 if drawn else 0.5) for share in shares[:skipped])
    # those after it as before, or from the last prompt token on
    edits = name.startswith(("reft", "grun"))
    assert all(share < 0.9 if edits else share == 1 for share in shares[skipped:])
    # nothing of it is left in the model
    assert not any("forward" in vars(block) for block in decoder_layers(with_it.lm.model))


def test_texts_go_through_it_too(make_lm: Callable[..., LM]) -> None:
    cached = Counted(make_lm)
    options = {"rows": TEXTS, "text_prompt": 0.8, "text_length": 40, "layer": 0.75}
    with_it = fit(cached, "grun+rmu", **options)
    without = fit(make_lm, "grun+rmu", trunk_cache=False, **options)
    torch.testing.assert_close(torch.tensor(steps(with_it)), torch.tensor(steps(without)), rtol=1e-5, atol=1e-5)
    assert cached.tokens[0] < cached.tokens[5] / 2


def test_states_do_not_depend_on_the_batch(make_lm: Callable[..., LM]) -> None:
    """The logits from kept states are the model's own, for every mixture of kept and other sequences."""
    lm = make_lm()
    sequences = [lm.prompts.encode(*pair) for pair in FORGET]
    trunk = Trunk(lm, 4)
    trunk.keep(sequences[:3], batch_size=2)
    assert trunk.size == sum(map(len, sequences[:3])) * 32 * 4
    with torch.no_grad(), trunk.skipping():
        for chosen in ([0], [1, 0], [2, 4], [3, 4], [0, 1, 2, 3, 4]):
            batch = collate([sequences[row] for row in chosen], lm.pad_id)
            own, kept = forward(lm.model, batch), forward(lm.model, batch, frozen=trunk.frozen(batch))
            torch.testing.assert_close(kept.logits, own.logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_prompts_run_from_their_last_token_on(make_lm: Callable[..., LM], count: int) -> None:
    """Logits, gates and hidden states of the edited model are those of whole passes, for every mixture of prompts that
    are kept, prompts that are not, and prompts of one token; and they do not change the next pass."""
    lm = make_lm()
    adapter = Grun(rank=2, layers=[count - 1, 5])
    adapter.attach(lm.model)
    texts = [lm.prompts.encode_text(answer) for _, answer in RETAIN[:2]]
    sequences = [lm.prompts.encode(*pair) for pair in FORGET] + texts
    # the same tokens, with the prompt's end elsewhere
    first = sequences[0]
    sequences.append(Encoded(first.prompt + first.answer[:1], first.answer[1:]))
    trunk = Trunk(lm, count, prompts=True)
    trunk.keep(sequences[:3] + texts[:1], batch_size=2, prompts=[tuple(each.prompt[:-1]) for each in sequences[:4]])
    with torch.no_grad(), trunk.skipping():
        for chosen in ([0], [1, 0], [3], [2, 4], [3, 4], [5], [5, 0], [6, 3], [6, 4], [7, 0, 1], range(8), range(8)):
            batch = collate([sequences[row] for row in chosen], lm.pad_id)
            own, kept = forward(lm.model, batch, [5]), forward(lm.model, batch, [5], trunk.frozen(batch))
            torch.testing.assert_close(kept.logits, own.logits, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(kept.gates, own.gates, rtol=1e-5, atol=1e-5)
            scored = kept.hidden[5][kept.batch.scored], own.hidden[5][batch.scored]
            torch.testing.assert_close(*scored, rtol=1e-5, atol=1e-5)
            # answers and their last prompt tokens, and no more
            assert kept.batch.input_ids.shape[1] == max(len(sequences[row].answer) + 1 for row in chosen)


ARCHITECTURES = {
    "gpt2": GPT2Config(n_positions=128),
    "gpt_neox": GPTNeoXConfig(),
    "phi": PhiConfig(),
    "mistral": MistralConfig(sliding_window=64),
    "gemma2": Gemma2Config(head_dim=8),
    "qwen2": Qwen2Config(),
}


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("checkpoints", [False, seconds(True)])
def test_losses_of_other_models(tokenizer: PreTrainedTokenizerBase, name: str, checkpoints: bool) -> None:
    """Position ids, masks and caches are each architecture's own."""

    def load() -> LM:
        config = copy.deepcopy(ARCHITECTURES[name])
        sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
        special = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
        config.update(sizes | special | {"intermediate_size": 48, "vocab_size": len(tokenizer)})
        for dropout in ("attn_pdrop", "embd_pdrop", "resid_pdrop"):
            setattr(config, dropout, 0.0)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        return LM(model, tokenizer, Prompts(tokenizer, "qa"), {})

    if reason := obstacle(load().model):
        pytest.skip(reason)
    options = {"layers": [1, 2], "epochs": 3, "checkpointing": checkpoints}
    with_it, without = (fit(load, "grun+npo", trunk_cache=on, **options) for on in (True, False))
    torch.testing.assert_close(torch.tensor(steps(with_it)), torch.tensor(steps(without)), rtol=1e-5, atol=1e-5)
    assert with_it.trunk_bytes


def test_a_model_with_an_older_form_of_keys_and_values_is_refused(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    config = GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    if obstacle(model) is None:
        assert load_model(str(tmp_path), Placement.choose("cpu", "float32")).model.config.n_embd == 8
    else:
        with pytest.raises(ModelError, match="cannot be scored"):
            load_model(str(tmp_path), Placement.choose("cpu", "float32"))


def test_what_prompts_begin_with_is_kept_once(make_lm: Callable[..., LM]) -> None:
    counted = Counted(make_lm)
    lm = counted()
    sequences = [lm.prompts.encode(*pair) for pair in FORGET]
    prompts = [tuple(each.prompt[:-1]) for each in sequences]
    common = next(place for place, tokens in enumerate(zip(*prompts, strict=False)) if len(set(tokens)) > 1)
    assert common > 5
    trunk = Trunk(lm, 4, prompts=True)
    trunk.keep(sequences, 1, [*prompts, (5, 6, 7)])
    # a prompt is run with a sequence that it begins
    assert counted.tokens[0] == sum(map(len, sequences)) + 3
    trunk.keep(sequences, 2, prompts)
    states = sum(len(each.answer) + 1 for each in sequences) * 32
    config = lm.model.config
    a_token = 2 * config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    keyvalues = (common + sum(len(each) - common for each in prompts)) * 2 * a_token
    assert trunk.size == (states + keyvalues) * 4


def test_only_what_is_used_again_is_kept(make_lm: Callable[..., LM]) -> None:
    lm = make_lm()
    one, two, three = (lm.prompts.encode(*pair) for pair in FORGET[:3])
    with frozen_trunk(lm, 2, [one, two, one, three, three], 8) as trunk:
        assert trunk is not None and trunk.size == (len(one) + len(three)) * 32 * 4


def attention_dropout(lm: LM) -> None:
    for block in decoder_layers(lm.model):
        block.self_attn.attention_dropout = 0.1


def late_dropout(lm: LM) -> None:
    decoder_layers(lm.model)[4].mlp.act_fn = nn.Sequential(nn.SiLU(), nn.Dropout(0.1))


@pytest.mark.long
@pytest.mark.parametrize(("prepare", "applies"), [(attention_dropout, False), (late_dropout, True)])
def test_dropout_below_switches_it_off(
    make_lm: Callable[..., LM], capfd: pytest.CaptureFixture[str], prepare: Callable[[LM], None], applies: bool
) -> None:
    cached, plain = Counted(make_lm, prepare), Counted(make_lm, prepare)
    with_it, without = fit(cached, "grun+gd"), fit(plain, "grun+gd", trunk_cache=False)
    assert (cached.tokens[0] < plain.tokens[0] / 2) == applies
    # dropout after the trunk is of no matter to it, but to what later layers make of the prompts
    what = "prompts after layer 3" if applies else "what the first 3 layers give"
    assert f"{what} " in (said := capfd.readouterr().err) and "dropout" in said
    assert cached.tokens[5] >= plain.tokens[5] or not applies
    # looking for it has drawn no random number of the training's
    torch.testing.assert_close(torch.tensor(steps(with_it)), torch.tensor(steps(without)), rtol=1e-5, atol=1e-5)


def test_large_ones_lie_in_a_file_that_is_gone_afterwards(
    make_lm: Callable[..., LM], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GRUN_BENCH_CACHE", str(tmp_path))
    in_memory = fit(make_lm, "grun+npo", epochs=2)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(trunk_module, "MEMORY_LIMIT", 1000)
    on_disk = fit(make_lm, "grun+npo", epochs=2)
    assert "lies in a file" in capfd.readouterr().err
    assert on_disk.history == in_memory.history
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    monkeypatch.setattr(trunk_module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with pytest.raises(UsageError, match="--no-trunk-cache"):
        fit(make_lm, "grun+npo", epochs=2)


@pytest.mark.long
def test_bf16_is_kept_as_bf16(make_lm: Callable[..., LM]) -> None:
    lm = make_lm(dtype=torch.bfloat16)
    trunk = Trunk(lm, 4)
    trunk.keep([lm.prompts.encode(*pair) for pair in FORGET], batch_size=2)
    assert trunk.size == sum(len(lm.prompts.encode(*pair)) for pair in FORGET) * 32 * 2
    with_it, without = (fit(lambda: make_lm(dtype=torch.bfloat16), "grun+npo", trunk_cache=on) for on in (True, False))
    torch.testing.assert_close(torch.tensor(steps(with_it)), torch.tensor(steps(without)), rtol=0.05, atol=0.05)


# --- gradient checkpointing -------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("trunk_cache", [True, seconds(False)])
@pytest.mark.parametrize("name", ["grun+npo", seconds("grun+kl"), seconds("reft+gd"), "lora+dpo", seconds("full+rmu")])
def test_checkpointing_gives_the_same_losses(make_lm: Callable[..., LM], name: str, trunk_cache: bool) -> None:
    run = Counted(make_lm)
    plain = fit(make_lm, name, trunk_cache, epochs=3)
    saving = fit(run, name, trunk_cache, epochs=3, checkpointing=True)
    torch.testing.assert_close(torch.tensor(steps(saving)), torch.tensor(steps(plain)), rtol=1e-6, atol=1e-6)
    again = Counted(make_lm)
    fit(again, name, trunk_cache, epochs=3)
    assert sum(run.tokens) > sum(again.tokens) * 1.1
