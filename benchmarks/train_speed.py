#!/usr/bin/env python3
"""Seconds per step and peak memory of unlearning: GRUN as its official code runs it, by hooks, with the frozen trunk.

    python benchmarks/train_speed.py [--model tiny|NAME|FOLDER] [--task tofu_forget10] [--batch-size 16] [--steps 6]

Each way runs in a process of its own, on the same rows in the same batches:

* `inference`: the model's own forward pass over one batch, without gradients;
* `pyreft`: `grun+npo` through pyreft's and pyvene's model, as in GRUN's official code (renjie3/GRUN at b59fd78,
  pyreft/reft_trainer.py): a step is a pass over the forget batch with the edit and one without it for the reference, a
  pass over the retain batch, and the backward pass; logits and loss of all positions;
* `hooks`: `grun+npo` as `run --no-trunk-cache` trains it; `cache`: as `run` does; `checkpointing`: as `cache`, with
  gradient checkpointing (`--set checkpointing=true`);
* `lora`, `full`: `lora+npo` and `npo`.

The first losses of the ways of `grun+npo`, which begin with the same weights, must agree, or the exit code is 1; later
ones come apart as rounding grows with large steps.
Seconds are medians over the steps after the first one; CPU seconds mean more on a busy machine. Peak memory is that of
the process (Linux) or the device above what it held before the model was loaded. The whole training is the step's time
by the steps of the recipe and the task's rows, with what comes before them (reference, trunk) by row. Real models read
the task's rows from the mirrors in GRUN_BENCH_HUB; `tiny` reads the embedded world.
"""

from __future__ import annotations

import argparse
import copy
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from grun_bench.core import environment as env
from grun_bench.core.progress import say
from grun_bench.methods import trainer as unlearn
from grun_bench.methods.adapters.grun import Grun
from grun_bench.methods.base import FitContext
from grun_bench.methods.draws import pair_batches
from grun_bench.methods.loop import Schedule, optimise
from grun_bench.methods.made_models import load_tiny
from grun_bench.methods.make import make_unlearner
from grun_bench.models.batch import IGNORED, Batch, collate
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, load
from grun_bench.models.names import TINY
from grun_bench.tasks.task import load_task
from grun_bench.tasks.world import PUBLISHED, TOY, World

UNLEARNERS = dict.fromkeys(("pyreft", "hooks", "cache", "checkpointing"), "grun+npo")
UNLEARNERS |= {"lora": "lora+npo", "full": "full+npo"}
WAYS = ("inference", *UNLEARNERS)
#: difference of losses, as a share, that is rounding
TOLERANCE = 1e-4
#: what is aimed at: the cache's speed against pyreft's, its memory against inference's, all of it against full training
FASTER, MEMORY, WHOLE = 2.5, 1.15, 0.15

Pairs = list[tuple[str, str]]


@dataclass
class Cost:
    """What a way took: seconds by wall and of the processor, by step and before the first step; bytes at the peak."""

    steps: list[tuple[float, float]] = field(default_factory=list)
    before: tuple[float, float] = (0.0, 0.0)
    losses: list[float] = field(default_factory=list)
    peak: int = 0

    def step(self, clock: int) -> float:
        return median(each[clock] for each in self.steps[1:] or self.steps)


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    wall, cpu = now()
    return wall - start[0], cpu - start[1]


@dataclass
class Stamped:
    """`optimise` that notes when each step begins."""

    cost: Cost
    start: tuple[float, float]

    def __call__(
        self, parameters: Any, batches: Any, losses: Callable[[Any], dict[str, Tensor]], *rest: Any, **named: Any
    ) -> list[dict[str, float]]:
        self.cost.before = since(self.start)
        last = now()

        def stepping(batch: Any) -> dict[str, Tensor]:
            nonlocal last
            if self.cost.losses:
                self.cost.steps.append(since(last))
            last = now()
            terms = losses(batch)
            self.cost.losses.append(sum(terms.values()).item())
            return terms

        history = optimise(parameters, batches, stepping, *rest, **named)
        self.cost.steps.append(since(last))
        return history


def world_of(options: argparse.Namespace) -> World:
    return TOY if options.model == TINY else PUBLISHED


def rows(options: argparse.Namespace) -> tuple[Pairs, Pairs]:
    """The first rows of the task's forget and retain set: as many as two batches, so that epochs repeat them."""
    world = world_of(options)
    task, pairs = world.task(load_task(options.task)), []
    for name in ("forget", "retain"):
        found = world.rows(task.sources[name][0], limit=2 * options.batch_size).rows
        pairs.append([(row["question"], row["answer"]) for row in found])
    return pairs[0], pairs[1]


def settings(way: str, options: argparse.Namespace) -> dict[str, Any]:
    return make_unlearner(UNLEARNERS[way], {}, world_of(options)).settings


def train(way: str, lm: LM, forget: Pairs, retain: Pairs, options: argparse.Namespace) -> Cost:
    """Train by a way of ours."""
    cost = Cost()
    epochs = -(-options.steps * options.batch_size // len(forget))
    overrides = {"epochs": epochs, "batch_size": options.batch_size, "checkpointing": way == "checkpointing"}
    context = FitContext(forget, retain, lambda: lm, lambda: lm, 0, trunk_cache=way != "hooks")
    unlearn.optimise = Stamped(cost, now())
    make_unlearner(UNLEARNERS[way], overrides, world_of(options)).fit(context)
    return cost


def train_by_pyreft(lm: LM, forget: Pairs, retain: Pairs, options: argparse.Namespace) -> Cost:
    """Train through pyreft's model, from the same weights and on the same batches as `train` does."""
    cost, recipe = Cost(), settings("pyreft", options)
    torch.manual_seed(0)
    intervenable = reft_model(lm, recipe)
    count = len(recipe["layers"])
    epochs = -(-options.steps * options.batch_size // len(forget))
    batches = pair_batches(len(forget), len(retain), epochs, options.batch_size, 0)
    sides = [[lm.prompts.encode(*pair) for pair in pairs] for pairs in (forget, retain)]

    def run(batch: Batch, original: bool) -> tuple[Any, Any, Tensor]:
        locations = [[[place] for place in batch.prompt_end.tolist()]] * count
        base, edited = intervenable(
            {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask},
            unit_locations={"sources->base": (None, locations)},
            labels=batch.labels,
            output_original_output=original,
        )
        gates = torch.cat([each.logits.flatten() for each in interventions(intervenable)])
        return base, edited, gates

    def losses(drawn: tuple[list[int], list[int]]) -> dict[str, Tensor]:
        first, second = (
            collate([side[row] for row in chosen], lm.pad_id).to(lm.device)
            for side, chosen in zip(sides, drawn, strict=True)
        )
        base, edited, forget_gates = run(first, original=True)
        _, kept, retain_gates = run(second, original=False)
        difference = sequence_nll(edited.logits, first.labels) - sequence_nll(base.logits, first.labels)
        npo = -2 / recipe["beta"] * nn.functional.logsigmoid(recipe["beta"] * difference).mean()
        gates = torch.cat([forget_gates, retain_gates])
        wanted = torch.cat([torch.ones_like(forget_gates), torch.zeros_like(retain_gates)])
        bce = nn.functional.binary_cross_entropy_with_logits(gates, wanted)
        return {
            "forget": recipe["forget_weight"] * npo,
            "retain": recipe["retain_weight"] * kept.loss,
            "gate": recipe["gate_weight"] * bce,
        }

    parameters = [parameter for each in interventions(intervenable) for parameter in each.parameters()]
    intervenable.train()
    schedule = Schedule(recipe["lr"], weight_decay=recipe["weight_decay"], warmup=recipe["warmup"], clip=recipe["clip"])
    Stamped(cost, now())(parameters, batches, losses, schedule, "grun+npo through pyreft")
    return cost


def reft_model(lm: LM, recipe: dict[str, Any]) -> Any:
    """pyreft's model with gated edits, which begin with the weights that our adapter would have."""
    import pyreft

    class GatedLoreft(pyreft.LoreftIntervention):
        """h + sigmoid(g(h)) R^T (W h + b - R h); keeps the gates' logits."""

        def forward(self, base: Tensor, source: Any = None, subspaces: Any = None) -> Tensor:
            shift = torch.matmul(self.learned_source(base) - self.rotate_layer(base), self.rotate_layer.weight.T)
            self.logits = self.gate(base)
            return (base + torch.sigmoid(self.logits) * shift).to(base.dtype)

    names = ("rank", "layers", "gate", "gate_widths")
    ours = Grun(**{name: recipe[name] for name in names})
    ours.attach(lm.model)
    for module in lm.model.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    places = []
    for layer, edit in ours.edits.items():
        rank, hidden = edit.source.weight.shape
        intervention = GatedLoreft(embed_dim=hidden, low_rank_dimension=rank, dtype=lm.model.dtype)
        intervention.learned_source.load_state_dict(edit.source.state_dict())
        intervention.rotate_layer.load_state_dict(edit.rotation.state_dict())
        intervention.gate = copy.deepcopy(edit.gate)
        place = {"layer": int(layer), "component": "block_output", "low_rank_dimension": rank}
        places.append(place | {"intervention": intervention})
    return pyreft.get_reft_model(lm.model, pyreft.ReftConfig(representations=places))


def interventions(intervenable: Any) -> list[nn.Module]:
    found = intervenable.interventions.values()
    return [each[0] if isinstance(each, list | tuple) else each for each in found]


def sequence_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """(batch,) summed loss of each answer, from logits of all positions."""
    losses = nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none"
    )
    return losses.sum(1)


def infer(lm: LM, forget: Pairs, options: argparse.Namespace) -> Cost:
    """The model's own pass over the first batch."""
    cost = Cost()
    sequences = [lm.prompts.encode(*pair) for pair in forget[: options.batch_size]]
    batch = collate(sequences, lm.pad_id).to(lm.device)
    for _ in range(options.steps):
        start = now()
        with torch.no_grad():
            lm.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[0, 0, 0].item()
        cost.steps.append(since(start))
    return cost


def load_libraries() -> None:
    """All that is imported on first use: its memory is no way's cost."""
    import peft  # noqa: F401
    import pyreft  # noqa: F401
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes))
    optimiser = torch.optim.AdamW(model.parameters())
    ids = torch.arange(8)[None]
    model(ids, labels=ids).loss.backward()
    optimiser.step()


def measure(way: str, options: argparse.Namespace) -> Cost:
    """Run one way in this process."""
    torch.set_num_threads(options.threads)
    load_libraries()
    placement = Placement.choose("auto", options.dtype)
    forget, retain = rows(options)
    env.reset_peak_memory()
    held = env.peak_memory() or 0
    lm = load_tiny(None, placement) if options.model == TINY else load(options.model, placement)
    env.reset_peak_memory()
    if way == "inference":
        cost = infer(lm, forget, options)
    elif way == "pyreft":
        cost = train_by_pyreft(lm, forget, retain, options)
    else:
        cost = train(way, lm, forget, retain, options)
    cost.peak = (env.peak_memory() or 0) - held
    return cost


def whole(way: str, cost: Cost, clock: int, options: argparse.Namespace) -> float:
    """Seconds of the whole training: the recipe's epochs over all rows of the task."""
    world = world_of(options)
    task = world.task(load_task(options.task))
    counts = [sum(len(world.rows(source).rows) for source in task.sources[name]) for name in ("forget", "retain")]
    drawn = settings(way, options)["epochs"] * counts[0]
    # before the steps, the trunk is filled with each row that is used; the other ways run the forget rows
    keeps = way in ("cache", "checkpointing")
    measured = 4 * options.batch_size if keeps else 2 * options.batch_size
    before = counts[0] + min(counts[1], drawn) if keeps else counts[0]
    return cost.step(clock) * drawn / options.batch_size + cost.before[clock] * before / measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=TINY, help="tiny, a folder, or a Hub id")
    parser.add_argument("--task", default="tofu_forget10", help="whose rows are trained on")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6, help="of each way; the first is not counted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(asdict(measure(options.way, options))))
        return 0
    costs: dict[str, Cost] = {}
    for way in WAYS:
        say(f"measuring {way}")
        out = subprocess.check_output([sys.executable, __file__, *sys.argv[1:], "--way", way], text=True)
        costs[way] = Cost(**json.loads(out.splitlines()[-1]))

    title = f"{options.model}, {options.task}, batches of {options.batch_size}, {options.threads} thread(s)"
    table = Table(title=f"{title}, {options.dtype}", title_justify="left")
    table.add_column("way")
    headings = ("s a step", "ratio", "CPU s a step", "ratio", "peak MiB", "ratio", "whole, CPU s", "ratio")
    for heading in headings:
        table.add_column(heading, justify="right")
    full = whole("full", costs["full"], 1, options)
    ratios = {}
    for way, cost in costs.items():
        cells = []
        for clock in (0, 1):
            ratio = costs["pyreft"].step(clock) / cost.step(clock)
            cells += [f"{cost.step(clock):.3f}", f"{ratio:.2f}" if way != "inference" else ""]
        memory = cost.peak / costs["inference"].peak
        cells += [f"{cost.peak / 2**20:,.0f}", f"{memory:.2f}"]
        if way != "inference":
            seconds = whole(way, cost, 1, options)
            cells += [f"{seconds:,.0f}", f"{seconds / full:.2f}"]
            ratios[way] = (costs["pyreft"].step(1) / cost.step(1), memory, seconds / full)
        table.add_row(way, *cells)
    same = [way for way, name in UNLEARNERS.items() if name == "grun+npo"]
    losses = torch.tensor([costs[way].losses for way in same], dtype=torch.float64)
    apart = ((losses - losses[0]).abs() / losses[0].abs()).amax(0).tolist()
    speed, memory, share = ratios["cache"]
    table.caption = (
        "ratios: speed against pyreft, memory against inference, the whole against full. Losses of the four ways of "
        f"grun+npo differ by {apart[0]:.1e} in the first step, {max(apart):.1e} in all. Aims: cache at least {FASTER} "
        f"times as fast as pyreft ({speed:.2f}), memory at most {MEMORY} ({memory:.2f}), "
        f"whole at most {WHOLE} ({share:.2f})."
    )
    Console(width=130).print(table)
    return 0 if apart[0] < TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
