"""``python -m dm2_wrappers.demonstrations``."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dm2_wrappers import Demonstrations
from dm2_wrappers.demonstrations.__main__ import main
from tests.helpers.small_demonstrations import make

DATA = Path(__file__).parents[1] / "data" / "pymarl_torch1"
RECORDED = Path(__file__).parents[2] / "demos_data" / "smax_3m_win30.npz"


def test_a_folder_of_pymarls_becomes_a_file(tmp_path, capsys):
    file = tmp_path / "new" / "demos.npz"
    options = [
        "--agents",
        "marine_0",
        "marine_1",
        "--env-id",
        "smac:2m",
        "--last-action",
        "7",
        "--agent-id",
        "--episodes",
        "3",
    ]
    assert main(["import", str(DATA), str(file), *options]) == 0
    assert capsys.readouterr().out == (
        f"{file}: 3 episodes of 2 agents\nnext: python -m dm2_wrappers.demonstrations check {file} --env smac:2m\n"
    )
    demos = Demonstrations.load(file)
    assert demos.agents == ("marine_0", "marine_1")
    assert demos.sizes == (3 + 7 + 2,) * 2
    assert main(["info", str(file)]) == 0
    printed = capsys.readouterr().out
    assert "environment  smac:2m\nepisodes     3 (concurrent)\nlength       4.0 steps on average, 2 to 7\n" in printed
    assert "battles won  not recorded\nreturn       not recorded\n" in printed
    assert "marine_0               12         11\n" in printed


def test_info_of_a_recording(capsys):
    assert main(["info", str(RECORDED)]) == 0
    printed = capsys.readouterr().out
    demos = Demonstrations.load(RECORDED)
    assert f"battles won  {demos.won.mean():.3f}\nreturn       {demos.rewards[:, 0].sum() / 1000:.2f}\n" in printed
    assert f"ally_2                 75      {demos.alive[:, 2].sum()}\n" in printed


def test_info_says_how_many_outcomes_are_known(tmp_path, capsys):
    make(won=(1, -1, 0)).save(tmp_path / "demos.npz")
    assert main(["info", str(tmp_path / "demos.npz")]) == 0
    assert "battles won  0.500 of the 2 episodes whose outcome is known\n" in capsys.readouterr().out


def test_check(capsys):
    assert main(["check", str(RECORDED)]) == 0
    if importlib.util.find_spec("jaxmarl") is None:  # not importorskip: importing JaxMARL replaces sys.stdout
        pytest.skip("needs JaxMARL")
    assert main(["check", str(RECORDED), "--env", "smax:3m"]) == 0
    assert capsys.readouterr().out.endswith("smax_3m_win30.npz is a valid demonstrations file and fits smax:3m\n")
    assert main(["check", str(RECORDED), "--env", "smax:5m_vs_6m"]) == 1
    assert "error: the environment is 'smax:5m_vs_6m', but" in capsys.readouterr().err
    assert main(["check", str(RECORDED), "--env", "smax:no_such"]) == 1
    assert "error: there is no SMAX scenario" in capsys.readouterr().err


def test_what_cannot_be_read_is_one_sentence(tmp_path, capsys):
    assert main(["info", str(tmp_path / "none.npz")]) == 1
    assert main(["import", str(tmp_path), str(tmp_path / "x.npz")]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert errors[1].startswith("error: ")
    assert "has no agent_0.npz" in errors[1]
    assert not (tmp_path / "x.npz").exists()


def test_filter(tmp_path, capsys):
    won, best = tmp_path / "won.npz", tmp_path / "best.npz"
    assert main(["filter", str(RECORDED), str(won), "--won"]) == 0
    demos = Demonstrations.load(RECORDED)
    count = int(demos.won[0].sum())
    returns = np.add.reduceat(demos.rewards[:, 0].astype(float), demos.offsets[0, :-1])
    mean = returns[demos.won[0] == 1].mean()
    assert capsys.readouterr().out == (
        f"{won}: {count} of 1000 episodes, 1.000 won, mean return {mean:.2f}\n"
        f"next: python -m dm2_wrappers.demonstrations info {won}\n"
    )
    assert main(["filter", str(RECORDED), str(best), "--lost", "--best", "0.1"]) == 0
    lost = 1000 - count
    assert f"{best}: {-(-lost // 10)} of 1000 episodes, 0.000 won, " in capsys.readouterr().out
    assert main(["info", str(best)]) == 0
    of_lost = demos.filter(won=False).mean_return
    kept = [
        {"filter": {"won": False}, "kept": lost, "of": 1000, "mean_return": demos.mean_return},
        {"best": 0.1, "kept": -(-lost // 10), "of": lost, "mean_return": of_lost},
    ]
    assert f"selected     {kept}\n" in capsys.readouterr().out
    assert main(["filter", str(RECORDED), str(best)]) == 1
    assert main(["filter", str(won), str(best), "--lost"]) == 1
    assert main(["filter", str(RECORDED), str(best), "--best", "2"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert "filter needs --won, --lost or --best SHARE" in errors[0]
    assert "filter(won=False) leaves nothing" in errors[1]
    assert "share must be a number above 0 and at most 1" in errors[2]


def test_limits_and_folders_are_one_sentence(tmp_path, capsys):
    assert main(["info", str(RECORDED), "--max-bytes", "1000"]) == 1
    assert main(["info", str(tmp_path)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].endswith("over max_bytes=1,000; pass a larger max_bytes if you trust the file")
    assert errors[1] == f"error: {tmp_path}: This is a folder, but a demonstrations file was expected; name a file in it"


def test_as_a_module():
    command = [sys.executable, "-m", "dm2_wrappers.demonstrations", "check", str(RECORDED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{RECORDED} is a valid demonstrations file\n", "")
    with pytest.raises(SystemExit):
        main([])
