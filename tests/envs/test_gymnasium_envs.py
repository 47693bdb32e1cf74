"""Gymnasium environments as PettingZoo ones: what the adapter passes on, by hand-made environments and real ones."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo.test import parallel_api_test, parallel_seed_test

import dm2_wrappers as dm2
from dm2_wrappers.envs import from_gymnasium


class Pair(gymnasium.Env):
    """Two agents in one Gymnasium environment: it returns what it is told to, and keeps what it gets."""

    observation_space = spaces.Tuple((spaces.Box(-9, 9, (2,)), spaces.Box(-9, 9, (3,))))
    action_space = spaces.Tuple((spaces.Discrete(2), spaces.Box(-1, 1, (1,))))

    def __init__(self, **answers):
        self.answers = {"rewards": [1, np.float64(2.5)], "terminated": False, "truncated": False, "info": {}, **answers}
        self.got = []

    def observation(self):
        return np.full(2, len(self.got), np.float32), np.full(3, 7, np.float32)

    def reset(self, *, seed=None, options=None):
        self.got = []
        self.seed, self.options = seed, options
        return self.observation(), {"begun": True}

    def step(self, action):
        self.got.append(action)
        answers = self.answers
        return self.observation(), answers["rewards"], answers["terminated"], answers["truncated"], answers["info"]


def pair(**answers):
    env = from_gymnasium(Pair(**answers), multi_agent=True)
    env.reset(seed=3, options={"easy": True})
    return env


def test_single_agent_environment_is_played_as_it_is():
    env, own = from_gymnasium(gymnasium.make("CartPole-v1")), gymnasium.make("CartPole-v1")
    observations, infos = env.reset(seed=5)
    expected, _ = own.reset(seed=5)
    assert env.agents == env.possible_agents == ["agent_0"]
    assert env.max_steps == 500
    assert env.metadata["name"] == env.env_id == "CartPole-v1"
    assert env.observation_space("agent_0") is env.env.observation_space
    assert infos == {"agent_0": {}}
    steps = 0
    while env.agents:
        np.testing.assert_array_equal(observations["agent_0"], expected)
        observations, rewards, terminations, truncations, _ = env.step({"agent_0": 1})
        expected, reward, terminated, truncated, _ = own.step(1)
        assert (rewards, terminations, truncations) == (
            {"agent_0": reward},
            {"agent_0": terminated},
            {"agent_0": truncated},
        )
        steps += 1
    assert terminated
    assert 5 < steps < 15
    assert env.step({}) == ({}, {}, {}, {}, {})


def test_time_limit_is_a_truncation():
    venv = dm2.vectorize(lambda: from_gymnasium(gymnasium.make("CartPole-v1", max_episode_steps=3)), 1)
    assert venv.max_steps == 3
    venv.reset(seed=0)
    for step in range(3):
        _, _, terminations, truncations, infos = venv.step(np.array([[step % 2]]))
    assert truncations.all()
    assert not terminations.any()
    assert infos["_final_obs"].all()


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Taxi-v3"])
def test_pettingzoos_and_our_checks_pass(name, capsys):
    parallel_api_test(from_gymnasium(gymnasium.make(name)), num_cycles=50)
    parallel_seed_test(lambda: from_gymnasium(gymnasium.make(name)), num_cycles=10)
    dm2.testing.check_dm2_env(from_gymnasium(gymnasium.make(name)))


def test_action_mask_in_info_is_used():
    venv = dm2.vectorize(lambda: from_gymnasium(gymnasium.make("Taxi-v3")), 2)
    _, infos = venv.reset(seed=0)
    own = gymnasium.make("Taxi-v3").reset(seed=0)[1]["action_mask"]
    np.testing.assert_array_equal(infos["action_mask"][0, 0], own)
    assert not own.all()


def test_tuples_become_agents():
    env = pair(truncated=True, info={"extra": 1})
    assert (env.env.seed, env.env.options) == (3, {"easy": True})
    assert env.agents == ["agent_0", "agent_1"]
    assert env.observation_space("agent_1").shape == (3,)
    assert env.action_space("agent_0") == spaces.Discrete(2)
    observations, rewards, terminations, truncations, infos = env.step({"agent_1": np.ones(1), "agent_0": 1})
    assert env.env.got == [(1, np.ones(1))]
    assert observations["agent_0"].tolist() == [1, 1]
    assert observations["agent_1"].tolist() == [7, 7, 7]
    assert rewards == {"agent_0": 1.0, "agent_1": 2.5}
    assert not any(terminations.values())
    assert all(truncations.values())
    assert env.agents == []
    infos["agent_0"]["own"] = True
    assert infos["agent_1"] == {"extra": 1}


def test_flags_may_come_for_each_agent():
    env = pair(terminated=[False, False])
    env.step({"agent_0": 0, "agent_1": np.zeros(1)})
    assert env.agents == ["agent_0", "agent_1"]
    env.env.answers["terminated"] = np.array([True, True])
    *_, terminations, truncations, _ = env.step({"agent_0": 0, "agent_1": np.zeros(1)})
    assert (terminations, truncations) == (dict.fromkeys(terminations, True), dict.fromkeys(terminations, False))
    assert env.agents == []


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"terminated": [True, False]}, "an episode must end for all agents at once"),
        ({"rewards": 1.0}, "'Pair' must return rewards of 2 agents, got 1.0"),
        ({"rewards": [1.0]}, "must return rewards of 2 agents"),
    ],
)
def test_answers_that_do_not_fit(answers, message):
    with pytest.raises(ValueError, match=message):
        pair(**answers).step({"agent_0": 0, "agent_1": np.zeros(1)})


def test_arguments_that_do_not_fit():
    with pytest.raises(TypeError, match=r"takes a gymnasium\.Env, got SyncVectorEnv; pass one environment"):
        from_gymnasium(gymnasium.make_vec("CartPole-v1", 1, vectorization_mode="sync"))
    with pytest.raises(TypeError, match=r"got str; make it with gymnasium\.make"):
        from_gymnasium("CartPole-v1")
    with pytest.raises(ValueError, match=r"needs spaces that are Tuple.*'CartPole-v1' has the observation space Box"):
        from_gymnasium(gymnasium.make("CartPole-v1"), multi_agent=True)
    with pytest.raises(ValueError, match="multi_agent must be True or False, got 2"):
        from_gymnasium(gymnasium.make("CartPole-v1"), multi_agent=2)


def test_rendering_and_closing_are_passed_on():
    env = from_gymnasium(gymnasium.make("CartPole-v1", render_mode="rgb_array"))
    env.reset(seed=0)
    assert env.render_mode == "rgb_array"
    assert env.render().shape == (400, 600, 3)
    env.close()
