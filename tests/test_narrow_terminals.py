"""Terminals of 80 columns: whatever is printed, ids can be copied and numbers are whole."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from rich.table import Table
from synthetic import references, result, store

from grun_bench.reports.rows import read_row
from grun_bench.results.result import Result
from grun_bench.terminal.listing import print_table
from grun_bench.terminal.verdict import print_verdict

#: numbers of rows as these have them, and nothing that a border or a line end cut
NUMBER = re.compile(r"(?<![\w.])\d+\.\d*(?![\w.])")
LONG = {"task": "customers-who-left-in-2026-df618068", "model": "HuggingFaceTB/SmolLM2-135M-Instruct"}


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch, command: Command) -> Command:
    monkeypatch.setenv("COLUMNS", "80")
    return command


@pytest.fixture
def rows(tmp_path: Path) -> list[Result]:
    """Many rows of a task and a model with long names; every number of them has three decimals."""
    said: dict[str, Any] = LONG | {"intervals": {"forget_es,none": (0.051, 0.151)}}
    names = ("grun+npo", "grun-held+npo", "reft-held+simnpo", "lora+undial", "full+satimp")
    attacks = {"prefill": ("user", {"words1": 0.201})}
    found = [
        result(name, es=0.101 + place / 100, utility=0.601, seed=place, attacks=attacks, **said)
        for place, name in enumerate(names)
    ]
    store([*found, *references(**said)], tmp_path)
    return found


def whole(text: str) -> list[str]:
    """The lines of a text. None is longer than the terminal where it is of a table."""
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines if line[:1] in "│┃┏┡├└"), text
    assert all(re.fullmatch(r"\d+\.\d{1,4}", number) for number in NUMBER.findall(text)), text
    return lines


@pytest.mark.parametrize("count", [1, 2, 5])
def test_rows_are_compared_without_a_broken_id_or_number(
    narrow: Command, rows: list[Result], tmp_path: Path, count: int
) -> None:
    said = narrow("compare", *(row.run_id for row in rows[:count]), "--output", tmp_path)
    assert said.code == 0, said.err
    lines = whole(said.out)
    for place, row in enumerate(rows[:count]):
        assert row.run_id in said.out and row.unlearner.name in said.out
        assert f"0.{101 + 10 * place}" in said.out
    # an interval is nowhere parted within a number
    assert sum(line.count("0.051") for line in lines) >= count and "0.601" in said.out


def test_a_verdict_is_broken_between_words_on_a_terminal_alone(
    rows: list[Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its commands are whole, and what a program reads is a line each."""
    monkeypatch.setenv("COLUMNS", "80")
    row = read_row(next(tmp_path.rglob(f"{rows[0].run_id}.json")))
    print_verdict(row, tmp_path)
    plain = capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_verdict(row, tmp_path)
    said = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert said.split() == plain.split() and any(len(line) > 80 for line in plain.splitlines())
    command = next(line for line in said.splitlines() if "grun-bench attack" in line)
    assert command.strip().endswith(f"--output {tmp_path}")
    assert all(len(line) <= 80 for line in said.splitlines() if line != command)


def test_runs_are_listed_so_that_ids_can_be_copied(narrow: Command, rows: list[Result], tmp_path: Path) -> None:
    said = narrow("ls", "runs", "--output", tmp_path)
    assert said.code == 0, said.err
    for row in rows:
        assert row.run_id in whole(said.out)
    assert said.out.count(f"model: {LONG['model']}") == said.out.count(f"task: {LONG['task']}") == 7
    assert said.out.count("forget quality: 0.500") == 7 and "COLUMNS=200" in said.out


def test_a_row_is_shown_in_whole_words(narrow: Command, rows: list[Result], tmp_path: Path) -> None:
    said = narrow("show", rows[2].run_id, "--output", tmp_path)
    assert said.code == 0, said.err
    for text in (rows[2].run_id, LONG["task"], LONG["model"], "reft-held+simnpo", "0.121", "0.051 to"):
        assert any(text in line for line in whole(said.out)), text


@pytest.mark.parametrize("kind", ["adapters", "objectives", "unlearners", "tasks", "metrics", "attacks"])
def test_names_stand_whole_where_there_is_hardly_room(
    command: Command, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    names: dict[str, set[str]] = {columns: set() for columns in ("30", "200")}
    for columns, found in names.items():
        monkeypatch.setenv("COLUMNS", columns)
        for line in command("ls", kind).out.splitlines():
            if line.startswith("  ") and line[2] != " ":
                found.add(line.split()[0])
    assert names["30"] == names["200"] != set()


@pytest.mark.parametrize("columns", range(20, 61, 5))
def test_a_table_is_narrow_in_whole_words_or_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    cells = [["c22d6b5a9f0a-seed0", "how much is left of it", "0.123"], ["[b]x[/b]", "", "-"]]
    table = Table("run", "what", "value", title="a title")
    for row in cells:
        table.add_row(*row)
    print_table(table)
    words = re.split(r"[^\w.+-]+", capsys.readouterr().out)
    for word in ("c22d6b5a9f0a-seed0", "how", "much", "is", "left", "of", "it", "0.123", "x", "what", "value"):
        assert word in words
