#!/usr/bin/env python3
"""CPU time of the commands that load no model, against a Typer command that does nothing.

    python benchmarks/startup.py [--rounds 11]

Every program runs in a process of its own, once in each round and all in turn, so that what else the machine does
falls on all alike; shown are the medians and their ratio to the command that does nothing. That takes more than the
import of Typer and rich, which is shown too: Typer makes a pydantic type of every option when a command runs. The exit
code is 1 when a ratio is above 1.5.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

ALLOWED = 1.5
IMPORTS = "import typer, rich"
BASE = f"{IMPORTS}; typer.run(lambda: None)"
#: name -> arguments of grun-bench, and the exit code that it must have
COMMANDS = {
    "--help": (["--help"], 0),
    "run --help": (["run", "--help"], 0),
    "ls": (["ls"], 0),
    "an unknown unlearner": (["run", "--unlearner", "npoo", "--task", "tofu_forget10"], 2),
    "an unknown task": (["run", "--unlearner", "npo", "--task", "tofu_forget1"], 2),
    "an unknown attack": (["run", "--unlearner", "npo", "--task", "tofu_forget10", "--attacks", "sufix"], 2),
}


def cpu_seconds(arguments: list[str], code: int, folder: str) -> float:
    """User and system time of a Python process that must end with this exit code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    root = str(Path(__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    # compiled files as a user has them from the second start on, whatever this machine does with them
    environment |= {"PYTHONPYCACHEPREFIX": f"{folder}/compiled", "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, cwd=folder, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != code:
        raise SystemExit(f"{arguments} ended with {done.returncode}: {done.stderr.decode()}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    rounds = parser.parse_args().rounds
    programs = {program: (["-c", program], 0) for program in (IMPORTS, BASE)}
    programs |= {name: (["-m", "grun_bench", *arguments], code) for name, (arguments, code) in COMMANDS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds + 1):
            for name, (arguments, code) in programs.items():
                seconds[name].append(cpu_seconds(arguments, code, folder))
    # the first round writes the compiled files
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    table = Table("", "CPU seconds", "ratio", title=f"medians of {rounds}")
    for name, median in medians.items():
        table.add_row(name, f"{median:.3f}", f"{median / medians[BASE]:.2f}")
    Console().print(table)
    return int(max(medians.values()) > ALLOWED * medians[BASE])


if __name__ == "__main__":
    sys.exit(main())
