"""Many runs one after another: what came of each, and none of them stops the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from grun_bench.core import registry
from grun_bench.core.errors import GrunBenchError, Refused
from grun_bench.core.progress import say
from grun_bench.results.result import Result
from grun_bench.runs.config import RunConfig
from grun_bench.runs.front import check, run_config

#: every unlearner there is: the two controls, the others that are no pair, every adapter with every objective
ALL = "all"


@dataclass(frozen=True)
class Swept:
    """A run and its result; or why there is none, and whether that is a `refused` pair rather than a failure."""

    unlearner: str
    seed: int
    result: Result | None
    problem: str = ""
    refused: bool = False


def expand(names: Iterable[str]) -> list[str]:
    """The unlearners meant, each once, `all` written out. Raises UsageError for an unknown name."""
    meant: list[str] = []
    for name in names:
        if name == ALL:
            pairs = [f"{each}+{what}" for each in registry.names("adapter") for what in registry.names("objective")]
            meant += [*registry.names("unlearner"), *pairs]
        else:
            registry.parse_unlearner(name)
            meant.append(name)
    return list(dict.fromkeys(meant))


def sweep(config: RunConfig, unlearners: Iterable[str], seeds: Iterable[int]) -> Iterator[Swept]:
    """Run `config` for every unlearner and seed, one after another.

    A pair that makes no sense is refused once, with its reason; a run that fails is told and the next one follows.
    """
    check(config)
    seeds = list(seeds)
    for unlearner in unlearners:
        for seed in seeds:
            say(f"--- {unlearner}, seed {seed}")
            try:
                result = run_config(replace(config, unlearner=unlearner, seed=seed)).cell.result
            except Refused as error:
                yield Swept(unlearner, seed, None, str(error), refused=True)
                break
            except GrunBenchError as error:
                yield Swept(unlearner, seed, None, str(error))
                continue
            yield Swept(unlearner, seed, result, result.error or "")
            if result.seed is None:
                break  # another seed would give the same row
