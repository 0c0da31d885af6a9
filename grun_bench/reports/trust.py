"""Metrics of forgetting judged by pools of models and by filed rows under attack. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grun_bench.core import registry
from grun_bench.core.libraries import lacking, needs
from grun_bench.core.plugins import MetricPlugin
from grun_bench.core.progress import say
from grun_bench.metrics.about import about, leads
from grun_bench.metrics.evaluate import Value, evaluate
from grun_bench.metrics.trust import USABLE, Change, Robustness, faithfulness, harmonic, robustness, threshold
from grun_bench.results.result import Result
from grun_bench.results.store import model_folder, read_result, result_paths
from grun_bench.tasks.sets import ScoredSets

if TYPE_CHECKING:
    from grun_bench.runs.pools import Pools

#: what rows are attacked with: rounding to 4 bits, as published in NF4, and all weights relearned on forget rows
QUANTISED, BITS, RELEARNED, KIND = "int4", "nf4", "relearn", "forget-full"


@dataclass(frozen=True)
class Trust:
    """A metric's standing, as knowledge: higher is more.

    `knowing` and `unknowing` are its means over the pools, `limit` the value up to which a model counts as unknowing;
    robustness is one-sided, as OpenUnlearning has it, and `two_sided`.
    """

    metric: str
    faithfulness: float
    knowing: float
    unknowing: float
    limit: float
    one_sided: Robustness
    two_sided: Robustness

    @property
    def overall(self) -> float | None:
        """The harmonic mean of faithfulness and robustness."""
        return harmonic(self.faithfulness, self.one_sided.both)


@dataclass(frozen=True)
class Judged:
    """All metrics, best first, and why others have no number."""

    trusts: Sequence[Trust]
    missing: Mapping[str, str]
    #: the filed rows that robustness is from
    rows: Sequence[Result]


def rows_attacked(unlearners: Sequence[str], task: str, **options: Any) -> None:
    """File the rows that robustness is from, of unlearners on a task: options are fields of RunConfig.

    What is there is not made again. Where the library is missing that rounds to 4 bits, that is left out, said.
    """
    from grun_bench.runs.config import RunConfig
    from grun_bench.runs.front import run_config

    if missing := lacking((QUANTISED, RELEARNED)):
        say(f"left out: {needs(missing)}")
    attacks = [name for name in (QUANTISED, RELEARNED) if name not in missing]
    kind, way = KIND.split("-")
    settings = {f"{RELEARNED}.kinds": [kind], f"{RELEARNED}.ways": [way]}
    for number, name in enumerate(unlearners, 1):
        say(f"row: {name}, {number} of {len(unlearners)}")
        run_config(RunConfig(unlearner=name, task=task, attacks=",".join(attacks), overrides=settings, **options))


def judge(pools: Pools, results: Path) -> Judged:
    """The task's metrics of forgetting that need no retain model, on these pools and on the rows in a folder."""
    sets = pools.sets
    found = {True: _values(pools, True), False: _values(pools, False)}
    rows, retain = _rows(pools, results)
    trusts, missing = [], {}
    for key in found[True][0]:
        sides = {knows: [each[key] for each in values if key in each] for knows, values in found.items()}
        lacking = next((value for values in sides.values() for value in values if value.value is None), None)
        if lacking is not None:
            missing[key] = str(lacking.reason)
            continue
        trusts.append(_trust(key, sides, rows, retain, sets))
    trusts.sort(key=lambda each: (-(each.overall or -1), -each.faithfulness, each.metric))
    return Judged(trusts, missing, rows)


def _values(pools: Pools, knows: bool) -> list[dict[str, Value]]:
    """The values of each model of a pool, of metrics that say what it knows of the forget set."""
    sets, names = pools.sets, [name for name in pools.metrics if _asks(registry.get("metric", name))]
    found = []
    for records in pools.of(knows):
        values = evaluate(records, None, names, sets, intervals=False)
        told = about(values, sets)
        found.append({key: value for key, value in values.items() if told[key].forgetting})
    return found


def _asks(plugin: MetricPlugin) -> bool:
    """Whether a metric is of the forget set, and needs no other model's answers."""
    roles = set(plugin.over if plugin.roles is None else plugin.roles)
    alone = plugin.roles is not None or roles <= {"forget", "holdout"}
    return "forget" in roles and alone and plugin.reference is None and plugin.kind == "answers"


def _trust(
    key: str, sides: Mapping[bool, Sequence[Value]], rows: Sequence[Result], retain: Result | None, sets: ScoredSets
) -> Trust:
    turned = bool(sides[True][0].higher_is_better)
    pools = {knows: [_known(value.value, turned) for value in values] for knows, values in sides.items()}
    limit = threshold(pools[True], pools[False])
    usable = [row for row in rows if (value := row.value(key)) is not None and _known(value, turned) <= limit]
    quantised = [change for row in usable if (change := _change(row, key, turned, QUANTISED))]
    taught = _change(retain, key, turned, RELEARNED) if retain else None
    relearned = [(change, taught) for row in usable if taught and (change := _change(row, key, turned, RELEARNED))]
    return Trust(
        key,
        faithfulness(pools[True], pools[False]),
        sum(pools[True]) / len(pools[True]),
        sum(pools[False]) / len(pools[False]),
        limit,
        robustness(relearned, quantised),
        robustness(relearned, quantised, two_sided=True),
    )


def _known(value: float | None, turned: bool) -> float:
    """A metric as knowledge: 1 - value where a high value says that the forget set is forgotten."""
    return (1.0 - value if turned else value) if value is not None else float("nan")


def _change(row: Result, key: str, turned: bool, attack: str) -> Change | None:
    """A metric of a row before and under an attack; None where it was not attacked so."""
    info, variant = row.attacks.get(attack), BITS
    if attack == RELEARNED and info:
        steps = [name for name in info.variants if name.partition("@")[0] == KIND]
        variant = max(steps, key=lambda name: int(name.partition("@")[2]), default="none")
    before, after = row.value(key), row.value(key, attack, variant)
    return None if before is None or after is None else Change(_known(before, turned), _known(after, turned))


def _rows(pools: Pools, results: Path) -> tuple[list[Result], Result | None]:
    """The rows of the same task, model and data that were attacked so and kept their utility; the retain model's."""
    folder = f"{pools.task}/{model_folder(pools.model)}/"
    read = [read_result(results / path) for path in result_paths(results) if path.startswith(folder)]
    same = [row for row in read if _same(row, pools) and {QUANTISED, RELEARNED} & row.attacks.keys()]
    by_role = {registry.role_of(row.unlearner.name): row for row in same}
    target = by_role.get("target")
    methods = [row for row in same if registry.role_of(row.unlearner.name) is None and _kept(row, target)]
    return methods, by_role.get("retain model")


def _same(row: Result, pools: Pools) -> bool:
    said = (row.dataset, row.dataset_hash, row.protocol, row.limit)
    return row.status == "ok" and said == (pools.dataset, pools.dataset_hash, pools.protocol, pools.limit)


def _kept(row: Result, target: Result | None) -> bool:
    """Whether a row kept so much utility that its forgetting says something of a metric."""
    metric = leads(row.headline, row.higher_is_better[row.task], row.sets)[1]
    if target is None or metric is None:
        return True
    own, whole = row.value(metric), target.value(metric)
    return own is not None and whole is not None and own >= USABLE * whole
