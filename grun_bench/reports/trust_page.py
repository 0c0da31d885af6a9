"""What `meta-eval` found, as a Markdown page with its picture and as plain data. No torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grun_bench.core.escaping import markdown
from grun_bench.core.files import write_whole
from grun_bench.core.svg import bar_chart
from grun_bench.leaderboard.words import TOY
from grun_bench.metrics.trust import USABLE
from grun_bench.reports.trust import Judged, Trust
from grun_bench.results.words import number

if TYPE_CHECKING:
    from grun_bench.runs.pools import Pools

PAGE, PICTURE, DATA = "README.md", "meta_eval.svg", "meta_eval.json"
#: the columns of a metric
HEAD = ("metric", "faithfulness", "knows", "does not", "relearning", "4 bits", "robustness", "overall", "rows")


def write_page(pools: Pools, judged: Judged, folder: Path) -> Path:
    """Writes page, picture and data into a folder; the page's path. Raises GrunBenchError where it cannot be saved."""
    bars = {words(each): (each.faithfulness, each.one_sided.both) for each in judged.trusts}
    title = f"Which metric can be trusted? {pools.task}, {pools.model}"
    write_whole(folder / PICTURE, bar_chart(title, ("faithfulness", "robustness"), bars))
    write_whole(folder / DATA, json.dumps(_data(pools, judged), indent=1) + "\n")
    write_whole(folder / PAGE, "\n".join(_lines(pools, judged)) + "\n")
    return folder / PAGE


def words(trust: Trust) -> str:
    """A metric's name as people read it."""
    return trust.metric.replace("_", " ")


def cells(trust: Trust) -> list[str]:
    """What `HEAD` names."""
    robust = trust.one_sided
    numbers = (trust.faithfulness, trust.knowing, trust.unknowing, robust.relearning, robust.quantisation, robust.both)
    return [words(trust), *map(number, numbers), number(trust.overall), str(robust.models)]


def _lines(pools: Pools, judged: Judged) -> list[str]:
    knowing, unknowing = len(pools.of(True)), len(pools.of(False))
    lines = [
        f"# Which metric can be trusted? {markdown(pools.task)} · {markdown(pools.model)}",
        "",
        *([f"> **{TOY}**", ""] if pools.dataset == "embedded" else []),
        f"Pools of {knowing} models that know the forget set and {unknowing} that never saw it "
        f"({', '.join(sorted({member.name.partition('-')[2] for member in pools.answers}))}: seed and share of the "
        f"training); robustness from {len(judged.rows)} filed rows "
        f"({markdown(', '.join(sorted({row.unlearner.name for row in judged.rows}))) or 'none'}).",
        "",
        f"![Faithfulness and robustness]({PICTURE})",
        "",
        *_table(HEAD, [cells(each) for each in judged.trusts]),
        "",
        "- Every metric is taken as knowledge: 1 minus a metric of which high values say that the set is forgotten.",
        "- Faithfulness: AUC over the pools, the share of pairs in which the model that knows has the higher value; "
        "`knows` and `does not` are the pools' means.",
        "- Relearning: mean of min((rise of the retain model) / (rise of the row), 1); 4 bits: mean of "
        "min(before / after, 1); robustness is their harmonic mean, overall that of faithfulness and robustness "
        "(OpenUnlearning, arXiv 2506.12618). `rows` are those that a metric calls unknowing by the value that parts "
        f"the pools best, and that keep at least {100 * USABLE:.0f} % of the target's utility; their result files must "
        "have the metric under both. Under relearning only rows that were not relearned are asked.",
        "",
        "## Two-sided robustness",
        "",
        "1 - |a - b| / (|a| + |b|) of the two rises, and of before and after: knowledge that an attack destroys counts "
        "as much as knowledge that it brings back (arXiv 2605.24614).",
        "",
        *_table(
            ("metric", "relearning", "4 bits", "robustness"),
            [
                [
                    words(each),
                    *map(number, (each.two_sided.relearning, each.two_sided.quantisation, each.two_sided.both)),
                ]
                for each in judged.trusts
            ],
        ),
    ]
    if judged.missing:
        lines += ["", "## Without a number", ""]
        lines += [f"- {markdown(key.replace('_', ' '))}: {markdown(why)}" for key, why in judged.missing.items()]
    return lines


def _table(head: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return ["| " + " | ".join(each) + " |" for each in (head, rule, *rows)]


def _data(pools: Pools, judged: Judged) -> dict[str, Any]:
    return {
        "task": pools.task,
        "model": pools.model,
        "dataset": pools.dataset,
        "dataset_hash": pools.dataset_hash,
        "protocol": pools.protocol,
        "members": [member.name for member in pools.answers],
        "rows": [row.run_id for row in judged.rows],
        "metrics": {each.metric: asdict(each) | {"overall": each.overall} for each in judged.trusts},
        "missing": dict(judged.missing),
    }
