"""A tabular game as an environment: PettingZoo's tests, its rates and rewards, and what runs on it."""

from __future__ import annotations

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test, parallel_seed_test

import dm2_wrappers as dm2
from dm2_wrappers import tabular
from tests.helpers.tabular_games import GAME, close, tile_starts


def test_environment_obeys_pettingzoo():
    parallel_api_test(tabular.TabularParallelEnv(GAME), num_cycles=200)
    parallel_seed_test(lambda: tabular.TabularParallelEnv(GAME))


def test_environment_plays_the_game():
    """Time limit, rewards of the joint action, one-hot states, and transitions at the game's rates."""
    reward = np.arange(12.0).reshape(2, 2, 3)
    rng = np.random.default_rng(0)
    game = tabular.random_game(rng, num_states=2, num_actions=(2, 3))
    env = tabular.TabularParallelEnv(game, reward, max_steps=4000, name="mine")
    assert env.metadata["name"] == "mine"
    observations, infos = env.reset(seed=1)
    assert infos == {"agent_0": {}, "agent_1": {}}
    seen, steps, counts = observations["agent_0"], 0, np.zeros(game.transition.shape)
    while env.agents:
        actions = {"agent_0": int(rng.integers(2)), "agent_1": int(rng.integers(3))}
        observations, rewards, terminations, truncations, _ = env.step(actions)
        now = (int(seen.argmax()), actions["agent_0"], actions["agent_1"])
        assert rewards == dict.fromkeys(env.possible_agents, reward[now])
        assert not any(terminations.values())
        seen, steps = observations["agent_1"], steps + 1
        assert seen.dtype == np.float32
        assert sorted(seen) == [0, 1]
        assert np.array_equal(seen, env.state())
        counts[(*now, int(seen.argmax()))] += 1
        assert all(over == (steps == 4000) for over in truncations.values())
    rates = counts / counts.sum(axis=-1, keepdims=True)
    close(rates, game.transition, atol=0.08)
    firsts = [env.reset()[0]["agent_0"].argmax() for _ in range(1000)]
    assert np.mean(firsts) == pytest.approx(game.start[1], abs=0.06)


def test_environment_seeds():
    env = tabular.TabularParallelEnv(GAME, max_steps=30)

    def play(seed):
        states = [env.reset(seed=seed)[0]["agent_0"].argmax()]
        while env.agents:
            states.append(env.step({"agent_0": 0, "agent_1": 0})[0]["agent_0"].argmax())
        return states

    first = play(3)
    assert first == play(3) != play(None)


def test_environment_refuses_wrong_actions():
    env = tabular.TabularParallelEnv(GAME, max_steps=1)
    with pytest.raises(RuntimeError, match="call reset"):
        env.step({"agent_0": 0, "agent_1": 0})
    env.reset(seed=0)
    with pytest.raises(ValueError, match="one action for each"):
        env.step({"agent_0": 0})
    with pytest.raises(ValueError, match="'agent_0' has the actions 0 to 1, but its action is 2"):
        env.step({"agent_0": 2, "agent_1": 2})
    env.step({"agent_0": 1, "agent_1": 2})
    assert env.agents == []


def act(policies, seed):
    rng = np.random.default_rng(seed)

    def policy(observations):
        chances = {agent: policies[int(agent[-1])][seen.argmax()] for agent, seen in observations.items()}
        return {agent: int(rng.choice(len(chance), p=chance)) for agent, chance in chances.items()}

    return policy


def test_recordings_have_the_games_visitation():
    """Monte Carlo: discounted counts of recorded episodes against the linear solve."""
    tiles = tabular.four_tiles()
    policies = [policy[0] for policy in tile_starts(5, 1)]
    env = tabular.TabularParallelEnv(tiles.game, max_steps=40)
    demos = dm2.Demonstrations.record(env, act(policies, 0), 250, seed=0)
    assert demos.env_id == "tabular"
    weights = 0.9 ** (np.arange(250 * 40) % 40)
    found = weights @ demos.padded_observations[:, 0] / weights.sum()
    close(found, tabular.visitation(tiles.game, policies), atol=0.03)


def test_wrapper_and_sb3_team_run_on_it():
    from stable_baselines3 import PPO

    tiles = tabular.four_tiles()
    env = tabular.TabularParallelEnv(tiles.game, max_steps=16)
    demos = dm2.Demonstrations.record(env, act(tabular.expert_policies(tiles.game, tiles.expert), 0), 20, seed=0)
    wrapped = dm2.DM2ParallelEnv(env, demos, coefficient=1.0)
    parallel_api_test(wrapped, num_cycles=40)
    assert np.isfinite(wrapped.update()["loss"])

    matcher = dm2.DistributionMatcher(demos, seed=0)
    team = dm2.sb3.IndependentLearners(PPO, env, matcher=matcher, coefficient=1.0, seed=0, n_steps=64, batch_size=64)
    team.learn(128)
    assert set(team.predict(env.reset(seed=0)[0])) == {"agent_0", "agent_1"}
