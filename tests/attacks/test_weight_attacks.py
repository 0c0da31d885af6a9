"""Attacks on weights: against formulas by hand, peft and plain loops; nothing stays changed; hiding is found out."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from attaching import attached as attached_in_training
from attaching import logits_of
from conftest import FORGET, RETAIN
from scipy.stats import norm
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from grun_bench.attacks import relearn as relearning
from grun_bench.attacks import tuning
from grun_bench.attacks.base import Subject, make_attacks
from grun_bench.attacks.quantisation import BLOCK, rounded_4bit, rounded_int8
from grun_bench.attacks.weights import base_linears
from grun_bench.core import registry
from grun_bench.core.errors import Inapplicable, UsageError
from grun_bench.methods.adapters.base import Adapter
from grun_bench.methods.loop import Schedule, optimise
from grun_bench.metrics.evaluate import evaluate
from grun_bench.models.batch import collate
from grun_bench.models.forward import decoder_layers, forward
from grun_bench.models.lm import LM, Prompts
from grun_bench.models.scoring import Example, ScoringSettings, score
from grun_bench.results.record import Records
from grun_bench.tasks.neutral import SENTENCES
from grun_bench.tasks.sets import USUAL_SETS
from grun_bench.tasks.world import TOY

#: found, not imported: that takes seconds
quantising = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (the extra `quantisation`)"
)

EXAMPLES = [
    Example(name, index, *row)
    for name, rows in (("forget", FORGET), ("retain", RETAIN))
    for index, row in enumerate(rows)
]


def subject_of(lm: LM, adapter: Any = None, examples: Sequence[Example] = EXAMPLES) -> Subject:
    return Subject(lm, examples, FORGET, RETAIN, seed=0, adapter=adapter)


def attached(lm: LM, name: str) -> Adapter:
    """An adapter that acts visibly, on a model that is ready to be scored."""
    adapter = attached_in_training(lm, name, **ADAPTERS[name])
    lm.model.eval()
    return adapter


def attack(name: str, subject: Subject, **options: Any) -> Iterator[tuple[str, Subject]]:
    return registry.get("attack", name).target(subject, **options)


# --- nothing stays changed --------------------------------------------------------------------------------------------

#: settings with which an attack of each kind has several variants and takes no time
QUICK: dict[str, dict[str, Any]] = {
    "relearn": {"kinds": ["forget"], "steps": [2], "batch_size": 2, "lora_lr": 0.1, "full_lr": 0.1},
    "probe": {"depths": [0.3, 0.5, 0.8]},
    "strip": {},
    "int8": {},
    "int4": {},
}
ADAPTERS: dict[str, dict[str, Any]] = {"grun": {"layers": [1, 3, 5]}, "reft": {"layers": [2, 4]}, "lora": {}}


def state(lm: LM, adapter: Any) -> dict[str, Any]:
    """All that an attack might leave changed: values to the bit, flags, blocks, hooks."""
    found: dict[str, Any] = {"layers": lm.model.config.num_hidden_layers}
    parameters = [*lm.model.named_parameters(), *enumerate(adapter.trainable_parameters() if adapter else [])]
    for name, value in [*parameters, *lm.model.named_buffers()]:
        found[f"value {name}"] = (value.detach().clone(), value.requires_grad, value.grad)
    for name, module in lm.model.named_modules():
        found[f"module {name}"] = (
            id(module),
            module.training,
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
        )
    return found


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for key, expected in before.items():
        found = after[key]
        if isinstance(expected, tuple) and isinstance(expected[0], Tensor):
            assert expected[0].dtype == found[0].dtype and torch.equal(expected[0], found[0]), key
            expected, found = expected[1:], found[1:]
        assert expected == found, key


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adapter", [None, *ADAPTERS])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=quantising if name.startswith("int") else ()) for name in QUICK]
)
def test_the_model_is_as_it_was_to_the_bit(
    make_lm: Callable[..., LM], name: str, adapter: str | None, dtype: torch.dtype
) -> None:
    """Whether an attack ends by itself, is left at a variant or what it is used for fails there."""
    if name == "strip" and adapter is None:
        with pytest.raises(Inapplicable, match="no adapter"):
            next(attack(name, subject_of(make_lm())))
        return
    lm = make_lm(dtype=dtype)
    put_on = attached(lm, adapter) if adapter else None
    before, said = state(lm, put_on), logits_of(lm)

    def run() -> Iterator[tuple[str, Subject]]:
        return attack(name, subject_of(lm, put_on), **QUICK[name])

    variants = [len(decoder_layers(lm.model)) < 6 or not torch.equal(logits_of(lm), said) for _ in run()]
    assert all(variants)
    assert_same(before, state(lm, put_on))
    for number in range(len(variants)):
        left, failed = run(), run()
        for _ in range(number + 1):
            next(left)
        left.close()
        assert_same(before, state(lm, put_on))
        for _ in range(number + 1):
            next(failed)
        with pytest.raises(RuntimeError, match="out of memory"):
            failed.throw(RuntimeError("out of memory"))
        assert_same(before, state(lm, put_on))
    assert torch.equal(logits_of(lm), said)


def test_a_saved_lora_is_told_from_its_base(make_lm: Callable[..., LM]) -> None:
    """A loaded adapter has no gradients; its matrices are the adapter's all the same."""
    lm = make_lm()
    adapter = attached(lm, "lora")
    linears = base_linears(subject_of(lm, adapter))
    lm.model.requires_grad_(False)
    assert base_linears(subject_of(lm, adapter)) == linears
    assert len(linears) == len(base_linears(subject_of(make_lm()))) == 6 * 7


# --- quantisation -----------------------------------------------------------------------------------------------------


def weights(*shape: int) -> Tensor:
    """Random weights with rows of very different sizes, exact in fp16."""
    generator = torch.Generator().manual_seed(3)
    return (torch.randn(*shape, generator=generator) * torch.logspace(-2, 1, shape[0])[:, None]).half().float()


def assert_nearest(found: np.ndarray, given: np.ndarray, values: np.ndarray, scale: float) -> None:
    """Each number found is one of `values` times `scale`, and no other of them is nearer to the one given."""
    distances = np.abs(given[:, None] - values * scale)
    assert np.abs(found[:, None] - values * scale).min(1).max() < 1e-3 * scale * np.diff(values).min()
    np.testing.assert_allclose(np.abs(found - given), distances.min(1), atol=1e-3 * scale * np.diff(values).max())


#: the embedded model's, and rows of less than a block and of blocks and a half
SHAPES = [(336, 128), (128, 336), (24, 50), (5, 26), (10, 160)]


@quantising
@pytest.mark.parametrize("shape", SHAPES)
def test_int8_is_rounding_to_nearest_by_hand(shape: tuple[int, int]) -> None:
    weight = weights(*shape)
    for found, row in zip(rounded_int8(weight).numpy(), weight.numpy(), strict=True):
        assert_nearest(found, row, np.arange(-127, 128), np.abs(row).max() / 127)


def nf4_by_hand() -> np.ndarray:
    """The 16 values of NF4: quantiles of the normal distribution, eight above zero and seven below (QLoRA, app. E)."""
    end = 0.9677083
    above, below = (norm.ppf(np.linspace(end, 0.5, count)[:-1]) for count in (9, 8))
    values = np.sort([*above, 0, *-below])
    return values / values.max()


#: fp4 of bitsandbytes: numbers of a sign, two bits of exponent and one of mantissa, and 1/16 in place of the least
FP4 = np.array([0, 1 / 16, 2, 3, 4, 6, 8, 12]) / 12


@quantising
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("code", "values"), [("nf4", nf4_by_hand()), ("fp4", np.union1d(FP4, -FP4))])
def test_int4_is_rounding_to_nearest_by_hand(code: str, values: np.ndarray, shape: tuple[int, int]) -> None:
    """Blocks run on from row to row, and the last one may be short."""
    weight = weights(*shape)
    found, row = rounded_4bit(weight, code).numpy().ravel(), weight.numpy().ravel()
    for start in range(0, len(row), BLOCK):
        block = slice(start, start + BLOCK)
        assert_nearest(found[block], row[block], values, np.abs(row[block]).max())


@quantising
@pytest.mark.parametrize("adapter", [None, *ADAPTERS])
@pytest.mark.parametrize("name", ["int8", "int4"])
def test_linear_layers_of_the_blocks_are_rounded_and_nothing_else(
    make_lm: Callable[..., LM], name: str, adapter: str | None
) -> None:
    lm = make_lm()
    put_on = attached(lm, adapter) if adapter else None
    subject = subject_of(lm, put_on)
    linears = {id(linear.weight) for linear in base_linears(subject)}
    everything = [*lm.model.parameters(), *(put_on.trainable_parameters() if put_on else [])]
    before = {id(parameter): parameter.detach().clone() for parameter in everything}
    for code, _ in attack(name, subject):
        for parameter in everything:
            rounded = rounded_int8 if name == "int8" else lambda weight, code=code: rounded_4bit(weight, code)
            was = before[id(parameter)]
            assert torch.equal(parameter, rounded(was) if id(parameter) in linears else was)
            assert torch.equal(parameter, was) == (id(parameter) not in linears)


@quantising
def test_what_cannot_be_rounded_is_refused(make_lm: Callable[..., LM]) -> None:
    from bitsandbytes.nn import Linear8bitLt

    lm = make_lm()
    block = decoder_layers(lm.model)[2].mlp
    block.up_proj = quantised(block.up_proj, Linear8bitLt)
    with pytest.raises(Inapplicable, match=r"quantised already \(2\.mlp\.up_proj\.weight"):
        next(attack("int4", subject_of(lm)))
    lm = make_lm()
    decoder_layers(lm.model)[1].experts = nn.ParameterList([torch.zeros(2, 3, 4)])
    with pytest.raises(Inapplicable, match=r"1\.experts\.0 of the decoder blocks is no linear"):
        next(attack("int8", subject_of(lm)))


def quantised(linear: nn.Linear, kind: Any) -> nn.Module:
    """A layer of bitsandbytes with these weights."""
    layer = kind(linear.in_features, linear.out_features, bias=False, has_fp16_weights=False)
    layer.load_state_dict({"weight": linear.weight.detach().clone()})
    return layer.to("cpu")


# --- models that know, hide and never knew ----------------------------------------------------------------------------

NAMES = [first + second for first in "ABCDEFGH" for second in "aeiouy"]
TOWNS = ["Rome", "Oslo", "Bern", "Lima", "Kyiv", "Riga", "Cairo", "Delhi"]


@dataclass(frozen=True)
class Known:
    """Models of made-up homes: the target knows all, the retain model half; `forget` and `retain` are the rows."""

    target: LM
    retain_model: LM
    forget: list[tuple[str, str]]
    retain: list[tuple[str, str]]

    def subject(self, lm: LM) -> Subject:
        sides = (("forget", self.forget), ("retain", self.retain))
        examples = [Example(name, index, *row) for name, rows in sides for index, row in enumerate(rows)]
        return Subject(lm, examples, self.forget, self.retain, seed=0)


#: more than who guesses among the towns gets right in the forget rows (3 standard deviations above the mean)
CHANCE = 0.36


def copied(lm: LM) -> LM:
    return LM(copy.deepcopy(lm.model), lm.tokenizer, lm.prompts, lm.origin)


def mean_loss(lm: LM, rows: Sequence[tuple[str, str]]) -> Callable[[Any], dict[str, Tensor]]:
    batch = collate([lm.prompts.encode(*row) for row in rows], lm.pad_id)
    return lambda _: {"loss": nn.functional.cross_entropy(forward(lm.model, batch).logits, batch.targets)}


@pytest.fixture(scope="module")
def known(tokenizer: PreTrainedTokenizerBase) -> Known:
    rng = random.Random(0)
    rows = [(f"{name}?", f"{rng.choice(TOWNS)}.") for name in rng.sample(NAMES, len(NAMES))]
    forget, retain = rows[:24], rows[24:]
    models = []
    for learned in (rows, retain):
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.1,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            lm = LM(LlamaForCausalLM(config).eval(), tokenizer, Prompts(tokenizer, "qa"), {"name": "homes"})
        optimise(lm.model.parameters(), range(110), mean_loss(lm, learned), Schedule(1e-2), "learning homes")
        models.append(lm)
    return Known(*models, forget, retain)


def answers(subject: Subject) -> Records:
    return score(subject.lm, subject.examples, ScoringSettings(max_new_tokens=8))


def knowledge(records: Records, name: str = "forget", of: Records | None = None) -> float:
    """ROUGE-L recall, the share of homes that are told; with `of`, on the rows that those records have too."""
    wanted = {(row.set, row.index) for row in of or records}
    kept = Records([row for row in records if (row.set, row.index) in wanted])
    value = evaluate(kept, None, ["rougeL_recall"], USUAL_SETS)[f"{name}_rougeL_recall"].value
    assert value is not None
    return value


def test_the_target_knows_and_the_retain_model_does_not(known: Known) -> None:
    assert knowledge(answers(known.subject(known.target))) == 1
    assert knowledge(answers(known.subject(known.retain_model))) < CHANCE
    assert knowledge(answers(known.subject(known.retain_model)), "retain") == 1


def below_half_a_step(weight: Tensor, name: str) -> Tensor:
    """How far each weight may move without being rounded to another value; the largest ones, which set the scale, not
    at all."""
    if name == "int8":
        largest = weight.abs().amax(1, keepdim=True)
        room = 0.4 * largest / 127
    else:
        flat = nn.functional.pad(weight.flatten(), (0, -weight.numel() % BLOCK)).view(-1, BLOCK)
        largest = flat.abs().amax(1, keepdim=True).expand_as(flat).flatten()[: weight.numel()].view_as(weight)
        room = 0.45 * float(np.diff(nf4_by_hand()).min()) * largest
    return room.expand_as(weight).where(weight.abs() < 0.999 * largest, 0.0)


def with_outliers(lm: LM, factor: float) -> LM:
    """The same function with one channel of the states between norms and linear layers that much smaller, and its
    weights as much larger, as large models have them: they set the scale of their rows, so 8 bits are coarse."""
    lm = copied(lm)
    for block in decoder_layers(lm.model):
        readers = (
            (block.input_layernorm, (block.self_attn.q_proj, block.self_attn.k_proj, block.self_attn.v_proj)),
            (block.post_attention_layernorm, (block.mlp.gate_proj, block.mlp.up_proj)),
        )
        for norm_before, linears in readers:
            norm_before.weight.data[0] /= factor
            for linear in linears:
                linear.weight.data[:, 0] *= factor
    return lm


@quantising
@pytest.mark.parametrize("name", ["int8", "int4"])
def test_forgetting_in_full_precision_only_is_undone_by_rounding(known: Known, name: str) -> None:
    """Weights moved by less than half a step to where nothing is known any more: rounded, they are the target's."""
    rounded = rounded_int8 if name == "int8" else lambda weight: rounded_4bit(weight, "nf4")
    options = {} if name == "int8" else {"codes": ["nf4"]}
    target = with_outliers(known.target, 30) if name == "int8" else copied(known.target)
    for linear in base_linears(known.subject(target)):
        linear.weight.data = rounded(linear.weight)
    target_records = answers(known.subject(target))
    assert knowledge(target_records) > 0.9

    hiding = copied(target)
    moved = [linear.weight for linear in base_linears(known.subject(hiding))]
    start = [weight.detach().clone() for weight in moved]
    room = [below_half_a_step(weight, name) for weight in start]
    loss = mean_loss(hiding, known.forget)
    for _ in range(8):
        slopes = torch.autograd.grad(loss(None)["loss"], moved)
        for weight, first, most, slope in zip(moved, start, room, slopes, strict=True):
            weight.data = first + (weight.detach() - first + most / 2 * slope.sign()).clamp(-most, most)
    before = knowledge(answers(known.subject(hiding)))
    ((_, altered),) = ((variant, answers(each)) for variant, each in attack(name, known.subject(hiding), **options))
    recovery = (knowledge(altered) - before) / (knowledge(target_records) - before)
    assert before < 0.3 and recovery == 1
    # not only as much is known as by the target: it is the target
    for found, expected in zip(altered, target_records, strict=True):
        assert found.answer.logprobs == pytest.approx(expected.answer.logprobs, abs=1e-4)
    # and who never knew does not know better
    for _, each in attack(name, known.subject(known.retain_model), **options):
        assert knowledge(answers(each)) < CHANCE


def hiding_at_the_first_token(known: Known) -> LM:
    """The target with one row of the vocabulary head turned towards what all last prompt tokens have in common: every
    answer begins with N, and all that the target knows is still there."""
    lm = copied(known.target)
    batch = collate([lm.prompts.encode(*row) for row in known.forget], lm.pad_id)
    rows, head = torch.arange(len(known.forget)), lm.model.lm_head.weight
    letter = lm.tokenizer("N", add_special_tokens=False).input_ids[0]
    with torch.no_grad():
        states = lm.model.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        first, later = states[rows, batch.prompt_end], batch.scored.clone()
        later[rows, batch.prompt_end] = False
        other = nn.functional.normalize(states[later].mean(0), dim=0)
        direction = first.mean(0) - (first.mean(0) @ other) * other
        logits = first @ head.T
        size = ((logits.max(1).values - logits[:, letter]) / (first @ direction)).max()
        head[letter] += 1.2 * size * direction
    return lm


TUNING = {"share": 0.25, "lora_lr": 3e-3, "full_lr": 1e-3, "rank": 8, "steps": [12, 24]}


@pytest.mark.long
def test_relearning_some_rows_brings_back_the_others_of_who_hides(known: Known) -> None:
    hiding, target = known.subject(hiding_at_the_first_token(known)), answers(known.subject(known.target))
    records = answers(hiding)
    seen = []
    for variant, altered in attack("relearn", hiding, kinds=["forget"], **TUNING):
        found = answers(altered)
        before, best = knowledge(records, of=found), knowledge(target, of=found)
        seen.append((variant, (knowledge(found) - before) / (best - before)))
    assert [name for name, _ in seen] == ["forget-lora@12", "forget-lora@24", "forget-full@12", "forget-full@24"]
    assert knowledge(records) == 0 and min(recovery for _, recovery in seen) > 0.95


@pytest.mark.long
def test_who_never_knew_relearns_no_row_that_it_did_not_see(known: Known) -> None:
    for _, altered in attack("relearn", known.subject(known.retain_model), kinds=["forget"], **TUNING):
        assert knowledge(answers(altered)) < CHANCE


# --- relearning -------------------------------------------------------------------------------------------------------


def test_rows_that_were_trained_on_are_not_asked(make_lm: Callable[..., LM]) -> None:
    subject = subject_of(make_lm())
    asked = {
        name.split("-")[0]: {row.question for row in altered.examples}
        for name, altered in attack("relearn", subject, steps=[1], share=0.4, batch_size=1)
    }
    questions = {row.question for row in EXAMPLES}
    left_out = {kind: questions - each for kind, each in asked.items()}
    # two fifths of five forget rows, and as many of the retain rows
    assert len(left_out["forget"]) == 2 and left_out["forget"] < {question for question, _ in FORGET}
    assert len(left_out["retain"]) == 2 and left_out["retain"] < {question for question, _ in RETAIN}
    assert left_out["unrelated"] == set()


def test_there_is_always_a_row_to_train_on_and_one_to_ask(make_lm: Callable[..., LM]) -> None:
    subject = subject_of(make_lm())
    for share, count in ((0.01, 1), (0.5, 2), (1.0, 4)):
        assert len(relearning.trained_rows(subject, "forget", share)) == count
        assert len(relearning.trained_rows(subject, "unrelated", share)) == count


def test_what_was_asked_for_wrongly_is_said(make_lm: Callable[..., LM]) -> None:
    subject = subject_of(make_lm())
    with pytest.raises(UsageError, match="each one of forget, retain, unrelated"):
        make_attacks(["relearn"], {"relearn.kinds": ["forgot"]}, TOY)
    with pytest.raises(UsageError, match="each one of lora, full"):
        make_attacks(["relearn"], {"relearn.ways": ["loar"]}, TOY)
    with pytest.raises(Inapplicable, match="no retain set"):
        next(attack("relearn", Subject(subject.lm, EXAMPLES, FORGET, (), seed=0)))
    with pytest.raises(UsageError, match=r"--set probe\.depths=\[0\.5, 1\.0\]: .* below 1"):
        make_attacks(["probe"], {"probe.depths": [0.5, 1.0]}, TOY)


def test_the_sentences_are_of_many_words_and_different() -> None:
    assert len(set(SENTENCES)) == len(SENTENCES) == 40
    assert all(len(text.split()) > 8 and text[0].isupper() and text[-1] == "." for text in SENTENCES)


def test_all_weights_are_trained_as_by_a_plain_loop(make_lm: Callable[..., LM]) -> None:
    """AdamW, a rate that falls linearly to zero, clipping at 1, transformers' own loss: the same at each point."""
    ours, theirs = make_lm(), make_lm()
    rows = relearning.trained_rows(subject_of(ours), "forget", 0.8)
    batches = relearning._batches(ours, rows, steps=3, size=4, seed=0)
    optimiser = torch.optim.AdamW(theirs.model.parameters(), lr=1e-2, weight_decay=0.0)
    plain = {}
    for step, sequences in enumerate(batches):
        batch = collate(sequences, theirs.pad_id)
        for group in optimiser.param_groups:
            group["lr"] = 1e-2 * (1 - step / 3)
        optimiser.zero_grad()
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        theirs.model(**inputs, labels=batch.labels).loss.backward()
        nn.utils.clip_grad_norm_(theirs.model.parameters(), 1.0)
        optimiser.step()
        plain[f"forget-full@{step + 1}"] = logits_of(theirs)
    options = {"kinds": ["forget"], "ways": ["full"], "steps": [3, 1], "share": 0.8, "batch_size": 4, "full_lr": 1e-2}
    start, names = logits_of(ours), []
    for name, _ in attack("relearn", subject_of(ours), **options):
        names.append(name)
        assert (logits_of(ours) - plain[name]).abs().max() < 1e-3
        assert (logits_of(ours) - start).abs().max() > 0.1
    assert names == ["forget-full@1", "forget-full@3"]


def test_the_rate_is_chosen_on_one_half_and_scored_on_the_other(make_lm: Callable[..., LM]) -> None:
    """Of several factors the model is that of the one which alone brings back most of the half that is not asked."""
    options = {"kinds": ["retain"], "ways": ["full"], "steps": [2], "full_lr": 1e-2}

    def alone(factor: float) -> tuple[float, Tensor]:
        subject = subject_of(make_lm())
        for _ in attack("relearn", subject, factors=[factor], **options):
            return tuning.strength(subject, tuning.halves(subject)[0]), logits_of(subject.lm)
        raise AssertionError

    found = [alone(factor) for factor in (1e-4, 1.0, 5.0)]
    subject = subject_of(make_lm())
    for _, altered in attack("relearn", subject, factors=[1e-4, 1.0, 5.0], **options):
        best = max(range(3), key=lambda place: found[place][0])
        assert torch.equal(logits_of(subject.lm), found[best][1])
        tried = tuning.halves(subject)[0]
        assert len(tried) >= 1 and not any(row in altered.examples for row in tried)


def test_low_rank_updates_are_those_of_peft(make_lm: Callable[..., LM]) -> None:
    import torch.distributed.tensor
    from peft import LoraConfig, inject_adapter_in_model

    ours, theirs = make_lm(), make_lm()
    inject_adapter_in_model(LoraConfig(r=3, lora_alpha=12, target_modules="all-linear"), theirs.model)
    theirs_by_name = dict(theirs.model.named_parameters())
    names = [name.removesuffix(".base_layer.weight") for name in theirs_by_name if name.endswith(".base_layer.weight")]
    generator = torch.Generator().manual_seed(2)
    with relearning.low_rank(subject_of(ours), rank=3, alpha=12.0) as parameters, torch.no_grad():
        assert not any(parameter.any() for parameter in parameters[1::2])
        pairs = zip(parameters[::2], parameters[1::2], strict=True)
        for name, (down, up) in zip(names, pairs, strict=True):
            up.normal_(0, 0.2, generator=generator)
            theirs_by_name[f"{name}.lora_A.default.weight"].copy_(down)
            theirs_by_name[f"{name}.lora_B.default.weight"].copy_(up)
        assert (logits_of(ours) - logits_of(theirs)).abs().max() < 1e-4
        assert (logits_of(ours) - logits_of(make_lm())).abs().max() > 0.1


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("way", ["lora", "full"])
def test_an_adapter_stays_on_and_frozen(make_lm: Callable[..., LM], adapter: str, way: str) -> None:
    lm = make_lm()
    put_on = attached(lm, adapter)
    before = [parameter.detach().clone() for parameter in put_on.trainable_parameters()]
    options = {"kinds": ["forget"], "ways": [way], "steps": [2], "lora_lr": 0.05, "full_lr": 0.05}
    for _ in attack("relearn", subject_of(lm, put_on), **options):
        assert all(map(torch.equal, before, put_on.trainable_parameters()))
        relearned = logits_of(lm)
        with put_on.disabled():
            assert not torch.equal(logits_of(lm), relearned)


@pytest.mark.long
def test_small_steps_count_in_bfloat16(make_lm: Callable[..., LM]) -> None:
    """Steps that rounding to bfloat16 would swallow one by one."""
    lm = make_lm(dtype=torch.bfloat16)
    weight = decoder_layers(lm.model)[0].mlp.up_proj.weight
    before = weight.detach().clone()
    lr = 2e-4
    lost = before == (before.float() + lr).bfloat16()
    assert lost.float().mean() > 0.5
    for _ in attack("relearn", subject_of(lm), kinds=["forget"], ways=["full"], steps=[16], full_lr=lr):
        assert weight.dtype == torch.bfloat16
        assert (weight != before)[lost].float().mean() > 0.5


# --- strip and probe --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_without_its_adapter_a_model_is_the_target(make_lm: Callable[..., LM], adapter: str) -> None:
    target, lm = make_lm(), make_lm()
    put_on = attached(lm, adapter)
    expected = answers(subject_of(target))
    assert answers(subject_of(lm)).dumps() != expected.dumps()
    ((name, altered),) = ((name, answers(each)) for name, each in attack("strip", subject_of(lm, put_on)))
    assert (name, altered.dumps()) == ("strip", expected.dumps())


@torch.no_grad()
def lens(lm: LM, ids: Sequence[int], number: int) -> Tensor:
    """(tokens, vocabulary) logits after `number` blocks, from the hidden states that transformers gives out."""
    states = lm.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[number]
    return lm.model.lm_head(lm.model.model.norm(states))[0]


@pytest.mark.long
def test_a_probe_is_the_lens_by_hand(lm: LM) -> None:
    """Scores and generations of the model cut short, against the whole model's hidden states, norm and head."""
    untouched, seen = copied(lm), []
    for name, altered in attack("probe", subject_of(lm), depths=[0.2, 0.5, 0.55, 0.9]):
        number = int(name.removeprefix("layer"))
        seen.append(number)
        for record in answers(altered):
            prompt, answer = lm.prompts.prompt(record.question), lm.prompts.answer(record.answer.text)
            logits = lens(untouched, prompt + answer, number)[len(prompt) - 1 : -1].log_softmax(-1)
            expected = logits[torch.arange(len(answer)), answer].tolist()
            assert record.answer.logprobs == pytest.approx(expected, abs=1e-3)
            ids = list(prompt)
            while len(ids) - len(prompt) < 8 and ids[-1] != 1:
                ids.append(int(lens(untouched, ids, number)[-1].argmax()))
            text = lm.tokenizer.decode(ids[len(prompt) :], skip_special_tokens=True).strip()
            assert record.generation is not None and record.generation.text == text
    # 0.2, 0.5 and 0.9 of six blocks; 0.55 of them is three again
    assert seen == [1, 3, 5]


def test_edits_below_the_exit_act_and_those_above_do_not(make_lm: Callable[..., LM]) -> None:
    both, lower = make_lm(), make_lm()
    adapter = attached_in_training(both, "grun", layers=[1, 4])
    alone = attached_in_training(lower, "grun", layers=[1])
    alone.edits["1"].load_state_dict(adapter.edits["1"].state_dict())
    plain = make_lm()
    said = []
    for lm in (both, lower, plain):
        for _ in attack("probe", subject_of(lm), depths=[0.5]):
            said.append(logits_of(lm))
    assert torch.equal(said[0], said[1]) and not torch.equal(said[0], said[2])
    for _, altered in attack("probe", subject_of(both, adapter), depths=[0.5]):
        assert {tuple(record.gates or {}) for record in answers(altered)} == {("1",)}
