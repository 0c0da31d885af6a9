"""What an opened row of the HTML page shows: its runs, attacks, settings and other metrics, as plain data."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

from grun_bench.core.escaping import clean, path_link, web_link
from grun_bench.leaderboard import gates, words
from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.cells import NOTHING, Cell
from grun_bench.leaderboard.filings import Column, Run, plain
from grun_bench.leaderboard.tree import read_card
from grun_bench.metrics.gate_words import HEADINGS, head, lines, named, not_asked, numbers_of
from grun_bench.results.filed import Filed
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.result import RecordsFile
from grun_bench.results.words import number

#: a cell: text, or text with the address that it links to
Part = str | dict[str, str]
Block = dict[str, Any]


class Opened:
    """Rows -> blocks, each a title and a table. `results` is the address of the tree, relative to the page."""

    def __init__(self, results: str) -> None:
        self.results = results
        self.cards: dict[str, list[list[Part]]] = {}

    def board(self, board: Board) -> dict[str, list[Block]]:
        """Row id -> blocks."""
        headline = [clean(words.heading(board, column)) for column in board.headline]
        others = [clean(words.heading(board, column)) for column in board.others]
        return {row.id: list(self._blocks(board, row, headline, others)) for row in board.rows}

    def _blocks(self, board: Board, row: Row, headline: list[str], others: list[str]) -> Iterator[Block]:
        columns = ["seed", "status", *headline, "source", "date", "harness", "device", "result", "records"]
        yield _block("Runs", columns, [self._filing(board, run, filed) for run in row.runs for filed in run.filings])
        notes = [f"unreliable: {reason}" for reason in dict.fromkeys(row.flags)]
        missing = [(name, row.cells[column]) for name, column in zip(headline, board.headline, strict=True)]
        notes += [f"{name}: {cell.reason}" for name, cell in missing if cell.value is None]
        if notes:
            yield _block("Notes", [], [[clean(note)] for note in notes])
        filings = {filed.submission: filed for run in row.runs for filed in run.filings if filed.submission}
        for name in sorted(filings):
            yield _block(f"Submission {clean(name)}", [], self._card(filings[name]))
        if row.attacks:
            own = dict.fromkeys(metric for name in row.attacks for metric in board.under[name])
            metrics = list(dict.fromkeys([*(column.metric for column in board.headline), *own]))
            named = [
                *headline,
                *(clean(words.heading(board, Column(metric, "1"))) for metric in metrics[len(headline) :]),
            ]
            columns = ["attack", "access", *named, "recovery", "settings", "records"]
            yield _block("Attacks", columns, list(self._attacks(board, row, metrics)))
        if gates.is_gated(board, row):
            yield from self._gates(row)
        settings = [[clean(name), clean(plain(value))] for name, value in sorted(row.settings.items())]
        if row.tuned:
            settings.insert(0, [clean(row.tuned), ""])
        if settings:
            yield _block("Settings", [], settings)
        cells = [(name, row.cells[column]) for name, column in zip(others, board.others, strict=True)]
        if cells:
            yield _block("Other metrics", [], [[name, number(cell.value), _spread(cell)] for name, cell in cells])

    def _gates(self, row: Row) -> Iterator[Block]:
        """Where a row's gates open, and what they were not read under."""
        found = gates.audited(row)
        if found:
            name = f"Gates{gates.seed(found)}"
            yield _block(name, [], []) | {"picture": _address(gates.picture(row, found))}
            for opens, heading in HEADINGS.items():
                rows = [[clean(named(*each)), *numbers_of(spread)] for *each, spread in lines(found.gates, opens)]
                yield _block(f"{name}, {heading}", head(opens), rows)
        attacks = {name.partition(" v")[0] for name in row.attacks}
        if missing := not_asked(attacks, found.gates if found else {}, row.runs[0].result.run_id):
            yield _block("What gates were not read under", [], [[clean(missing)]])

    def _filing(self, board: Board, run: Run, filed: Filed) -> list[Part]:
        result = filed.result
        dirty = " (dirty)" if result.git.get("dirty") else ""
        device = [str(result.hardware[key]) for key in ("device", "dtype", "gpu") if result.hardware.get(key)]
        return [
            "-" if result.seed is None else str(result.seed),
            result.status if filed is run.filings[0] else "attacks only",
            *(number(result.value(column.metric)) for column in board.headline),
            clean(f"{filed.tier}{f', {result.imported.tool}' if result.imported else ''}"),
            clean(result.date[:10]),
            clean(f"{str(result.git.get('commit') or 'installed')[:10]}{dirty}"),
            clean(" ".join(device)),
            {"t": clean(result.run_id), "h": path_link(f"{self.results}/{filed.path}")},
            self._records(filed.place, result.records),
        ]

    def _records(self, place: str, records: RecordsFile | None) -> Part:
        if records is None:
            return "none"
        return {"t": f"{records.count} rows", "h": path_link(f"{self.results}/{place}/{records.file}")}

    def _attacks(self, board: Board, row: Row, metrics: Sequence[str]) -> Iterator[list[Part]]:
        for name, cells in row.attacks.items():
            first = next(run.attacks[name] for run in row.runs if name in run.attacks)
            recovery = cells.get(MetricKey(board.lead.metric).recovery.metric, NOTHING) if board.lead else NOTHING
            shown = [cells.get(metric, NOTHING) for metric in metrics]
            settings = ", ".join(f"{key}={plain(value)}" for key, value in first.info.settings.items())
            yield [clean(name), board.access[name], *map(_value, shown), _value(recovery), clean(settings), ""]
            for variant, values in first.variants.items():
                numbers = (number(values.get(metric)) for metric in metrics)
                yield [
                    f"· {clean(variant)}",
                    "",
                    *numbers,
                    "",
                    "",
                    self._records(first.place, first.info.variants[variant]),
                ]

    def _card(self, filed: Filed) -> list[list[Part]]:
        name = filed.submission
        if name not in self.cards:
            self.cards[name] = [[clean(key), _part(value)] for key, value in read_card(filed.root, name).items()]
        return self.cards[name]


def _block(title: str, head: Sequence[str], rows: Sequence[Sequence[Part]]) -> Block:
    return {"title": title, "head": head, "rows": rows}


def _address(svg: str) -> str:
    """A picture as an address that holds it: as an image it runs nothing, and its style is its own."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _spread(cell: Cell) -> str:
    return words.interval(cell) or clean(cell.reason)


def _value(cell: Cell) -> str:
    return f"{number(cell.value)} {words.interval(cell)}".rstrip()


def _part(value: Any) -> Part:
    """A field of a method card; an address becomes a link when it is one of the web."""
    text = plain(value)
    address = web_link(text)
    return {"t": clean(text), "h": address} if address else clean(text)
