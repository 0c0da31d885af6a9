"""What a training of adapter + objective comes to before it begins: steps, tokens, and what its memory holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from grun_bench.methods.adapters.base import Adapter
from grun_bench.methods.alternates import LONGER
from grun_bench.methods.draws import Draw, Sequences, draw_batches, encode, encode_rows, uses
from grun_bench.methods.optimisers import PAGED
from grun_bench.methods.refusals import REFUSALS
from grun_bench.methods.trainer import Pair
from grun_bench.models.batch import Encoded, common_length
from grun_bench.models.lm import LM, Pairs
from grun_bench.models.memory import Kept, Shape, Training, trunk_bytes


@dataclass(frozen=True)
class Planned:
    """One request's training. `tokens` are those of all rows of all steps, padding not counted; `answer_tokens` those
    of them whose likelihood is trained on or compared. `estimated` says that answers are yet to be written."""

    steps: int
    tokens: int
    answer_tokens: int
    estimated: bool
    training: Training


def planned(
    pair: Pair, lm: LM, forget: Pairs, retain: Pairs, seed: int, trunk_cache: bool = True, stages: int = 1
) -> tuple[list[nn.Parameter], Planned]:
    """What the pair trains on a model without weights, and what that comes to. Raises DataError as training does."""
    adapter = pair.new_adapter()
    with torch.device("meta"):  # what lies beside the model has no numbers either
        adapter.attach(lm.model)
        adapter.know(lm)
        if stages > 1:
            adapter.next_stage()
    parameters = adapter.trainable_parameters()
    sequences = _sequences(pair, lm, forget, retain)
    draws = draw_batches(sequences, pair.recipe, seed)
    run = list(uses(sequences, draws, reference=False, retain=pair.reads_retain))
    shape = Shape.of(lm.model.config)
    frozen = adapter.frozen_blocks
    cached = trunk_cache and frozen > 0
    tokens, answers, sides = _largest(pair, sequences, draws, cached and adapter.edits_prompt_end)
    trunk = _trunk(pair, shape, sequences, draws, frozen, adapter.edits_prompt_end, lm) if cached else 0
    training = training_of(pair, adapter, lm.model, tokens, answers, sides, trunk)
    steps = math.ceil(len(draws) / pair.recipe.accumulate)
    whole, answered = sum(map(len, run)), sum(len(each.answer) for each in run)
    return parameters, Planned(steps, whole, answered, "alternate" in sequences, training)


def training_of(
    pair: Pair, adapter: Adapter, model: PreTrainedModel, tokens: int, answers: int, sides: int, trunk: int = 0
) -> Training:
    """A training on passes of so many tokens with an adapter that is on a model; the rest as in `Training`."""
    parameters = adapter.trainable_parameters()
    own = sum(each.numel() for each in parameters if each.dtype == model.dtype)
    kept: Kept = "weights" if adapter.changes_model else "inputs" if adapter.beside_linears else "through"
    return Training(
        own=own,
        full_precision=sum(each.numel() for each in parameters) - own,
        blocks=Shape.of(model.config).layers - adapter.frozen_blocks,
        kept=kept,
        tokens=tokens,
        answers=answers,
        sides=sides,
        way=pair.recipe.trained_as,
        checkpointing=pair.recipe.checkpointing,
        chunked=not any(each.requires_grad for each in model.get_output_embeddings().parameters()),
        dropout=bool(getattr(adapter, "dropout", 0)),
        buffers=adapter.buffer_bytes,
        trunk=trunk,
        target=adapter.changes_model and "target" in pair.needs,
        bits8=pair.recipe.optimiser.endswith("8bit"),
        paged=pair.recipe.optimiser in PAGED,
    )


def _sequences(pair: Pair, lm: LM, forget: Pairs, retain: Pairs) -> Sequences:
    """The sequences that are drawn from; alternates, which the target model is to write, by their longest."""
    recipe, found = pair.recipe, {}
    for name, rows in (("forget", forget), ("retain", retain)):
        found[name] = encode_rows(lm, rows, recipe)
    if "idk" in pair.needs:
        found["idk"] = [each for question, _ in forget for each in encode(lm, question, REFUSALS, recipe)]
    if "alternate" in pair.needs:
        count, most = int(pair.settings.get("alternates", 1)), int(pair.settings.get("new_tokens", 0))
        found["alternate"] = [
            Encoded(each.prompt, each.answer[:1] * (most or LONGER * len(each.answer)))
            for each in found["forget"]
            for _ in range(count)
        ]
    return found


def _largest(pair: Pair, sequences: Sequences, draws: Sequence[Draw], from_prompt_end: bool) -> tuple[int, int, int]:
    """Of the largest batch: tokens of a pass with its padding, answer tokens of a pass, and passes of a step."""
    most = (0, 0, 1)
    for draw in draws:
        sides = {name: rows for name, rows in draw.rows.items() if rows and (name != "retain" or pair.reads_retain)}
        found = []
        for name, rows in sides.items():
            each = [sequences[name][row] for row in rows]
            begins = [len(one.prompt) - 1 if from_prompt_end else 0 for one in each]
            width = max(len(one) - begin for one, begin in zip(each, begins, strict=True))
            found.append((len(each) * width, sum(len(one.answer) for one in each)))
        of_pass = [math.ceil(sum(numbers) / len(found)) for numbers in zip(*found, strict=True)]
        most = max(most, (of_pass[0], of_pass[1], len(found)))
    return most


def _trunk(
    pair: Pair, shape: Shape, sequences: Sequences, draws: Sequence[Draw], frozen: int, prompts: bool, lm: LM
) -> int:
    """Bytes of what frozen blocks give for the sequences that are run more than once, and of their prompts."""
    run = [
        (len(each.prompt) - 1, (*each.prompt, *each.answer))
        for each in uses(sequences, draws, "reference" in pair.needs, pair.reads_retain)
    ]
    kept = [key for key, times in Counter(run).items() if times > 1]
    tokens = sum(len(ids) - end * prompts for end, ids in kept)
    blocks, of_prompts = shape.layers - frozen, Counter(ids[:end] for end, ids in run)
    wanted = [ids for ids, times in of_prompts.items() if times > 1 and ids] if prompts and blocks else []
    # what all begin with is there once
    common = common_length(wanted)
    before = common + sum(len(ids) - common for ids in wanted)
    return trunk_bytes(shape, tokens, before, blocks, lm.model.dtype.itemsize)
