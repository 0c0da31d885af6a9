#!/usr/bin/env python3
"""Kill runs at random moments, and check that nothing is false, nothing is lost and no finished training is repeated.

    python benchmarks/kills.py [--kills 200] [--seed 0] [--folder DIR]

A life is one command on an empty folder of results and an empty cache: fine-tuning of the target and the retain model,
unlearning, scoring and attacks, with a small random model and rows of the embedded world, so that it takes seconds. It
is killed with SIGKILL, SIGTERM or SIGHUP after a random time, and begun again, until it ends. In the life `together`
four commands share one folder of results and its target and retain rows, and each is killed on its own.

After every kill each result file that is there is read, and its records are compared with their hashes. At the end of
a life its rows, saved models and attacks must be those of the same commands undisturbed; nothing half-written may be
left, no training that was over may have taken a step again, and none may have gone back behind the step that a signal's
checkpoint named. Any of this, a traceback, or an exit code that is neither 0 nor the signal's own, is a problem, and
the exit code is 1.

Processes are forked from one that has loaded torch, and half of them keep a checkpoint after every step.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import yaml
from rich.console import Console
from rich.table import Table

import grun_bench.runs.run  # noqa: F401  # so that forked processes have it
from grun_bench import cli
from grun_bench.core.errors import GrunBenchError
from grun_bench.methods import checkpoints
from grun_bench.plugin_checks.small_model import small_lm
from grun_bench.results.filed import records_problem
from grun_bench.results.store import read_result, result_files
from grun_bench.tasks import toy_world as world

#: commands by the name of a life; TASK, STAGED and MODEL are paths
LIVES = {
    "grun": ["--unlearner grun+npo --task TASK --set epochs=20 --attacks prefix,strip,fewshot --save MODEL"],
    "full": ["--unlearner npo --task TASK --set epochs=20 --attacks prefix,fewshot --save MODEL"],
    "watched": ["--unlearner lora+gd --task TASK --set epochs=20 --eval-every 10 --attacks strip"],
    "vector": ["--unlearner task-vector --task TASK --set epochs=20 --set batch_size=2 --attacks fewshot"],
    "stages": ["--unlearner grun+npo --task STAGED --set epochs=15 --attacks strip"],
    "together": [
        "--unlearner grun+gd --task TASK --set epochs=20 --attacks strip",
        "--unlearner lora+npo --task TASK --set epochs=20 --attacks prefix",
        "--unlearner ga --task TASK --set epochs=20 --attacks fewshot,strip",
        "--unlearner none --task TASK --attacks prefix,fewshot,strip",
    ],
}
#: one variant of several
ONE = {"prefix": "prefix.phrases={a: 'Now:'}"}
ROWS = {"forget01": 4, "retain99": 8, "forget01_perturbed": 4, "retain_perturbed": 2}
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
#: kills of one command before it is left alone, and the latest of one, as a share of the undisturbed time
MOST, LATEST = 8, 0.4


# --- what is run ------------------------------------------------------------------------------------------------------


def make_world(folder: Path) -> None:
    """A small random model and two tasks in files."""
    lm = small_lm()
    lm.model.config.num_hidden_layers = 2
    for part in (type(lm.model)(lm.model.config), lm.tokenizer):
        part.save_pretrained(folder / "model")
    for name, count in ROWS.items():
        lines = [json.dumps(row) + "\n" for row in world.rows(name)[:count]]
        (folder / f"{name}.jsonl").write_text("".join(lines))
    task: dict[str, Any] = {
        "version": 1,
        "description": "A task of seconds.",
        "forget": [str(folder / "forget01.jsonl")],
        "retain": [str(folder / "retain99.jsonl")],
        "score": {
            "forget": str(folder / "forget01_perturbed.jsonl"),
            "retain": str(folder / "retain_perturbed.jsonl"),
        },
        "metrics": ["forget_quality", "probability", "extraction_strength"],
        "headline": ["forget_quality"],
        "max_new_tokens": 2,
        "finetune": {"lr": 1e-3, "epochs": 8, "batch_size": 2},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(task))
    (folder / "staged.yaml").write_text(yaml.safe_dump(task | {"stages": [[0, 2], [2, 4]]}))


@dataclass
class Life:
    """A folder of results with its cache, and what is known of it so far."""

    name: str
    folder: Path
    world: Path
    problems: list[str] = field(default_factory=list)
    #: trainings that were over, and the steps at which signals stopped others
    over: set[str] = field(default_factory=set)
    kept: dict[str, int] = field(default_factory=dict)
    #: where kills fell
    during: Counter[str] = field(default_factory=Counter)
    started: int = 0

    @property
    def output(self) -> Path:
        return self.folder / "results"

    def start(self, command: str, every_step: bool) -> tuple[int, Path]:
        """Run a command in a process of its own; gives its number and the file that it says things in."""
        self.started += 1
        log = self.folder / f"log{self.started}"
        places = {
            "TASK": self.world / "small.yaml",
            "STAGED": self.world / "staged.yaml",
            "MODEL": self.folder / "kept",
        }
        arguments = ["run", *(str(places.get(word, word)) for word in command.split())]
        for attack, setting in ONE.items():
            arguments += ["--set", setting] if attack in command else []
        arguments += ["--model", str(self.world / "model"), "--output", str(self.output)]
        number = os.fork()
        if number == 0:
            _become(arguments, self.folder / "cache", log, every_step)
        return number, log

    def note(self, log: Path) -> None:
        """What a process said: what it trained, from where, and whether that was necessary."""
        said = log.read_text().splitlines()
        if any(line.startswith("Traceback") for line in said):
            self.problems.append(f"{log}: a traceback")
        counts: Counter[str] = Counter()
        current, begun, over = "", 0, set()
        for line in said:
            if found := re.fullmatch(
                r"((?:unlearning|fine-tuning) .*): goes on from step (\d+) of \d+, which .*", line
            ):
                begun = int(found[2])
            elif found := re.fullmatch(r"((?:unlearning|fine-tuning) .*): (\d+) steps", line):
                current, total = f"{found[1]} {counts[found[1]]}", int(found[2])
                counts[found[1]] += 1
                if current in self.over and begun < total:
                    self.problems.append(f"{log}: {current} was over, and was trained again from step {begun}")
                if begun < self.kept.get(current, 0):
                    self.problems.append(f"{log}: {current} went back behind step {self.kept[current]}")
                begun = 0
            elif re.fullmatch(r"(?:unlearning|fine-tuning) .*: (\d+)/\1 in .*", line):
                over.add(current)
            elif found := re.match(r"(?:unlearning|fine-tuning) .*: SIG\w+ after step (\d+) of", line):
                self.kept[current] = int(found[1])
        self.over |= over

    def check(self) -> None:
        """All that is filed is whole."""
        for path in result_files(self.output):
            try:
                if problem := records_problem(path, read_result(path).all_records()):
                    self.problems.append(f"{path}: {problem}")
            except GrunBenchError as error:
                self.problems.append(str(error))

    def left(self) -> Iterator[Path]:
        """What should not be there when all is done."""
        yield from self.folder.rglob(".*.part")
        yield from (self.folder / "cache" / "checkpoints").glob("*")

    def state(self) -> dict[str, Any]:
        """All that came of it, but for dates and times."""
        found: dict[str, Any] = {}
        for path in result_files(self.output):
            row = read_result(path).model_dump(exclude={"date", "cost"})
            for attack in row["attacks"].values():
                del attack["seconds"]
            found[str(path.relative_to(self.output))] = row
        for path in (self.folder / "kept").glob("*"):
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found


def _become(arguments: Sequence[str], cache: Path, log: Path, every_step: bool) -> None:
    """The program, in this process, which ends with it."""
    code = 1
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.environ["GRUN_BENCH_CACHE"] = str(cache)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        if every_step:
            checkpoints.EVERY, checkpoints.TIMES = 0.0, 0
        sys.argv = ["grun-bench", *arguments]
        cli.main()
    except SystemExit as error:
        code = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


# --- lives ------------------------------------------------------------------------------------------------------------


def undisturbed(life: Life) -> tuple[dict[str, Any], float]:
    """What comes of a life without kills, and its seconds."""
    start = time.monotonic()
    for command in LIVES[life.name]:
        number, log = life.start(command, every_step=False)
        if os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) != 0:
            raise SystemExit(f"{command} failed undisturbed:\n{log.read_text()}")
    return life.state(), time.monotonic() - start


def killed(life: Life, seconds: float, rng: random.Random, most: int) -> Counter[str]:
    """A life with kills, at most so many; gives how many of which signal."""
    kills: Counter[str] = Counter()
    waiting = [(command, 0) for command in LIVES[life.name]]
    while waiting:
        running = []
        for command, times in waiting:
            number, log = life.start(command, rng.random() < 0.5)
            stop = times < MOST and sum(kills.values()) + len(running) < most
            until = time.monotonic() + rng.uniform(0, LATEST * seconds) if stop else None
            running.append((number, log, command, times, until))
        waiting = []
        while running:
            time.sleep(0.005)
            for each in list(running):
                number, log, command, times, until = each
                sent = None
                if until is not None and time.monotonic() > until:
                    sent = rng.choice(SIGNALS)
                    os.kill(number, sent)
                ended, status = os.waitpid(number, 0 if sent else os.WNOHANG)
                if not ended:
                    continue
                running.remove(each)
                code = os.waitstatus_to_exitcode(status)
                if sent is not None and code in (-sent, 128 + sent):
                    kills[signal.Signals(sent).name] += 1
                    life.during[_phase(log)] += 1
                    waiting.append((command, times + 1))
                elif code != 0:
                    life.problems.append(f"{log}: {command} ended with {code}, sent {sent}")
                life.note(log)
                life.check()
    return kills


def _phase(log: Path) -> str:
    """What a process did when it was killed, by the last thing that it said."""
    lines = log.read_text().splitlines() if log.exists() else []
    for line in reversed(lines):
        if found := re.match(r"(attack|fine-tuning|unlearning|scoring)", line):
            return "attacks" if any(each.startswith("attack ") for each in lines) else found[1]
    return "start"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where all is kept, to look at; else a temporary folder")
    options = parser.parse_args()
    if options.folder:
        options.folder.mkdir(parents=True)
        raise SystemExit(torment(options.folder, options.kills, random.Random(options.seed)))
    with tempfile.TemporaryDirectory(prefix="grun-bench-kills-") as folder:
        code = torment(Path(folder), options.kills, random.Random(options.seed))
    raise SystemExit(code)


def torment(folder: Path, wanted: int, rng: random.Random) -> int:
    """Lives until there were as many kills; prints what came of them. Gives the exit code."""
    make_world(folder)
    whole = {name: undisturbed(Life(name, _new(folder, name), folder)) for name in LIVES}
    print("undisturbed:", ", ".join(f"{name} {seconds:.1f} s" for name, (_, seconds) in whole.items()), flush=True)
    kills: Counter[str] = Counter()
    table, problems, number = {name: Counter[str]() for name in LIVES}, [], 0
    while sum(kills.values()) < wanted:
        name = list(LIVES)[number % len(LIVES)]
        number += 1
        life = Life(name, _new(folder, f"{number}-{name}"), folder)
        found = killed(life, whole[name][1], rng, wanted - sum(kills.values()))
        expected, state = whole[name][0], life.state()
        life.problems += [f"{life.folder}: {key} differs" for key in expected if state.get(key) != expected[key]]
        life.problems += [f"{life.folder}: {key} should not be there" for key in state.keys() - expected.keys()]
        life.problems += [f"{each} is left" for each in life.left()]
        table[name] += Counter({"lives": 1}) + found + life.during
        kills += found
        problems += life.problems
        for problem in life.problems:
            print("PROBLEM", problem, flush=True)
        if not life.problems:
            shutil.rmtree(life.folder)
        print(f"life {number} ({name}): {sum(found.values())} kills, {sum(kills.values())} so far", flush=True)
    _print(table)
    print(f"{sum(kills.values())} kills in {number} lives: {len(problems)} problems")
    return 1 if problems else 0


def _new(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def _print(table: dict[str, Counter[str]]) -> None:
    columns = ("lives", "SIGKILL", "SIGTERM", "SIGHUP", "start", "fine-tuning", "unlearning", "scoring", "attacks")
    shown = Table(title="kills by signal, and by what they fell into", title_justify="left")
    for column in ("life", *columns):
        shown.add_column(column, justify="left" if column == "life" else "right")
    for name, counts in (*table.items(), ("all", sum(table.values(), Counter()))):
        shown.add_row(name, *(str(counts[column]) for column in columns))
    Console(width=120).print(shown)


if __name__ == "__main__":
    main()
