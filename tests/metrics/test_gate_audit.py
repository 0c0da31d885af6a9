"""Where gates open, against brute force and scipy, and what of it tables and pictures say."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import trapezoid
from scipy.stats import mannwhitneyu
from synthetic import result

from grun_bench.metrics.gate_audit import CORNERS, NEAREST, PARAPHRASED, Audit, auc, auditable, gate_audit, nearest, roc
from grun_bench.metrics.gate_picture import gate_picture, shares
from grun_bench.metrics.gate_words import named, not_asked, worst
from grun_bench.results.metric_key import CLEAN
from grun_bench.results.record import Continuation, Record, Records
from grun_bench.results.result import AttackInfo
from grun_bench.tasks.sets import USUAL_SETS

few = settings(deadline=None, max_examples=40)
GATES = st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]) | st.floats(0, 1), min_size=1, max_size=30)


def row(name: str, index: int, question: str, *gates: float, paraphrased: float | None = None) -> Record:
    """A record with a gate in each layer."""
    layers = {str(layer): gate for layer, gate in enumerate(gates)}
    other = None if paraphrased is None else {"0": paraphrased}
    return Record(name, index, question, Continuation("", loss=1.0), gates=layers or None, gates_paraphrased=other)


#: two forget questions, and retain questions of which the second is of the same kind as both
PLAIN = Records(
    [
        row("forget", 0, "In which city was Ada born?", 0.9, 0.7, paraphrased=0.5),
        row("forget", 1, "In which city was Bo born?", 0.25, 0.5, paraphrased=0.4),
        row("retain", 0, "What does Cy write?", 0.1, 0.1, paraphrased=0.6),
        row("retain", 1, "In which city was Cy born?", 0.6, 0.6, paraphrased=0.1),
        row("retain", 2, "Who taught Di?", 0.0, 0.0, paraphrased=0.0),
        row("world_facts", 0, "Capital of France?", 0.375),
    ]
)


def test_each_set_and_way_has_its_gates() -> None:
    found = gate_audit(PLAIN, {CLEAN: PLAIN}, USUAL_SETS)
    assert list(found) == [CLEAN, PARAPHRASED]
    assert list(found[CLEAN]) == ["forget", "retain", NEAREST, "world_facts"]
    # the set without paraphrased questions has none of their gates
    assert list(found[PARAPHRASED]) == ["forget", "retain", NEAREST]
    wrong = {name: (each.opens, each.n, each.wrong) for name, each in found[CLEAN].items()}
    assert wrong["forget"] == (True, 2, 0.5)  # 0.8 and 0.375
    assert wrong["retain"] == (False, 3, round(1 / 3, 6))
    assert wrong[NEAREST] == (False, 1, 1.0)
    assert found[PARAPHRASED]["forget"].wrong == 0.5  # 0.5 is open
    assert found[PARAPHRASED]["retain"].wrong == round(1 / 3, 6)
    # 0.8 is above 0.1, 0.6 and 0.0; 0.375 above two of them, and equal to the world fact
    assert found[CLEAN]["forget"].auc == found[CLEAN]["retain"].auc == round(5 / 6, 6)
    assert found[CLEAN]["world_facts"].auc == 0.75
    # paraphrased forget questions against usual retain ones: 0.5 and 0.4 are above two of three each
    assert found[PARAPHRASED]["forget"].auc == round(4 / 6, 6)
    assert found[CLEAN]["forget"].quantiles[0] == 0.375 and found[CLEAN]["forget"].quantiles[20] == 0.8
    assert worst(found, True) == (CLEAN, "forget", found[CLEAN]["forget"])
    assert worst(found, False) == (CLEAN, NEAREST, found[CLEAN][NEAREST])


def test_a_question_beside_a_forget_question_is_none_to_be_shut_on() -> None:
    both = "In which city was Ada born? What does Cy write?"
    mixed = Records([row("forget", 0, both, 0.2), row("retain", 0, both, 0.2), row("retain", 1, "Cy?", 0.7)])
    found = gate_audit(PLAIN, {"two:first": mixed}, USUAL_SETS)
    assert list(found) == ["two:first"]
    assert {name: each.n for name, each in found["two:first"].items()} == {"forget": 1, "retain": 1, NEAREST: 1}
    assert found["two:first"]["retain"].wrong == 1


def test_a_model_without_gates_has_no_audit() -> None:
    records = Records([row("forget", 0, "Who?"), row("retain", 0, "What?")])
    assert gate_audit(records, {CLEAN: records, "a:b": records}, USUAL_SETS) == {}


def test_the_nearest_retain_questions_are_those_of_the_same_kind() -> None:
    assert nearest(PLAIN, USUAL_SETS) == {("retain", 1)}
    assert nearest(Records([row("forget", 0, "Who?", 1.0)]), USUAL_SETS) == set()


@few
@given(high=GATES, low=GATES)
def test_the_curve_and_its_area(high: list[float], low: list[float]) -> None:
    """Every corner by counting; the area against scipy's U statistic, and against the whole curve's trapezoids."""
    one, other = np.array(high), np.array(low)
    area = auc(one, other)
    assert area == pytest.approx(mannwhitneyu(one, other).statistic / (len(one) * len(other)))
    corners = roc(one, other)
    assert corners[0] == (0, 0) and corners[-1] == (1, 1) and len(corners) <= CORNERS
    counted = {
        (np.mean([each >= threshold for each in low]), np.mean([each >= threshold for each in high]))
        for threshold in [*high, *low, math.inf]
    }
    for corner in corners:
        assert any(corner == pytest.approx(each, abs=1e-6) for each in counted)
    if len(corners) < CORNERS:  # nothing was left out but what lies on a straight line
        x, y = np.array(corners).T
        assert trapezoid(y, x) == pytest.approx(area, abs=1e-5)


@few
@given(values=GATES)
def test_a_strip_has_all_rows_where_they_are(values: list[float]) -> None:
    found = shares([float(each) for each in np.quantile(values, np.linspace(0, 1, 21))], 10)
    assert sum(found) == pytest.approx(1)
    lowest, highest = (min(int(end * 10), 9) for end in (min(values), max(values)))
    assert not any(found[:lowest]) and not any(found[highest + 1 :])


def test_users_attacks_alone_are_ways_of_asking() -> None:
    attacks = {"suffix": ("user", {"a": 0.1, "b": 0.2}), "int8": ("weights", {"weights": 0.3})}
    assert auditable(result(attacks=attacks)) == [CLEAN, "suffix:a", "suffix:b"]


@pytest.fixture
def gates() -> Audit:
    odd = Records([row("forget", 0, "Ada?", 0.1), row("forget", 1, "Bo?", 0.2)])
    return gate_audit(PLAIN, {CLEAN: PLAIN, "suffix:<b>": odd}, USUAL_SETS)


def test_the_picture_has_every_line_in_its_place(gates: Audit) -> None:
    drawn = ElementTree.fromstring(gate_picture("Gates of <x>", gates))
    texts = [each for each in drawn.iter() if each.tag.endswith("text")]
    said = [each.text for each in texts]
    for label, spreads in gates.items():
        for name, spread in spreads.items():
            assert named(label, name) in said
            assert any(f"AUC {spread.auc:.3f}" in str(text) or f"{spread.auc:.3f}" == text for text in said)
    # no two texts of one column meet, and none lies outside
    width, height = (float(drawn.get(name, "")) for name in ("width", "height"))
    boxes = [_box(each) for each in texts]
    assert all(left >= 0 and right <= width and top >= 0 and bottom <= height for left, top, right, bottom in boxes)
    for place, (left, top, right, bottom) in enumerate(boxes):
        for a, b, c, d in boxes[place + 1 :]:
            assert left >= c or a >= right or top >= d or b >= bottom, (said[place], boxes[place])
    # bands stay in their axis
    for path in (each for each in drawn.iter() if each.get("class") in ("open", "shut")):
        assert 0 <= _extent(path.get("d", "")) <= 290


def _box(text: ElementTree.Element) -> tuple[float, float, float, float]:
    wide = 6.6 * len(text.text or "") * (1.25 if text.get("class") == "title" else 1)
    x, y, kind = float(text.get("x", "")), float(text.get("y", "")), text.get("class", "")
    left = x - wide if "end" in kind.split() else x - wide / 2 if "mid" in kind.split() else x
    return left, y - 10, left + wide, y + 3


def _extent(path: str) -> float:
    """How far to the right a path of relative moves goes from where it begins; it ends where it began."""
    steps = [float(step) for step in re.findall(r"h(-?[\d.]+)", path)]
    assert sum(steps) == pytest.approx(0)
    rises = [float(rise) for rise in re.findall(r"v(-?[\d.]+)", path)]
    assert abs(sum(rises)) < 20
    return float(np.max(np.cumsum(steps)))


def test_what_was_not_read_yet_names_the_command(gates: Audit) -> None:
    info = AttackInfo(version=1, access="user", settings={}, variants={}, seconds=0)
    said = not_asked({"paraphrase": info}, gates, "run-1")
    assert "grun-bench attack run-1 --attacks" in said and "template" in said
    assert not re.search(r"paraphrase|int8|sampling", said)
    every = said.rsplit(" ", 1)[1].split(",")
    assert not_asked({"paraphrase": info} | dict.fromkeys(every, info), gates, "run-1") == ""
    assert "not audited" in not_asked(dict.fromkeys(every, info), {}, "run-1")
