"""Results -> boards: what may be compared in one table, its rows over seeds, and their ranks."""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, NamedTuple

from grun_bench.results.filed import TIERS, Filed
from grun_bench.results.result import AttackInfo, Result

#: rows that every table begins with: the target as it is, and the oracle
PINNED = {"none": "target model", "retain": "retain model"}
#: the share of the target model's utility that a row must keep to be ranked by its forgetting
UTILITY_FLOOR = 0.9


class Column(NamedTuple):
    """A metric in one version of its definition. Two versions are two columns."""

    metric: str
    version: str


class Cell(NamedTuple):
    """The mean over a row's runs with a 95 % interval: a t interval `over` the seeds, or one run's own bootstrap
    interval over the `examples`; "" where there is none. A missing number has a reason."""

    value: float | None
    n: int = 0
    low: float | None = None
    high: float | None = None
    over: str = ""
    reason: str = ""


NOTHING = Cell(None)


@dataclass
class Attacked:
    """An attack on one run, with what it left of the headline and of metrics that only attacks have: metric -> value of
    the worst variant, with the recovery of each, and variant -> metric -> value. `reasons` say what is missing."""

    name: str
    info: AttackInfo
    #: the folder of its records, relative to the tree
    place: str
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    worst: dict[str, float | None] = field(default_factory=dict)
    variants: dict[str, dict[str, float | None]] = field(default_factory=dict)


class Filing(NamedTuple):
    """One result file with the attacks in it."""

    filed: Filed
    attacks: dict[str, Attacked]
    #: what the row is of: runs that share it differ in nothing but the seed
    identity: tuple[str, ...]


@dataclass(slots=True)
class Run:
    """One run: the result that its numbers without attack are from (of the best tier), and all attacks filed on it.

    Two versions of an attack are two attacks; of several filings of one attack the worse value of each metric counts.
    """

    result: Result
    filings: list[Filed]
    attacks: dict[str, Attacked]
    identity: tuple[str, ...]


@dataclass
class Row:
    """One unlearner with one choice of settings, over its runs (seeds)."""

    name: str
    settings: dict[str, Any]
    runs: list[Run]
    #: the settings in which the table's rows of this unlearner differ
    shown: str = ""
    cells: dict[Column, Cell] = field(default_factory=dict)
    #: attack -> metric -> mean over the runs that were attacked
    attacks: dict[str, dict[str, Cell]] = field(default_factory=dict)
    #: the forget metric in the worst case, and the attack that it is under ("" without attack)
    worst: Cell = NOTHING
    worst_attack: str = ""
    rank: int | None = None
    pareto: bool = False
    #: what a reader must know of the row beside its numbers
    marks: list[str] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)

    @property
    def pinned(self) -> bool:
        return self.name in PINNED

    @property
    def label(self) -> str:
        return PINNED.get(self.name, self.name)

    @property
    def adapter(self) -> str:
        """The adapter's name; an unlearner that is no pair has none."""
        name, plus, _ = self.name.partition("+")
        return name if plus else "reference" if self.pinned else "other"

    @property
    def diverged(self) -> int:
        return sum(run.result.status == "diverged" for run in self.runs)

    @property
    def tier(self) -> str:
        """The lowest tier of its runs."""
        return max((run.filings[0].tier for run in self.runs), key=TIERS.index)

    @property
    def id(self) -> str:
        return _short_hash([self.name, self.settings, self.runs[0].result.run_id])

    def attacked_by(self, lead: Column | None = None) -> list[str]:
        """The attacks that left a number, or one of this metric."""
        return [
            name
            for name, cells in self.attacks.items()
            if any(cell.value is not None and (lead is None or metric == lead.metric) for metric, cell in cells.items())
        ]

    def cost(self, name: str) -> float | None:
        """The mean of a cost over the runs; None where nothing was trained or it is not known."""
        costs = [getattr(run.result.cost, name) for run in self.runs]
        known = [cost for cost in costs if cost]
        return math.fsum(known) / len(known) if known else None


@dataclass
class Board:
    """One table: results that may be compared, best row first."""

    key: tuple[str, ...]
    first: Result
    rows: list[Row]
    columns: list[Column]
    attacks: list[str]
    #: attack -> what the attacker needs
    access: dict[str, str]
    lead: Column | None
    utility: Column | None
    #: the utility below which a row has lost too much, and the retain model's worst case
    floor: float | None = None
    beyond: float | None = None

    @cached_property
    def id(self) -> str:
        return _short_hash(self.key)

    @property
    def toy(self) -> bool:
        return self.first.dataset == "embedded"

    @cached_property
    def headline(self) -> list[Column]:
        """The ranking's two metrics, then the rest of the task's headline."""
        ranking = [column for column in (self.lead, self.utility) if column]
        named = [column for metric in self.first.headline for column in self.columns if column.metric == metric]
        return list(dict.fromkeys([*ranking, *named]))

    @cached_property
    def others(self) -> list[Column]:
        return [column for column in self.columns if column not in self.headline]

    @property
    def attacked(self) -> bool:
        """Whether an attack is some row's worst case: without, the worst case is the lead metric itself."""
        return any(row.worst_attack for row in self.rows)

    @property
    def runs(self) -> int:
        return sum(len(row.runs) for row in self.rows)

    @property
    def best(self) -> Row | None:
        return next((row for row in self.rows if row.rank == 1), None)

    @cached_property
    def under(self) -> dict[str, list[str]]:
        """Attack -> the metrics that show it: the ranking's, or the attack's own where it has no such number."""
        found = {}
        for name in self.attacks:
            metrics = dict.fromkeys(metric for row in self.rows for metric in row.attacks.get(name, {}))
            if self.lead and self.lead.metric in metrics:
                metrics = {self.lead.metric: None}
            found[name] = [metric for metric in metrics if not metric.startswith("recovery_")]
        return found

    def direction(self, metric: str) -> bool | None:
        """Whether a higher value is better; None for a metric without direction."""
        return next(
            (
                directions[metric]
                for row in self.rows
                for run in row.runs
                if metric in (directions := run.result.higher_is_better[self.first.task])
            ),
            None,
        )


def table_key(result: Result) -> tuple[str, ...]:
    """Rows meet in one table only when all of this is equal: the data and the limit, the protocol, and the versions of
    the task and of what its headline is made of."""
    measures = sorted(f"{name}={version}" for name, version in result.versions.items() if name.startswith("lm_eval:"))
    hashes = sorted(f"{name}={part.get('sha256')}" for name, part in result.data.items())
    return (
        result.dataset,
        result.task,
        result.model,
        result.dataset_hash,
        " ".join(hashes),
        result.protocol,
        str(result.limit or ""),
        # the toy's recipe is its identity; a published model's is its name
        str(result.reference.get("tiny", "")),
        *(f"{name}={result.versions.get(name)}" for name in (result.task, *result.headline)),
        *measures,
    )


def build(filed: Iterable[Filed], flags: Mapping[str, str]) -> list[Board]:
    """All boards, real ones first, in the order of their keys."""
    tables: dict[tuple[str, ...], list[Filing]] = defaultdict(list)
    for one in filed:
        tables[table_key(one.result)].append(_filing(one))
    order = sorted(tables, key=lambda key: (key[0] == "embedded", bool(key[6]), key))
    return [_board(key, tables[key], flags) for key in order]


def _filing(filed: Filed) -> Filing:
    """A result without what no page shows: thousands are held at once."""
    result = filed.result
    values, metrics = result.results[result.task], list(result.higher_is_better[result.task])
    own = [metric for metric in metrics if f"{metric},none" not in values and not metric.startswith("recovery_")]
    shown = [*result.headline, *own]
    found = {_attack_label(name, info): _attacked(filed, name, info, shown) for name, info in result.attacks.items()}
    keys = [f"{metric},none" for metric in metrics]
    kept = {"results": {result.task: {key: values[key] for key in keys if key in values}}}
    empty = {name: {} for name in ("attacks", "configs", "curves", "data", "history", "n_samples")}
    return Filing(replace(filed, result=result.model_copy(update=kept | empty)), found, _identity(result))


def _attack_label(name: str, info: AttackInfo) -> str:
    return name if info.version == 1 else f"{name} v{info.version}"


def _attacked(filed: Filed, name: str, info: AttackInfo, metrics: Sequence[str]) -> Attacked:
    result = filed.result
    values, found = result.results[result.task], Attacked(name, info, filed.place)
    for metric in (*metrics, *(f"recovery_{metric}" for metric in metrics)):
        key = f"{metric},{name}"
        if key not in values:
            continue
        found.worst[metric] = values[key]
        if key in result.intervals:
            found.intervals[metric] = result.intervals[key]
        if key in result.reasons:
            found.reasons[metric] = result.reasons[key]
    for variant in info.variants:
        keys = {metric: f"{metric},{name}:{variant}" for metric in metrics}
        found.variants[variant] = {metric: values[key] for metric, key in keys.items() if key in values}
    return found


def _board(key: tuple[str, ...], filings: Sequence[Filing], flags: Mapping[str, str]) -> Board:
    rows = _rows(_runs(filings))
    first = rows[0].runs[0].result
    runs = [run for row in rows for run in row.runs]
    columns = _columns(runs)
    access = {name: attacked.info.access for run in runs for name, attacked in sorted(run.attacks.items())}
    board = Board(key, first, rows, columns, sorted(access), access, None, None)
    by_metric = {column.metric: column for column in columns}
    for metric in first.headline:
        better, column = board.direction(metric), by_metric.get(metric)
        if better is False:
            board.lead = board.lead or column
        elif better and not metric.startswith("forget"):
            board.utility = board.utility or column
    for row in rows:
        _fill(row, board, flags)
    if not first.limit:
        _rank(board)
    board.rows.sort(key=_order)
    return board


# --- runs and rows ----------------------------------------------------------------------------------------------------


def _runs(filings: Sequence[Filing]) -> list[Run]:
    same: dict[tuple[str, ...], list[Filing]] = defaultdict(list)
    for one in filings:
        same[(one.filed.result.run_id, *one.identity)].append(one)
    best_first = (
        sorted(of_run, key=lambda one: (TIERS.index(one.filed.tier), one.filed.path)) for of_run in same.values()
    )
    return [_merge(of_run) for of_run in best_first]


def _identity(result: Result) -> tuple[str, ...]:
    """The unlearner, its settings, and the tool that an imported result is from."""
    tool = result.imported.tool if result.imported else ""
    return (result.unlearner.name, _canonical(result.unlearner.settings), tool)


def _merge(filings: list[Filing]) -> Run:
    result = filings[0].filed.result
    directions = result.higher_is_better[result.task]
    attacks: dict[str, Attacked] = {}
    for one in filings:
        for name, found in one.attacks.items():
            known = attacks.setdefault(name, found)
            for metric, value in found.worst.items():
                worse = _worse(known.worst.get(metric), value, directions.get(metric))
                if worse != known.worst.get(metric):
                    known.worst[metric] = worse
                    known.intervals.pop(metric, None)
    return Run(result, [one.filed for one in filings], attacks, filings[0].identity)


def _worse(one: float | None, other: float | None, better: bool | None) -> float | None:
    if one is None or other is None:
        return other if one is None else one
    # what has no direction of its own here is a recovery: the higher, the worse
    return min(one, other) if better else max(one, other)


def _rows(runs: Sequence[Run]) -> list[Row]:
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.identity].append(run)
    rows = []
    for key in sorted(groups):
        members = sorted(groups[key], key=lambda run: (run.result.seed or 0, run.result.run_id))
        unlearner = members[0].result.unlearner
        rows.append(Row(unlearner.name, unlearner.settings, members))
    _show_settings(rows)
    return rows


def _show_settings(rows: Sequence[Row]) -> None:
    """Beside an unlearner's name, the settings in which its rows of this table differ."""
    by_name: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_name[row.name].append(row)
    for same in by_name.values():
        names = sorted({name for row in same for name in row.settings})
        differing = [name for name in names if len({_canonical(row.settings.get(name)) for row in same}) > 1]
        for row in same:
            row.shown = ", ".join(f"{name}={_plain(row.settings[name])}" for name in differing if name in row.settings)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- cells ------------------------------------------------------------------------------------------------------------


def _columns(runs: Iterable[Run]) -> list[Column]:
    found: dict[tuple[str, int | str], None] = {}
    for run in runs:
        result, task = run.result, run.result.task
        for key in result.results[task]:
            metric = key[:-5]
            found[metric, result.versions.get(metric, 1)] = None
    return [Column(metric, str(version)) for metric, version in found]


def _fill(row: Row, board: Board, flags: Mapping[str, str]) -> None:
    row.flags = [flags[run.result.run_id] for run in row.runs if run.result.run_id in flags]
    if row.diverged:
        row.marks.append(
            "diverged" if row.diverged == len(row.runs) else f"diverged in {row.diverged} of {len(row.runs)}"
        )
    if row.flags:
        row.marks.append("unreliable")
    for column in board.columns:
        row.cells[column] = _clean_cell(row, column)
    for name in board.attacks:
        attacked = [run.attacks[name] for run in row.runs if name in run.attacks]
        metrics = dict.fromkeys(metric for one in attacked for metric in one.worst)
        if attacked:
            row.attacks[name] = {metric: _attack_cell(attacked, metric) for metric in metrics}
    if board.lead:
        row.worst = row.cells[board.lead]
        for name, cells in row.attacks.items():
            cell = cells.get(board.lead.metric, NOTHING)
            known = row.worst.value
            if board.access[name] == "user" and None not in (cell.value, known) and cell.value > known:  # type: ignore[operator]
                row.worst, row.worst_attack = cell, name


def _clean_cell(row: Row, column: Column) -> Cell:
    key = f"{column.metric},none"
    values, reason = [], ""
    for run in row.runs:
        result = run.result
        measured = str(result.versions.get(column.metric, 1)) == column.version
        value = result.results[result.task].get(key) if measured else None
        values.append(value)
        if value is None and not reason:
            missing = f"training diverged: {result.error}" if result.status == "diverged" else result.reasons.get(key)
            reason = missing or "not measured"
    return average(values, row.runs[0].result.intervals.get(key), reason)


def _attack_cell(attacked: Sequence[Attacked], metric: str) -> Cell:
    first = attacked[0]
    reason = first.reasons.get(metric, "not measured")
    return average([one.worst.get(metric) for one in attacked], first.intervals.get(metric), reason)


def average(values: Sequence[float | None], interval: tuple[float, float] | None, reason: str = "") -> Cell:
    """The mean over runs with its 95 % t interval; one run's own bootstrap interval where there is no other run."""
    known = [value for value in values if value is not None]
    n = len(values)
    if len(known) < n or not n:
        return Cell(None, n, reason=reason)
    mean = math.fsum(known) / n
    if n == 1:
        return Cell(mean, 1, *(interval or (None, None)), over="examples" if interval else "")
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in known) / (n - 1))
    half = _t_quantile(n - 1) * deviation / math.sqrt(n)
    return Cell(mean, n, mean - half, mean + half, "seeds")


@cache
def _t_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.975))


# --- ranks ------------------------------------------------------------------------------------------------------------


def _rank(board: Board) -> None:
    """Ranks, Pareto front and marks; `rules` says in words what this does."""
    pins = {row.name: row for row in board.rows if row.pinned}
    if board.utility and "none" in pins and (whole := pins["none"].cells[board.utility].value) is not None:
        board.floor = UTILITY_FLOOR * whole
    board.beyond = pins["retain"].worst.value if "retain" in pins else None
    ranked = [row for row in board.rows if not row.pinned and _rankable(row, board)]
    for row in ranked:
        if below_floor(row, board):
            row.marks.append("below the floor")
        if not any(board.access[name] == "user" for name in row.attacked_by(board.lead)):
            row.marks.append("no attack")
    for number, row in enumerate(sorted(ranked, key=lambda row: _merit(row, board)), 1):
        row.rank = number
    points = [(row, row.worst.value or 0.0, -_utility(row, board)) for row in ranked]
    for row, forget, lost in points:
        row.pareto = not any(
            f <= forget and u <= lost and (f < forget or u < lost) for other, f, u in points if other is not row
        )


def _rankable(row: Row, board: Board) -> bool:
    numbers = [row.worst, *([row.cells[board.utility]] if board.utility else [])]
    return not row.marks and all(cell.value is not None for cell in numbers)


def _utility(row: Row, board: Board) -> float:
    return (row.cells[board.utility].value or 0.0) if board.utility else 0.0


def below_floor(row: Row, board: Board) -> bool:
    """Whether a row lost too much utility to be ranked by its forgetting."""
    return board.floor is not None and _utility(row, board) < board.floor


def _merit(row: Row, board: Board) -> tuple[Any, ...]:
    forget, utility = row.worst.value or 0.0, _utility(row, board)
    if below_floor(row, board):
        return (1, -utility, forget, row.name, row.shown)
    return (0, max(forget, board.beyond if board.beyond is not None else forget), -utility, row.name, row.shown)


def _order(row: Row) -> tuple[Any, ...]:
    pin = list(PINNED).index(row.name) if row.pinned else len(PINNED)
    return (pin, row.rank is None, row.rank or 0, row.name, row.shown, row.id)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _short_hash(value: Any) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:8]
