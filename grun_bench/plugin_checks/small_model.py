"""The small random model that plugins are checked on, and what is asked of it."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from grun_bench.methods.base import FitContext, Fitted, Unlearner
from grun_bench.methods.make import make_unlearner
from grun_bench.models.batch import collate
from grun_bench.models.forward import forward
from grun_bench.models.lm import LM, Prompts
from grun_bench.models.scoring import Example
from grun_bench.tasks.world import PUBLISHED

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
_SPECIAL = ["<bos>", "<eos>", "<pad>"]


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """One token a byte, with the beginning of sequence put before a text."""
    letters = {name: number for number, name in enumerate([*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocab=letters, merges=[]))
    core.add_special_tokens(_SPECIAL)
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


def small_lm(seed: int = 0, dtype: torch.dtype = torch.float32, tokenizer: PreTrainedTokenizerBase | None = None) -> LM:
    """The same small random Llama on every call with one seed: 6 layers, hidden 32, in evaluation mode.

    Its weights are large enough for predictions that differ from prompt to prompt.
    """
    tokenizer = tokenizer or byte_tokenizer()
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


def two_sets() -> list[Example]:
    """The forget and the retain rows as examples with all that may be asked of them."""
    return [
        Example(name, index, *pair, f"{pair[1]} too", ("No.", "Not that."), f"Say, {pair[0]}")
        for name, rows in (("forget", FORGET), ("retain", RETAIN))
        for index, pair in enumerate(rows)
    ]


@torch.no_grad()
def logits(lm: LM, as_it_is: bool = False) -> Tensor:
    """What the model says of the forget pairs: (pairs, positions, vocabulary).

    It is put into evaluation mode, unless it is to be read in the mode that it was left in.
    """
    if not as_it_is:
        lm.model.eval()
    return forward(lm.model, collate([lm.prompts.encode(*each) for each in FORGET], lm.pad_id).to(lm.device)).logits


def fit(unlearner: Unlearner) -> Fitted:
    """The unlearner on the small model and the pairs here, with seed 0."""
    context = FitContext(FORGET, RETAIN, load_target=small_lm, load_retain_model=lambda: small_lm(1), seed=0)
    return unlearner.fit(context)


def pair(adapter: str, objective: str) -> Unlearner:
    """Adapter and objective with a recipe of a second."""
    settings = {"epochs": 2, "batch_size": 3, "lr": 1e-2}
    return make_unlearner(f"{adapter}+{objective}", settings, PUBLISHED)
