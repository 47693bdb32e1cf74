"""How the demonstrations of experiments are made."""

import json
import subprocess
import time

import numpy as np
import pytest
from sb3_contrib import MaskablePPO

import dm2_wrappers as dm2
from experiments.demonstrations import _left_out, _team_file, _train, make, make_styles
from experiments.plan import demos_path
from experiments.run import ROOT
from experiments.teams import LEVELS


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
    failed = make("5m_vs_6m", jobs=1)
    assert len(failed) == 6
    assert "qmix0: failed with exit code 1" in failed[-1]
    make("3s_vs_4z", jobs=1, seeds=2)
    make("3s_vs_5z", jobs=1, seeds=1)
    options = [dict(zip(words[3::2], words[4::2], strict=False)) for words in commands]
    seeds = [(each["--env"], each["--seed"]) for each in options]
    assert seeds[:6] == [("smax:5m_vs_6m", seed) for seed in ("1", "3", "12", "20", "21", "0")]
    assert seeds[6:8] == [("smax:3s_vs_4z", seed) for seed in "01"]
    assert seeds[8:] == [("smax:3s_vs_5z", "0")] * 2  # independent PPO and QMIX
    assert [each.get("--mean-first") for each in options] == [None] * 3 + ["400000"] * 2 + [None] * 5
    assert [each.get("--n-steps") for each in options] == [None] * 5 + ["1", None, None, None, "3"]


def test_what_ends_a_demonstration_of_many_begins_no_other(tmp_path, monkeypatch):
    begun = []

    def train(env, training, episodes):
        begun.append(training)
        time.sleep(0.1)
        raise OSError("the disk is full")

    monkeypatch.setattr("experiments.demonstrations._train", train)
    with pytest.raises(OSError, match="the disk is full"):
        make("3s_vs_4z", jobs=1)
    assert len(begun) <= 2  # of five: at most the one that began while the first one's end was told


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
    monkeypatch.setattr("experiments.demonstrations.dm2.envs.vector_env", None)  # not needed where nothing is missing
    make_styles("3m", episodes=8)
    assert demos_in(tmp_path, "styles/mixed_weaker").stat().st_mtime_ns == before


def demos_in(root, name):
    return root / demos_path("smax:3m", name)
