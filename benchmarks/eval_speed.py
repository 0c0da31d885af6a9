#!/usr/bin/env python3
"""Time the plain way of evaluating against the engine: one process, the same model, the same rows, the same numbers.

    python benchmarks/eval_speed.py [--model tiny|NAME|FOLDER] [--task tofu_forget10] [--rows 48] [--threads 1]

The plain way is OpenUnlearning's (locuslab/open-unlearning at d3d7cf9, src/evals): one pass per metric over fixed
batches in file order, padded to the longest, logits of every position and the whole vocabulary, `generate` in fixed
batches. Its default suite for TOFU takes probabilities of answers, paraphrases and wrong answers, extraction strength
and ROUGE; exact memorisation and the membership attacks run the same sequences again and are timed apart. The engine is
timed once, for all of it. Losses, matches and generations of both ways are compared; when they differ, the exit code
is 1.

Seconds are wall time, CPU seconds the process's own time, which means more on a busy machine. Peak memory is the high
water of the process (Linux) or the device above what it held when the way began. Real models read the task's rows from
the mirrors in GRUN_BENCH_HUB; `tiny` reads the embedded world.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from grun_bench.core import environment as env
from grun_bench.core.progress import say
from grun_bench.methods.made_models import load_tiny
from grun_bench.models.batch import IGNORED, collate, collate_prompts
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, load
from grun_bench.models.scoring import Example, ScoringSettings, score, stop_tokens
from grun_bench.models.work import Counts
from grun_bench.results.record import Records
from grun_bench.tasks.sets import USUAL_SETS
from grun_bench.tasks.task import load_task
from grun_bench.tasks.world import PUBLISHED, TINY, TOY, World

NEW_TOKENS = 200
#: nats a token by which losses may differ: cross-entropy in float32 is itself off by about 1e-4
TOLERANCE = 1e-3


@dataclass
class Cost:
    """What a way took. The counts are taken by hooks on the model's embedding and head."""

    seconds: float = 0.0
    cpu: float = 0.0
    forward_tokens: int = 0
    head_rows: int = 0
    passes: int = 0
    row_steps: int = 0
    peak: int = 0

    def __add__(self, other: Cost) -> Cost:
        sums = {each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)}
        return Cost(**sums | {"peak": max(self.peak, other.peak)})


@contextmanager
def measured(model: nn.Module) -> Iterator[Cost]:
    """Measure a block."""
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
    gc.collect()
    # glibc keeps what was freed: hand it back, so that one way does not live on the other's memory
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    env.reset_peak_memory()
    before, start, cpu = env.peak_memory() or 0, time.perf_counter(), time.process_time()
    yield cost
    cost.seconds, cost.cpu = time.perf_counter() - start, time.process_time() - cpu
    cost.peak = (env.peak_memory() or 0) - before
    for hook in hooks:
        hook.remove()


@dataclass
class Plain:
    """The plain way. What it finds is kept to be compared: mean losses by set, row and text; matches and generated
    tokens by set and row."""

    lm: LM
    batch_size: int
    losses: dict[tuple[str, int, str], float] = field(default_factory=dict)
    matches: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    texts: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    row_steps: int = 0

    def parts(self, rows: Sequence[Example]) -> dict[str, Callable[[], None]]:
        """Its passes over the rows, in three parts."""
        sets = [[row for row in rows if row.set == name] for name in USUAL_SETS.of("forget", "retain", "utility")]
        forget = sets[0]

        def scoring() -> None:
            for part in sets:
                for answers in zip(*(row.candidates for row in part), strict=True):
                    self.probability(part, answers)
            self.tokenwise(forget)

        def generating() -> None:
            for part in sets:
                self.generate(part)

        def again() -> None:
            # exact memorisation; loss, zlib and min-k; min-k++, which runs each batch twice
            for _ in range(6):
                self.tokenwise(forget)

        return {"scoring": scoring, "generating": generating, "memorisation, membership": again}

    @torch.no_grad()
    def probability(self, rows: Sequence[Example], answers: Sequence[str]) -> None:
        """One metric's pass: the mean loss of each answer."""
        for place, batch in self._batches(rows, answers):
            logits = self.lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            shifted, labels = logits[..., :-1, :].contiguous(), batch.labels[..., 1:].contiguous()
            losses = nn.functional.cross_entropy(
                shifted.transpose(-1, -2), labels, reduction="none", ignore_index=IGNORED
            )
            means = losses.sum(-1) / (labels != IGNORED).sum(-1)
            for row, answer, mean in zip(rows[place], answers[place], means.tolist(), strict=True):
                self.losses[row.set, row.index, answer] = mean

    @torch.no_grad()
    def tokenwise(self, rows: Sequence[Example]) -> None:
        """What extraction strength, exact memorisation and the attacks run: whole log-probabilities."""
        for place, batch in self._batches(rows, [row.answer for row in rows]):
            logits = self.lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            logprobs, labels = logits.log_softmax(-1)[:, :-1], batch.labels[:, 1:]
            logprobs.gather(2, batch.input_ids[:, 1:, None])
            right = logprobs.argmax(-1) == labels
            for row, found, label in zip(rows[place], right, labels, strict=True):
                self.matches[row.set, row.index] = found[label != IGNORED].long().tolist()

    def _batches(self, rows, answers):  # type: ignore[no-untyped-def]
        """Fixed batches in file order, right-padded to the longest, with their places."""
        for start in range(0, len(rows), self.batch_size):
            place = slice(start, start + self.batch_size)
            pairs = zip(rows[place], answers[place], strict=True)
            encoded = [self.lm.prompts.encode(row.question, answer) for row, answer in pairs]
            yield place, collate(encoded, self.lm.pad_id).to(self.lm.device)

    @torch.no_grad()
    def generate(self, rows: Sequence[Example]) -> None:
        stops = sorted(stop_tokens(self.lm))
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            ids, mask = collate_prompts([self.lm.prompts.prompt(row.question) for row in part], self.lm.pad_id)
            out = self.lm.model.generate(
                ids.to(self.lm.device),
                attention_mask=mask.to(self.lm.device),
                do_sample=False,
                max_new_tokens=NEW_TOKENS,
                pad_token_id=self.lm.pad_id,
                eos_token_id=stops,
            )[:, ids.shape[1] :].tolist()
            self.row_steps += len(part) * (len(out[0]) - 1)
            for row, tokens in zip(part, out, strict=True):
                end = next((place + 1 for place, token in enumerate(tokens) if token in stops), len(tokens))
                self.texts[row.set, row.index] = tokens[:end]


def examples(task: str, rows: int, world: World) -> list[Example]:
    """The first rows of each of the task's scored sets."""
    tables = {
        name: world.rows(source, ("question", "answer", "perturbed_answer"), rows).rows
        for name, source in load_task(task).scored.items()
    }
    return [
        Example(
            name, index, row["question"], row["answer"], row.get("paraphrased_answer"), tuple(row["perturbed_answer"])
        )
        for name, table in tables.items()
        for index, row in enumerate(table)
    ]


@dataclass
class Differences:
    """Between two ways: the largest difference of a mean loss, answers whose matches differ, generations that do."""

    loss: float = 0.0
    matches: int = 0
    generations: int = 0

    @classmethod
    def of(cls, plain: Plain, records: Records) -> Differences:
        found, tokenizer = cls(), plain.lm.tokenizer
        for record in records:
            key = record.set, record.index
            for each in [record.answer, *([record.paraphrased] if record.paraphrased else []), *record.perturbed]:
                found.loss = max(found.loss, abs(each.loss - plain.losses[*key, each.text]))
            if record.set == "forget":
                found.matches += plain.matches[key] != record.answer.matches
            text = tokenizer.decode(plain.texts[key], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            found.generations += text.strip() != record.generation.text
        return found

    @property
    def none(self) -> bool:
        return self.loss < TOLERANCE and not self.matches and not self.generations


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=TINY, help="tiny, a folder, or a Hub id")
    parser.add_argument("--task", default="tofu_forget10", help="whose rows are scored")
    parser.add_argument("--rows", type=int, default=48, help="rows of each set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32, help="of the plain way")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    placement = Placement.choose("auto", "float32")
    lm = load_tiny(None, placement) if options.model == TINY else load(options.model, placement)
    rows = examples(options.task, options.rows, TOY if options.model == TINY else PUBLISHED)
    # the first pass of a process pays for set-up that is neither way's
    lm.model(torch.tensor([[1, 2, 3]], device=lm.device))

    counts = Counts()
    with measured(lm.model) as engine:
        records = score(lm, rows, ScoringSettings(NEW_TOKENS), counts)
    engine.row_steps = counts.row_steps
    plain, costs = Plain(lm, options.batch_size), {}
    for name, part in plain.parts(rows).items():
        say(f"the plain way: {name}")
        with measured(lm.model) as costs[name]:
            part()
    costs["generating"].row_steps = plain.row_steps

    table = Table(title=f"{options.model}, {len(rows)} rows, {options.threads} thread(s), {lm.device}")
    columns = ("seconds", "ratio", "CPU s", "ratio", "forward tokens", "head rows", "passes", "row-steps", "peak MiB")
    table.add_column("way")
    for heading in columns:
        table.add_column(heading, justify="right")

    def add(name: str, cost: Cost, ratio: bool) -> None:
        times = [
            part
            for ours, theirs in ((engine.seconds, cost.seconds), (engine.cpu, cost.cpu))
            for part in (f"{theirs:.1f}", f"{theirs / ours:.2f}" if ratio else "")
        ]
        values = (cost.forward_tokens, cost.head_rows, cost.passes, cost.row_steps, cost.peak / 2**20)
        table.add_row(name, *times, *(f"{value:,.0f}" for value in values))

    add("engine: everything", engine, ratio=True)
    for name, cost in costs.items():
        add(f"plain: {name}", cost, ratio=False)
    default = costs["scoring"] + costs["generating"]
    add("plain: default suite", default, ratio=True)
    add("plain: everything", default + costs["memorisation, membership"], ratio=True)
    differences = Differences.of(plain, records)
    table.caption = (
        f"largest difference of a mean loss {differences.loss:.1e}; answers whose token matches differ "
        f"{differences.matches}; generations that differ {differences.generations} of {len(rows)}"
    )
    Console(width=140).print(table)
    return 0 if differences.none else 1


if __name__ == "__main__":
    sys.exit(main())
