"""Work that several processes do together, on the CPU, as if a launcher had started them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from forking import ended, forked

from grun_bench.core import processes


def started(work: Callable[[], object], count: int = 2) -> list[int]:
    """The exit code of each of so many processes that do this work; they know of each other, and have not joined."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def member(rank: int) -> Callable[[], None]:
        def run() -> None:
            said = {"WORLD_SIZE": count, "RANK": rank, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
            os.environ |= {name: str(value) for name, value in said.items()}
            work()

        return run

    return [ended(number) for number in [forked(member(rank)) for rank in range(count)]]


def together(folder: Path, work: Callable[[], Any], count: int = 2) -> list[Any]:
    """What `work` gives in each of so many processes that have joined."""

    def member() -> None:
        processes.join("cpu")
        torch.save(work(), folder / f"{processes.rank()}.pt")
        torch.distributed.barrier()

    assert started(member, count) == [0] * count
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]
