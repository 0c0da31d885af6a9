"""Answers under an attack that is under way: a killed one does not ask again what it has asked."""

from __future__ import annotations

from collections import UserDict
from dataclasses import replace
from pathlib import Path

from grun_bench.attacks.base import Answers, Attack
from grun_bench.core import processes
from grun_bench.core.errors import GrunBenchError
from grun_bench.core.files import remove, write_whole
from grun_bench.core.progress import say
from grun_bench.methods.checkpoints import place_of
from grun_bench.results.record import load_records
from grun_bench.runs.fit import plugins_of
from grun_bench.runs.inputs import Inputs
from grun_bench.runs.outcome import Cell

ENDS = ".jsonl"


class KeptAnswers(UserDict[str, Answers]):
    """Answers by variant as a result keeps them, those of earlier processes too: a file each, whole or not there.

    Where measures had no questions, another time they may: such answers have no file.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.data = processes.only_first(self._read)

    def _read(self) -> dict[str, Answers]:
        found = {}
        for path in sorted(self.folder.glob(f"*{ENDS}")):
            try:
                found[path.name.removesuffix(ENDS)] = Answers(load_records(path))
            except GrunBenchError:  # whatever it holds, it must not be in the way
                remove(path)
        return found

    def __setitem__(self, variant: str, answers: Answers) -> None:
        # there are dozens of variants
        self.data[variant] = replace(answers, records=answers.records.summarised())
        if not answers.missing and processes.writes():
            try:
                write_whole(self.folder / f"{variant}{ENDS}", self.data[variant].records.dumps())
            except GrunBenchError as error:
                say(f"{error} The attack goes on; were it stopped, it would ask again.")

    def remove(self) -> None:
        """The attack is filed."""
        if processes.writes():
            remove(self.folder)


def kept_answers(inputs: Inputs, cell: Cell, attack: Attack) -> KeptAnswers:
    """Those of an attack on a row; what the row's model answered without it tells models of one name apart."""
    folder = place_of(
        f"{cell.result.run_id}-{attack.name}",
        inputs.session.placement.where,
        plugins=plugins_of(inputs),
        attack=attack.identity,
        everything=attack.everything,
        records=cell.result.records.sha256 if cell.result.records else None,
    )
    return KeptAnswers(folder)
