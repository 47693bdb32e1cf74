"""Statistics, tables and figures."""

import itertools
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from experiments.curves import Measured
from experiments.figures import _curves, _palette, draw_levels
from experiments.plan import Curve
from experiments.statistics import (
    area_under_curve,
    interquartile_mean,
    mean_and_band,
    mean_and_error,
    probability_of_improvement,
)
from experiments.tables import pooled, table


def test_mean_and_standard_error():
    mean, error = mean_and_error(np.array([[1.0, 0.0], [3.0, 0.0]]))
    np.testing.assert_allclose(mean, [2.0, 0.0])
    np.testing.assert_allclose(error, [1.0, 0.0])  # sd sqrt(2), over sqrt(2)
    assert np.isnan(mean_and_error(np.array([[1.0]]))[1])


def test_interquartile_mean_leaves_out_the_outer_quarters():
    estimate = interquartile_mean(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0]))
    assert estimate.value == 3.5  # of 2, 3, 4 and 5
    assert estimate.low < 3.5 < estimate.high
    curves = interquartile_mean(np.arange(24.0).reshape(8, 3))
    np.testing.assert_allclose(curves.value, [10.5, 11.5, 12.5])
    assert curves.low.shape == (3,)
    few = interquartile_mean(np.array([0.4, 0.6]))
    assert few.value == 0.5
    assert np.isnan(few.low)
    assert not np.isnan(interquartile_mean(np.array([0.4, 0.5, 0.6])).low)


def test_the_interval_is_that_of_a_slow_bootstrap():
    runs_ = np.random.default_rng(1).random(10)
    rng = np.random.default_rng(2)
    slow = []
    for _ in range(4000):
        chosen = np.sort(rng.choice(runs_, 10))
        slow.append(chosen[2:8].mean())
    estimate = interquartile_mean(runs_)
    np.testing.assert_allclose([estimate.low, estimate.high], np.percentile(slow, [2.5, 97.5]), atol=0.03)


def test_strata_are_resampled_on_their_own():
    low, high = np.zeros(4), np.ones(4)  # resampled together, their mean would vary
    for several in (high, np.ones(9)):  # scenarios count alike
        estimate = interquartile_mean(low, several)
        assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)


def test_probability_of_improvement_counts_pairs():
    first, second = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0])
    by_hand = np.mean([(a > b) + 0.5 * (a == b) for a, b in itertools.product(first, second)])
    assert probability_of_improvement(first, second).value == pytest.approx(by_hand)
    assert probability_of_improvement(first + 10, first).low == 1.0


def test_area_under_the_curve_is_the_mean_height():
    steps = np.array([0.0, 10.0, 40.0])
    np.testing.assert_allclose(area_under_curve(steps, np.array([[0.0, 1.0, 1.0], [2.0, 2.0, 2.0]])), [35 / 40, 2.0])


def test_the_table_says_when_a_curve_has_caught_up_for_more_than_a_moment():
    def measured_of(slug, curve):
        rates = np.array([curve, curve])
        steps = 100.0 * np.arange(len(curve))
        return Measured(Curve(slug, slug), steps, rates, rates, rates[:, -1], 1.0, None, ("abc",))

    ippo = measured_of("ippo", [0.0, 0.0, 0.1, 0.1, 0.1, 0.1, 0.1])
    faster, lucky = measured_of("faster", [0.0, *[0.2] * 6]), measured_of("lucky", [0.0, 0.3, *[0.0] * 5])
    later = measured_of("later", [0.0, 0.0, 0.0, *[0.2] * 4])
    lines = table("map", [ippo, later, faster, lucky]).splitlines()
    assert " 600 " in lines[-4]
    assert "| 500 " in lines[-3]
    assert " at most 400 " in lines[-2]
    assert "not within the run" in lines[-1]


def test_levels_of_a_number_have_a_scale_and_baselines_black_dashes():
    def measured_of(slug, x):
        rates = np.array([[0.0, 0.5]])
        return Measured(Curve(slug, slug, x=x), np.array([0.0, 1.0]), rates, rates, rates[:, -1], 1.0, None, ("abc",))

    axes = plt.figure().subplots()
    curves = [measured_of("low", 0.1), measured_of("high", 1.0), measured_of("ippo", None)]
    (colours,) = _palette([("map", curves)])
    _curves(axes, curves, colours, [mean_and_band(one.win_rates) for one in curves])
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "--"]
    assert axes.lines[2].get_color() == "#000000"
    assert tuple(axes.lines[0].get_color()) == mpl.colormaps["viridis"](0.0)
    plain = plt.figure().subplots()
    _curves(plain, curves[2:], ["black"], [mean_and_band(curves[2].win_rates)])
    assert plain.lines[0].get_linestyle() == "-"
    plt.close("all")


def test_a_single_run_has_neither_error_nor_interval():
    def measured_of(slug, *finals):
        rates = np.array([[0.0, final] for final in finals])
        return Measured(Curve(slug, slug), np.array([0.0, 1.0]), rates, rates, np.array(finals), 1.0, None, ("abc",))

    ippo = measured_of("ippo", 0.2, 0.2, 0.2, 0.2, 0.2)
    five, three, twice = (measured_of(f"{n}", *[0.8] * n, *[0.6] * m) for n, m in ((3, 2), (2, 1), (1, 1)))
    lines = table("map", [ippo, five, three, twice, measured_of("once", 0.5)]).splitlines()
    assert re.search(r"\| 1\.000 \[1\.000, 1\.000\] \| yes \|", lines[-4])
    assert re.search(r"\| 0\.367 \[0\.300, 0\.400\] \| 1\.000 \[1\.000, 1\.000\] \| too few seeds \|", lines[-3])
    assert "| 0.700 ± 0.100 | 0.350 ± 0.050 | 0.350 | 1.000 | too few seeds |" in lines[-2]
    assert "| 0.500 | 0.250 | 0.250 | 1.000 | too few seeds |" in lines[-1]


def test_all_scenarios_together_are_what_a_slow_stratified_mean_says():
    def measured_of(label, *finals):
        rates = np.array([[final, final] for final in finals])
        return Measured(Curve(label, label), np.array([0.0, 1.0]), rates, rates, np.array(finals), 1.0, None, ("abc",))

    easy = [measured_of("IPPO", 0.0, 0.8, 0.8, 0.8, 1.0), measured_of("DM2", 0.7, 0.7, 0.8), measured_of("QMIX", 1.0)]
    hard = [measured_of("IPPO", 0.0, 0.1, 0.2), measured_of("DM2", 0.3, 0.4, 0.5)]
    lines = pooled([("easy", easy), ("hard", hard)], "IPPO").splitlines()
    assert lines[0] == "### easy, hard together"
    assert lines[4].startswith("| IPPO | 8 | 0.450 [")  # of .8 and .1
    assert lines[5].startswith("| DM2 | 6 | 0.567 [")
    assert lines[5].endswith("| 1 of 2 |")
    assert len(lines) == 6  # QMIX is not in both
    assert pooled([("easy", easy)], "IPPO") == ""
    assert pooled([("easy", easy), ("easy", easy)], "IPPO") == ""  # two panels of one scenario
    assert pooled([("easy", [*easy, easy[1]]), ("hard", hard)], "IPPO") == ""  # which of the two?


def test_what_is_called_the_same_has_the_same_colour_in_all_panels():
    def curves(*labels):
        rates = np.array([[0.0, 0.5]])
        return [Measured(Curve(x, x), np.array([0.0, 1.0]), rates, rates, rates[:, -1], 1.0, None, ("abc",)) for x in labels]

    first, second = _palette([("a", curves("DM2", "IPPO")), ("b", curves("IPPO", "QMIX", "QMIX"))])
    assert first[1] == second[0]
    assert len({*first, *second}) == 4
    many = _palette([("a", curves(*"abcdefgh")), ("b", curves("i", "a"))])  # more than there are colours
    assert len(set(many[0])) == 8
    assert many[1] == many[0][:2]


def test_levels_of_one_seed_are_hollow_and_without_error(tmp_path, monkeypatch):
    def measured_of(x, *finals):
        rates = np.array([[0.0, final] for final in finals])
        return Measured(Curve("c", f"{x}", x=x), np.array([0.0, 1.0]), rates, rates, np.array(finals), 1.0, None, ("abc",))

    drawn = []
    monkeypatch.setattr("experiments.figures._save", lambda figure, path: drawn.append(figure))
    draw_levels("levels", "c", [("map", [measured_of(0.1, 0.5), measured_of(1.0, 0.2, 0.4)])], tmp_path / "levels")
    axes = drawn[0].axes[0]
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white" and len(line.get_xdata())]
    assert [list(line.get_xdata()) for line in hollow] == [[0.1], [0.1]]  # after training, and the mean over it
    assert "one seed" in [text.get_text() for text in axes.get_legend().get_texts()]
    plt.close("all")
