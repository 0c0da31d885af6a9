#!/usr/bin/env python3
"""How many held gates stay at 0.5 when they are trained, with and without the tokens that every prompt begins with.

    python benchmarks/held_gates.py MODEL [--seeds 6] [--layers 19,24,29] [--steps 120]

The states of MODEL (a name or a folder) after some layers on `tofu_lite`: its 40 forget prompts, and 360 retain rows
with their answers. A gate of each layer is trained by itself as `grun-held` trains it (learning rate 0.004, batches of
16, the largest gate of a row), once with all tokens of forget prompts and once without those that every prompt begins
with. Of each gate the binary cross-entropy over all forget rows and every fourth retain row is printed: 0.69 is a gate
that tells nothing, and more than 0.6 counts as one that stayed.
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from grun_bench.core.progress import bar
from grun_bench.methods.adapters.grun import make_gate
from grun_bench.models.forward import decoder_layers
from grun_bench.models.lm import LM
from grun_bench.models.loading import Placement, load
from grun_bench.tasks.dataset import Source
from grun_bench.tasks.world import PUBLISHED

#: as `grun-held` has them
LR, BATCH, WEIGHT, WIDTHS, CLIP = 0.004, 16, 10.0, (256, 64), 1.0
#: near ln 2
STAYED = 0.6

#: for each layer, the states (tokens, hidden) of each row
States = list[list[Tensor]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--layers", default="19,24,29", help="0-based, separated by commas")
    parser.add_argument("--steps", type=int, default=120)
    given = parser.parse_args()
    layers = [int(layer) for layer in given.layers.split(",")]
    lm = load(given.model, Placement.choose("auto", "auto"))
    rows = {name: PUBLISHED.read(Source.parse(f"locuslab/TOFU:{name}"))[0] for name in ("forget01", "full")}
    forget = states(lm, [lm.prompts.prompt(row["question"]) for row in rows["forget01"]], layers)
    answered = [(str(row["question"]), str(row["answer"])) for row in rows["full"][:360]]
    retain = states(lm, [lm.prompts.prompt(q) + lm.prompts.answer(a) for q, a in answered], layers)
    table = Table(title=f"gates by themselves, {given.model}", title_justify="left")
    for name in ("tokens of forget prompts", "stayed", "cross-entropies, of every seed and layer"):
        table.add_column(name)
    begins = len(lm.prompts.frame[0])
    for name, left_out in (("all", 0), (f"without the first {begins}", begins)):
        losses = [
            trained(forget[place], retain[place], left_out, seed, given.steps)
            for seed in range(given.seeds)
            for place in range(len(layers))
        ]
        stayed = sum(loss > STAYED for loss in losses)
        table.add_row(name, f"{stayed} of {len(losses)}", " ".join(f"{loss:.2f}" for loss in losses))
    Console().print(table)


@torch.no_grad()
def states(lm: LM, rows: list[list[int]], layers: list[int]) -> States:
    """What the layers give for each row of token ids."""
    found: States = [[] for _ in layers]
    blocks = decoder_layers(lm.model)
    with bar("states", len(rows)) as advance:
        for ids in rows:
            seen: dict[int, Tensor] = {}

            def keep(layer: int, into: dict[int, Tensor] = seen) -> object:
                def hook(block: nn.Module, args: object, output: object) -> None:
                    into[layer] = (output[0] if isinstance(output, tuple) else output)[0].float().cpu()

                return hook

            handles = [blocks[layer].register_forward_hook(keep(layer)) for layer in layers]
            lm.model(torch.tensor([ids], device=lm.device), use_cache=False)
            for handle in handles:
                handle.remove()
            for place, layer in enumerate(layers):
                found[place].append(seen[layer])
            advance()
    return found


def trained(forget: list[Tensor], retain: list[Tensor], left_out: int, seed: int, steps: int) -> float:
    """The cross-entropy of one layer's gate after its training, mean of both sets, in nats."""
    torch.manual_seed(seed)
    gate = make_gate(forget[0].shape[1], WIDTHS, torch.float32)
    optimiser = torch.optim.AdamW(gate.parameters(), lr=LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    for _ in range(steps):
        drawn = [torch.randint(len(rows), (BATCH,)).tolist() for rows in (forget, retain)]
        loss = entropy(gate, [forget[row][left_out:] for row in drawn[0]], [retain[row] for row in drawn[1]])
        optimiser.zero_grad()
        (WEIGHT * loss).backward()
        nn.utils.clip_grad_norm_(gate.parameters(), CLIP)
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return entropy(gate, [rows[left_out:] for rows in forget], retain[::4]).item()


def entropy(gate: nn.Module, forget: list[Tensor], retain: list[Tensor]) -> Tensor:
    """The binary cross-entropy of each row's largest gate, 1 for forget and 0 for retain rows, mean of both."""
    held = [torch.stack([gate(row).max() for row in rows]) for rows in (forget, retain)]
    ones, zeros = torch.ones_like(held[0]), torch.zeros_like(held[1])
    return (binary_cross_entropy_with_logits(held[0], ones) + binary_cross_entropy_with_logits(held[1], zeros)) / 2


if __name__ == "__main__":
    main()
