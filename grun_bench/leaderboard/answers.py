"""What models said, side by side: of a few questions of the forget set the answers of the target model, of a row, of
the retain model, and of the row under its worst attack. No torch.

Only texts of public rows are shown: records of private rows hold none, and a task that asks for dangerous knowledge
(WMDP) has none on any page, whatever its records hold.
"""

from __future__ import annotations

from collections.abc import Mapping

from grun_bench.core.errors import GrunBenchError
from grun_bench.core.escaping import clean
from grun_bench.core.limits import at_most
from grun_bench.leaderboard.allowed import allowed_seconds
from grun_bench.leaderboard.boards import PINNED, Board, Row
from grun_bench.leaderboard.filings import Run
from grun_bench.leaderboard.kept_numbers import kept_numbers
from grun_bench.leaderboard.told_apart import is_there, records_behind
from grun_bench.results.record import Records, load_records
from grun_bench.results.texts import texts_of
from grun_bench.tasks.sets import ScoredSets

#: questions of a row, characters of a text, and how many rows of the forget set they are chosen among
SHOWN, LONG, AMONG = 3, 320, 60
#: what begins the names of tasks whose texts are on no page
UNSEEN = "wmdp"
#: index -> question, right answer, what the model said
_Said = Mapping[int, tuple[str, str, str]]


class Answers:
    """The answers of the rows of one board; those of the target and the retain model are read once."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._pinned = {row.label: self._said(row) for row in board.rows if row.pinned and self._seen}

    @property
    def _seen(self) -> bool:
        return not self.board.first.task.startswith(UNSEEN) and self.board.lead is not None

    def of(self, row: Row) -> list[list[str]]:
        """A head line, and a line for each question; empty where there are no texts."""
        own = self._pinned.get(row.label) or (self._said(row) if self._seen else {})
        target, retain = (self._pinned.get(PINNED[role], {}) for role in PINNED)
        beside = {PINNED["target"]: target, row.label: own}
        if row.worst_attack:
            beside[f"{row.label} under {row.worst_attack}"] = self._said(row, row.worst_attack)
        told = {name: said for name, said in {**beside, PINNED["retain model"]: retain}.items() if said}
        common = sorted(set(own).intersection(*told.values()))
        if not common:
            return []
        chosen = [common[len(common) * place // SHOWN] for place in range(min(SHOWN, len(common)))]
        lines = [[*own[index][:2], *(said[index][2] for said in told.values())] for index in chosen]
        return [["question", "right answer", *told], *lines]

    def _said(self, row: Row, attack: str = "") -> _Said:
        """What the first run of a row said, without attack or under the worst way of one; empty without texts."""
        run, sets = row.runs[0], self.board.sets
        if self.board.lead is None or not is_there(run, self.board.lead.metric, attack):
            return {}
        try:
            with at_most(allowed_seconds(run.result)):  # records are a stranger's
                there = records_behind(run, self.board.lead.metric, attack)
                if there is None:
                    return {}
                named, file = there
                kept = kept_numbers("answers", named, [], sets, lambda: _lines(run, load_records(file), sets))
        except GrunBenchError:  # `--check` says what is wrong with them
            return {}
        return {index: (asked, right, said) for index, asked, right, said in kept}


def _lines(run: Run, records: Records, sets: ScoredSets) -> list[tuple[int, str, str, str]]:
    """(index, question, right answer, what was said) of the first rows of the first forget set, as far as they have
    texts; first words of the answer that an attack gave stand in brackets."""
    found = []
    for name in sets.of("forget")[:1]:
        for record in records.of(name)[:AMONG]:
            texts = texts_of(run.result, record)
            if texts and texts.said and texts.question:
                said = f"[{texts.given}] {texts.said[0]}" if texts.given else texts.said[0]
                asked, right, told = (clean(text, LONG) or "(nothing)" for text in (texts.question, texts.answer, said))
                found.append((record.index, asked, right, told))
    return found
