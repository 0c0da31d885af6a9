"""What a terminal says of a row's strengths."""

from __future__ import annotations

import pytest
from synthetic import result

from grun_bench.results.result import Curve, Point, Result
from grun_bench.terminal.strengths import equal_lines, print_strengths


def curved(*places: tuple[int, float, float | None]) -> Result:
    points = [Point(at=at, values={"forget_es": x, "utility": y}) for at, x, y in places]
    return result(curves={"strengths": Curve(unit="percent", points=points)})


def test_forgetting_at_equal_utility_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    found = curved((0, 0.9, 0.8), (50, 0.5, 0.8), (100, 0.1, 0.72))
    ends = "(straight lines between points)"
    assert equal_lines(found) == [
        f"with 95 % of the target's utility: forget_es 0.300 at strength 0.75 {ends}",
        f"with 98 % of the target's utility: forget_es 0.420 at strength 0.6 {ends}",
    ]
    print_strengths(found)
    said = capsys.readouterr().out
    assert "0 (target)" in said and "1 (this row)" in said and "90.0 %" in said


def test_what_cannot_be_said_has_a_reason() -> None:
    (wide, _) = equal_lines(curved((0, 0.9, None), (100, 0.1, 0.72)))
    assert wide == "with 95 % of the target's utility: none, for the target has none of it."
    (wide, _) = equal_lines(curved((0, 0.9, 0.8), (150, 0.1, 0.8)))
    assert "0.100 at strength 1.5" in wide and "the largest that was scored: more might be forgotten beyond it" in wide
    (said,) = equal_lines(curved((0, 0.9, 0.8)).model_copy(update={"headline": ["forget_es"]}))
    assert "no metric of forgetting beside one of utility" in said


def test_a_row_without_strengths_has_no_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_strengths(result())
    assert capsys.readouterr().out == ""
