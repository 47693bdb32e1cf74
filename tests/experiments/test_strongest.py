"""The default setting next to the strongest independent PPO."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.__main__ import main
from experiments.curves import CurveResults
from experiments.grids import EXPERIMENTS
from experiments.plan import Curve, Experiment, Panel
from experiments.strongest import runs_of_pairs, strongest_table, write_runs
from tests.helpers.tiny_grid import PANEL, run_of, write_finished_run

OURS, BEFORE = Curve("DM2", "dm2-x"), Curve("DM2 before", "dm2-y")
WEAK, STRONG = (Curve(name, name, {"algorithm": "ippo"}) for name in ("ippo", "strong"))


CLONES = Curve("clones", "clones", {"algorithm": "ippo", "pretrain": 20}, "win30")  # with demonstrations: no baseline


def results(curve, *scores, measure="win_rate"):
    """Runs whose score is the same at both evaluations."""
    both = np.repeat(np.array(scores)[:, None], 2, axis=1)
    return CurveResults(curve, np.array([0.0, 100.0]), both, both, both[:, 0], 1.0, None, (), measure)


def test_the_strongest_ippo_is_the_one_with_the_largest_area(tmp_path):
    panels = [
        (
            Panel("here", (CLONES, OURS, WEAK, STRONG)),
            [results(CLONES, 0.9), results(OURS, 0.1), results(WEAK, 0.2, 0.3), results(STRONG, 0.3, 0.4)],
        ),
        (Panel("no runs of ours", (OURS, WEAK)), [results(WEAK, 0.2)]),
        (Panel("only the second of ours", (OURS, BEFORE, WEAK)), [results(BEFORE, 0.3), results(WEAK, 0.2)]),
        (Panel("no baseline", (OURS, WEAK)), [results(OURS, 0.2)]),
    ]
    chosen = runs_of_pairs(panels, Path("results"))
    assert chosen == {"here": {"dm2": "results/runs/smax_here/dm2-x", "ippo": "results/runs/smax_here/strong"}}
    path = write_runs(chosen, tmp_path / "default.json")
    assert json.loads(path.read_text()) == chosen


def test_the_table_compares_areas_and_averages_those_of_win_rates():
    five, three = [0.4, 0.5, 0.5, 0.5, 0.9], [0.7, 0.8, 0.9]
    panels = [
        (Panel("a", (OURS, WEAK, STRONG)), [results(OURS, *five), results(WEAK, *[0.1] * 5), results(STRONG, *[0.25] * 5)]),
        (Panel("b", (OURS, WEAK)), [results(OURS, *three), results(WEAK, *[0.9] * 5)]),
        (
            Panel("c", (OURS, WEAK), measure="return"),
            [results(OURS, *[-20.0] * 5, measure="return"), results(WEAK, *[-10.0] * 5, measure="return")],
        ),
        (
            Panel("d", (OURS, WEAK), measure="return"),
            [results(OURS, *[3.0] * 5, measure="return"), results(WEAK, *[2.0] * 5, measure="return")],
        ),
    ]
    cells = [line.strip("| ").split(" | ") for line in strongest_table(panels).splitlines()[4:]]
    a, b, c, d, mean = cells
    assert a[:2] == ["a", "0.560"]
    assert a[2].startswith("0.500 [")  # the mean of the middle half
    assert a[3:] == ["5", "0.250 (strong)", "0.250 [0.250, 0.250]", "5", "2.00 times", "yes"]
    assert b[4] == "0.900"  # the baseline's own name is not repeated
    assert b[-2:] == ["0.89 times", "too few seeds"]
    assert c[0] == "c (return)"
    assert c[-2:] == ["lower", "yes"]  # a ratio of negative returns says nothing
    assert d[-2:] == ["1.50 times", "yes"]
    assert mean[0] == "mean of the 2 with win rates"
    assert mean[2].startswith("0.650 [")
    assert mean[5].startswith("0.575 [")
    assert "1.13 times" in mean


@pytest.mark.parametrize("wanted", [True, False])
def test_only_an_experiment_that_wants_it_has_the_table_and_names_its_runs(tmp_path, monkeypatch, capsys, wanted):
    monkeypatch.setitem(EXPERIMENTS, "tiny", Experiment("tiny", (PANEL,), against_strongest=wanted))
    for curve, rate in ((0, 0.2), (1, 0.4)):
        for seed in range(5):
            facts = {"sha256": "sum", "win_rate": 0.3} if curve else None
            write_finished_run(run_of(tmp_path, curve, seed), {0: 0.0, 320: rate}, demonstrations=facts)
    assert main(["table", "tiny", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("### The default setting and the strongest" if wanted else "### 3m")
    assert main(["plot", "tiny", "--results", str(tmp_path)]) == 0
    assert (tmp_path / "tiny.json").exists() == wanted
    assert ("| 3m | 0.400 | 0.200 [" in (tmp_path / "tiny.md").read_text()) == wanted


def test_folders_in_the_repository_hold_the_runs():
    root = Path(__file__).parents[2]
    for both in json.loads((root / "results" / "default.json").read_text()).values():
        for folder in both.values():
            assert list((root / folder).glob("seed1*/evaluations.csv"))


def test_returns_of_different_signs_have_no_ratio_and_one_scenario_has_no_mean():
    panels = [
        (
            Panel("c", (OURS, WEAK), measure="return"),
            [results(OURS, *[1.0] * 5, measure="return"), results(WEAK, *[-10.0] * 5, measure="return")],
        ),
        (Panel("a", (OURS, WEAK)), [results(OURS, 0.5), results(WEAK, 0.4)]),
    ]
    lines = strongest_table(panels).splitlines()[4:]
    assert len(lines) == 2
    assert lines[0].endswith("| higher | yes |")


def test_dm2_with_the_settings_of_the_strongest_ippo_has_a_table_of_its_own():
    alone = Curve("IPPO", "ippo", {"algorithm": "ippo"})
    fast = Curve("IPPO, fast", "ippo-fast", {"algorithm": "ippo", "learning-rate": 1})
    ours, ours_fast = (
        Curve("DM2", "dm2", {"c": 0.1}, "win30"),
        Curve("DM2, fast", "dm2-fast", {"c": 0.1, "learning-rate": 1}, "win30"),
    )
    other_experts = Curve("DM2, fast", "dm2-win50-fast", ours_fast.options, "win50")
    tuned = [
        results(ours, 0.3),
        results(ours_fast, 0.4),
        results(other_experts, 0.9),
        results(alone, 0.1),
        results(fast, 0.2),
    ]
    panels = [
        (Panel("a", tuple(each.curve for each in tuned)), tuned),
        (Panel("b", (ours, alone)), [results(ours, 0.5), results(alone, 0.2)]),  # its settings are the default's
        (Panel("c", (ours, fast)), [results(ours, 0.5), results(fast, 0.2)]),  # no run with its settings
    ]
    first, second = strongest_table(panels).split("### DM2 with the settings of the strongest independent PPO")
    rows = [line.strip("| ").split(" | ") for line in second.splitlines()[4:]]
    assert [cells[0] for cells in rows] == ["a", "b", "mean of the 2 with win rates"]
    assert rows[0][1:5] == ["0.400", "0.400", "1", "0.200 (IPPO, fast)"]
    assert rows[1][1] == "0.500"
    assert "| a | 0.300 |" in first
    assert "with the settings" not in strongest_table(panels[1:])
