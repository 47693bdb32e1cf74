"""Comparing single runs."""

import json

import pytest

from experiments.__main__ import main
from experiments.compare import (
    area_until,
    compared_measure,
    draw_comparison,
    labels,
    read_run,
    results_table,
    settings_table,
)
from experiments.plan import ROOT
from experiments.run_files import RunFolderError
from tests.helpers.tiny_grid import write_evaluations


def write_run(folder, win_rates, final=None, **settings):
    write_evaluations(folder, win_rates)
    (folder / "config.json").write_text(json.dumps({"env": "smax:3m", "run": str(folder), "bar_position": 0, **settings}))
    if final is not None:
        (folder / "final.json").write_text(json.dumps({"step": max(win_rates), "win_rate": final, "episodes": 512.0}))
    return folder


def test_the_table_has_results_and_the_settings_that_differ(tmp_path):
    slow = write_run(tmp_path / "slow", {0: 0.0, 100: 0.2, 200: 0.6, 300: 0.4}, 0.5, learner={"gamma": 0.9, "n": 1}, c=None)
    fast = write_run(tmp_path / "fast", {0: 0.0, 100: 0.8, 250: 0.5}, learner={"gamma": 0.99, "n": 1, "clip": 0.2}, c=0.3)
    runs = [read_run(slow), read_run(fast)]
    assert labels(runs) == ["slow", "fast"]
    lines = results_table(runs).splitlines()
    assert lines[0] == (
        "| run | steps | area: mean win rate to step 250 | last win rate | best win rate (step) | "
        "win rate after training (episodes) |"
    )
    # slow: (0.0 + 0.2) / 2 * 100 + (0.2 + 0.6) / 2 * 100 + (0.6 + 0.5) / 2 * 50 = 77.5; fast: 40 + 97.5 = 137.5
    assert lines[2] == "| slow | 300 | 0.310 | 0.400 | 0.600 (200) | 0.500 (512) |"
    assert lines[3] == "| fast | 250 | 0.550 | 0.500 | 0.800 (100) |  |"
    assert settings_table(runs).splitlines() == [
        "| setting | slow | fast |",
        "| --- | --- | --- |",
        "| learner.gamma | 0.9 | 0.99 |",
        "| c | None | 0.3 |",
        "",
        "Settings that not every config.json has: learner.clip",
    ]
    assert settings_table([runs[0], runs[0]]) == ""


def test_the_area_ends_at_an_evaluation_or_between_two(tmp_path):
    run = read_run(write_run(tmp_path / "run", {0: 0.0, 100: 1.0, 200: 0.0}))
    assert area_until(run, "win_rate", 200) == pytest.approx(0.5)
    assert area_until(run, "win_rate", 100) == pytest.approx(0.5)
    assert area_until(run, "win_rate", 150) == pytest.approx((50 + 37.5) / 150)
    one = read_run(write_run(tmp_path / "one", {0: 0.25}))
    assert area_until(one, "win_rate", 0) == 0.25


def test_runs_without_wins_are_compared_by_return(tmp_path):
    for name in "ab":
        write_run(tmp_path / name, {0: 0.0})
        (tmp_path / name / "evaluations.csv").write_text("step,win_rate,return,return_se\n0,,1.0,nan\n10,,3.0,0.5\n")
    runs = [read_run(tmp_path / name) for name in "ab"]
    assert compared_measure(runs) == "return"
    assert "| 10 | 2.000 | 3.000 | 3.000 (10) |" in results_table(runs)
    draw_comparison(runs, tmp_path / "figure.png")
    (tmp_path / "b" / "evaluations.csv").write_text("step,length\n0,1.0\n")
    with pytest.raises(RunFolderError, match="neither win rates nor returns in common"):
        compared_measure([runs[0], read_run(tmp_path / "b")])


def test_the_command_compares_committed_runs(tmp_path, capsys):
    folder = ROOT / "results" / "runs" / "smax_5m_vs_6m"
    runs = [str(folder / slug / "seed100") for slug in ("ippo", "dm2-win30-c0.3")]
    assert main(["compare", *runs, "--out", str(tmp_path / "new" / "figure.png")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[2].startswith("| ippo/seed100 | 1,003,520 | ")
    assert said[3].startswith("| dm2-win30-c0.3/seed100 | 1,003,520 | ")
    assert "| algorithm | ippo | dm2 |" in said
    assert not any(line.startswith("| learner.n_epochs") for line in said)
    assert said[-1] == str(tmp_path / "new" / "figure.png")
    assert (tmp_path / "new" / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert main(["compare", runs[0], "--out", str(tmp_path / "figure.pdf")]) == 0
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(SystemExit):
        main(["compare", *runs, "--out", str(tmp_path / "figure.doc")])
    assert "--out: must end in .png, .pdf or .svg, got" in capsys.readouterr().err


def test_what_is_no_run_is_one_sentence(tmp_path, capsys):
    def said(folder):
        assert main(["compare", str(folder), "--out", str(tmp_path / "figure.png")]) == 1
        sentence = capsys.readouterr().err
        assert sentence.count("\n") == 1
        return sentence

    assert said(tmp_path / "nowhere").startswith(f"{tmp_path / 'nowhere'} is no folder: expected the folder of a run")
    assert "config.json is missing: expected the folder of a run" in said(tmp_path)
    run = write_run(tmp_path / "curve" / "seed100", {0: 0.0, 64: 0.5}, 0.5)
    assert f"give the folder of one run, such as {run}" in said(tmp_path / "curve")
    (run / "evaluations.csv").write_text("step,win_rate\n0,0.0\n")
    assert "evaluations.csv is damaged: its last step is 0, but the one of final.json is 64" in said(run)
    (run / "evaluations.csv").write_text("step,win_rate\n0,0.0\n64,0.")
    assert "evaluations.csv is damaged: its last line is cut off" in said(run)
    (run / "evaluations.csv").unlink()
    assert f"{run} has no evaluation yet" in said(run)
    (run / "config.json").write_text("{")
    assert "config.json is damaged: it is no JSON" in said(run)
    assert not (tmp_path / "figure.png").exists()
