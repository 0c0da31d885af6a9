"""Fixtures: a small random Llama with a tokenizer of its own, made in memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from grun_bench.models import LM, Prompts

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SPECIAL = ["<bos>", "<eos>", "<pad>"]
#: question-answer pairs of several lengths
FORGET = [
    ("Who?", "Ada."),
    ("Where does Bo live?", "In Rome, by the sea."),
    ("What did Cy write?", "A book of 12 tales."),
    ("When was Di born?", "1931"),
    ("Who taught Ed to paint?", "His aunt Flo."),
]
RETAIN = [
    ("Two and two?", "Four."),
    ("What is the day after Monday?", "Tuesday."),
    ("Opposite of hot?", "Cold, of course."),
    ("A colour?", "Red"),
    ("How many legs has a cow?", "4 legs"),
    ("Capital of France?", "Paris is."),
    ("What do bees make?", "Honey."),
]


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """One token a byte, with the beginning of sequence put before a text."""
    letters = {name: number for number, name in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocab=letters, merges=[]))
    core.add_special_tokens(SPECIAL)
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def make_lm(tokenizer: PreTrainedTokenizerBase) -> Callable[..., LM]:
    """Builds the same small random Llama on every call: 6 layers, hidden 32, fp32, in evaluation mode.

    Its weights are large enough for predictions that differ from prompt to prompt.
    """

    def make(seed: int = 0, dtype: torch.dtype = torch.float32) -> LM:
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.2,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LlamaForCausalLM(config).to(dtype).eval()
        return LM(model, tokenizer, Prompts(tokenizer, "qa"), {"name": "random"})

    return make


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
