#!/usr/bin/env python3
"""What fits where: memory of unlearning by model, adapter and device, from shapes, and how near to what is measured.

    python benchmarks/what_fits.py
    GRUN_BENCH_HUB=... python benchmarks/what_fits.py --measure [--model HuggingFaceTB/SmolLM2-135M-Instruct]

The table is for NPO on batches as the default recipes have them, of rows of 128 tokens of which 64 are the answer: base
in bfloat16, `full` with float32 master weights, on GPUs; and what the three ways of needing less make of it. A cell of
the last columns is the first way that fits into nine tenths of a card: as it is, with checkpointing, with the base in
four bits, both. On 8 cards frozen bases are spread by --device-map, and `full` is sharded, a batch among them.

With --measure each of three adapters is trained for two steps on the CPU, in a process of its own; its peak above what
the libraries hold is compared with what `grun_bench/models/memory.py` says. The exit code is 1 where one is not within
a quarter of the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig

from grun_bench.core import environment as env
from grun_bench.methods.base import FitContext
from grun_bench.methods.make import make_unlearner
from grun_bench.methods.shapes import planned, training_of
from grun_bench.methods.trainer import Pair
from grun_bench.models.loading import Placement, load, without_weights
from grun_bench.models.memory import BYTES, Memory, Shape, Training, Weights, activations, empty_model, training_memory
from grun_bench.tasks.world import PUBLISHED

GB = 10**9
#: of the published configurations: Llama 3.2 1B and 3B, Llama 3.1 8B and 70B
MODELS = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "3B": {"hidden_size": 3072, "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24},
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
}
TIED = ("1B", "3B")
ADAPTERS = ("full", "lora", "reft", "grun", "grun-held")
TOKENS, ANSWER = 128, 64
#: cards, and how much of one is there for what is counted here
CARDS = {"24 GB": (24, 1), "80 GB": (80, 1), "8 x 80 GB": (80, 8)}
USABLE = 0.9
WAYS = {
    "yes": (False, False),
    "checkpointing": (True, False),
    "4 bits": (False, True),
    "4 bits, checkpointing": (True, True),
}
MEASURED = ("full", "lora", "grun")
STEPS, ROWS, ALLOWED = 2, 4, 0.25


def config_of(name: str) -> LlamaConfig:
    return LlamaConfig(vocab_size=128_256, num_key_value_heads=8, tie_word_embeddings=name in TIED, **MODELS[name])


@cache
def shapes_of(name: str, adapter: str) -> tuple[Shape, Weights, Training, int]:
    """The shape of a model, its weights, the training of an adapter on one row, and the rows of a batch."""
    model = empty_model(config_of(name), "bfloat16")
    weights, shape = Weights.of(model), Shape.of(model.config)
    pair = make_unlearner(f"{adapter}+npo", {}, PUBLISHED, "bfloat16")
    assert isinstance(pair, Pair)
    on = pair.new_adapter()
    with torch.device("meta"):
        on.attach(model)
    width = ANSWER + 1 if on.edits_prompt_end else TOKENS
    return shape, weights, training_of(pair, on, model, width, ANSWER, sides=2), pair.recipe.batch_size


def memory_of(name: str, adapter: str, checkpointing: bool, rounded: bool, cards: int) -> Memory | None:
    """What one card holds; None where there is no such way: weights in four bits cannot be trained."""
    if adapter == "full" and rounded:
        return None
    shape, weights, row, rows = shapes_of(name, adapter)
    if adapter == "full":
        rows = max(1, rows // cards)
    passes = {"tokens": row.tokens * rows, "answers": row.answers * rows, "checkpointing": checkpointing}
    training = replace(row, **passes)
    found = training_memory(shape, weights, training, "bfloat16", rounded)
    if cards == 1:
        return found
    shared = ("weights", "training") if adapter == "full" else ("weights",)
    device = {key: count // cards if key in shared else count for key, count in found.device.items()}
    # what gradients run through lies beside the blocks that they run through
    if adapter != "full":
        spread = activations(shape, training, BYTES["bfloat16"])
        device["passes"] -= spread - spread // cards
    return replace(found, device=device)


def rows_of_table() -> Iterator[list[str]]:
    for name in MODELS:
        for adapter in ADAPTERS:
            sizes = [memory_of(name, adapter, *way, cards=1) for way in WAYS.values()]
            cells = ["-" if each is None else f"{each.total / GB:.0f}" for each in sizes]
            for size, cards in CARDS.values():
                ways = {way: memory_of(name, adapter, *how, cards=cards) for way, how in WAYS.items()}
                fits = (way for way, each in ways.items() if each and each.total <= USABLE * size * GB)
                cells.append(next(fits, "no"))
            yield [name, adapter, *cells]


def print_table(markdown: bool) -> None:
    columns = ["model", "adapter", *(f"GB, {way}" if way != "yes" else "GB" for way in WAYS), *CARDS]
    if markdown:
        print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
        for row in rows_of_table():
            print(f"| {' | '.join(row)} |")
        return
    table = Table(*columns)
    for row in rows_of_table():
        table.add_row(*row)
    Console().print(table)


# ---- against what is measured


def trained(adapter: str, model: str) -> dict[str, int]:
    """Bytes at the peak of two steps on the CPU above what the libraries hold, and what is said of them."""
    data = [(f"Where was author number {number} born?", "In a village by the sea, " * 8) for number in range(ROWS)]
    forget, retain = data[: ROWS // 2] * 2, data[ROWS // 2 :] * 2
    settings = {"steps": STEPS, "batch_size": ROWS, "least_steps": 0, "lr_width": 0}
    pair = make_unlearner(f"{adapter}+npo", settings, PUBLISHED)
    assert isinstance(pair, Pair)
    placement = Placement("cpu", "float32")
    lm = without_weights(model, placement)
    said = planned(pair, lm, forget, retain, 0)[1].training
    shape, weights = Shape.of(lm.model.config), Weights.of(without_weights(model, placement).model)
    # what only the first pass of a process takes is not of this
    torch.nn.Linear(8, 8)(torch.zeros(1, 8)).sum().backward()
    before = resident()
    target = partial(load, model, placement)
    context = FitContext(forget, retain, load_target=target, load_retain_model=target, seed=0)
    env.reset_peak_memory()
    pair.fit(context)
    peak = env.peak_memory()
    assert peak is not None
    memory = training_memory(shape, weights, said, "float32", kind="cpu")
    return {"measured": peak - before, "said": memory.total} | {f"said, {key}": n for key, n in memory.device.items()}


def resident() -> int:
    """Bytes that this process holds now (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


def measure(model: str) -> int:
    table = Table("adapter", "measured MB", "said MB", "said / measured")
    worst = 0.0
    for adapter in MEASURED:
        command = [sys.executable, __file__, "--model", model, "--child", adapter]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=env.for_children()).stdout)
        ratio = found["said"] / found["measured"]
        worst = max(worst, abs(ratio - 1))
        table.add_row(adapter, f"{found['measured'] / 1e6:.0f}", f"{found['said'] / 1e6:.0f}", f"{ratio:.2f}")
        print(found, file=sys.stderr)
    Console().print(table)
    return int(worst > ALLOWED)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--markdown", action="store_true", help="the table as Markdown")
    parser.add_argument("--model", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(trained(options.child, options.model)))
        return 0
    if options.measure:
        return measure(options.model)
    print_table(options.markdown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
