"""What an opened row of the HTML page shows: its answers, attacks, metrics, settings and runs, as plain data."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from grun_bench.core.escaping import clean, path_link, web_link
from grun_bench.leaderboard import gates, words
from grun_bench.leaderboard.answers import Answers
from grun_bench.leaderboard.boards import Board, Row
from grun_bench.leaderboard.cells import NOTHING, Cell
from grun_bench.leaderboard.filings import Attacked, Column, Run, attack_of, plain
from grun_bench.leaderboard.glossary import metric_of, place, place_of_metric
from grun_bench.leaderboard.themes import LAYERS
from grun_bench.leaderboard.tree import read_card
from grun_bench.metrics.gate_words import HEADINGS, head, lines, named, not_asked, numbers_of
from grun_bench.results.filed import Filed
from grun_bench.results.metric_key import MetricKey
from grun_bench.results.protocol_names import plain_name
from grun_bench.results.result import RecordsFile
from grun_bench.results.words import metric_number

#: a number: in thousandths, as a page with thousands of rows has hundreds of thousands; text where that is too coarse
Number = int | str
#: a cell: text; a link with its text (`t`; without one the name of the file) and its address (`h`) or the entry of
#: the glossary that explains it (`g`); or a number, alone or with half of its interval behind it, or with both ends
Part = Number | dict[str, str] | list[Number]
#: a title, a table, and how it is shown: `fold`ed, as long `texts`, or a `picture` in its place
Block = dict[str, Any]
#: the column of metrics that are of no one set
_OVERALL = "overall"


class Opened:
    """Rows -> blocks, each a title and a table. `results` is the address of the tree, relative to the page."""

    def __init__(self, results: str) -> None:
        self.results = results
        self.cards: dict[str, list[list[Part]]] = {}

    def board(self, board: Board) -> dict[str, list[Block]]:
        """Row id -> blocks, the folded ones last."""
        answers = Answers(board)
        return {
            row.id: sorted(self._blocks(board, row, answers), key=lambda block: block.get("fold", 0))
            for row in board.rows
        }

    def _blocks(self, board: Board, row: Row, answers: Answers) -> Iterator[Block]:
        yield from _notes(board, row)
        if told := answers.of(row):
            seed = f", seed {row.runs[0].result.seed}" if len(row.runs) > 1 else ""
            yield _block(f"What is said to questions of the forget set{seed}", told[0], told[1:], texts=1)
        yield from _attacks(board, row)
        yield from _metrics(board, row)
        settings: list[list[Part]] = [
            [clean(name), clean(plain(value))] for name, value in sorted(row.runs[0].result.unlearner.told.items())
        ]
        if row.tuned:
            settings.insert(0, [clean(row.tuned), ""])
        yield _block("Method and settings", [], [*_parts(row), *settings])
        yield self._runs(board, row)
        yield from self._variants(board, row)
        yield from _strengths(board, row)
        if gates.is_gated(board, row):
            yield from _gates(row)
        filings = {filed.submission: filed for run in row.runs for filed in run.filings if filed.submission}
        for name in sorted(filings):
            yield _block(f"Submission {clean(name)}", [], self._card(filings[name]))

    def _runs(self, board: Board, row: Row) -> Block:
        headline = [_heading(board, column) for column in board.headline]
        columns = ["seed", "status", *headline, "source", "date", "harness", "device", "result", "records"]
        return _short(
            _block("Runs", columns, [self._filing(board, run, filed) for run in row.runs for filed in run.filings])
        )

    def _filing(self, board: Board, run: Run, filed: Filed) -> list[Part]:
        result = filed.result
        dirty = " (dirty)" if result.git.get("dirty") else ""
        device = [str(result.hardware[key]) for key in ("device", "dtype", "gpu") if result.hardware.get(key)]
        return [
            "-" if result.seed is None else str(result.seed),
            result.status if filed is run.filings[0] else "attacks only",
            *[_number(column.metric, result.value(column.metric)) for column in board.headline],
            clean(f"{filed.tier}{f', {result.imported.tool}' if result.imported else ''}"),
            clean(result.date[:10]),
            clean(f"{str(result.git.get('commit') or 'installed')[:10]}{dirty}"),
            clean(" ".join(device)),
            {"h": self._link(filed.path)},
            _records(self._link(filed.place), result.records),
        ]

    def _link(self, path: str) -> str:
        """The address of a file or folder of the tree."""
        return path_link(f"{self.results}/{path}")

    def _variants(self, board: Board, row: Row) -> Iterator[Block]:
        """Each attack's ways of asking, by the metrics that show it; of several runs the first that was attacked."""
        for metrics, names in _by_metrics(board, row).items():
            rows: list[list[Part]] = []
            for name in names:
                first = _first(row, name)
                shown, folder = clean(name), self._link(first.place)
                for variant, values in first.variants.items():
                    numbers = [_number(metric, values.get(metric)) for metric in metrics]
                    rows.append([shown, clean(variant), *numbers, _records(folder, first.info.variants[variant])])
            columns = ["attack", "way of asking", *(_heading(board, Column(each, "1")) for each in metrics), "records"]
            yield _short(_block("Attacks, each way of asking", columns, rows, fold=1))
        settings = {name: _first(row, name).info.settings for name in row.attacks}
        listed = [[_attack(name), clean(_words(given))] for name, given in settings.items() if given]
        if listed:
            yield _block("Settings of attacks", ["attack", "settings"], listed, fold=1)

    def _card(self, filed: Filed) -> list[list[Part]]:
        name = filed.submission
        if name not in self.cards:
            self.cards[name] = [[clean(key), _part(value)] for key, value in read_card(filed.root, name).items()]
        return self.cards[name]


def _records(folder: str, records: RecordsFile | None) -> Part:
    """Records, in the folder with this address."""
    return {"t": f"{records.count} rows", "h": f"{folder}/{path_link(records.file)}"} if records else "none"


def _notes(board: Board, row: Row) -> Iterator[Block]:
    """Why a row is not to be trusted, and what of the headline it has no number of, or one that lacks rows."""
    notes = [f"unreliable: {reason}" for reason in dict.fromkeys(row.flags)]
    cells = [(column, row.cells[column]) for column in board.headline]
    notes += [f"{words.heading(board, column)}: {cell.reason}" for column, cell in cells if cell.reason]
    if notes:
        yield _block("Notes", [], [[clean(note)] for note in notes])


def _attacks(board: Board, row: Row) -> Iterator[Block]:
    for metrics, names in _by_metrics(board, row).items():
        lead = MetricKey(board.lead.metric).recovery.metric if board.lead and board.lead.metric in metrics else ""
        rows: list[list[Part]] = []
        for name in names:
            cells = row.attacks[name]
            values = [_value(metric, cells.get(metric, NOTHING)) for metric in metrics]
            recovery = [_value(lead, cells.get(lead, NOTHING))] if lead else []
            rows.append([_attack(name), board.access[name], *values, *recovery])
        shown: list[Part] = [_heading(board, Column(metric, "1")) for metric in metrics]
        shown += [{"t": "recovery", "g": place("column", "recovery")}] if lead else []
        title = "Attacks" if lead else "Attacks with measures of their own"
        yield _block(title, ["attack", "access", *shown], rows)


def _by_metrics(board: Board, row: Row) -> dict[tuple[str, ...], list[str]]:
    """The row's attacks by the metrics that show them: the headline's, or an attack's own."""
    headline = tuple(column.metric for column in board.headline)
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in row.attacks:
        own = tuple(board.under[name])
        found[headline if set(own) & set(headline) else own].append(name)
    return {metrics: names for metrics, names in found.items() if metrics}


def _metrics(board: Board, row: Row) -> Iterator[Block]:
    """The metrics beside the headline by theme: a line for each metric, a column for each set."""
    themes: dict[str, dict[str, dict[str, Column]]] = {}
    layers: dict[str, dict[str, Column]] = {}
    missing: dict[str, list[str]] = defaultdict(list)
    of_layers = board.themes.get(LAYERS, [])
    for column in board.others:
        if row.cells[column].value is None:
            missing[row.cells[column].reason].append(words.plain(board, column))
            continue
        scored, label, theme = _split(column, board.first.protocol)
        found = layers if column in of_layers else themes.setdefault(theme, {})
        found.setdefault(label, {})[scored] = column
    yield from _metric_table(board, row, "Other metrics", themes)
    yield from _metric_table(board, row, LAYERS, {"": layers}, fold=1)
    if missing:
        listed = [[clean(", ".join(names)), clean(reason)] for reason, names in missing.items()]
        yield _block("Not measured", ["metrics", "why"], listed, fold=1)


def _metric_table(
    board: Board, row: Row, title: str, themes: dict[str, dict[str, dict[str, Column]]], fold: int = 0
) -> Iterator[Block]:
    """Metrics of several themes, whose names stand alone in a line."""
    there = {name for labels in themes.values() for columns in labels.values() for name in columns}
    order = [_OVERALL, *(each.name for each in board.sets.sets)]
    sets = sorted(there, key=lambda name: (order.index(name) if name in order else len(order), name))
    rows: list[list[Part]] = []
    for theme, labels in themes.items():
        rows += [[clean(theme)]] if theme else []
        for label, columns in labels.items():
            metric = next(iter(columns.values())).metric
            cells = [_value(columns[name].metric, row.cells[columns[name]]) if name in columns else "" for name in sets]
            rows.append([_explained(label, place_of_metric(metric)), *cells])
    if there:
        head = ["metric", *(clean(name.replace("_", " ")) for name in sets)]
        yield {"title": title, "head": head, "rows": rows, **({"fold": fold} if fold else {})}


@cache
def _split(column: Column, protocol: str) -> tuple[str, str, str]:
    """The set of a metric's key, the rest of its name, and its theme."""
    entry = metric_of(column.metric)
    version = "" if column.version == "1" else f" (v{column.version})"
    metric = plain_name(column.metric, protocol)
    if entry is None:
        return _OVERALL, f"{metric}{version}".replace("_", " "), "Without a definition here"
    known = plain_name(entry.name, protocol)
    before, _, after = metric.partition(known)
    label = f"{known}{after}{version}".replace("_", " ")
    return before.rstrip("_") or _OVERALL, label, entry.theme.partition(":")[0]


def _gates(row: Row) -> Iterator[Block]:
    """Where a row's gates open, and what they were not read under."""
    found = gates.audited(row)
    if found:
        name = f"Gates{gates.seed(found)}"
        yield _block(name, [], [], fold=1) | {"picture": _address(gates.picture(row, found))}
        for opens, heading in HEADINGS.items():
            rows = [[clean(named(*each)), *numbers_of(spread)] for *each, spread in lines(found.gates, opens)]
            yield _block(f"{name}, {heading}", head(opens), rows, fold=1)
    attacks = {attack_of(name) for name in row.attacks}
    if missing := not_asked(attacks, found.gates if found else {}, row.runs[0].result.run_id):
        yield _block("What gates were not read under", [], [[clean(missing)]], fold=1)


def _block(title: str, head: Sequence[Part], rows: Sequence[Sequence[Part]], **shown: int) -> Block:
    """A block without the columns that are empty in every row."""
    shown = {name: value for name, value in shown.items() if value}
    if rows and "" not in rows[0] and "-" not in rows[0]:
        return {"title": title, "head": head, "rows": rows, **shown}
    kept = [place for place in range(len(rows[0]) if rows else 0) if any(row[place] not in ("", "-") for row in rows)]
    return {
        "title": title,
        "head": [head[place] for place in kept] if head else [],
        "rows": [[row[place] for place in kept] for row in rows],
        **shown,
    }


def _short(block: Block) -> Block:
    """The block with what its addresses begin with said once."""
    links = [part for row in block["rows"] for part in row if isinstance(part, dict) and "h" in part]
    first, last = min(part["h"] for part in links), max(part["h"] for part in links)
    shared = next(
        (place for place, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), len(first)
    )
    for part in links:
        part["h"] = part["h"][shared:]
    return block | {"base": first[:shared]}


def _heading(board: Board, column: Column) -> Part:
    return _explained(words.heading(board, column), place_of_metric(column.metric))


@cache
def _explained(text: str, entry: str) -> Part:
    return {"t": clean(text), "g": entry} if entry else clean(text)


def _first(row: Row, attack: str) -> Attacked:
    return next(run.attacks[attack] for run in row.runs if attack in run.attacks)


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={plain(value)}" for key, value in settings.items())


def _parts(row: Row) -> list[list[Part]]:
    """What a method is made of."""
    adapter, plus, objective = row.name.partition("+")
    if not plus:
        return [["method", {"t": clean(row.name), "g": place("unlearner", row.name)}]]
    return [
        ["adapter", {"t": clean(adapter), "g": place("adapter", adapter)}],
        ["objective", {"t": clean(objective), "g": place("objective", objective)}],
    ]


def _attack(name: str) -> Part:
    return _explained(name, place("attack", attack_of(name)))


def _address(svg: str) -> str:
    """A picture as an address that holds it: as an image it runs nothing, and its style is its own."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _value(metric: str, cell: Cell) -> Part:
    """A number with its interval, as `words.interval` says it."""
    if cell.value is None or cell.low is None or cell.high is None:
        return _number(metric, cell.value)
    value = _number(metric, cell.value)
    if cell.over == "seeds":
        return [value, _number("", cell.high - cell.value)]
    return [value, _number("", cell.low), _number("", cell.high)]


def _strengths(board: Board, row: Row) -> Iterator[Block]:
    """What the ranking's two metrics are at other strengths of a row that was scored so."""
    if not board.lead or not board.utility:
        return
    metrics = board.lead.metric, board.utility.metric
    if places := row.strengths(*metrics):
        columns = ["strength", *(_heading(board, column) for column in (board.lead, board.utility))]
        lines: list[list[Part]] = [
            [f"{at / 100:g}", *(_number(metric, value) for metric, value in zip(metrics, values, strict=True))]
            for at, *values in places
        ]
        yield _block("One training at other strengths, without attack", columns, lines)


def _number(metric: str, value: float | None) -> Number:
    if value is not None and 0.001 <= value < 1:  # nearly all of hundreds of thousands
        return int(f"{value:.3f}".replace(".", ""))
    return _thousandths(metric_number(metric, value))


def _thousandths(text: str) -> Number:
    return int(text.replace(".", "")) if text[-4:-3] == "." and text[-3:].isdigit() else text


def _part(value: Any) -> Part:
    """A field of a method card; an address becomes a link when it is one of the web."""
    text = plain(value)
    address = web_link(text)
    return {"t": clean(text), "h": address} if address else clean(text)
