"""IndependentLearners with real SB3 algorithms on tiny environments."""

from functools import partial

import numpy as np
import pytest
import torch
from sb3_contrib import QRDQN, TRPO, MaskablePPO
from stable_baselines3 import DQN, PPO, SAC

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.sb3_teams import ON_POLICY, SMALL, assert_equal_weights, matcher, train, venv, weights
from tests.helpers.tiny_envs import TinyEnv


@pytest.mark.parametrize("algorithm", ON_POLICY)
def test_one_seed_gives_one_team_and_coefficient_zero_is_no_matcher(algorithm):
    plain = train(algorithm)
    assert plain.num_timesteps == 54
    assert_equal_weights(weights(plain), weights(train(algorithm)))
    zero = train(algorithm, matcher=matcher(), coefficient=0.0)
    assert_equal_weights(weights(plain), weights(zero))
    some = [train(algorithm, matcher=matcher(), coefficient=1.0) for _ in range(2)]
    assert_equal_weights(weights(some[0]), weights(some[1]))
    observations = np.random.default_rng(0).normal(size=(50, 2, 4)).astype(np.float32)
    first, second = (team.matcher.rewards(observations) for team in some)
    np.testing.assert_array_equal(first, second)
    paid = weights(some[0])["agent_0"]
    assert any(not torch.equal(paid[name], value) for name, value in weights(plain)["agent_0"].items())


def test_agents_begin_unlike_and_share_nothing():
    team = train(PPO, steps=18)
    first, second = (team.models[agent] for agent in team.agents)
    assert first.policy is not second.policy
    assert first.rollout_buffer is not second.rollout_buffer
    heads = [model.policy.action_net.weight for model in (first, second)]
    assert not torch.equal(*heads)


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO, DQN, QRDQN, TRPO])
def test_any_algorithm_trains_online_or_exact_and_saves_and_loads(algorithm, tmp_path):
    kwargs = {
        PPO: {"n_steps": 6, "batch_size": 9},
        MaskablePPO: {"n_steps": 6, "batch_size": 9},
        TRPO: {"n_steps": 6, "batch_size": 18},
    }.get(algorithm, {"learning_starts": 9, "batch_size": 4, "buffer_size": 500})
    team = IndependentLearners(
        algorithm, venv(), seed=0, matcher=matcher(), coefficient=0.5, update_every=18, **SMALL, **kwargs
    )
    assert team.mode == ("online" if algorithm in (DQN, QRDQN) else "exact")
    team.learn(36)
    team.save(tmp_path / "team")
    loaded = IndependentLearners.load(tmp_path / "team", venv())
    assert_equal_weights(weights(team), weights(loaded))
    assert loaded.num_timesteps == team.num_timesteps
    loaded.learn(18, reset_num_timesteps=False)
    assert loaded.num_timesteps >= team.num_timesteps + 18


def test_a_dict_gives_each_agent_its_own_algorithm():
    algorithms = {
        "agent_0": partial(PPO, n_steps=6, batch_size=6),
        "agent_1": partial(DQN, learning_starts=5, buffer_size=100),
    }
    team = IndependentLearners(algorithms, venv(), matcher=matcher(), coefficient=0.3, update_every=18, seed=0, device="cpu")
    assert team.mode == "online"
    team.learn(36)
    assert isinstance(team.models["agent_1"], DQN)
    assert team.matcher.state_dict()["offsets"].any()


def test_continuous_actions_of_unlike_widths():
    env = dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), actions=(1, 2), continuous=True), 2)
    team = IndependentLearners(SAC, env, seed=0, learning_starts=4, batch_size=4, buffer_size=100, **SMALL)
    team.learn(12)
    assert team.evaluate(env, episodes=2, seed=0)["length"] == 5


def test_maskable_ppo_gets_masks_of_ones_where_there_are_none():
    team = train(MaskablePPO, steps=18)
    assert team.models["agent_0"].rollout_buffer.action_masks.all()
