"""Least differences against simulation: what is said to be seen 4 times of 5 is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from scipy.stats import ks_2samp, kstwobign, norm
from synthetic import references, result, store

from grun_bench.metrics.paired import permutation
from grun_bench.metrics.power import KS_TESTED, least_between, least_d, least_ks, least_seen
from grun_bench.metrics.summaries import QUALITY, QUALITY_OU


def test_a_permutation_test_sees_the_least_difference_in_four_of_five_samples() -> None:
    generator = np.random.default_rng(1)
    shape = generator.normal(size=40)
    least = least_seen(shape)
    assert least is not None
    spread = shape.std(ddof=1)
    found = [permutation(generator.normal(least, spread, 40)) < 0.05 for _ in range(80)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.14)  # three deviations of 80 draws


def test_least_difference_between_rows_is_that_of_two_samples() -> None:
    # the sample size of a two-sample z test, n = 2 (z + z)^2 (s / delta)^2, solved for delta
    spread, count = 0.3, 40
    half = norm.ppf(0.975) * spread / count**0.5
    delta = least_between((0.5 - half, 0.5 + half))
    assert 2 * (norm.ppf(0.975) + norm.ppf(0.8)) ** 2 * (spread / delta) ** 2 == pytest.approx(count)


@pytest.mark.parametrize("count", [20, 40, 200])
def test_the_least_statistic_is_the_first_that_scipy_calls_significant(count: int) -> None:
    least = least_ks(count)
    assert least is not None
    step = round(least.D * count)
    values = np.arange(count, dtype=float)
    assert ks_2samp(values, values + step - 0.5).statistic == pytest.approx(least.D)
    assert ks_2samp(values, values + step - 0.5).pvalue < 0.05 <= ks_2samp(values, values + step - 1.5).pvalue


@pytest.mark.parametrize("count", [40, 200])
def test_the_least_shift_is_found_in_four_of_five_draws(count: int) -> None:
    least, generator = least_ks(count), np.random.default_rng(2)
    assert least is not None
    pairs = [(generator.normal(size=count), generator.normal(least.shift, 1, count)) for _ in range(300)]
    assert np.mean([ks_2samp(*pair).pvalue < 0.05 for pair in pairs]) == pytest.approx(0.8, abs=0.08)


def test_at_40_rows_p_of_forget_quality_is_below_005_from_0325_on() -> None:
    least = least_ks(40)
    assert least is not None and least.D == 0.325


def test_only_p_and_d_of_forget_quality_are_of_a_ks_test() -> None:
    assert {key for key, better in (QUALITY | QUALITY_OU).items() if better is not None} == KS_TESTED
    assert least_d(40) == 0.325


def test_the_limit_for_very_many_rows_is_kolmogorovs() -> None:
    for count in (10_000, 10**9):
        least = least_d(count)
        assert least is not None
        assert kstwobign.sf(least * (count / 2) ** 0.5) == pytest.approx(0.05, abs=0.002)
    # where the exact one ends the two meet
    exact, limit = least_d(5000), least_d(5001)
    assert exact is not None and limit is not None and abs(exact - limit) <= 2 / 5000


@pytest.mark.parametrize("told", ["show", "compare", "report", "board"])
def test_beside_p_of_forget_quality_stands_what_its_rows_can_tell(command: Command, tmp_path: Path, told: str) -> None:
    row = result("grun+npo")
    for metric in ("forget_quality", "forget_es"):
        row.n_samples[row.task][metric] = 40
    store([row, *references()], tmp_path / "results")
    folder = ["--output", tmp_path / "results"]
    out = tmp_path / "page.html"
    if told == "board":
        said = command("leaderboard", "--results", tmp_path / "results", "--out", tmp_path / "pages")
        text = "".join(path.read_text() for path in (tmp_path / "pages").rglob("*.md"))
    else:
        said = command(told, row.run_id, *folder, *(["--out", out] if told == "report" else []))
        text = out.read_text() if told == "report" else said.out
    assert said.code == 0, said.err
    assert "below 0.05 from D = 0.325 on with 40 rows" in text and "0.80 standard deviations apart" in text
    if told == "compare":
        assert "D = 0.325" in command(told, row.run_id, *folder, "--json").out


def test_few_rows_see_nothing() -> None:
    assert least_ks(3) is None
    assert least_seen(np.array([0.5])) is None
    assert ks_2samp([1, 2, 3], [4, 5, 6]).pvalue > 0.05
