"""One row -> one HTML page for whoever must sign: it asks for nothing from outside and can be printed. No torch."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

from grun_bench.core.escaping import html
from grun_bench.reports import sections
from grun_bench.reports.rows import Row
from grun_bench.reports.verdict import Verdict, verdict
from grun_bench.reports.words import Line, lines
from grun_bench.results.words import dataset_label

_STYLE = Path(__file__).with_name("page.css")
PRIVATE = "Texts on this page are of private rows: the result has none of them, whoever gets this page does."
TOY = "Made in the embedded toy world: it shows the method at work and says nothing of a real model."


def page(row: Row, output: Path) -> str:
    """The page; `output` is the folder of results that its commands name. Raises UsageError for broken records."""
    found, style = verdict(row), _STYLE.read_text(encoding="utf-8")
    pin = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    parts = {
        "What was to be forgotten": sections.asked(row),
        "How much is left": sections.attacked(row, found),
        "Examples": sections.sayings(row, found),
        "What is not erased": sections.not_erased(row, found),
        "The numbers": sections.numbers(row),
        "What it cost": sections.cost(row, found),
        "Where it comes from": sections.provenance(row, output),
    }
    name = html(f"{row.result.unlearner.name} on {row.result.task}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-{pin}'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>Unlearning report: {name}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"<header><h1>Was it forgotten?</h1>{''.join(_head(row))}</header>\n{_verdict(row, found, output)}\n"
        + "\n".join(f"<section><h2>{title}</h2>{text}</section>" for title, text in parts.items() if text)
        + '\n<div class="sign"><span>Name</span><span>Date</span><span>Signature</span></div>\n'
        "<footer>Written by grun-bench from the result file and the records beside it. Every number is recomputed by "
        "<code>grun-bench verify</code>.</footer>\n</body>\n</html>\n"
    )


def _head(row: Row) -> Iterator[str]:
    result = row.result
    seed = "" if result.seed is None else f", seed {result.seed}"
    yield f"<p>{html(result.unlearner.name)} on the model {html(result.model)}, task {html(result.task)}{seed}</p>"
    yield f"<p>run {html(result.run_id)} of {html(result.date[:10])}, data {html(dataset_label(result))}</p>"
    if result.toy:
        yield f'<p class="toy">{TOY}</p>'
    if result.configs.get(result.task, {}).get("private"):
        yield f'<p class="toy">{PRIVATE}</p>'
    if result.limit:
        yield f'<p class="toy">Cut to {result.limit} rows a set (--limit): a smoke test.</p>'


def _verdict(row: Row, found: Verdict, output: Path) -> str:
    first, *others = lines(row, found, output)
    said = "".join(_line(line) for line in others)
    return f'<div class="verdict {found.grade}"><p class="answer">{html(first.text)}</p><dl>{said}</dl></div>'


def _line(line: Line) -> str:
    command = f" <code>{html(line.command)}</code>" if line.command else ""
    return f"<dt>{html(line.about)}</dt><dd>{html(line.text)}{command}</dd>"
