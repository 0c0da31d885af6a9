"""The sections of the page, each as HTML; "" where there is nothing to say. No torch."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grun_bench.core import registry
from grun_bench.core.escaping import clean, html
from grun_bench.metrics.about import defined_by
from grun_bench.metrics.power import ks_words
from grun_bench.reports.examples import Example, Said, examples
from grun_bench.reports.leaks import Leak
from grun_bench.reports.markup import bars, bullets, code, facts, table, value
from grun_bench.reports.rows import Row
from grun_bench.reports.verdict import Verdict
from grun_bench.reports.words import amount, cost_words, metric_words, summary
from grun_bench.results.result import Result
from grun_bench.results.words import heading, made_notes
from grun_bench.runs.config import in_folder

#: how many examples are shown, and how many characters of what a model said
EXAMPLES, LONG = 4, 320


def asked(row: Row) -> str:
    """What was to be forgotten and what was to be kept: label, hash and counts."""
    result = row.result
    sizes = {name: part for name, part in result.data.items() if part.get("rows")}
    return facts(
        [
            ("asked", html(str(result.configs.get(result.task, {}).get("description", "")))),
            ("to be forgotten", _data(sizes.get("train:forget"))),
            ("to be kept", _data(sizes.get("train:retain"))),
            *((f"asked of “{name}”", _data(part)) for name, part in sizes.items() if not name.startswith("train:")),
            *(("paraphrases and wrong answers", html(note)) for note in made_notes(result)),
            ("all data, SHA-256", code(result.dataset_hash)),
        ]
    )


def _data(part: dict[str, Any] | None) -> str:
    if part is None:
        return ""
    sources, hashes = (part.get(name) or [] for name in ("sources", "sha256"))
    shown = ", ".join(html(str(each)) for each in sources)
    told = " ".join(code(str(each)[:16]) for each in hashes)
    return (
        f"{part['rows']:,} rows of {shown} (SHA-256 begins with {told})"
        if told
        else f"{part['rows']:,} rows of {shown}"
    )


def attacked(row: Row, found: Verdict) -> str:
    """What is left without attack and under each: bars, and the numbers that they are made of."""
    of = [found.plain, *found.users, *found.owner]
    leaks = [leak for leak in of if leak is not None]
    if not leaks:
        return ""
    shares = [(_who(leak), leak.share) for leak in leaks if leak.share is not None]
    rows = [
        (
            html(leak.attack or "plain questions"),
            html(_access(leak)),
            html(summary(leak.attack) or "The questions as they are"),
            html(metric_words(leak.metric, row.result.protocol)),
            value(leak.value, leak.interval),
            value(leak.known) + (" without attack" if leak.plain else ""),
            value(leak.unknown),
        )
        for leak in leaks
    ]
    against = sorted({leak.against for leak in leaks})
    columns = ("attack", "who can", "what it does", "measure", "this model", "target model", " or ".join(against))
    return (bars(shares) if shares else "") + table(columns, rows, (4, 5, 6))


def _who(leak: Leak) -> str:
    return f"{leak.attack} ({_access(leak)})" if leak.attack else "plain questions"


def _access(leak: Leak) -> str:
    return "owner of the weights" if leak.access == "weights" else "anyone who may ask"


def sayings(row: Row, found: Verdict) -> str:
    """Rows that came back most, what each model says side by side."""
    shown = examples(row, found.users_attacks, EXAMPLES)
    if not shown:
        return "<p>There are no texts of this row here: its records are not beside the result, or hold none.</p>"
    told = "Of the answers that were to be forgotten, those of which most came back to one who may only ask"
    return f"<p>{told}.</p>" + "".join(map(_example, shown))


def _example(example: Example) -> str:
    models = [("target model", example.target), ("this model", example.own), ("retain model", example.retain)]
    if example.most.attack:
        models.append((f"this model under {example.most.attack}", example.most))
    boxes = f'<div class="side original"><b>the original answer</b>{html(clean(example.answer, LONG))}</div>'
    boxes += "".join(_side(name, said) for name, said in models if said)
    asked = example.question or "text {1} of “{0}”".format(*example.place)
    return f'<div class="example"><p class="asked">{html(asked)}</p><div class="sides">{boxes}</div></div>'


def _side(name: str, said: Said) -> str:
    given = f'<span class="given">{html(said.given)} …</span> ' if said.given else ""
    share = f"{100 * said.recall:.0f} % of it"
    return f'<div class="side"><b>{html(name)} ({share})</b>{given}{html(clean(said.text, LONG))}</div>'


def not_erased(row: Row, found: Verdict) -> str:
    """What stays where it was."""
    return bullets(_stays(row, found))


def _stays(row: Row, found: Verdict) -> Iterator[str]:
    by_attack = {leak.attack: leak for leak in found.owner}
    if strip := by_attack.get("strip"):
        yield (
            "What unlearned is an adapter or a gate beside the weights. Whoever has the files takes it off, and gets "
            f"{amount(strip.share)}: the weights themselves were not changed."
        )
    elif "strip" in row.result.attacks:
        yield "The weights themselves were changed: there is nothing beside them that could be taken off."
    else:
        yield "Whether what unlearned can be taken off the weights again was not tried (the attack strip)."
    for leak in found.owner:
        if leak.attack != "strip":
            yield f"{leak.attack} ({summary(leak.attack)}) brings back {amount(leak.share)}."
    yield "The model before unlearning, its copies and the data it was trained on are as they were, wherever they lie."
    yield "What was measured are the rows of the task. What else the model says of the same matter was not asked."


def numbers(row: Row) -> str:
    """Every number without attack, the headline first, with what it means."""
    result = row.result
    metrics = list(dict.fromkeys([*result.headline, *result.metrics()]))
    rows = [
        (
            html(heading(result, metric)),
            value(result.value(metric), result.interval(metric)),
            *(value(other.result.value(metric)) for other in row.controls.values()),
            f'<span class="meaning">{html(_meaning(result, metric))}</span>',
        )
        for metric in metrics
    ]
    columns = ("measure", "this model", *(role for role in row.controls), "what it is")
    return table(columns, rows, range(1, 2 + len(row.controls)))


def _meaning(result: Result, metric: str) -> str:
    """What a metric is by its own words, why it has no value, and what a p of forget quality can say."""
    entry = defined_by(metric, registry.entries("metric"))
    told = entry.summary if entry else ""
    power = ks_words(metric, result.n_samples[result.task].get(metric, 0)) if result.value(metric) is not None else ""
    return " ".join(filter(None, (told, result.reason(metric), power)))


def cost(row: Row, found: Verdict) -> str:
    """Utility, time and memory."""
    spent = row.result.cost
    peak = spent.training_peak_bytes
    return facts(
        [
            ("in all", html(cost_words(row.result, found))),
            ("training memory", f"{peak / 2**30:.1f} GiB at its peak" if peak else ""),
            (
                "attacks",
                f"{sum(info.seconds for info in row.result.attacks.values()):.0f} s" if row.result.attacks else "",
            ),
        ]
    )


def provenance(row: Row, output: Path) -> str:
    """Hashes, versions, and the commands that check them."""
    result, path = row.result, row.own.path
    harness = result.git.get("commit") or "installed"
    shown = {name: str(part) for name, part in result.target.items() if isinstance(part, str)}
    return facts(
        [
            ("run", code(result.run_id)),
            ("result file", f"{code(path.name)}, SHA-256 {code(hashlib.sha256(path.read_bytes()).hexdigest())}"),
            ("records", f"SHA-256 {code(result.records.sha256)}" if result.records else "none"),
            ("target model", ", ".join(f"{html(name)} {code(part)}" for name, part in shown.items())),
            ("method", f"{html(result.unlearner.name)} {code(json.dumps(result.unlearner.told, sort_keys=True))}"),
            *((("settings", html(tuned.label)),) if (tuned := result.unlearner.tuned) else ()),
            ("harness", code(f"{harness}{' (changed)' if result.git.get('dirty') else ''}")),
            ("packages", html(", ".join(f"{name} {version}" for name, version in result.packages.items()))),
            ("machine", html(", ".join(f"{name} {part}" for name, part in result.hardware.items() if part))),
            ("made on", html(result.date)),
            ("to check every number", code(f"grun-bench verify {shlex.quote(str(output))}")),
            ("to see all of it", code(f"grun-bench show {shlex.quote(result.run_id)}{in_folder('--output', output)}")),
        ]
    )
