"""Rows that are longer than what a model was made for are refused by name, in training as in scoring."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM, GPTNeoConfig, LlamaConfig, PreTrainedTokenizerBase

from grun_bench.core.errors import DataError
from grun_bench.models.lm import LM, Prompts
from grun_bench.models.scoring import Example, ScoringSettings, score

CONTEXT = 64
CONFIGS = {
    "positions that turn": LlamaConfig(
        vocab_size=259, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=CONTEXT,
    ),
    "positions in a table": GPTNeoConfig(
        vocab_size=259, hidden_size=16, num_layers=2, num_heads=2, max_position_embeddings=CONTEXT,
        attention_types=[[["global", "local"], 1]],
    ),
}  # fmt: skip


@pytest.fixture(params=CONFIGS)
def short(request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase) -> LM:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[request.param]).eval()
    return LM(model, tokenizer, Prompts(tokenizer, "qa"), {"name": request.param})


def rows(lm: LM, tokens: int) -> list[Example]:
    """A short row, and one whose prompt and answer have so many tokens."""
    around = len(lm.prompts.encode("?", ""))
    return [Example("forget", 0, "Who?", "Ada"), Example("forget", 7, "?", "a" * (tokens - around))]


def test_a_row_is_scored_up_to_the_last_position(short: LM) -> None:
    records = score(short, rows(short, CONTEXT), ScoringSettings(max_new_tokens=1))
    assert all(torch.tensor(record.answer.logprobs).isfinite().all() for record in records)


def test_a_longer_row_is_named(short: LM) -> None:
    with pytest.raises(DataError, match=f"row 7 of 'forget' takes {CONTEXT + 1} tokens.* {CONTEXT}"):
        score(short, rows(short, CONTEXT + 1), ScoringSettings(max_new_tokens=4))


def test_so_is_one_whose_generation_may_be_too_long(short: LM) -> None:
    asked = rows(short, CONTEXT)[:1]
    room = CONTEXT - len(short.prompts.prompt("Who?"))
    assert score(short, asked, ScoringSettings(max_new_tokens=room))[0].generation
    with pytest.raises(DataError, match="row 0 of 'forget'"):
        score(short, asked, ScoringSettings(max_new_tokens=room + 1))


def test_a_longer_row_is_not_trained_on(short: LM) -> None:
    pairs = [(each.question, each.answer) for each in rows(short, CONTEXT + 1)]
    assert len(short.encoded(pairs[:1])) == 1
    with pytest.raises(DataError, match="training row 1"):
        short.encoded(pairs)


@pytest.mark.parametrize(
    ("scaling", "context"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 256),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}, 64),
        ({"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 16}, 128),
    ],
)
def test_stretched_positions_reach_further(
    make_lm: Callable[..., LM], scaling: dict[str, object], context: int
) -> None:
    lm = make_lm()
    lm.model.config.max_position_embeddings = CONTEXT
    assert lm.context == CONTEXT
    lm.model.config.rope_scaling = lm.model.config.rope_parameters = scaling
    assert lm.context == context
