#!/usr/bin/env python3
"""Time the plain way of evaluating against the engine: one process, the same model, the same rows, the same numbers.

    python benchmarks/eval_speed.py [--model tiny|PATH] [--rows 48] [--threads 1]

The plain way is OpenUnlearning's (locuslab/open-unlearning at d3d7cf9, src/evals): one pass per metric over fixed
batches in file order, padded to the longest, logits of every position and the whole vocabulary, `generate` in fixed
batches. Its default suite for TOFU takes probabilities of answers, paraphrases and wrong answers, extraction strength
and ROUGE; exact memorisation and the membership attacks run the same sequences again and are timed apart.
Real models read TOFU from the mirrors in GRUN_BENCH_HUB; `tiny` reads the embedded world.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from grun_bench.data import IGNORED
from grun_bench.loading import TINY, Placement, load, load_tiny
from grun_bench.models import LM
from grun_bench.records import Records
from grun_bench.rows import Source, load_rows
from grun_bench.scoring import Example, ScoringSettings, score, stop_tokens

SOURCES = {
    "forget": "locuslab/TOFU:forget10_perturbed",
    "retain": "locuslab/TOFU:retain_perturbed",
    "real_authors": "locuslab/TOFU:real_authors_perturbed",
    "world_facts": "locuslab/TOFU:world_facts_perturbed",
}
NEW_TOKENS = 200


@dataclass
class Cost:
    """Seconds and bytes of one way, and its counts, taken by hooks on the model's embedding and head."""

    seconds: float = 0.0
    peak: int = 0
    forward_tokens: int = 0
    head_rows: int = 0
    passes: int = 0

    def __add__(self, other: Cost) -> Cost:
        sums = (self.seconds + other.seconds, max(self.peak, other.peak), self.forward_tokens + other.forward_tokens)
        return Cost(*sums, self.head_rows + other.head_rows, self.passes + other.passes)


@contextmanager
def measured(model: nn.Module) -> Iterator[Cost]:
    """Measure a block. Peak memory is what the process (or the device) held above its start."""
    cost = Cost()

    def count_tokens(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        cost.forward_tokens += args[0].numel()
        cost.passes += 1

    def count_rows(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        cost.head_rows += output[..., 0].numel()

    hooks = [
        model.get_input_embeddings().register_forward_pre_hook(count_tokens),
        model.get_output_embeddings().register_forward_hook(count_rows),
    ]
    with _peak(cost):
        start = time.perf_counter()
        yield cost
        cost.seconds = time.perf_counter() - start
    for hook in hooks:
        hook.remove()


@contextmanager
def _peak(cost: Cost) -> Iterator[None]:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        yield
        cost.peak = torch.cuda.max_memory_allocated() - base
        return
    # glibc keeps what was freed: hand it back, so that one way does not live on the other's memory
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    process, done = psutil.Process(), threading.Event()
    base = process.memory_info().rss

    def sample() -> None:
        while not done.wait(0.01):
            cost.peak = max(cost.peak, process.memory_info().rss - base)

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    yield
    done.set()
    sampler.join()


@dataclass
class Plain:
    """The plain way. `losses` and `texts` are kept to be compared."""

    lm: LM
    batch_size: int
    losses: dict[tuple[str, int, str], float] = field(default_factory=dict)
    texts: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    decoded: int = 0

    def batches(
        self, rows: Sequence[Example], answers: Sequence[str]
    ) -> Iterator[tuple[Sequence[Example], dict[str, Tensor]]]:
        """Fixed batches in file order, right-padded to the longest."""
        for start in range(0, len(rows), self.batch_size):
            part = slice(start, start + self.batch_size)
            pairs = zip(rows[part], answers[part], strict=True)
            encoded = [self.lm.prompts.encode(row.question, answer) for row, answer in pairs]
            ids = [torch.tensor(each.prompt + each.answer) for each in encoded]
            labels = [torch.tensor([IGNORED] * len(each.prompt) + each.answer) for each in encoded]
            pad = nn.utils.rnn.pad_sequence
            batch = {
                "input_ids": pad(ids, True, self.lm.pad_id),
                "attention_mask": pad([torch.ones_like(each) for each in ids], True, 0),
                "labels": pad(labels, True, IGNORED),
            }
            yield rows[part], {name: value.to(self.lm.device) for name, value in batch.items()}

    @torch.no_grad()
    def probability(self, rows: Sequence[Example], answers: Sequence[str]) -> None:
        for part, batch in self.batches(rows, answers):
            # without labels: the model's own loss is not asked for
            logits = self._logits(batch)[..., :-1, :].contiguous()
            labels = batch["labels"][..., 1:].contiguous()
            losses = nn.functional.cross_entropy(
                logits.transpose(-1, -2), labels, reduction="none", ignore_index=IGNORED
            )
            means = losses.sum(-1) / (labels != IGNORED).sum(-1)
            for row, mean in zip(part, means.tolist(), strict=True):
                self.losses[row.set, row.index, answers[rows.index(row)]] = mean
            del logits, losses

    @torch.no_grad()
    def tokenwise(self, rows: Sequence[Example], passes: int = 1) -> None:
        """What extraction strength, exact memorisation and the attacks run: whole log-probabilities."""
        for _, batch in self.batches(rows, [row.answer for row in rows]):
            for _ in range(passes):
                logprobs = self._logits(batch).log_softmax(-1)[:, :-1]
                logprobs.argmax(-1)
                logprobs.gather(2, batch["input_ids"][:, 1:, None])
                del logprobs

    def _logits(self, batch: dict[str, Tensor]) -> Tensor:
        return self.lm.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits

    @torch.no_grad()
    def generate(self, rows: Sequence[Example]) -> None:
        stops = sorted(stop_tokens(self.lm))
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            prompts = [self.lm.prompts.prompt(row.question) for row in part]
            width = max(map(len, prompts))
            ids = torch.tensor([[self.lm.pad_id] * (width - len(prompt)) + prompt for prompt in prompts])
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
            out = self.lm.model.generate(
                ids.to(self.lm.device),
                attention_mask=mask.to(self.lm.device),
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                pad_token_id=self.lm.pad_id,
                eos_token_id=stops,
            )[:, width:].tolist()
            self.decoded += len(part) * (len(out[0]) - 1)
            for row, tokens in zip(part, out, strict=True):
                end = next((place + 1 for place, token in enumerate(tokens) if token in stops), len(tokens))
                self.texts[row.set, row.index] = tokens[:end]


def examples(name: str, rows: int, embedded: bool) -> list[Example]:
    """The first rows of a set."""
    table = load_rows(Source.parse(SOURCES[name]), ("question", "answer"), embedded=embedded, limit=rows).rows
    return [
        Example(
            name, index, row["question"], row["answer"], row.get("paraphrased_answer"), tuple(row["perturbed_answer"])
        )
        for index, row in enumerate(table)
    ]


def by_set(rows: Sequence[Example]) -> list[list[Example]]:
    return [[row for row in rows if row.set == name] for name in SOURCES]


def plain_parts(plain: Plain, rows: Sequence[Example]) -> dict[str, Callable[[], None]]:
    """The plain way's passes, in three parts."""
    forget = by_set(rows)[0]

    def probabilities() -> None:
        for part in by_set(rows):
            for candidates in zip(*(row.candidates for row in part), strict=True):
                plain.probability(part, candidates)
        plain.tokenwise(forget)

    def again() -> None:
        # exact memorisation, loss, zlib, min-k, and two for min-k++
        for _ in range(4):
            plain.tokenwise(forget)
        plain.tokenwise(forget, passes=2)

    def generations() -> None:
        for part in by_set(rows):
            plain.generate(part)

    return {"scoring": probabilities, "generating": generations, "memorisation and membership": again}


def differences(plain: Plain, records: Records, lm: LM) -> tuple[float, int]:
    """The largest difference of a mean loss, and how many generations differ."""
    worst, differing = 0.0, 0
    for record in records:
        for each in [record.answer, *([record.paraphrased] if record.paraphrased else []), *record.perturbed]:
            worst = max(worst, abs(each.loss - plain.losses[record.set, record.index, each.text]))
        text = lm.tokenizer.decode(
            plain.texts[record.set, record.index], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        differing += text.strip() != record.generation.text
    return worst, differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=TINY, help="tiny, a folder, or a Hub id")
    parser.add_argument("--rows", type=int, default=48, help="rows of each set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32, help="of the plain way")
    parser.add_argument("--engine-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    placement = Placement.choose("auto", "float32")
    lm = load_tiny(None, placement) if options.model == TINY else load(options.model, placement)
    rows = [row for name in SOURCES for row in examples(name, options.rows, options.model == TINY)]
    # the first pass of a process pays for set-up that is neither way's
    lm.model(torch.tensor([[1, 2, 3]], device=lm.device))

    with measured(lm.model) as engine:
        records = score(lm, rows, ScoringSettings(NEW_TOKENS))
    table = Table(title=f"{options.model}, {len(rows)} rows, {options.threads} thread(s), {lm.device}")
    for heading in ("way", "seconds", "ratio", "forward tokens", "head rows", "passes", "peak MiB"):
        table.add_column(heading, justify="left" if heading == "way" else "right")

    def add(name: str, cost: Cost, ratio: bool = True) -> None:
        values = (cost.forward_tokens, cost.head_rows, cost.passes, cost.peak / 2**20)
        share = f"{cost.seconds / engine.seconds:.2f}" if ratio else ""
        table.add_row(name, f"{cost.seconds:.1f}", share, *(f"{value:,.0f}" for value in values))

    add("engine, everything", engine)
    if not options.engine_only:
        plain, costs = Plain(lm, options.batch_size), {}
        for name, part in plain_parts(plain, rows).items():
            with measured(lm.model) as costs[name]:
                part()
            add(f"plain: {name}", costs[name], ratio=False)
        default = costs["scoring"] + costs["generating"]
        add("plain: default suite", default)
        add("plain: everything", default + costs["memorisation and membership"])
        worst, differing = differences(plain, records, lm)
        table.caption = (
            f"largest difference of a mean loss {worst:.1e}; generations that differ {differing} of {len(rows)}; "
            f"row-steps of the plain way's decoding {plain.decoded:,}"
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
