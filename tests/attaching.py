"""Adapters with visible weights on small models, and what such a model gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from grun_bench.core import registry
from grun_bench.core.settings import options_of
from grun_bench.methods import saving
from grun_bench.methods.adapters.base import Adapter
from grun_bench.methods.base import Fitted
from grun_bench.models.batch import collate
from grun_bench.models.forward import calling, forward
from grun_bench.models.lm import LM
from grun_bench.plugin_checks.small_model import byte_tokenizer

PROMPTS = ["Who?", "Where does Bo live, and since when?", "What did Cy write?", "No"]


def chat_tokenizer() -> PreTrainedTokenizerBase:
    """The byte tokenizer with a chat template, in which the end of sequence is also what a turn begins with."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}<eos>{{ message.role }}\n{{ message.content }}{% endfor %}"
        "{% if add_generation_prompt %}<eos>assistant\n{% endif %}"
    )
    return tokenizer


def attached(lm: LM, name: str, **options: Any) -> Adapter:
    """An adapter on the model, with every adapter weight drawn at random, so that each acts visibly."""
    adapter = registry.get("adapter", name).target(**options)
    adapter.attach(lm.model)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(7)
        for key, parameter in lm.model.named_parameters():
            if "lora_" in key:
                parameter.normal_(0, 0.3, generator=generator)
        for edit in getattr(adapter, "edits", {}).values():
            edit.source.weight.normal_(0, 0.5, generator=generator)
            edit.source.bias.normal_(0, 2.0, generator=generator)
    return adapter


def right_padded(lm: LM) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, attention mask and the last prompt token's position of prompts with an answer behind them."""
    batch = collate([lm.prompts.encode(prompt, "Yes, it is.") for prompt in PROMPTS], lm.pad_id)
    return batch.input_ids, batch.attention_mask, batch.prompt_end


@torch.no_grad()
def logits_of(lm: LM) -> Tensor:
    """(answer tokens, vocabulary) of the small batch, by the project's own forward pass."""
    batch = collate([lm.prompts.encode(prompt, "Yes, it is.") for prompt in PROMPTS], lm.pad_id)
    return forward(lm.model, batch).logits


@torch.no_grad()
def whole_logits(lm: LM) -> Tensor:
    """(visible tokens, vocabulary) of the small batch, by the model's own pass, edited at the prompts' ends."""
    ids, mask, end = right_padded(lm)
    with calling(end):
        return lm.model(input_ids=ids, attention_mask=mask).logits[mask.bool()]


def saved(lm: LM, folder: Path, name: str, **options: Any) -> Adapter:
    """An adapter with visible weights, attached and saved as `run --save` does."""
    adapter = attached(lm, name, **options)
    chosen = options_of(type(adapter)) | options
    saving.save(Fitted(lm, adapter=adapter, adapter_name=name, options=chosen), f"{name}+npo", folder)
    return adapter
