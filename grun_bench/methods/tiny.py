"""The `tiny` model: a small Llama trained from scratch in the embedded world, so that everything runs without a hub.

About a million parameters, its own tokenizer, about a minute on two cores. The target model learns the whole world; a
retain model learns it without a forget set. Both have the same tokenizer, start and settings, so they differ in what
they read and in nothing else. Tasks with multiple-choice questions have a model that learns the lore beside the
authors; it would only be in the way of the others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from grun_bench.core.environment import cpu_threads
from grun_bench.methods.batch import Side
from grun_bench.methods.checkpoints import Checkpoint
from grun_bench.methods.loop import Schedule, optimise
from grun_bench.methods.order import shuffled_batches, split
from grun_bench.models.batch import Batch, Encoded, collate
from grun_bench.models.lm import Prompts, Style
from grun_bench.tasks import toy_world as world

#: raised by hand whenever this module changes the weights that the same settings give
VERSION = 2
#: the embedded model has no chat template: the paper's "Question: ...\nAnswer:"
STYLE: Style = "qa"

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
VOCABULARY = 2048
ARCHITECTURE = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 336,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    # Llama's 0.02 is meant for wide models; this one learns more slowly from it
    "initializer_range": 0.05,
}
_FIRST_FIELDS = ("lr", "weight_decay", "betas", "warmup", "decay", "clip", "accumulate")
SCHEDULE = Schedule(lr=2.5e-3, betas=(0.9, 0.99), warmup=0.05, decay="cosine")
EPOCHS = 14
BATCH_SIZE = 16
#: share of the training examples whose answers cannot see the question (see `hide_question`)
HIDDEN_SHARE = 0.5
#: batches are cut from this many examples sorted by length, so that little of a batch is padding
BUCKET = 256
#: two threads are a third faster on an idle machine and many times slower on a busy one; the number of threads also
#: changes the weights' last digits
THREADS = 1


def settings(lore: bool = False) -> dict[str, Any]:
    """Everything in the project's hands that decides the weights, as plain data for a cache key.

    Versions of torch and transformers are not in it: they move the last digits, not what the model knows.
    """
    return {
        "version": VERSION,
        "world": world.fingerprint(),
        "lore": lore,
        "vocabulary": VOCABULARY,
        "architecture": ARCHITECTURE,
        # as Schedule was when the first rows were filed, field by field: what came later is at its default
        "schedule": {name: getattr(SCHEDULE, name) for name in _FIRST_FIELDS},
        "epochs": EPOCHS,
        "batch_size": BATCH_SIZE,
        "hidden_share": HIDDEN_SHARE,
        "bucket": BUCKET,
        "threads": THREADS,
        "style": STYLE,
    }


def tokenizer(lore: bool = False) -> PreTrainedTokenizerBase:
    """A byte-level BPE of 2,048 tokens trained on the text of the world; puts the beginning of sequence before a text.

    Models that leave a forget set out have the same tokenizer: a split of words says nothing about facts.
    """
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # each text as it stands in a prompt, so that "Question" and "Answer" are one token each and words keep their space
    core.train_from_iterator((f"Question: {text}\nAnswer: {text}" for text in world.texts(lore)), trainer)
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, core.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=ARCHITECTURE["max_position_embeddings"],
        clean_up_tokenization_spaces=False,
    )


def hide_question(batch: Batch, hidden: Sequence[bool]) -> Batch:
    """The batch with an attention mask that hides the question from the answer in the rows where `hidden` is true.

    There, answer tokens see of the prompt its last token alone. A model this small otherwise answers by looking
    straight back at the question's words; so it has to carry the question in the last prompt token, as large models
    do, and an edit at that token governs the whole answer.

    The mask that comes back is additive, (batch, 1, length, length) float, with every row's causal order and padding.
    """
    length = batch.input_ids.shape[1]
    position = torch.arange(length)
    query, key = position[:, None], position[None, :]
    end = batch.prompt_end[:, None, None]
    in_answer, in_question = query > end, key < end
    hides = torch.tensor(hidden)[:, None, None] & in_answer & in_question
    # padding comes after everything else, so the causal order alone keeps it out of sight
    seen = (key <= query) & ~hides
    mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return Batch(batch.input_ids, mask[:, None], batch.labels, batch.prompt_end)


def _batches(sequences: Sequence[Encoded], pad_id: int, epochs: int, seed: int) -> list[Batch]:
    """All epochs' batches in training order: shuffled, with sequences of like length together."""
    rng = random.Random(seed)
    batches: list[Batch] = []
    for _ in range(epochs):
        alike = (sorted(bucket, key=len) for bucket in shuffled_batches(sequences, 1, BUCKET, rng))
        groups = [group for bucket in alike for group in split(bucket, BATCH_SIZE)]
        rng.shuffle(groups)
        for group in groups:
            batches.append(hide_question(collate(group, pad_id), [rng.random() < HIDDEN_SHARE for _ in group]))
    return batches


def untrained(tokenizer: PreTrainedTokenizerBase, seed: int = 0) -> PreTrainedModel:
    """The model at its start. The global random state stays as it was."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **ARCHITECTURE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)


def build(
    exclude: str | None = None,
    seed: int = 0,
    epochs: int = EPOCHS,
    lore: bool = False,
    tokens: PreTrainedTokenizerBase | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Train the embedded model from scratch: the target model, or the retain model without the forget set `exclude`.

    The model is in evaluation mode, in fp32 on the CPU. The same seed gives the same weights on the same machine.
    """
    tokens = tokens or tokenizer(lore)
    model = untrained(tokens, seed)
    prompts = Prompts(tokens, STYLE)
    sequences = [prompts.encode(question, answer) for question, answer in world.training_rows(exclude, lore)]
    if lore:
        sequences += [prompts.encode_text(text) for text in world.training_texts(exclude)]
    batches = _batches(sequences, tokens.pad_token_id, epochs, seed)
    name = "target model" if exclude is None else f"retain model without {exclude}"
    model.train()
    with cpu_threads(THREADS):
        optimise(
            model.parameters(),
            batches,
            lambda batch: {"loss": Side(model, batch).cross_entropy},
            SCHEDULE,
            f"building tiny ({name})",
            checkpoint=checkpoint,
        )
    return model.eval(), tokens
