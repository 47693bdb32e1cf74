"""The experiments' grids, runner, statistics, figures and tables, on real but tiny runs."""

import fcntl
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from sb3_contrib import MaskablePPO

import dm2_wrappers as dm2
from experiments.__main__ import main
from experiments.curves import Measured, measured
from experiments.demonstrations import LEVELS, QMIX_LEVELS, _left_out, _team_file, _train, make, make_styles
from experiments.figures import _curves, draw, draw_lengths, draw_levels
from experiments.grids import EXPERIMENTS
from experiments.plan import IPPO, Curve, Experiment, Panel, Run, demos_path, quick, runs
from experiments.run import ROOT, evaluations, execute, is_done, steps_done, words
from experiments.scheduler import run_all
from experiments.statistics import (
    area_under_curve,
    interquartile_mean,
    mean_and_band,
    mean_and_error,
    probability_of_improvement,
)
from experiments.tables import table

TINY = {"num-envs": 4, "n-steps": 16, "eval-every": 64, "eval-episodes": 4, "final-episodes": 4}
PANEL = Panel(
    "3m",
    (
        Curve("IPPO", "ippo", {"algorithm": "ippo", **TINY}),
        Curve("DM2", "dm2", {"coefficient": 0.3, "updates": 2, **TINY}, demos="win50"),
    ),
    steps=320,
)


def run_of(root, curve=0, seed=0, **changes):
    return Run(replace(PANEL, **changes), PANEL.curves[curve], seed, "smax:3m", root)


def test_equal_names_mean_equal_options_and_every_run_is_listed_once(tmp_path):
    seen = {}
    for experiment in EXPERIMENTS.values():
        grid = runs(experiment, tmp_path)
        assert len({run.folder for run in grid}) == len(grid)
        for run in grid:
            assert seen.setdefault(run.folder, (run.curve.program, run.options)) == (run.curve.program, run.options)


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
        assert panel.baseline in slugs or "ippo" not in " ".join(slugs)
        for folder, _, level in ((curve.demos or "").rpartition("/") for curve in panel.curves):
            if folder.startswith(("seed", "qmix")):
                levels = (QMIX_LEVELS if folder.startswith("qmix") else LEVELS)[panel.scenario][0]
                assert level in {f"win{round(100 * each):02d}" for each in levels}


def test_demonstrations_are_found_by_name():
    assert str(demos_path("smax:3m", "win50")) == "demos_data/smax_3m_win50.npz"
    assert str(demos_path("smax:3m", "seed2/win50")) == "demos_data/full/smax_3m/seed2/smax_3m_win50.npz"


def test_options_become_words():
    assert words({"a": 1, "on": True, "off": False}) == ["--a", "1", "--on", "--no-off"]


def test_runs_are_done_once_and_drawn(tmp_path, capsys, monkeypatch):
    grid = [run_of(tmp_path, curve, seed) for seed in (0, 1) for curve in (0, 1)]
    assert [outcome.state for outcome in run_all(grid)] == ["done"] * 4
    assert all(steps_done(run) == 320 for run in grid)
    facts = json.loads((grid[1].folder / "run.json").read_text())
    assert facts["attempts"] == 1
    assert facts["seconds"] > 0
    assert facts["command"].startswith("python examples/ippo_sb3.py --env smax:3m --steps 320 --seed 0 --coefficient 0.3")
    assert {"torch", "jax", "stable-baselines3"} <= set(facts["versions"])
    assert facts["demonstrations"]["sha256"] == sha256((ROOT / "demos_data/smax_3m_win50.npz").read_bytes()).hexdigest()

    before = (grid[0].folder / "evaluations.csv").stat().st_mtime_ns
    run_all(grid)
    assert (grid[0].folder / "evaluations.csv").stat().st_mtime_ns == before

    ippo, dm2 = measured(PANEL, grid)
    assert ippo.win_rates.shape == (2, 6)
    by_hand = [[float(row["win_rate"]) for row in evaluations(run)] for run in (grid[1], grid[3])]
    np.testing.assert_array_equal(dm2.win_rates, by_hand)
    assert ippo.demonstrators is None
    assert 0.4 < dm2.demonstrators < 0.6
    draw("tiny", [("3m", [ippo, dm2])], tmp_path / "figure")
    for ending in ("png", "pdf"):
        assert (tmp_path / f"figure.{ending}").stat().st_size > 5_000
        assert (tmp_path / f"figure_iqm.{ending}").stat().st_size > 5_000
    draw_lengths("tiny", [("3m", [ippo, dm2])], tmp_path / "lengths")
    assert (tmp_path / "lengths.png").stat().st_size > 5_000
    assert len(table("3m", [ippo, dm2]).splitlines()) == 6
    draw_levels("tiny", "battles that the demonstrators won", [("3m", [ippo, dm2])], tmp_path / "quality")
    by_x = [replace(dm2, curve=replace(dm2.curve, x=x)) for x in (0.3, 3.0)]
    draw_levels("tiny", "c", [("3m", [ippo, *by_x])], tmp_path / "c")
    draw_levels("nothing of it is done", "c", [("3m", [ippo])], tmp_path / "bare")
    tiny = Experiment(
        "Tiny", (replace(PANEL, baseline="dm2"),), levels_of="battles that the demonstrators won", lengths=True
    )
    monkeypatch.setitem(EXPERIMENTS, "tiny", tiny)
    monkeypatch.setattr("experiments.plan.FIRST_SEED", 0)
    assert main(["plot", "tiny", "--results", str(tmp_path)]) == 0
    assert f"{tmp_path}/tiny_levels.png" in capsys.readouterr().out
    (tmp_path / "tiny.png").unlink()
    monkeypatch.setattr("experiments.__main__.EXPERIMENTS", {"another": EXPERIMENTS["gail"], "tiny": tiny})
    assert main(["status", "--results", str(tmp_path)]) == 0
    said = re.findall(r"^(\w+) +(\d+) of +(\d+) ", capsys.readouterr().out, re.M)
    assert said == [("another", "0", "15"), ("tiny", "4", "10")]
    assert main(["plot", "--results", str(tmp_path)]) == 0
    assert not (tmp_path / "another.png").exists()
    compared = [line.split(" | ") for line in (tmp_path / "tiny.md").read_text().splitlines()[4:]]
    assert [cells[0] for cells in compared if cells[6].strip()] == ["| IPPO"]  # with DM2, not the other way round
    for name in ("quality", "c", "bare", "tiny", "tiny_levels", "tiny_lengths"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
        assert (tmp_path / f"{name}.pdf").stat().st_size > 5_000


def test_a_failed_run_is_told_and_does_not_stop_the_rest(tmp_path):
    bad = replace(PANEL.curves[0], slug="bad", options={"algorithm": "none"})
    outcomes = run_all([Run(PANEL, bad, 0, "smax:3m", tmp_path), run_of(tmp_path, steps=64)], jobs=1)
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert "exit code 2" in outcomes[0].message
    assert "algorithm" in outcomes[0].message


def test_a_run_begun_with_other_demonstrations_is_refused(tmp_path):
    run = run_of(tmp_path, curve=1)
    run.folder.mkdir(parents=True)
    facts = {"options": {key: str(value) for key, value in run.options.items()}, "demonstrations": {"sha256": "another"}}
    (run.folder / "run.json").write_text(json.dumps(facts))
    (outcome,) = run_all([run])
    assert outcome.state == "failed"
    assert "holds a run with the demonstrations {'sha256': 'another'}" in outcome.message


def test_what_another_runner_is_at_comes_last(tmp_path):
    runs_ = [run_of(tmp_path, seed=seed, steps=64) for seed in (0, 1)]
    runs_[0].folder.mkdir(parents=True)
    with (runs_[0].folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert execute(runs_[0], wait=False).state == "busy"
        with ThreadPoolExecutor() as pool:
            both = pool.submit(run_all, runs_, jobs=1)
            for _ in range(6000):
                if is_done(runs_[1]):
                    break
                time.sleep(0.01)
            assert is_done(runs_[1])
            assert not both.done()
            fcntl.flock(lock, fcntl.LOCK_UN)
            assert [outcome.state for outcome in both.result()] == ["done", "done"]


def test_missing_demonstrations_are_told_with_what_makes_them(tmp_path):
    curve = replace(PANEL.curves[1], demos="seed9/win50")
    (outcome,) = run_all([Run(PANEL, curve, 0, "smax:3m", tmp_path)])
    assert outcome.state == "failed"
    assert "seed9/smax_3m_win50.npz is missing: run python -m experiments demos 3m" in outcome.message


def test_a_folder_of_other_options_is_refused(tmp_path):
    run = run_of(tmp_path, steps=64)
    run_all([run])
    other = run_of(tmp_path, steps=128)
    assert is_done(run)
    assert not is_done(other)  # although its folder has a final.json
    outcome = run_all([other])[0]
    assert outcome.state == "failed"
    assert "holds a run with the options" in outcome.message


def test_killed_again_and_again_it_ends_with_the_undisturbed_runs_numbers(tmp_path):
    undisturbed, killed = run_of(tmp_path / "a", curve=1), run_of(tmp_path / "b", curve=1)
    run_all([undisturbed])
    program = (
        "import sys; from pathlib import Path; from tests.test_experiments import run_of\n"
        "from experiments.scheduler import run_all\nrun_all([run_of(Path(sys.argv[1]), curve=1)])"
    )
    for wanted in (64, 192):  # kill it, with its runner, once it has gone so far
        runner = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "b")], cwd=ROOT, start_new_session=True)
        for _ in range(6000):
            if steps_done(killed) >= wanted:
                break
            time.sleep(0.01)
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait()
        assert not is_done(killed)
    run_all([killed])
    for name in ("evaluations.csv", "final.json"):
        assert (killed.folder / name).read_text() == (undisturbed.folder / name).read_text()
    assert json.loads((killed.folder / "run.json").read_text())["attempts"] == 3


def test_command_line(tmp_path, capsys):
    assert main(["status", "fig5", "--results", str(tmp_path)]) == 0
    assert "0 of 20 runs are done" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no run of fig5 is done yet"):
        main(["plot", "fig5", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="no run is done yet"):
        main(["table", "--results", str(tmp_path)])
    with pytest.raises(SystemExit):
        main(["run", "fig2", "--seeds", "0"])
    assert "must be at least 1" in capsys.readouterr().err


def test_mean_and_standard_error():
    mean, error = mean_and_error(np.array([[1.0, 0.0], [3.0, 0.0]]))
    np.testing.assert_allclose(mean, [2.0, 0.0])
    np.testing.assert_allclose(error, [1.0, 0.0])  # sd sqrt(2), over sqrt(2)
    assert mean_and_error(np.array([[1.0]]))[1] == 0.0


def test_interquartile_mean_leaves_out_the_outer_quarters():
    estimate = interquartile_mean(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0]))
    assert estimate.value == 3.5  # of 2, 3, 4 and 5
    assert estimate.low < 3.5 < estimate.high
    curves = interquartile_mean(np.arange(24.0).reshape(8, 3))
    np.testing.assert_allclose(curves.value, [10.5, 11.5, 12.5])
    assert curves.low.shape == (3,)
    single = interquartile_mean(np.array([0.5]))
    assert single.value == 0.5
    assert np.isnan(single.low)


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
    estimate = interquartile_mean(low, high)
    assert (estimate.value, estimate.low, estimate.high) == (0.5, 0.5, 0.5)


def test_probability_of_improvement_counts_pairs():
    first, second = np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0])
    by_hand = np.mean([(a > b) + 0.5 * (a == b) for a, b in itertools.product(first, second)])
    assert probability_of_improvement(first, second).value == pytest.approx(by_hand)
    assert probability_of_improvement(first + 10, second).low == 1.0


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
    lines = table("map", [ippo, faster, lucky]).splitlines()
    assert " 600 " in lines[-3]
    assert " 400 " in lines[-2]
    assert "not within the run" in lines[-1]


def test_levels_of_a_number_have_a_scale_and_baselines_black_dashes():
    def measured_of(slug, x):
        rates = np.array([[0.0, 0.5]])
        return Measured(Curve(slug, slug, x=x), np.array([0.0, 1.0]), rates, rates, rates[:, -1], 1.0, None, ("abc",))

    axes = plt.figure().subplots()
    curves = [measured_of("low", 0.1), measured_of("high", 1.0), measured_of("ippo", None)]
    _curves(axes, curves, [mean_and_band(one.win_rates) for one in curves])
    assert [line.get_linestyle() for line in axes.lines] == ["-", "-", "--"]
    assert axes.lines[2].get_color() == "#000000"
    assert tuple(axes.lines[0].get_color()) == mpl.colormaps["viridis"](0.0)
    plain = plt.figure().subplots()
    _curves(plain, curves[2:], [mean_and_band(curves[2].win_rates)])
    assert plain.lines[0].get_linestyle() == "-"
    plt.close("all")


def test_a_single_run_has_neither_error_nor_interval():
    def measured_of(slug, *finals):
        rates = np.array([[0.0, final] for final in finals])
        return Measured(Curve(slug, slug), np.array([0.0, 1.0]), rates, rates, np.array(finals), 1.0, None, ("abc",))

    ippo, twice, once = measured_of("ippo", 0.1, 0.3), measured_of("twice", 0.8, 0.6), measured_of("once", 0.5)
    lines = table("map", [ippo, twice, once]).splitlines()
    assert "| 0.700 ± 0.100 | 0.350 ± 0.050 | 0.350 [0.300, 0.400] | 1.000 [1.000, 1.000] | yes |" in lines[-2]
    assert "| 0.500 | 0.250 | 0.250 | 1.000 | unknown |" in lines[-1]


def test_trainings_say_which_levels_have_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.demonstrations.ROOT", tmp_path)
    folder = tmp_path / "demos_data" / "full" / "smax_3m" / "seed0"
    folder.mkdir(parents=True)
    levels, most, _ = LEVELS["3m"]
    (folder / "finished.json").write_text(json.dumps([list(levels), most]))
    (folder / "smax_3m_win30.npz").touch()
    assert _train("smax:3m", "seed0", 10) == f"{folder}: done before, without files at 50%"
    (folder / "smax_3m_win50.npz").touch()
    assert _left_out(folder, levels) == ""


def test_trainings_of_some_scenarios_have_seeds_and_beginnings_of_their_own(tmp_path, monkeypatch):
    commands = []

    def note(command, **_):
        commands.append([str(word) for word in command])
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr("experiments.demonstrations.ROOT", tmp_path)
    monkeypatch.setattr("experiments.demonstrations.subprocess.run", note)
    make("5m_vs_6m", jobs=1)
    make("3s_vs_4z", jobs=1, seeds=2)
    make("3s_vs_5z", jobs=1, seeds=1)
    options = [dict(zip(words[3::2], words[4::2], strict=False)) for words in commands]
    seeds = [(each["--env"], each["--seed"]) for each in options]
    assert seeds[:6] == [("smax:5m_vs_6m", seed) for seed in ("1", "3", "12", "20", "21", "0")]
    assert seeds[6:8] == [("smax:3s_vs_4z", seed) for seed in "01"]
    assert seeds[8:] == [("smax:3s_vs_5z", "0")] * 2  # independent PPO and QMIX
    assert [each.get("--mean-first") for each in options] == [None] * 3 + ["400000"] * 2 + [None] * 5
    assert [each.get("--n-steps") for each in options] == [None] * 5 + ["1", None, None, None, "3"]


def test_demos_writes_its_table_and_says_what_styles_lack(tmp_path, monkeypatch, capsys):
    def make_none(scenario, **options):
        return _team_file("smax:3m", 99, "weaker", "win30")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.demonstrations.make", lambda scenario, **options: None)
    monkeypatch.setattr("experiments.demonstrations.make_styles", make_none)
    assert main(["demos", "5m_vs_6m", "--seeds", "1"]) == 1
    assert "seed99, where there are none: train more seeds" in capsys.readouterr().err
    listed = (tmp_path / "results" / "demonstrations.md").read_text()
    sum_of_one = sha256((ROOT / "demos_data/smax_3m_win50.npz").read_bytes()).hexdigest()
    assert f"| `{sum_of_one}` |" in next(line for line in listed.splitlines() if line.startswith("| smax_3m_win50.npz |"))


def test_styles_need_the_trainings_that_they_mix(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.demonstrations.ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="seed7, where there are none: train more seeds"):
        _team_file("smac:5m_vs_6m", 7, "weaker", "win30")
    with pytest.raises(FileNotFoundError, match=r"smax_5m_vs_6m_win50\.npz, which is not there: train seed 12"):
        _team_file("smax:5m_vs_6m", 12, "stronger", "win50")
    file = demos_in(tmp_path, "seed1/win50")  # of 3m, where teams are not named
    main = dm2.Demonstrations.load(ROOT / "demos_data" / "smax_3m_win50.npz")
    main.save(file)
    main.save(demos_in(tmp_path, "win50"))
    dm2.Demonstrations.load(ROOT / "demos_data" / "smax_3m_win30.npz").save(demos_in(tmp_path, "seed1/win30"))
    assert _team_file("smax:3m", 1, "stronger", "win50") == file


def test_styles_are_what_they_are_called(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.demonstrations.ROOT", tmp_path)
    teams = dict.fromkeys((0, 1), ("win30", "win50"))
    monkeypatch.setattr("experiments.demonstrations.TEAMS", {"smax:3m": teams})
    monkeypatch.setattr("experiments.demonstrations.LOW_HIGH", {"3m": ("seed0/win30", "seed0/win50")})
    venv = dm2.envs.vector_env("smax:3m", 4)
    for seed in (0, 1):
        folder = tmp_path / "demos_data" / "full" / "smax_3m" / f"seed{seed}"
        team = dm2.sb3.IndependentLearners(MaskablePPO, venv, seed=seed, n_steps=16, batch_size=32)
        for level in ("win30", "win50"):
            team.save(folder / "teams" / level)
            dm2.Demonstrations.record(venv, team.policy(), 4, seed=seed).save(folder / f"smax_3m_{level}.npz")
    make_styles("3m", episodes=8)
    styles = {
        style: dm2.Demonstrations.load(demos_in(tmp_path, f"styles/{style}_weaker"))
        for style in ("disjoint", "mixed", "together")
    }
    assert {style: demos.style for style, demos in styles.items()} == {
        "disjoint": "mixed",
        "mixed": "mixed",
        "together": "concurrent",
    }
    for style, taught_by in (("disjoint", ["seed0", "seed0", "seed0"]), ("mixed", ["seed0", "seed1", "seed0"])):
        policies = styles[style].metadata["policy"].values()
        assert [{name.split("/")[0] for name in policy["agents of"]} for policy in policies] == [
            {each} for each in taught_by
        ]
        # No two agents from the same episodes, which would have equal lengths.
        assert len({tuple(np.diff(offsets)) for offsets in styles[style].offsets}) == 3
    team_of = styles["together"].metadata["policy"]["agents of"]
    assert [name.split("/")[0] for name in team_of] == ["seed0", "seed1", "seed0"]
    before = demos_in(tmp_path, "styles/mixed_weaker").stat().st_mtime_ns
    make_styles("3m", episodes=8)
    assert demos_in(tmp_path, "styles/mixed_weaker").stat().st_mtime_ns == before


def demos_in(root, name):
    return root / demos_path("smax:3m", name)
