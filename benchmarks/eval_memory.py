#!/usr/bin/env python3
"""Peak memory of scoring against that of the model's own forward pass that keeps no logits of the prompt.

    python benchmarks/eval_memory.py [--hidden 256]

A random Llama with a vocabulary of 128,256 reads 8 sequences of 512 tokens, the last of which are the answer. Its own
pass keeps the logits of the answer; the engine scores the answer, with the moments of every distribution. Each way runs
in a process of its own, and what it holds at its peak above the loaded model is measured (Linux). The exit code is 1
when the engine needs more than 1.3 times as much.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from inspect import signature

import torch
from rich.console import Console
from rich.table import Table
from transformers import LlamaConfig, LlamaForCausalLM

from grun_bench.core import environment as env
from grun_bench.models.engine import Engine
from grun_bench.models.work import Work

VOCABULARY, LENGTH, BATCH = 128_256, 512, 8
#: answer tokens of the 512
ANSWERS = (1, 64, 256)
ALLOWED = 1.3
#: what transformers calls the number of last positions that have logits: 4.45 the second
NAMES = ("logits_to_keep", "num_logits_to_keep")
KEPT = next(name for name in NAMES if name in signature(LlamaForCausalLM.forward).parameters)


def held(way: str, answer: int, hidden: int) -> int:
    """Bytes of peak memory above the loaded model, in this process."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_hidden_layers=4,
        num_attention_heads=hidden // 64,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    ids = torch.randint(3, VOCABULARY, (BATCH, LENGTH))
    # the first pass of a process sets up libraries: not either way's cost
    with torch.no_grad():
        model(ids[:1, :8])
    env.reset_peak_memory()
    before = env.peak_memory()
    if way == "own":
        with torch.no_grad():
            model(ids, attention_mask=torch.ones_like(ids), **{KEPT: answer + 1})
    else:
        works = [Work(row[:-answer], [row[-answer:]], moments=True) for row in ids.tolist()]
        results = dict(Engine(model, stops=[2], max_new_tokens=1, batch_size=BATCH).run(works))
        assert all(len(result.continuations[0].logprobs) == answer for result in results.values())
    return env.peak_memory() - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--way", choices=["own", "engine"], help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(held(options.way, options.answer, options.hidden))
        return 0
    table = Table("answer tokens", "own pass, MiB", "engine, MiB", "ratio")
    worst = 0.0
    for answer in ANSWERS:
        common = [sys.executable, __file__, "--hidden", str(options.hidden), "--answer", str(answer), "--way"]
        own, engine = (int(subprocess.check_output([*common, way])) for way in ("own", "engine"))
        worst = max(worst, engine / own)
        table.add_row(str(answer), f"{own / 2**20:.0f}", f"{engine / 2**20:.0f}", f"{engine / own:.2f}")
    Console(width=80).print(table)
    return 0 if worst <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
