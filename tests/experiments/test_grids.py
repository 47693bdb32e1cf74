"""The grids: which runs an experiment has."""

import pytest

from experiments.grids import EXPERIMENTS
from experiments.plan import IPPO, Run, demos_path, quick, runs
from experiments.run import ROOT
from experiments.teams import LEVELS, QMIX_LEVELS


def test_equal_names_mean_equal_options_and_every_run_is_listed_once(tmp_path):
    seen = {}
    for experiment in EXPERIMENTS.values():
        every = [
            Run(panel, curve, 100, f"smax:{panel.scenario}", tmp_path)
            for panel in experiment.panels
            for curve in panel.curves
        ]
        for run in every:
            assert seen.setdefault(run.folder, (run.curve.program, run.options)) == (run.curve.program, run.options)
        listed = [run.folder for run in runs(experiment, tmp_path, seeds=1)]
        assert listed == list(dict.fromkeys(run.folder for run in every))


def test_a_curve_has_the_same_seeds_in_all_figures():
    seeds = {}
    for experiment in EXPERIMENTS.values():
        for panel in experiment.panels:
            for curve in panel.curves:
                assert seeds.setdefault((panel.scenario, curve.slug), curve.seeds) == curve.seeds
    assert seeds["5m_vs_6m", "ippo"] == 10
    assert seeds["3s_vs_4z", "ippo"] == 5
    assert seeds["2s3z", "ippo"] == 3


def test_figure_2_is_what_the_paper_shows(tmp_path):
    grid = runs(EXPERIMENTS["fig2"], tmp_path)
    of_5m = [run for run in grid if run.env == "smax:5m_vs_6m" and run.curve.program == IPPO]
    assert len(of_5m) == 30  # ten seeds of IPPO and of DM2 with two qualities
    assert {run.options.get("coefficient") for run in of_5m} == {None, 0.3}
    assert [run.seed for run in grid] == sorted(run.seed for run in grid)
    assert {run.env for run in runs(EXPERIMENTS["fig2"], tmp_path, backend="smac", seeds=1)} == {
        "smac:5m_vs_6m",
        "smac:3s_vs_4z",
        "smac:3s_vs_5z",
    }


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_quick_versions_need_only_what_the_repository_holds(name, tmp_path):
    for run in runs(quick(EXPERIMENTS[name]), tmp_path):
        if run.curve.demos is not None:
            assert (ROOT / run.options["demos"]).is_file()


def test_the_quick_figures_4_and_5_still_show_what_they_are_about(tmp_path):
    of_4 = {run.curve.demos for run in runs(quick(EXPERIMENTS["fig4"]), tmp_path)}
    assert {"win30", "win50"} < of_4
    of_5 = {run.curve.slug for run in runs(quick(EXPERIMENTS["fig5"]), tmp_path)}
    assert len(of_5) == 4  # with and without the layer, on two scenarios
    five = runs(quick(EXPERIMENTS["scenarios"]), tmp_path)
    assert {run.env for run in five} == {
        "smax:3m",
        "smax:5m_vs_6m",
        "smax:3s_vs_4z",
    }  # of the others the repository has none
    assert max(run.panel.steps for run in five) == 400_000
    assert not runs(quick(EXPERIMENTS["fig3"]), tmp_path)  # with one style of four it would not be about styles
    assert not any(run.curve.options.get("recurrent") for run in runs(quick(EXPERIMENTS["preset"]), tmp_path))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_panel_has_its_baseline_and_demonstrations_that_are_planned(name):
    for panel in EXPERIMENTS[name].panels:
        slugs = {curve.slug for curve in panel.curves}
        assert panel.baseline in slugs
        for folder, _, level in ((curve.demos or "").rpartition("/") for curve in panel.curves):
            if folder.startswith(("seed", "qmix")):
                levels = (QMIX_LEVELS if folder.startswith("qmix") else LEVELS)[panel.scenario][0]
                assert level in {f"win{round(100 * each):02d}" for each in levels}


def test_demonstrations_are_found_by_name():
    assert str(demos_path("smax:3m", "win50")) == "demos_data/smax_3m_win50.npz"
    assert str(demos_path("smax:3m", "seed2/win50")) == "demos_data/full/smax_3m/seed2/smax_3m_win50.npz"
    # Those that the repository holds are of SMAX.
    assert str(demos_path("smac:3m", "win50")) == "demos_data/full/smac_3m/seed0/smac_3m_win50.npz"
