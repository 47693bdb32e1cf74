"""``python -m experiments``."""

import json
import re
import sys
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from experiments.__main__ import main
from experiments.curves import measured
from experiments.demonstrations import _team_file
from experiments.figures import draw, draw_lengths, draw_levels
from experiments.grids import EXPERIMENTS
from experiments.plan import Experiment, runs
from experiments.run import ROOT, evaluations, steps_done
from experiments.scheduler import run_all
from experiments.tables import table
from tests.helpers.tiny_grid import PANEL, run_of


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
    assert said == [("another", "0", "17"), ("tiny", "4", "10")]
    assert main(["plot", "--results", str(tmp_path)]) == 0
    assert main(["plot", "tiny", "--only", "ippo", "--results", str(tmp_path)]) == 0
    assert len((tmp_path / "tiny_part.md").read_text().splitlines()) == 5
    assert main(["run", "tiny", "--seeds", "2", "--results", str(tmp_path)]) == 0
    assert "4 of 4 runs are done" in capsys.readouterr().out
    facts = json.loads((grid[3].folder / "run.json").read_text())
    facts["demonstrations"]["sha256"] = "another"
    (grid[3].folder / "run.json").write_text(json.dumps(facts))
    with pytest.raises(SystemExit, match="used unlike demonstrations"):
        main(["plot", "tiny", "--results", str(tmp_path)])
    assert main(["plot", "--results", str(tmp_path)]) == 1
    assert "used unlike demonstrations" in capsys.readouterr().err
    assert main(["run", "tiny", "--seeds", "2", "--steps", "64", "--results", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "0 of 4 runs are done" in said.out
    assert f"failed: {grid[0].folder}\nValueError: {grid[0].folder} holds a run with the options" in said.err
    assert not (tmp_path / "another.png").exists()
    compared = [line.split(" | ") for line in (tmp_path / "tiny.md").read_text().splitlines()[4:]]
    assert [cells[0] for cells in compared if cells[6].strip()] == ["| IPPO"]  # with DM2, not the other way round
    for name in ("quality", "c", "bare", "tiny", "tiny_levels", "tiny_lengths"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
        assert (tmp_path / f"{name}.pdf").stat().st_size > 5_000


def stopped_by_ctrl_c(*args, **options):
    raise KeyboardInterrupt


def test_command_line(tmp_path, capsys, monkeypatch):
    assert main(["status", "fig5", "--results", str(tmp_path)]) == 0
    assert "0 of 20 runs are done" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="no run of fig5 is done yet"):
        main(["plot", "fig5", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="no run is done yet"):
        main(["table", "--results", str(tmp_path)])
    with pytest.raises(SystemExit, match="no run has 'nowhere' in its path"):
        main(["status", "--only", "nowhere", "--results", str(tmp_path)])
    assert main(["status", "--env", "smac", "--results", str(tmp_path)]) == 0
    listed = capsys.readouterr().out
    assert "fig2 " in listed
    assert "agents " not in listed
    failed = runs(EXPERIMENTS["fig5"], tmp_path)[0].folder
    failed.mkdir(parents=True)
    (failed / "run.json").write_text(json.dumps({"failed": "exit code 1"}))
    assert main(["status", "fig5", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("  failed  smax:5m_vs_6m")
    with monkeypatch.context() as patch:
        patch.setattr("experiments.scheduler.run_all", stopped_by_ctrl_c)
        assert main(["run", "fig5", "--results", str(tmp_path)]) == 130
    assert "the same command goes on from the checkpoints" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["run", "fig2", "--seeds", "0"])
    assert "must be a number of at least 1, got '0'" in capsys.readouterr().err
    for words, sentence in (
        (["run", "fig2", "--seeds", "many"], "must be a number of at least 1, got 'many'"),
        (
            ["run", "fig2", "--only", "nowhere"],
            "no run has 'nowhere' in its path; there are such as runs/smax_",
        ),
        (["run", "fig3", "--quick"], "fig3 has no quick version: run it in full"),
        (["run", "agents", "--env", "smac"], "agents is of SMAX alone: it names SMAX's agents"),
        (["run", "fig2", "--ray"], "this needs the package 'ray'"),
        (["demos", "3m", "8m"], "no demonstrations are planned for 8m, only for 5m_vs_6m, "),
    ):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(SystemExit):
            main(words)
        assert sentence in capsys.readouterr().err


def test_demos_writes_its_table_and_says_what_styles_lack(tmp_path, monkeypatch, capsys):
    def make_none(scenario, **options):
        return _team_file("smax:3m", 99, "weaker", "win30")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.demonstrations.make", lambda scenario, **options: [f"{scenario}: failed"])
    (tmp_path / "results").mkdir()
    head = "| file | and so on |\n|---|---|\n"
    elsewhere = "| full/smax_3m/seed99/smax_3m_win30.npz | 1000 | 0.300 | 11.00 | 14.0 | `abc` |\n"
    (tmp_path / "results" / "demonstrations.md").write_text(head + elsewhere)
    monkeypatch.setattr("experiments.demonstrations.make_styles", make_none)
    assert main(["demos", "5m_vs_6m", "--seeds", "1"]) == 1
    said = capsys.readouterr().err
    assert "seed99, where there are none: train more seeds" in said
    assert "5m_vs_6m: failed" in said
    listed = (tmp_path / "results" / "demonstrations.md").read_text()
    assert elsewhere in listed  # of files that are not here
    sum_of_one = sha256((ROOT / "demos_data/smax_3m_win50.npz").read_bytes()).hexdigest()
    assert f"| `{sum_of_one}` |" in next(line for line in listed.splitlines() if line.startswith("| smax_3m_win50.npz |"))
