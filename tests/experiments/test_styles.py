"""The styles of demonstrations."""

import numpy as np
import pytest
from sb3_contrib import MaskablePPO

import dm2_wrappers as dm2
from experiments.experts import STYLE_TEAMS, WEAKER_STRONGER
from experiments.plan import ROOT, demos_path
from experiments.styles import _team_file, make_styles


def test_styles_need_the_trainings_whose_agents_they_combine(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.styles.ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="seed7, which has none: train more seeds"):
        _team_file("smac:5m_vs_6m", 7, "weaker", "win30")
    with pytest.raises(FileNotFoundError, match=r"smax_5m_vs_6m_win50\.npz, which is missing: train seed 12"):
        _team_file("smax:5m_vs_6m", 12, "stronger", "win50")
    file = demos_in(tmp_path, "seed1/win50")  # of 3m, for which STYLE_TEAMS names no teams
    main = dm2.Demonstrations.load(ROOT / "demos_data" / "smax_3m_win50.npz")
    main.save(file)
    main.save(demos_in(tmp_path, "win50"))
    dm2.Demonstrations.load(ROOT / "demos_data" / "smax_3m_win30.npz").save(demos_in(tmp_path, "seed1/win30"))
    assert _team_file("smax:3m", 1, "stronger", "win50") == file


def test_each_style_combines_agents_and_episodes_as_its_name_says(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.styles.ROOT", tmp_path)
    teams = dict.fromkeys((0, 1), ("win30", "win50"))
    monkeypatch.setitem(STYLE_TEAMS, "smax:3m", teams)
    monkeypatch.setitem(WEAKER_STRONGER, "3m", ("seed0/win30", "seed0/win50"))
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
    for style, trainings in (("disjoint", ["seed0", "seed0", "seed0"]), ("mixed", ["seed0", "seed1", "seed0"])):
        policies = styles[style].metadata["policy"].values()
        assert [{name.split("/")[0] for name in policy["agents of"]} for policy in policies] == [
            {each} for each in trainings
        ]
        # No two agents have the same episodes: those would have equal lengths.
        assert len({tuple(np.diff(offsets)) for offsets in styles[style].offsets}) == 3
    team_of = styles["together"].metadata["policy"]["agents of"]
    assert [name.split("/")[0] for name in team_of] == ["seed0", "seed1", "seed0"]
    before = demos_in(tmp_path, "styles/mixed_weaker").stat().st_mtime_ns
    monkeypatch.setattr("dm2_wrappers.envs.vector_env", None)  # not called if no file is missing
    make_styles("3m", episodes=8)
    assert demos_in(tmp_path, "styles/mixed_weaker").stat().st_mtime_ns == before


def demos_in(root, name):
    return root / demos_path("smax:3m", name)
