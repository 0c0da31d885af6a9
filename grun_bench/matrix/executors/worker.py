"""The program of a process that makes runs: `python -m grun_bench.matrix.executors.worker DESCRIPTOR NUMBER`.

Through the connection come cells, each with its owner; it answers when one is over. It ends with who began it.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread

from grun_bench.core.signals import Stopped
from grun_bench.matrix.cell import Cell
from grun_bench.matrix.work import work

Given = SimpleQueue[tuple[Cell, str] | None]


def main() -> None:
    connection, number = Connection(int(sys.argv[1])), int(sys.argv[2])
    given: Given = SimpleQueue()
    Thread(target=_receive, args=(connection, given), daemon=True).start()
    while task := given.get():
        cell, owner = task
        try:
            fit = work(_on_its_device(cell, number), owner)
        except Stopped as stopped:
            sys.exit(stopped.exit_code)
        if not fit:
            sys.exit(1)
        connection.send(None)


def _receive(connection: Connection, given: Given) -> None:
    try:
        while (task := connection.recv()) is not None:
            given.put(task)
        given.put(None)
    except (EOFError, OSError):
        os.kill(os.getpid(), signal.SIGTERM)  # who began it is gone: what is trained keeps a checkpoint


def _on_its_device(cell: Cell, number: int) -> Cell:
    """With one of several devices as that of this process."""
    if cell.config.device != "auto" or cell.config.device_map:
        return cell
    import torch

    if not torch.cuda.is_available():
        return cell
    device = f"cuda:{number % torch.cuda.device_count()}"
    torch.cuda.set_device(device)
    return replace(cell, config=replace(cell.config, device=device))


if __name__ == "__main__":
    main()
