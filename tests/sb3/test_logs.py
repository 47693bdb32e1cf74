"""What a team prints and logs."""

import csv
import os
import sys
import tempfile
from urllib.parse import unquote

import numpy as np
import pytest
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.logger import configure

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from dm2_wrappers.sb3.logs import folder_of
from tests.helpers.sb3_teams import ON_POLICY, SMALL, matcher, venv
from tests.helpers.tiny_envs import TinyEnv

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


def test_the_teams_log_goes_on_without_an_agent_that_has_a_logger_of_the_users_own(tmp_path):
    team = IndependentLearners(PPO, venv(), seed=0, log_dir=tmp_path / "logs", **OPTIONS)
    team.models["agent_1"].set_logger(configure(str(tmp_path / "own"), ["csv"]))
    team.learn(36, log_interval=1)
    means, alone = rows(tmp_path / "logs" / "team"), rows(tmp_path / "logs" / "agent_0")
    assert len(means) == len(alone) == len(rows(tmp_path / "own")) == 2
    assert [float(row["rollout/ep_rew_mean"]) for row in means] == [float(row["rollout/ep_rew_mean"]) for row in alone]


class NamedEnv(TinyEnv):
    """A TinyEnv whose agents have other names."""

    def __init__(self, names):
        super().__init__(sizes=[3] * len(names))
        own = dict(zip(self.possible_agents, names, strict=True))
        for by_agent in ("sizes", "numbers", "lifetimes", "observation_spaces", "action_spaces"):
            setattr(self, by_agent, {own[agent]: value for agent, value in getattr(self, by_agent).items()})
        self.possible_agents = list(names)


def test_agents_with_any_names_log_to_folders_of_their_own(tmp_path):
    absolute = str(tmp_path / "absolute")
    folders = {
        "team": "%74eam",
        "..": "%2E%2E",
        "../outside": "%2E.%2Foutside",
        absolute: absolute.replace("/", "%2F"),
        "a/b": "a%2Fb",
        "a%2Fb": "a%252Fb",
        "a": "a",
        "ally 0": "ally 0",
        "\u00e9l\u00e8ve": "\u00e9l\u00e8ve",
    }
    env = dm2.vectorize(lambda: NamedEnv(list(folders)), 2)
    options = {**SMALL, **ON_POLICY[PPO]}
    IndependentLearners(PPO, env, seed=0, log_dir=tmp_path / "logs", **options).learn(24, log_interval=1)
    assert os.listdir(tmp_path) == ["logs"]
    assert set(os.listdir(tmp_path / "logs")) == {"team", *folders.values()}
    of_agents = {agent: rows(tmp_path / "logs" / folder) for agent, folder in folders.items()}
    means = rows(tmp_path / "logs" / "team")
    for log in (means, *of_agents.values()):
        assert len(log) == 2
        assert all(None not in row for row in log)  # no row is longer than the header
    expected = np.mean([float(own[-1]["train/loss"]) for own in of_agents.values()])
    assert float(means[-1]["train/loss"]) == pytest.approx(expected, rel=1e-5)


def test_tensorboard_logs_of_agents_with_any_names_are_apart(tmp_path):
    env = dm2.vectorize(lambda: NamedEnv(["team", "../outside"]), 2)
    options = {**SMALL, **ON_POLICY[PPO]}
    IndependentLearners(PPO, env, seed=0, tensorboard_log=str(tmp_path / "logs"), **options).learn(12, tb_log_name="run")
    assert os.listdir(tmp_path) == ["logs"]
    found = {path.relative_to(tmp_path / "logs").as_posix() for path in (tmp_path / "logs").glob("*/*")}
    assert found == {"team/run_1", "%74eam/run_1", "%2E.%2Foutside/run_1"}


def test_a_folder_belongs_to_one_name():
    names = [
        "team",
        "Team",
        "%74eam",
        ".",
        "..",
        "...",
        "%",
        "a",
        "a.",
        "a ",
        "a%2E",
        "a\\b",
        "c:d",
        "a\x00b",
        "a\nb",
        "\udc80",
    ]
    folders = [folder_of(name) for name in names]
    assert len({*folders, folder_of("")}) == len(names) + 1
    assert not {"team", "TEAM", "", ".", ".."} & {*folders, folder_of("")}
    assert not any(set(folder) & set('/\\:*?"<>|\x00\n') for folder in folders)
    assert [unquote(folder, errors="surrogatepass") for folder in folders] == names
    assert [folder_of(name) for name in ("agent_0", "walker-1", "ally 2", "p.3")] == ["agent_0", "walker-1", "ally 2", "p.3"]


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


def test_logs_go_to_a_folder_per_agent(tmp_path):
    team = IndependentLearners(
        PPO, venv(), seed=0, matcher=matcher(), coefficient=0.5, log_dir=tmp_path, n_steps=6, batch_size=6, **SMALL
    )
    team.learn(54, log_interval=1)
    header = (tmp_path / "agent_1" / "progress.csv").read_text().splitlines()[0].split(",")
    assert {"dm2/env_reward", "dm2/gail_reward", "dm2/loss", "dm2/expert_accuracy", "rollout/ep_rew_mean"} <= set(header)
    assert list((tmp_path / "agent_0").glob("events.out.tfevents*"))


def test_an_online_run_logs_the_means_since_the_last_log_and_the_newest_metrics(tmp_path):
    steps = []
    team = IndependentLearners(
        DQN,
        venv(),
        seed=0,
        matcher=matcher(),
        coefficient=0.5,
        update_every=18,
        log_dir=tmp_path,
        learning_starts=100,
        buffer_size=100,
        **SMALL,
    )
    team._lockstep.listeners.append(steps.append)
    for chunk in (60, 60):  # what was not logged in the first is in the next
        team.learn(chunk, log_interval=4, reset_num_timesteps=not team.num_timesteps)
    for k, agent in enumerate(team.agents):
        with (tmp_path / agent / "progress.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) > 3
        assert {"dm2/loss", "dm2/expert_accuracy", "dm2/offset"} <= set(rows[-1])
        first = 0
        for row in rows:
            end = int(row["time/total_timesteps"]) // 3
            live = np.stack([step.alive[:, k] for step in steps[first:end]])
            if live.any():
                for name in ("env_reward", "gail_reward"):
                    paid = np.stack([step.infos[name][:, k] for step in steps[first:end]])
                    assert float(row[f"dm2/{name}"]) == pytest.approx(paid[live].mean(), rel=1e-4, abs=1e-5)
            first = end
    newest = team._lockstep.env.metrics["expert_accuracy/agent_0"]
    assert team.models["agent_0"].logger.name_to_value.get("dm2/expert_accuracy", newest) == newest


def test_tensorboard_log_is_a_folder_per_agent(tmp_path):
    IndependentLearners(PPO, venv(), seed=0, n_steps=6, batch_size=6, tensorboard_log=str(tmp_path), **SMALL).learn(18)
    assert {path.name for path in tmp_path.iterdir()} == {"agent_0", "agent_1", "team"}


def test_progress_bar_counts_environment_steps(capsys):
    IndependentLearners(PPO, venv(), seed=0, n_steps=6, batch_size=6, **SMALL).learn(36, progress_bar=True)
    captured = capsys.readouterr()
    assert "36/36" in captured.out + captured.err


def test_logging_without_tensorboard_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"package 'tensorboard', which is not installed: run pip install"):
        IndependentLearners(PPO, venv(), log_dir=tmp_path, n_steps=6, batch_size=6, **SMALL)
