"""``python -m experiments``."""

import errno
import json
import os
import re
import shutil
import sys
from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest

from experiments.__main__ import main
from experiments.curves import read_panel
from experiments.figures import draw_curves, draw_lengths, draw_levels
from experiments.grids import EXPERIMENTS
from experiments.plan import ROOT, Experiment, runs
from experiments.run_files import as_text, read_evaluations, steps_done
from experiments.scheduler import run_all
from experiments.styles import _team_file
from experiments.tables import panel_table
from tests.helpers.tiny_grid import PANEL, run_of, write_evaluations, write_finished_run, write_run_json


def test_runs_are_done_once_and_plotted(tmp_path, capsys, monkeypatch):
    grid = [run_of(tmp_path, curve, seed) for seed in (0, 1) for curve in (0, 1)]
    assert [outcome.state for outcome in run_all(grid[:2])] == ["done"] * 2
    for done, other in zip(grid[:2], grid[2:], strict=True):  # as if the second seed had the same results
        shutil.copytree(done.folder, other.folder)
        write_run_json(other, **json.loads((done.folder / "run.json").read_text()) | {"options": as_text(other.options)})
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

    ippo, dm2 = read_panel(PANEL, grid)
    assert ippo.scores.shape == (2, 6)
    by_hand = [[row["win_rate"] for row in read_evaluations(run.folder)] for run in (grid[1], grid[3])]
    np.testing.assert_array_equal(dm2.scores, by_hand)
    assert ippo.expert_score is None
    assert 0.4 < dm2.expert_score < 0.6
    draw_curves("tiny", [("3m", [ippo, dm2])], tmp_path / "figure", ("png", "pdf"))
    for ending in ("png", "pdf"):
        assert (tmp_path / f"figure.{ending}").stat().st_size > 5_000
        assert (tmp_path / f"figure_iqm.{ending}").stat().st_size > 5_000
    draw_lengths("tiny", [("3m", [ippo, dm2])], tmp_path / "lengths")
    assert (tmp_path / "lengths.png").stat().st_size > 5_000
    assert len(panel_table("3m", [ippo, dm2]).splitlines()) == 6
    draw_levels("tiny", "win rate of the experts", [("3m", [ippo, dm2])], tmp_path / "quality")
    by_x = [replace(dm2, curve=replace(dm2.curve, level=x)) for x in (0.3, 3.0)]
    draw_levels("tiny", "c", [("3m", [ippo, *by_x])], tmp_path / "c")
    draw_levels("no level is done", "c", [("3m", [ippo])], tmp_path / "bare")
    tiny = Experiment("Tiny", (replace(PANEL, baseline="dm2"),), level_label="win rate of the experts", plot_lengths=True)
    monkeypatch.setitem(EXPERIMENTS, "tiny", tiny)
    assert main(["plot", "tiny", "--pdf", "--results", str(tmp_path)]) == 0
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
    assert main(["plot", "tiny", "--results", str(tmp_path)]) == 1
    assert "used different demonstrations" in capsys.readouterr().err
    assert main(["plot", "--results", str(tmp_path)]) == 1
    assert "used different demonstrations" in capsys.readouterr().err
    assert main(["run", "tiny", "--seeds", "2", "--steps", "64", "--results", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert "0 of 4 runs are done" in said.out
    assert f"failed: {grid[0].folder}\n{grid[0].folder} holds a run with the options" in said.err
    assert not (tmp_path / "another.png").exists()
    headings, _, *compared = [line.split(" | ") for line in (tmp_path / "tiny.md").read_text().splitlines()[2:]]
    place = next(i for i, heading in enumerate(headings) if heading.startswith("probability that the area exceeds"))
    assert [cells[0] for cells in compared if cells[place].strip()] == ["| IPPO"]  # with DM2, not the other way round
    for name in ("quality", "c", "bare", "tiny", "tiny_levels", "tiny_lengths"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000
        assert (tmp_path / f"{name}.pdf").is_file() == name.startswith("tiny")  # --pdf


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
    write_run_json(runs(EXPERIMENTS["fig5"], tmp_path)[0], failed="exit code 1")
    assert main(["status", "fig5", "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("  failed  smax:5m_vs_6m")
    with monkeypatch.context() as patch:
        patch.setattr("experiments.scheduler.run_all", stopped_by_ctrl_c)
        assert main(["run", "fig5", "--results", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "stopped: the same command continues from the checkpoints\n"
    with pytest.raises(SystemExit):
        main(["run", "fig2", "--seeds", "0"])
    assert "must be an integer of at least 1, got '0'" in capsys.readouterr().err
    for arguments, sentence in (
        (["run", "fig2", "--seeds", "many"], "must be an integer of at least 1, got 'many'"),
        (
            ["run", "fig2", "--only", "nowhere"],
            "no run has 'nowhere' in its path; an example of a path is runs/smax_",
        ),
        (["run", "fig3", "--quick"], "fig3 has no quick version: leave --quick out"),
        (["run", "agents", "--env", "smac"], "agents runs on SMAX only: its options name SMAX's agents"),
        (["run", "fig2", "--ray"], "this needs the package 'ray'"),
        (["demos", "3m", "8m"], "no experts are planned for 8m, only for 5m_vs_6m, "),
    ):
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(SystemExit):
            main(arguments)
        assert sentence in capsys.readouterr().err


def test_demos_writes_its_table_and_reports_what_styles_need(tmp_path, monkeypatch, capsys):
    def make_none(scenario, **options):
        return _team_file("smax:3m", 99, "weaker", "win30")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.demonstrations.make", lambda scenario, **options: [f"{scenario}: failed"])
    (tmp_path / "results").mkdir()
    head = "| file | and so on |\n|---|---|\n"
    elsewhere = "| full/smax_3m/seed99/smax_3m_win30.npz | 1000 | 0.300 | 11.00 | 14.0 | `abc` |\n"
    (tmp_path / "results" / "demonstrations.md").write_text(head + elsewhere)
    monkeypatch.setattr("experiments.styles.make_styles", make_none)
    assert main(["demos", "5m_vs_6m", "--seeds", "1"]) == 1
    said = capsys.readouterr().err
    assert "seed99, which has none: train more seeds" in said
    assert "5m_vs_6m: failed" in said
    listed = (tmp_path / "results" / "demonstrations.md").read_text()
    assert elsewhere in listed  # files that this machine does not have
    checksum = sha256((ROOT / "demos_data/smax_3m_win50.npz").read_bytes()).hexdigest()
    assert f"| `{checksum}` |" in next(line for line in listed.splitlines() if line.startswith("| smax_3m_win50.npz |"))


def test_damaged_files_are_one_sentence_in_every_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(
        "experiments.__main__.EXPERIMENTS", {"tiny": Experiment("Tiny", (PANEL,)), "fig5": EXPERIMENTS["fig5"]}
    )
    ippo, dm2 = run_of(tmp_path, 0), run_of(tmp_path, 1)
    write_finished_run(ippo, {0: 0.0, 320: 0.5})
    write_finished_run(dm2, {0: 0.0, 320: 0.5})
    assert main(["table", "tiny", "--results", str(tmp_path)]) == 0
    capsys.readouterr()
    (dm2.folder / "evaluations.csv").write_text("step,win_rate\n0,0.0\n320,0.")
    for arguments in (["table", "tiny"], ["plot", "tiny"], ["table"], ["plot"], ["status", "tiny"]):
        assert main([*arguments, "--results", str(tmp_path)]) == 1
        said = capsys.readouterr()
        assert f"{dm2.folder / 'evaluations.csv'} is damaged: its last line is cut off" in said.err
        assert len(said.err.splitlines()) == 1
    assert [line.split()[0] for line in said.out.splitlines()[:2]] == ["done", "damaged"]
    assert "1 of 10 runs are done" in said.out
    assert not (tmp_path / "tiny.png").exists()
    write_evaluations(dm2.folder, {0: 0.0, 320: 0.5})
    (dm2.folder / "run.json").write_text("{")
    assert main(["status", "--results", str(tmp_path)]) == 1
    assert "run.json is damaged: it is no JSON" in capsys.readouterr().err


def test_a_full_disk_is_one_sentence(tmp_path, capsys, monkeypatch):
    def full(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "results/tiny.png")

    monkeypatch.setattr("experiments.__main__.EXPERIMENTS", {"tiny": Experiment("Tiny", (PANEL,))})
    write_finished_run(run_of(tmp_path), {0: 0.0, 320: 0.5})
    monkeypatch.setattr("os.fsync", full)
    assert main(["plot", "tiny", "--results", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"the disk is full (writing to {tmp_path / 'tiny.png'}): free some space and give the same command again\n"
    )


def test_ctrl_c_ends_every_command_with_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("experiments.demonstrations.make", stopped_by_ctrl_c)
    monkeypatch.setattr("experiments.compare.read_run", stopped_by_ctrl_c)
    assert main(["demos", "3m"]) == 130
    assert capsys.readouterr().err == "stopped: the same command continues from the checkpoints\n"
    assert main(["compare", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "stopped\n"


def test_status_lists_the_tuning_of_the_baseline(tmp_path, capsys):
    assert main(["status", "baseline", "--results", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["waiting", "smax:3m", "tuning-ippo", "seed", "0"]
    assert lines[-1] == "0 of 135 runs are done"
    assert len(lines) == 136
