"""What a team prints and logs."""

import csv
import os
import tempfile

import pytest
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.logger import configure

from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.sb3_teams import ON_POLICY, SMALL, matcher, venv

OPTIONS = {**SMALL, **ON_POLICY[PPO]}


def rows(folder):
    with (folder / "progress.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_team_says_what_it_is():
    team = IndependentLearners(PPO, venv(), seed=0, matcher=matcher(), coefficient=0.5, **OPTIONS).learn(18)
    assert repr(team) == (
        "<IndependentLearners: PPO for 2 agents on tiny (3 sub-environments), exact distribution matching with c=0.5 and 8 "
        "expert episodes, 18 steps>"
    )
    mixed = IndependentLearners({"agent_0": PPO, "agent_1": DQN}, venv(1), seed=0, device="cpu")
    assert "agent_0: PPO, agent_1: DQN for 2 agents on tiny (1 sub-environments), 0 steps" in str(mixed)


def test_the_teams_log_has_the_means_over_the_agents(tmp_path):
    options = {"matcher": matcher(), "coefficient": 0.5, "log_dir": tmp_path}
    team = IndependentLearners(PPO, venv(), seed=0, **options, **OPTIONS)
    for _ in range(2):
        team.learn(36, log_interval=1, reset_num_timesteps=not team.num_timesteps)
    agents = [rows(tmp_path / agent) for agent in team.agents]
    means = rows(tmp_path / "team")
    assert len(means) == len(agents[0]) == 4
    for name in ("dm2/env_reward", "dm2/gail_reward", "dm2/expert_accuracy", "rollout/ep_rew_mean", "train/loss"):
        for i, row in enumerate(means[1:], 1):
            expected = (float(agents[0][i][name]) + float(agents[1][i][name])) / 2
            assert float(row[name]) == pytest.approx(expected, rel=1e-5), name
    assert {"rollout/success_rate", "time/total_timesteps"} <= set(means[-1])
    assert list((tmp_path / "team").glob("events.out.tfevents*"))


def test_printed_tables_name_their_agent(capsys):
    IndependentLearners(PPO, venv(), seed=0, verbose=1, **OPTIONS).learn(18)
    lines = capsys.readouterr().out.splitlines()
    named = [line.split()[3] for line in lines if line.startswith("| agent ")]
    assert named == ["agent_0", "agent_1"]
    assert any("total_timesteps" in line for line in lines)


def test_no_folder_is_made_where_nothing_is_logged(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    team = IndependentLearners(PPO, venv(), seed=0, **OPTIONS)
    team.learn(18).learn(18)
    assert os.listdir(tmp_path) == []


def test_a_logger_of_the_users_own_is_kept(tmp_path):
    team = IndependentLearners(PPO, venv(), seed=0, **OPTIONS)
    team.models["agent_1"].set_logger(configure(str(tmp_path), ["csv"]))
    team.learn(36, log_interval=1).learn(18, log_interval=1)
    assert len(rows(tmp_path)) == 3


def test_the_progress_bar_moves_at_each_step():
    seen, started = [], []

    class Watch(BaseCallback):
        def _on_step(self):
            seen.extend(one.pbar.n for one in started if isinstance(one, ProgressBarCallback))
            return True

    team = IndependentLearners(PPO, venv(), seed=0, **OPTIONS)
    callbacks_of = team._callbacks

    def kept(*given):
        callbacks = callbacks_of(*given)
        started.extend(callbacks["agent_0"])
        return callbacks

    team._callbacks = kept
    team.learn(36, callback={"agent_1": Watch()}, progress_bar=True)
    assert seen == list(range(3, 37, 3))
