"""Rows of tuned settings on boards: beside those of default settings, and by themselves."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
from synthetic import references, result, store

from grun_bench.leaderboard.boards import Board
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.markdown import page
from grun_bench.leaderboard.pages import render
from grun_bench.leaderboard.sheet import sheet
from grun_bench.leaderboard.tree import read_models
from grun_bench.results.result import Result, TunedBy

TUNED = TunedBy(trials=20, on="validation of letters", seed=1000)


def tuned(one: Result, digit: str) -> Result:
    info = one.unlearner.model_copy(update={"tuned": TUNED})
    return one.model_copy(update={"unlearner": info, "run_id": f"{digit * 12}-seed{one.seed}"})


@pytest.fixture
def board(tmp_path: Path) -> Board:
    rows = [result("lora+npo", es=0.5), *(tuned(result("lora+npo", es=0.3, seed=seed), "e") for seed in (0, 1))]
    rows += [result("full+npo", es=0.4), tuned(result("full+npo", es=0.2, settings={"lr": 0.5}), "f")]
    store([*references(), *rows], tmp_path)
    (found,) = build(chain.from_iterable(read_models(tmp_path)), {})
    return found


def test_settings_that_were_tuned_make_another_row_even_where_they_are_the_defaults(board: Board) -> None:
    assert [(row.name, row.shown, len(row.runs)) for row in board.rows if not row.pinned] == [
        ("full+npo", "tuned: 20 trials, validation of letters; lr=0.5", 1),
        ("lora+npo", "tuned: 20 trials, validation of letters", 2),
        ("full+npo", "", 1),
        ("lora+npo", "", 1),
    ]


def test_a_page_has_each_kind_by_itself(board: Board) -> None:
    text = page([board], {board.id: "letters"}, "README.md")
    part = {each.split("\n")[0]: each for each in text.split("\n### ")}
    default, own = part["Default settings alone"], part["Tuned settings alone"]
    assert default.count("lora+npo") == own.count("lora+npo") == 1 and "20 trials" not in default
    assert "target model" in default and "target model" in own and own.count("20 trials") == 2
    assert all("those among all rows" in table for table in (default, own))
    assert "95 % of the target model's" in text  # the rule
    first, *lines = sheet(board).splitlines()
    assert "tuned" in first.split(",") and sum("20 trials" in line for line in lines) == 2


def test_the_page_of_all_boards_can_be_filtered_by_it(tmp_path: Path, board: Board) -> None:
    site = render(tmp_path, tmp_path).site
    assert '<select id="settings">' in site
    assert [site.count(f'data-settings="{kind}"') for kind in ("tuned", "default", "")] == [2, 2, 2]


def test_a_board_without_such_rows_is_as_it_was(tmp_path: Path) -> None:
    store([*references(), result("lora+npo")], tmp_path)
    (plain,) = build(chain.from_iterable(read_models(tmp_path)), {})
    assert "uned" not in page([plain], {plain.id: "letters"}, "README.md") + sheet(plain)
