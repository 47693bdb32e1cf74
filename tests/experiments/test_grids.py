"""The grids: which runs an experiment has."""

import re

import pytest

from experiments.experts import QMIX_RECORDING_LEVELS, RECORDING_LEVELS, WEAKER_STRONGER
from experiments.grids import EXPERIMENTS
from experiments.plan import IPPO, ROOT, Run, demos_path, quick, runs
from experiments.settings import COEFFICIENTS

# Experiments on which settings are chosen.
TUNING = ("baseline", "both", "candidates", "clones", "qmix", "scale")


def test_equal_names_mean_equal_options_and_every_run_is_listed_once(tmp_path):
    seen = {}
    for experiment in EXPERIMENTS.values():
        every = [
            Run(panel, curve, curve.first_seed, "smax", tmp_path) for panel in experiment.panels for curve in panel.curves
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
                own = (curve.first_seed, curve.seeds)
                assert seeds.setdefault((panel.scenario, curve.slug), own) == own
    assert seeds["5m_vs_6m", "ippo"] == (100, 10)
    assert seeds["3s_vs_4z", "ippo"] == (100, 5)
    assert seeds["2s3z", "ippo"] == (100, 5)
    assert seeds["2s3z", "tuning-ippo"] == (0, 3)


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
def test_the_quick_versions_need_only_files_of_the_repository(name, tmp_path):
    for run in runs(quick(EXPERIMENTS[name]), tmp_path):
        if run.curve.demos is not None:
            assert (ROOT / run.options["demos"]).is_file()


def test_the_quick_versions_keep_the_comparison_of_their_figure(tmp_path):
    of_4 = {run.curve.demos for run in runs(quick(EXPERIMENTS["fig4"]), tmp_path)}
    assert {"win30", "win50"} < of_4
    of_5 = {run.curve.slug for run in runs(quick(EXPERIMENTS["fig5"]), tmp_path)}
    assert len(of_5) == 4  # with and without the layer, on two scenarios
    five = runs(quick(EXPERIMENTS["scenarios"]), tmp_path)
    assert {run.env for run in five} == {
        "smax:3m",
        "smax:5m_vs_6m",
        "smax:3s_vs_4z",
    }  # the repository has no demonstrations of the others
    assert max(run.panel.steps for run in five) == 400_000
    assert not runs(quick(EXPERIMENTS["fig3"]), tmp_path)  # one style of four is no comparison
    assert not any(
        run.panel.env for run in runs(quick(EXPERIMENTS["default"]), tmp_path)
    )  # their packages are not installed
    assert not any(run.curve.options.get("recurrent") for run in runs(quick(EXPERIMENTS["preset"]), tmp_path))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_panel_has_its_baseline_and_demonstrations_that_are_planned(name):
    for panel in EXPERIMENTS[name].panels:
        slugs = {curve.slug for curve in panel.curves}
        assert panel.baseline in slugs
        for folder, _, level in ((curve.demos or "").rpartition("/") for curve in panel.curves):
            if folder.startswith(("seed", "qmix")) and not panel.env:
                levels = (QMIX_RECORDING_LEVELS if folder.startswith("qmix") else RECORDING_LEVELS)[panel.scenario][0]
                assert level in {f"win{round(100 * each):02d}" for each in levels}


def test_demonstrations_are_found_by_name():
    assert str(demos_path("smax:3m", "win50")) == "demos_data/smax_3m_win50.npz"
    assert str(demos_path("smax:3m", "seed2/win50")) == "demos_data/full/smax_3m/seed2/smax_3m_win50.npz"
    # The files in the repository are of SMAX.
    assert str(demos_path("smac:3m", "win50")) == "demos_data/full/smac_3m/seed0/smac_3m_win50.npz"


def test_coefficients_are_those_of_the_paper_and_its_larger_one_elsewhere():
    assert COEFFICIENTS == {
        "3m": 0.3,
        "2s3z": 0.3,
        "3s_vs_3z": 0.3,
        "3s_vs_4z": 0.05,
        "3s_vs_5z": 0.1,
        "5m_vs_6m": 0.3,
        "8m_vs_9m": 0.4,
    }


@pytest.mark.parametrize("scenario", WEAKER_STRONGER)
def test_the_weaker_experts_win_about_30_percent_and_the_stronger_ones_more(scenario):
    """The win rates of the recorded episodes, which results/demonstrations.md lists."""
    listed = (ROOT / "results" / "demonstrations.md").read_text()
    weaker, stronger = (
        float(re.search(rf"^\| {re.escape(str(path.relative_to('demos_data')))} \| \d+ \| ([\d.]+) \|", listed, re.M)[1])
        for path in (demos_path(f"smax:{scenario}", name) for name in WEAKER_STRONGER[scenario])
    )
    assert 0.25 < weaker < 0.35 < stronger < 0.55


def test_the_baseline_changes_one_setting_at_a_time_on_tuning_seeds(tmp_path):
    grid = runs(EXPERIMENTS["baseline"], tmp_path)
    assert len(grid) == len({run.folder for run in grid}) == 5 * 9 * 3
    assert {run.env.partition(":")[2] for run in grid} == {"3m", "2s3z", "5m_vs_6m", "3s_vs_4z", "3s_vs_5z"}
    assert {run.seed for run in grid} == {0, 1, 2}
    smaller = [run for run in grid if "env-coefficient" in run.options]
    assert len(smaller) == 5 * 3
    for run in smaller:  # the discriminators pay nothing
        assert [run.options[name] for name in ("coefficient", "env-coefficient", "pretrain")] == [0.0, 0.1, 0]
    changes = []
    for run in grid:
        if run in smaller:
            continue
        assert (run.curve.program, run.options["algorithm"], run.curve.demos) == (IPPO, "ippo", None)
        if (run.env, run.seed) == ("smax:5m_vs_6m", 0):
            changes.append(
                {key: run.options[key] for key in run.options if key not in ("env", "steps", "seed", "algorithm")}
            )
    assert changes == [
        {},
        {"after-death": "mean"},
        {"after-death": "critic"},
        {"learning-rate": 5e-4},
        {"learning-rate": 2e-3},
        {"ent-coef": 0.003},
        {"ent-coef": 0.03},
        {"n-epochs": 10},
    ]


def test_reported_runs_never_use_tuning_seeds(tmp_path):
    tuning = {run.folder.parent for name in TUNING for run in runs(EXPERIMENTS[name], tmp_path)}
    for name, experiment in EXPERIMENTS.items():
        for run in runs(experiment, tmp_path):
            assert (run.seed < 100) == (name in TUNING)
            assert (run.folder.parent in tuning) == (name in TUNING)


def test_other_algorithms_run_next_to_algorithm_1_at_equal_steps(tmp_path):
    grid = runs(EXPERIMENTS["algorithms"], tmp_path, seeds=3)
    assert len(grid) == 2 * 8 * 3
    assert {(run.env, run.options["steps"]) for run in grid} == {("smax:3m", 300_000), ("smax:5m_vs_6m", 1_000_000)}
    turns = [run for run in grid if run.options.get("order") == "turn"]
    assert [run.options["keep-buffer"] for run in turns] == [False] * 6
    shown = [(run.options.get("inputs", "state"), run.options.get("experts", "all")) for run in grid]
    assert {pair: shown.count(pair) for pair in set(shown)} == {
        ("state", "all"): 2 * 5 * 3,
        ("state-action", "all"): 6,
        ("state", "all+own"): 6,
        ("state", "own"): 6,
    }
    clones = [run for run in grid if "pretrain" in run.options]
    assert {run.options.get("algorithm", "dm2") for run in clones} == {"dm2", "ippo"}
    assert all(run.options["demos"].is_file() for run in clones)


def test_a_curve_does_not_depend_on_the_programs_defaults(tmp_path):
    by_slug = {run.curve.slug: run for name in ("fig2", "default") for run in runs(EXPERIMENTS[name], tmp_path, seeds=1)}
    plain = {"experts": "all", "pretrain": 0, "standardize": False}
    for slug in ("ippo", "dm2-win30-c0.05"):
        assert {name: by_slug[slug].arguments[name] for name in plain} == plain
        assert not plain.keys() & by_slug[slug].options.keys()  # as in the run.json of older runs
    default = next(run for slug, run in by_slug.items() if "experts=best" in slug)
    assert default.arguments == default.options
    assert next(run for slug, run in by_slug.items() if slug.startswith("qmix")).arguments.keys().isdisjoint(plain)


def test_clones_with_own_episodes_are_runs_of_their_own():
    curves = {curve.label: curve for curve in EXPERIMENTS["clones"].panels[0].curves}
    assert curves["c from 0.05, own best episodes added"].options["experts"] == "best+own"
    assert curves["c from 0.05"].options["experts"] == "won"
    labels = {curve.label: curve for curve in EXPERIMENTS["default"].panels[0].curves}
    assert labels["DM2, the team's own best episodes added"].options["experts"] == "best+own"
