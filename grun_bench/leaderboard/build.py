"""Results -> boards: what may be compared in one table, its rows over seeds, and their ranks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from grun_bench.core import registry
from grun_bench.leaderboard.apart import by_controls
from grun_bench.leaderboard.boards import PINNED, Board, Key, Row
from grun_bench.leaderboard.cells import Numbers, numbers_of
from grun_bench.leaderboard.filings import Column, Run, canonical, merged, plain, run_of, with_usual_attacks
from grun_bench.leaderboard.ranking import Entrant, Ranking, Standing
from grun_bench.leaderboard.told_apart import told_apart
from grun_bench.metrics.about import leads
from grun_bench.results.filed import Filed
from grun_bench.results.result import Result, UnlearnerInfo
from grun_bench.tasks.sets import ScoredSets


def build(filed: Iterable[Filed], flags: Mapping[str, str]) -> list[Board]:
    """All boards in their order. `flags`: run id -> why the run is unreliable.

    No board is of two tasks or models: built from the results of one task and model at a time they are the same.
    """
    tables: dict[Key, list[Run]] = defaultdict(list)
    sets: dict[Key, ScoredSets] = {}
    for each in filed:
        key = table_key(each.result)
        if key not in sets:
            sets[key] = each.result.sets
        tables[key].append(run_of(each))
    boards = [
        _board((*key, own) if own else key, merged(compared), sets[key], flags, bool(own))
        for key, runs in tables.items()
        for own, compared in by_controls(runs).items()
    ]
    return sorted(boards, key=lambda board: board.order)


def table_key(result: Result) -> Key:
    """Rows meet in one table only when they measure the same and share their target and retain model, which are others
    in another arithmetic."""
    return (*measured(result), canonical(result.reference), result.arithmetic)


def measured(result: Result) -> Key:
    """Numbers compare only when all of this is equal: the data and the limit, the protocol, and the versions of the
    task and of what its headline is made of."""
    versions = result.versions
    measures = sorted([f"{name}={versions[name]}" for name in versions if name.startswith("lm_eval:")])
    hashes = sorted([f"{name}={part.get('sha256')}" for name, part in result.data.items()])
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
        *[f"{name}={versions.get(name)}" for name in (result.task, *result.headline)],
        *measures,
    )


def _board(key: Key, runs: Iterable[Run], sets: ScoredSets, flags: Mapping[str, str], apart: bool) -> Board:
    groups = _groups(with_usual_attacks(runs))
    ordered = [run for group in groups for run in group.runs]
    first, columns = ordered[0].result, list(dict.fromkeys(chain.from_iterable(run.clean for run in ordered)))
    # what an attack needs is as the tree's own rows say, where they have it
    own_last = sorted(ordered, key=lambda run: not run.filings[0].submission)
    access = {name: found.info.access for run in own_last for name, found in run.attacks.items()}
    access = {name: access[name] for name in sorted(access)}
    directions: dict[str, bool | None] = {}
    for run in reversed(ordered):  # where two differ the first has its way
        directions |= run.result.higher_is_better[first.task]
    lead, utility = _ranked_by(first.headline, columns, directions, sets)
    user = [name for name in access if access[name] == "user"]
    numbers = [numbers_of(group.runs, columns, access, user, lead, sets) for group in groups]
    shown = shown_settings([group.runs[0].result for group in groups])
    entrants = [_entrant(*each, utility, flags, apart) for each in zip(groups, shown, numbers, strict=True)]
    # results of --limit are smoke tests
    ranking = Ranking.against([] if first.limit else entrants, by_utility=utility is not None)
    standings = [Standing(marks=each.excluded) for each in entrants] if first.limit else ranking.standings(entrants)
    rows = [_row(*each, flags) for each in zip(groups, entrants, numbers, standings, strict=True)]
    return Board(
        key=key,
        first=first,
        rows=told_apart(sorted(rows, key=_order), lead, sets),
        columns=columns,
        access=access,
        directions=directions,
        lead=lead,
        utility=utility,
        floor=ranking.floor,
        beyond=ranking.beyond,
        known=ranking.known,
        sets=sets,
        apart=apart,
    )


class _Group(NamedTuple):
    """The runs of a row, one of each seed; how many `older` ones of the same seeds there are."""

    runs: list[Run]
    older: int


def _groups(runs: Iterable[Run]) -> list[_Group]:
    """The runs of each row, by seed.

    Of several with one seed the newest counts: they are one run, made again by another version of the harness or of the
    task, and no sample of what seeds do. Rows of logs have no seed, and each is a run of its own.
    """
    groups: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        groups[run.identity].append(run)
    found = []
    for identity in sorted(groups):
        newest: dict[tuple[int, str], Run] = {}
        for run in sorted(groups[identity], key=lambda run: (run.result.date, run.result.run_id)):
            newest[run.result.seed or 0, run.result.run_id if run.result.imported else ""] = run
        kept = sorted(newest.values(), key=lambda run: (run.result.seed or 0, run.result.run_id))
        found.append(_Group(kept, len(groups[identity]) - len(kept)))
    return found


def _ranked_by(
    headline: Sequence[str], columns: Iterable[Column], directions: Mapping[str, bool | None], sets: ScoredSets
) -> tuple[Column | None, Column | None]:
    """The columns of forgetting and of utility that rows are ranked by, of those that are there."""
    by_metric = {column.metric: column for column in columns}
    lead, utility = leads([metric for metric in headline if metric in by_metric], directions, sets)
    return by_metric[lead] if lead else None, by_metric[utility] if utility else None


def shown_settings(results: Sequence[Result]) -> list[str]:
    """Beside each row's name, the settings in which the rows of this unlearner on its task and model differ.

    Tuned ones say how they were found and differ from all; those of the others differ from each other.
    """
    whole: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    untuned: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    keys = [(each.task, each.model, each.unlearner.name) for each in results]
    for key, each in zip(keys, results, strict=True):
        whole[key].append(each.unlearner.settings)
        if each.unlearner.tuned is None:
            untuned[key].append(each.unlearner.settings)

    of_all, of_untuned = ({key: _differing(same) for key, same in kind.items()} for kind in (whole, untuned))

    def shown(key: tuple[str, ...], each: UnlearnerInfo) -> str:
        names = (of_all if each.tuned else of_untuned)[key]
        values = ", ".join(f"{name}={plain(each.settings[name])}" for name in names if name in each.settings)
        return "; ".join(filter(None, (each.tuned_label, values)))

    return [shown(key, each.unlearner) for key, each in zip(keys, results, strict=True)]


def named_apart(results: Sequence[Result]) -> list[str]:
    """The name of each row's unlearner, with those settings where there are any."""
    shown = shown_settings(results)
    return [
        f"{each.unlearner.name} ({own})" if own else each.unlearner.name
        for each, own in zip(results, shown, strict=True)
    ]


def _differing(same: Sequence[Mapping[str, Any]]) -> list[str]:
    names = sorted({name for settings in same for name in settings})
    return [name for name in names if len({canonical(settings.get(name)) for settings in same}) > 1]


def _entrant(
    group: _Group,
    shown: str,
    numbers: Numbers,
    utility: Column | None,
    flags: Mapping[str, str],
    apart: bool,
) -> Entrant:
    runs = group.runs
    name = runs[0].result.unlearner.name
    diverged, excluded = sum(run.result.status == "diverged" for run in runs), ["own controls"] * apart
    if diverged:
        excluded.append("diverged" if diverged == len(runs) else f"diverged in {diverged} of {len(runs)}")
    if any(run.result.run_id in flags for run in runs):
        excluded.append("unreliable")
    return Entrant(
        name=name,
        shown=shown,
        role=registry.role_of(name),
        worst=numbers.worst.value,
        reach=numbers.reach,
        utility=numbers.cells[utility].value if utility else None,
        excluded=tuple(excluded),
        attacked=numbers.attacked,
    )


def _row(group: _Group, entrant: Entrant, numbers: Numbers, standing: Standing, flags: Mapping[str, str]) -> Row:
    runs = group.runs
    older = [f"{group.older} older of the same seed left out"] if group.older else []
    return Row(
        name=entrant.name,
        role=entrant.role,
        settings=runs[0].result.unlearner.settings,
        runs=runs,
        shown=entrant.shown,
        flags=[flags[run.result.run_id] for run in runs if run.result.run_id in flags],
        cells=numbers.cells,
        attacks=numbers.attacks,
        worst=numbers.worst,
        worst_attack=numbers.worst_attack,
        rank=standing.rank,
        pareto=standing.pareto,
        below=standing.below,
        not_forgotten=standing.not_forgotten,
        marks=(*standing.marks, *numbers.partial, *older),
    )


def _order(row: Row) -> tuple[int, bool, int, str, str, str]:
    pin = list(PINNED).index(row.role) if row.role else len(PINNED)
    return (pin, row.rank is None, row.rank or 0, row.name, row.shown, row.id)
