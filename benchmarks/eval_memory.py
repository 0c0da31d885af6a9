#!/usr/bin/env python3
"""Peak memory of scoring against that of the model's own forward pass that keeps no logits of the prompt.

    python benchmarks/eval_memory.py [--answer 64] [--hidden 256]

A random Llama with a vocabulary of 128,256 reads 8 sequences of 512 tokens, the last of which are the answer. Each way
runs in a process of its own, and what it holds above the loaded model is measured.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from grun_bench.engine import Engine, Work

VOCABULARY, LENGTH, BATCH = 128_256, 512, 8


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
    before = psutil.Process().memory_info().rss
    if way == "own":
        with torch.no_grad():
            model(ids, attention_mask=torch.ones_like(ids), num_logits_to_keep=answer + 1)
    else:
        works = [Work(row[:-answer], [row[-answer:]], moments=True) for row in ids.tolist()]
        results = dict(Engine(model, stops=[2], max_new_tokens=1, batch_size=BATCH).run(works))
        assert all(len(result.continuations[0].logprobs) == answer for result in results.values())
    return max(0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answer", type=int, default=64, help="answer tokens of the 512")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--way", choices=["own", "engine"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(held(options.way, options.answer, options.hidden))
        return
    common = [sys.executable, __file__, "--answer", str(options.answer), "--hidden", str(options.hidden), "--way"]
    own, engine = (int(subprocess.check_output([*common, way])) for way in ("own", "engine"))
    print(f"own pass {own / 2**20:.0f} MiB, engine {engine / 2**20:.0f} MiB, ratio {engine / own:.2f}")


if __name__ == "__main__":
    main()
