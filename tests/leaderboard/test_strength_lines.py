"""Lines of one training at other strengths in a board's picture."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from synthetic import references, result

from grun_bench.leaderboard.boards import Board
from grun_bench.leaderboard.build import build
from grun_bench.leaderboard.opened import Opened
from grun_bench.leaderboard.scatter import palette, picture
from grun_bench.leaderboard.tables import EQUAL, NAMES, tables
from grun_bench.results.filed import Filed
from grun_bench.results.result import Curve, Point, Result

LINE = re.compile(r'<path class="c0" [^>]*data-row="(\w+)" d="M([^"]*)"/>')


def curved(seed: int, *places: tuple[int, float, float]) -> Result:
    points = [Point(at=at, values={"forget_es": x, "utility": y}) for at, x, y in places]
    return result(seed=seed, curves={"strengths": Curve(unit="percent", points=points)})


def board(*results: Result) -> Board:
    filed = [Filed(each, Path(), f"{number}.json", "") for number, each in enumerate((*references(), *results))]
    (found,) = build(filed, {})
    return found


def test_a_row_with_strengths_has_a_line_from_the_target_to_its_point() -> None:
    found = board(curved(0, (0, 0.9, 0.8), (50, 0.5, 0.7), (100, 0.1, 0.6)), result("lora+npo"))
    drawn = picture(found, palette([row.adapter for row in found.rows]))
    ((row, path),) = LINE.findall(drawn)
    (own,) = (each for each in found.rows if each.name == "grun+npo")
    assert row == own.id and "one training at other strengths, without attack" in drawn
    ends = path.split("L")[0], path.split("L")[-1]
    centre = re.search(rf'data-row="{own.id}".*?<circle class="dot" cx="([\d.]+)" cy="([\d.]+)"', drawn)
    assert centre is not None and ends[1] == f"{centre[1]} {centre[2]}"
    target = re.search(r"<g class=\"pt pin\".*?target model.*?M([\d.]+) ([\d.]+)l8 8", drawn)
    assert target is not None and ends[0] == f"{target[1]} {float(target[2]) + 8:g}"


def test_the_line_of_several_seeds_is_their_mean() -> None:
    runs = [curved(0, (0, 0.9, 0.8), (100, 0.1, 0.6)), curved(1, (0, 0.9, 0.6), (100, 0.3, 0.4))]
    (row,) = (each for each in board(*runs).rows if each.name == "grun+npo")
    first, second = row.strengths("forget_es", "utility")
    assert first == (0, pytest.approx(0.9), pytest.approx(0.7))
    assert second == (100, pytest.approx(0.2), pytest.approx(0.5))


def test_seeds_without_the_same_strengths_have_no_line() -> None:
    for other in (result(seed=1), curved(1, (0, 0.9, 0.8), (50, 0.5, 0.7), (100, 0.1, 0.6))):
        (row,) = (each for each in board(curved(0, (0, 0.9, 0.8), (100, 0.1, 0.6)), other).rows if not each.pinned)
        assert row.strengths("forget_es", "utility") == []


def test_a_board_without_strengths_is_drawn_as_before() -> None:
    found = board(result(), result("lora+npo"))
    assert "strengths" not in picture(found, palette([row.adapter for row in found.rows]))


def test_boards_have_a_table_of_forgetting_at_equal_utility() -> None:
    found = board(curved(0, (0, 0.9, 0.8), (50, 0.5, 0.8), (100, 0.1, 0.72)), result("lora+npo"))
    (table,) = (each for each in tables(found) if each.name == EQUAL)
    ((row, (wide, narrow)),) = table.lines
    assert row.name == "grun+npo"
    assert table.head == ["with 95 % of the target's utility", "with 98 % of the target's utility"]
    # 0.76 and 0.784 of utility are half and a fifth of the way from strength 0.5 to 1
    assert wide.value == pytest.approx(0.3) and wide.small == ("at strength 0.75",)
    assert narrow.value == pytest.approx(0.42) and narrow.small == ("at strength 0.6",)
    assert EQUAL in NAMES and not any(each.name == EQUAL for each in tables(board(result())))


def test_an_opened_row_has_its_strengths() -> None:
    found = board(curved(0, (0, 0.9, 0.8), (50, 0.5, 0.75)), result("lora+npo"))
    blocks = {row.name: Opened("results").board(found)[row.id] for row in found.rows}
    (block,) = (each for each in blocks["grun+npo"] if "strengths" in each["title"])
    assert block["rows"] == [["0", 900, 800], ["0.5", 500, 750]]  # in thousandths
    assert not any("strengths" in each["title"] for each in blocks["lora+npo"])


# --- names ------------------------------------------------------------------------------------------------------------


def names_of(found: Board) -> list[str]:
    return re.findall(
        r'<text class="name[^>]*>([^<]*)</text>', picture(found, palette([row.adapter for row in found.rows]))
    )


def test_points_of_one_name_have_the_settings_in_which_they_differ_beside_it() -> None:
    long = {f"a_setting_with_a_name_{letter}": 1 for letter in "ab"}
    settings = [{"lr": 0.001}, {"lr": 0.002}, {"lr": 0.001, "reset": True}, {"lr": 0.001, **long}]
    rows = [
        result(es=0.1 + place / 10, utility=0.75 - place / 50, settings=each) for place, each in enumerate(settings)
    ]
    names = names_of(board(*rows, result("lora+npo", es=0.6, utility=0.78)))
    assert len(names) == len(set(names)) == 7
    assert {"grun+npo (lr=0.002)", "grun+npo (lr=0.001, reset=true)", "lora+npo"} <= set(names)


def test_points_of_other_names_have_the_name_alone() -> None:
    assert {"grun+npo", "lora+npo"} <= set(names_of(board(result(), result("lora+npo", es=0.3))))
