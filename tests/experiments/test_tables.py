"""Tables of results."""

import re

import numpy as np

from experiments.curves import CurveResults
from experiments.plan import Curve
from experiments.tables import apart, panel_table, scenarios_table


def test_steps_until_the_baseline_is_reached_are_of_smoothed_win_rates():
    def results_of(slug, curve):
        rates = np.array([curve, curve])
        steps = 100.0 * np.arange(len(curve))
        return CurveResults(Curve(slug, slug), steps, rates, rates, rates[:, -1], 1.0, None, ("abc",))

    ippo = results_of("ippo", [0.0, 0.0, 0.1, 0.1, 0.1, 0.1, 0.1])
    faster, briefly = results_of("faster", [0.0, *[0.2] * 6]), results_of("briefly", [0.0, 0.3, *[0.0] * 5])
    later = results_of("later", [0.0, 0.0, 0.0, *[0.2] * 4])
    lines = panel_table("map", [ippo, later, faster, briefly]).splitlines()
    assert " 600 " in lines[-4]
    assert "| 500 " in lines[-3]
    assert " at most 400 " in lines[-2]
    assert "not within the run" in lines[-1]


def test_few_runs_have_no_interval_and_one_run_has_no_error():
    def results_of(slug, *finals):
        rates = np.array([[0.0, final] for final in finals])
        return CurveResults(Curve(slug, slug), np.array([0.0, 1.0]), rates, rates, np.array(finals), 1.0, None, ("abc",))

    ippo = results_of("ippo", 0.2, 0.2, 0.2, 0.2, 0.2)
    five, three, twice = (results_of(f"{n}", *[0.8] * n, *[0.6] * m) for n, m in ((3, 2), (2, 1), (1, 1)))
    lines = panel_table("map", [ippo, five, three, twice, results_of("once", 0.5)]).splitlines()
    assert re.search(r"\| 1\.000 \[1\.000, 1\.000\] \| yes \|", lines[-4])
    assert re.search(r"\| 0\.367 \[0\.300, 0\.400\] \| 1\.000 \[1\.000, 1\.000\] \| too few seeds \|", lines[-3])
    assert "| 0.700 ± 0.100 |  | 0.350 ± 0.050 | 0.350 | 1.000 | too few seeds |" in lines[-2]
    assert "| 0.500 |  | 0.250 | 0.250 | 1.000 | too few seeds |" in lines[-1]


def test_the_table_over_scenarios_gives_each_scenario_equal_weight():
    def results_of(label, *finals):
        rates = np.array([[final, final] for final in finals])
        return CurveResults(Curve(label, label), np.array([0.0, 1.0]), rates, rates, np.array(finals), 1.0, None, ("abc",))

    easy = [results_of("IPPO", 0.0, 0.8, 0.8, 0.8, 1.0), results_of("DM2", 0.7, 0.7, 0.8), results_of("QMIX", 1.0)]
    hard = [results_of("IPPO", 0.0, 0.1, 0.2), results_of("DM2", 0.3, 0.4, 0.5)]
    lines = scenarios_table([("easy", easy), ("hard", hard)], "IPPO").splitlines()
    assert lines[0] == "### All scenarios: easy, hard"
    assert lines[4].startswith("| IPPO | 8 | 0.450 [")  # of .8 and .1
    assert lines[5].startswith("| DM2 | 6 | 0.567 [")
    assert lines[5].endswith("| 1 of 2 |")
    assert len(lines) == 6  # QMIX is not in both scenarios
    assert scenarios_table([("easy", easy)], "IPPO") == ""
    assert scenarios_table([("easy", easy), ("easy", easy)], "IPPO") == ""  # two panels of one scenario
    assert scenarios_table([("easy", [*easy, easy[1]]), ("hard", hard)], "IPPO") == ""  # which of the two?


def test_greedy_results_have_a_column_of_their_own():
    rates = np.array([[0.0, 0.2], [0.0, 0.4]])
    results = CurveResults(
        Curve("IPPO", "ippo"), np.array([0.0, 1.0]), rates, rates, rates[:, -1], 1.0, None, (), greedy=np.array([0.6, 0.8])
    )
    assert panel_table("map", [results]).splitlines()[-1].startswith("| IPPO | 2 |  | 0.300 ± 0.100 | 0.700 ± 0.100 |")


def test_returns_have_headings_of_their_own_and_no_part_in_the_mean_over_scenarios():
    def results_of(measure):
        scores = np.array([[-3.0, -1.0]])
        return CurveResults(
            Curve("IPPO", "ippo"), np.array([0.0, 1.0]), scores, scores, scores[:, -1], 1.0, -0.5, (), measure
        )

    lines = panel_table("spread", [results_of("return")]).splitlines()
    assert "return after training" in lines[2]
    assert "win rate" not in lines[2]
    assert lines[-1].startswith("| IPPO (-0.5) | 1 | -0.500 | -1.000 |  | -2.000 |")
    assert "win rate after training" in panel_table("map", [results_of("win_rate")])
    assert not scenarios_table([("spread", [results_of("return")])], "IPPO")


def test_the_last_columns_are_of_the_last_evaluation_in_hours_and_of_all_commits():
    rates, lengths = np.zeros((2, 3)), np.array([[90.0, 50.0, 20.0], [90.0, 50.0, 30.0]])
    results = CurveResults(Curve("IPPO", "ippo"), np.arange(3.0), rates, lengths, rates[:, -1], 5400.0, None, ("abc", "def"))
    assert panel_table("map", [results]).splitlines()[-1].endswith("|  | 25 | 1.50 | abc, def |")


def test_a_baseline_that_never_wins_is_no_target():
    def results_of(slug, rate):
        rates = np.full((2, 7), rate)
        return CurveResults(Curve(slug, slug), np.arange(7.0), rates, rates, rates[:, -1], 1.0, None, ("abc",))

    lines = panel_table("map", [results_of("ippo", 0.0), results_of("dm2", 0.0)]).splitlines()
    assert [line.split(" | ")[-4] for line in lines[-2:]] == ["", ""]


def test_four_runs_are_too_few_to_compare_areas():
    rng = np.random.default_rng(0)
    assert apart(rng.random(4), 5 + rng.random(5)) == apart(rng.random(5), 5 + rng.random(4)) == "too few seeds"
    assert apart(rng.random(5), 5 + rng.random(5)) == "yes"
