"""The finished runs of a curve as arrays."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments.curves import read_panel
from experiments.run_files import RunFolderError
from tests.helpers.tiny_grid import PANEL, run_of, write_finished_run, write_run_json


def test_a_curve_has_the_evaluations_that_all_its_runs_have(tmp_path):
    grid = [run_of(tmp_path, seed=seed) for seed in (0, 1, 2)]
    write_finished_run(grid[0], {0: 0.0, 100: 0.1, 200: 0.2, 400: 0.4}, seconds=3.5)
    write_finished_run(grid[1], {0: 0.5, 200: 0.6, 300: 0.7, 400: 0.8}, commit="def", earlier_commits=["012"])
    write_run_json(grid[2])  # not finished
    (results,) = read_panel(PANEL, grid)
    np.testing.assert_array_equal(results.steps, [0, 200, 400])
    np.testing.assert_array_equal(results.scores, [[0.0, 0.2, 0.4], [0.5, 0.6, 0.8]])
    np.testing.assert_array_equal(results.lengths, [[0, 2, 4], [5, 6, 8]])
    np.testing.assert_array_equal(results.final, [0.4, 0.8])
    assert results.seconds == 4.5
    assert results.commits == ("012", "abc", "def")
    assert (results.expert_score, results.label) == (None, "IPPO")
    # The same in the other order of runs.
    (results,) = read_panel(PANEL, grid[::-1])
    np.testing.assert_array_equal(results.steps, [0, 200, 400])


def test_a_file_of_won_episodes_does_not_say_how_often_the_experts_win(tmp_path):
    run = run_of(tmp_path, curve=1)
    write_finished_run(run, {0: 0.0, 320: 0.1}, demonstrations={"sha256": "sum", "win_rate": 1.0, "mean_return": 20.0})
    (results,) = read_panel(PANEL, [run])
    assert results.expert_score is None


def test_runs_with_different_demonstrations_are_refused(tmp_path):
    grid = [run_of(tmp_path, curve=1, seed=seed) for seed in (0, 1)]
    for run in grid:
        write_finished_run(run, {0: 0.0, 320: 0.1}, demonstrations={"sha256": f"sum{run.seed}", "win_rate": 0.3})
    with pytest.raises(RunFolderError, match="used different demonstrations, with SHA-256 sum0, sum1"):
        read_panel(PANEL, grid)


def test_a_cut_off_curve_is_refused(tmp_path):
    run = run_of(tmp_path)
    write_finished_run(run, {0: 0.0, 160: 0.1, 320: 0.2})
    lines = (run.folder / "evaluations.csv").read_text().splitlines(keepends=True)
    (run.folder / "evaluations.csv").write_text("".join(lines[:-1]))  # cut off between two lines
    with pytest.raises(RunFolderError, match=r"evaluations\.csv is damaged: its last step is 160, but .*final\.json is 320"):
        read_panel(PANEL, [run])


def test_greedy_results_are_read_if_every_run_has_them(tmp_path):
    pair = [run_of(tmp_path, seed=seed) for seed in (0, 1)]
    for run in pair:
        write_finished_run(run, {0: 0.0, 320: 0.1})
    path = pair[0].folder / "final.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "greedy_win_rate": 0.3}))
    assert read_panel(PANEL, pair[:1])[0].greedy.tolist() == [0.3]
    assert read_panel(PANEL, pair)[0].greedy is None


def test_runs_without_win_rates_are_refused(tmp_path):
    run = run_of(tmp_path)
    write_finished_run(run, {0: 0.0, 320: 0.2})
    (run.folder / "final.json").write_text(json.dumps({"step": 320, "return": 1.0}))
    with pytest.raises(RunFolderError, match=r"final\.json has no 'win_rate': the figures need it"):
        read_panel(PANEL, [run])


def test_an_environment_without_wins_is_measured_by_its_return(tmp_path):
    panel = replace(PANEL, env="module:make", measure="return", scenario="spread")
    runs = [replace(run_of(tmp_path, curve=1, seed=seed), panel=panel) for seed in (0, 1)]
    assert [str(run.folder.relative_to(tmp_path)) for run in runs] == [f"runs/spread/dm2/seed{seed}" for seed in (0, 1)]
    assert runs[0].options["env"] == runs[0].env == "module:make"
    for run in runs:
        write_finished_run(run, {0: 0.0, 320: 0.1}, demonstrations={"sha256": "sum", "win_rate": None, "mean_return": -7.25})
        lines = ["step,return,length", *(f"{step},{-step - run.seed},25" for step in (0, 320))]
        (run.folder / "evaluations.csv").write_text("\n".join(lines) + "\n")
        (run.folder / "final.json").write_text(json.dumps({"step": 320, "return": -5.0}))
    (results,) = read_panel(panel, runs)
    np.testing.assert_array_equal(results.scores, [[0, -320], [-1, -321]])
    np.testing.assert_array_equal(results.final, [-5, -5])
    assert results.measure == "return"
    assert results.label.endswith("(-7.25)")


def test_only_runs_of_the_panels_scenario_count(tmp_path):
    here, there = run_of(tmp_path), replace(run_of(tmp_path), panel=replace(PANEL, scenario="elsewhere"))
    write_finished_run(here, {0: 0.0, 320: 0.2})
    write_finished_run(there, {0: 0.0, 320: 0.9})
    (results,) = read_panel(PANEL, [there, here])
    assert results.final.tolist() == [0.2]
