"""Examples to records: a tiny chat model with a word tokenizer, against plain passes."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from grun_bench.core.errors import UsageError
from grun_bench.models.forward import current_call
from grun_bench.models.lm import LM, Prompts
from grun_bench.models.protocols import PROTOCOLS
from grun_bench.models.scoring import Example, ScoringSettings, _generation, score, stop_tokens
from grun_bench.models.work import Counts
from grun_bench.plugin_checks.small_model import small_lm

WORDS = (
    "who wrote it where when was born Ada Bo Cy in Oslo Rome Lima . "
    "a b c d e f g h system user assistant You are a helpful"
)
TEMPLATE = (
    "{% for m in messages %}<s> {{ m['role'] }} {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}<s> assistant {% endif %}"
)
EXAMPLES = [
    Example("forget", 0, "who wrote it", "Ada in Oslo", "Ada wrote it", ("Bo in Rome", "Cy"), "who was it"),
    Example("forget", 1, "where was Ada born", "Rome", "in Rome", ("Lima", "Oslo", "a b c")),
    Example("retain", 7, "when was Bo born", "a b c d e f g", None, ()),
]


@functools.cache
def lm() -> LM:
    vocabulary = {word: index for index, word in enumerate(["<unk>", "<s>", "</s>", *dict.fromkeys(WORDS.split())])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(6)
    return LM(model, tokenizer, Prompts(tokenizer, "chat"), {})


def test_records_hold_what_one_pass_per_answer_gives() -> None:
    records = score(lm(), EXAMPLES, ScoringSettings(max_new_tokens=8))
    assert [(record.set, record.index, record.question) for record in records] == [
        (row.set, row.index, row.question) for row in EXAMPLES
    ]
    for row, record in zip(EXAMPLES, records, strict=True):
        continuations = [record.answer, *([record.paraphrased] if record.paraphrased else []), *record.perturbed]
        assert [each.text for each in continuations] == row.candidates
        for each in continuations:
            encoded = lm().prompts.encode(row.question, each.text)
            with torch.no_grad():
                logits = lm().model(torch.tensor([encoded.prompt + encoded.answer])).logits[0]
            expected = logits.log_softmax(-1)[len(encoded.prompt) - 1 : -1]
            targets = torch.tensor(encoded.answer)
            chosen = expected.gather(-1, targets[:, None])[:, 0]
            if each in record.perturbed:
                assert each.logprobs is None and each.matches is None
            else:
                torch.testing.assert_close(torch.tensor(each.logprobs), chosen, rtol=1e-4, atol=1e-4)
                assert each.matches == (expected.argmax(-1) == targets).long().tolist()
            assert each.loss == pytest.approx(-chosen.mean().item(), rel=1e-4)
            assert each.tokens == len(encoded.answer)
            assert (each.means is not None) == (each is record.answer)
        assert record.gates is None and record.gates_paraphrased is None


def test_generations_are_those_of_generate() -> None:
    for row, record in zip(EXAMPLES, score(lm(), EXAMPLES, ScoringSettings(max_new_tokens=8)), strict=True):
        prompt = torch.tensor([lm().prompts.prompt(row.question)])
        out = lm().model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=8, do_sample=False)
        tokens = out[0, prompt.shape[1] :].tolist()
        assert record.generation.text == lm().tokenizer.decode(tokens, skip_special_tokens=True).strip()
        assert record.generation.tokens == len(tokens)
        assert record.generation.finished == (tokens[-1] == 2)


def test_without_generation() -> None:
    assert all(record.generation is None for record in score(lm(), EXAMPLES, ScoringSettings(generate=False)))


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_batch_size_changes_nothing(batch_size: int) -> None:
    expected = score(lm(), EXAMPLES, ScoringSettings(max_new_tokens=8))
    for one, other in zip(score(lm(), EXAMPLES, ScoringSettings(8, batch_size)), expected, strict=True):
        assert one.generation == other.generation
        assert one.answer.logprobs == pytest.approx(other.answer.logprobs, abs=1e-4)


def test_gates_are_read_at_the_ends_of_both_questions() -> None:
    seen: dict[int, list[float]] = {}

    def gate(_: nn.Module, args: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        call = current_call()
        if call is not None and call.prompt_end is not None:
            states = output if isinstance(output, Tensor) else output[0]
            call.gates[1] = states[torch.arange(len(states)), call.prompt_end].mean(-1)

    handle = lm().model.model.layers[1].register_forward_hook(gate)
    try:
        records = score(lm(), EXAMPLES, ScoringSettings(max_new_tokens=4))
    finally:
        handle.remove()

    def keep(_: nn.Module, args: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        seen[1] = (output if isinstance(output, Tensor) else output[0])[0, -1]

    def expected(question: str) -> float:
        handle = lm().model.model.layers[1].register_forward_hook(keep)
        with torch.no_grad():
            lm().model(torch.tensor([lm().prompts.prompt(question)]))
        handle.remove()
        return torch.sigmoid(seen[1].mean()).item()

    for row, record in zip(EXAMPLES, records, strict=True):
        assert record.gates == {"1": pytest.approx(expected(row.question), abs=1e-5)}
    assert records[0].gates_paraphrased == {"1": pytest.approx(expected("who was it"), abs=1e-5)}
    assert records[1].gates_paraphrased is None


def test_open_unlearning_scores_the_template_tail_and_hides_ends_of_turn() -> None:
    """By hand: the tail of the conversation is scored, and every </s> is masked because the padding token is </s>."""
    row = EXAMPLES[0]
    record = score(lm(), [row], ScoringSettings(4, protocol="open-unlearning"))[0]
    text = "<s> system You are a helpful assistant. </s> <s> user who wrote it </s> <s> assistant"
    prompt = lm().tokenizer(text, add_special_tokens=False).input_ids
    tail = lm().tokenizer("Ada in Oslo </s>", add_special_tokens=False).input_ids
    # this template has the role before the answer, so the whole conversation continues the prompt
    ids = torch.tensor([prompt + tail])
    with torch.no_grad():
        logits = lm().model(ids, attention_mask=(ids != 2).long()).logits[0, len(prompt) - 1 : -1]
    chosen = logits.log_softmax(-1)[range(len(tail)), tail]
    assert record.answer.logprobs == pytest.approx(chosen.tolist(), abs=1e-4)
    clean = score(lm(), [row], ScoringSettings(4))[0]
    assert record.answer.loss != pytest.approx(clean.answer.loss, abs=1e-3)


def test_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="grun-bench, open-unlearning"):
        score(lm(), EXAMPLES, ScoringSettings(protocol="tofu"))


def test_costs_are_counted() -> None:
    counts = Counts()
    score(lm(), EXAMPLES, ScoringSettings(max_new_tokens=8), counts)
    # at least each prompt's own tokens and each candidate's but its last, which nothing has to follow
    encoded = [lm().prompts.encode(row.question, answer) for row in EXAMPLES for answer in row.candidates]
    assert counts.forward_tokens >= sum(len(each.answer) - 1 for each in encoded)
    assert counts.head_rows >= sum(len(each.answer) - 1 for each in encoded)
    assert math.isfinite(counts.row_steps)


def test_stops_are_the_models_and_the_tokenizers() -> None:
    assert stop_tokens(lm()) == {2}


def test_the_model_is_left_in_its_mode() -> None:
    model = lm().model
    model.train()
    try:
        score(lm(), EXAMPLES[:1], ScoringSettings(generate=False))
        assert model.training
    finally:
        model.eval()


def test_open_unlearning_removes_the_spaces_that_its_version_of_transformers_removes() -> None:
    """With transformers 5 as with 4, whose `decode` does it: transformers, tokenization_utils_base.py at v4.45.1."""
    small = small_lm()
    tokens = small.tokenizer("He did n't go . Yes , it 's", add_special_tokens=False).input_ids
    texts = [_generation(small, PROTOCOLS[name], tokens).text for name in ("grun-bench", "open-unlearning")]
    assert texts == ["He did n't go . Yes , it 's", "He didn't go. Yes, it's"]
