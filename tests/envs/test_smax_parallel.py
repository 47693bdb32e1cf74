"""SMAX as a ``ParallelEnv``: against PettingZoo's own tests, the vector environment, and a plain loop over JaxMARL."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pettingzoo.test import parallel_api_test, parallel_seed_test

from dm2_wrappers.envs import smax
from tests.helpers.smax_battles import FIRST_ATTACK, STOP, random_actions, stop_all

close = {"rtol": 1e-5, "atol": 1e-5}


def place(venv, sides):
    """Put the units of these sides (0 allies, 1 enemies) on the deadly wall of every copy."""
    units = venv._state.state
    on_wall = jnp.isin(units.unit_teams, jnp.array(sides))[..., None]
    venv._state = venv._state.replace(state=units.replace(unit_positions=jnp.where(on_wall, 0.0, units.unit_positions)))


@pytest.mark.parametrize("death", ["absorb", "remove"])
def test_pettingzoo_api(death):
    parallel_api_test(smax.parallel_env("3m", death=death, invalid_action="noop"), num_cycles=150)


@pytest.mark.parametrize("death", ["absorb", "remove"])
def test_pettingzoo_seed(death):
    parallel_seed_test(lambda: smax.parallel_env("3m", death=death, invalid_action="noop"), num_cycles=60)


# --- the same episode, however it is played ---------------------------------------------------------------------------


@pytest.mark.parametrize("death", ["absorb", "remove"])
@pytest.mark.parametrize("copies", [1, 3])
def test_parallel_and_vector_play_the_same(copies, death):
    venv = smax.vector_env("3m", copies, death=death)
    envs = [smax.parallel_env("3m", death=death) for _ in range(copies)]
    rng = np.random.default_rng(0)
    observations, infos = venv.reset(seed=7)
    views = [env.reset(seed=7 + i) for i, env in enumerate(envs)]
    ended = np.zeros(copies, int)
    for _ in range(110):
        for i, (env, (seen, said)) in enumerate(zip(envs, views, strict=True)):
            assert_allclose(env.state(), infos["state"][i], **close)
            for k, agent in enumerate(venv.possible_agents):
                if agent in env.agents:
                    assert_allclose(seen[agent]["observation"], observations[i, k], **close)
                    assert_array_equal(seen[agent]["action_mask"], infos["action_mask"][i, k])
                    assert said[agent]["alive"] == infos["alive"][i, k]
        actions = random_actions(infos["action_mask"], rng)
        observations, rewards, terminations, truncations, infos = venv.step(actions)
        done = (terminations | truncations).all(axis=1)
        for i, env in enumerate(envs):
            present = list(env.agents)
            joint = {agent: actions[i, env.possible_agents.index(agent)] for agent in present}
            seen, paid, terminated, truncated, said = env.step(joint)
            assert list(seen) == list(paid) == list(terminated) == list(truncated) == list(said) == present
            for k, agent in enumerate(env.possible_agents):
                if agent not in present:
                    assert terminations[i, k]
                    assert rewards[i, k] == 0
                    continue
                assert paid[agent] == pytest.approx(rewards[i, k], abs=1e-4)
                assert terminated[agent] == terminations[i, k]
                assert truncated[agent] == truncations[i, k]
                assert_allclose(seen[agent]["observation"], infos["final_obs"][i, k], **close)
                assert said[agent]["alive"] == infos["final_alive"][i, k]
                assert said[agent]["battle_won"] == infos["battle_won"][i]
                assert said[agent]["broken"] is False
            assert_allclose(env.state(), infos["final_state"][i], **close)
            assert (not env.agents) == done[i]
            if done[i]:
                assert np.abs(observations[i] - infos["final_obs"][i]).max() > 0.01  # the next episode has begun
                seen, said = env.reset()
                ended[i] += 1
            else:
                assert_array_equal(observations[i], infos["final_obs"][i])
            views[i] = seen, said
    assert (ended >= 2).all()


def test_against_a_plain_loop_over_jaxmarl():
    from jaxmarl.environments.smax import HeuristicEnemySMAX, map_name_to_scenario

    oracle = HeuristicEnemySMAX(scenario=map_name_to_scenario("3m"))
    env = smax.parallel_env("3m")
    rng = np.random.default_rng(1)

    def compare(seen, observations, state):
        masks = oracle.get_avail_actions(state)
        for agent in env.possible_agents:
            assert_allclose(seen[agent]["observation"], observations[agent], **close)
            assert_array_equal(seen[agent]["action_mask"], masks[agent])
        assert_allclose(env.state(), observations["world_state"], **close)

    key, reset_key = jax.random.split(jax.random.key(11))
    observations, state = oracle.reset(reset_key)
    seen, _ = env.reset(seed=11)
    episodes = 0
    while episodes < 3:
        compare(seen, observations, state)
        actions = {agent: int(random_actions(seen[agent]["action_mask"], rng)) for agent in env.agents}
        key, step_key, reset_key = jax.random.split(key, 3)
        observations, state, rewards, dones, _ = oracle.step_env(step_key, state, actions)
        seen, paid, terminations, truncations, infos = env.step(actions)
        allies, enemies = np.split(np.asarray(state.state.unit_alive), [3])
        for k, agent in enumerate(env.possible_agents):
            assert paid[agent] == pytest.approx(10 * float(rewards[agent]), abs=1e-4)
            assert infos[agent]["alive"] == allies[k]
            assert infos[agent]["battle_won"] == (allies.any() and not enemies.any())
            assert (terminations[agent] or truncations[agent]) == bool(dones["__all__"])
            assert truncations[agent] == (bool(dones["__all__"]) and allies.any() and enemies.any())
        if dones["__all__"]:
            for agent in env.possible_agents:
                assert_allclose(seen[agent]["observation"], observations[agent], **close)
            observations, state = oracle.reset(reset_key)
            seen, _ = env.reset()
            episodes += 1


def test_observations_stay_in_their_space():
    env = smax.parallel_env("3m")
    rng = np.random.default_rng(0)
    seen, _ = env.reset(seed=0)
    assert env.state_space.contains(env.state())
    for _ in range(60):
        for agent in env.agents:
            assert env.observation_space(agent).contains(seen[agent])
        actions = {agent: int(random_actions(seen[agent]["action_mask"], rng)) for agent in env.agents}
        seen, *_ = env.step(actions)
        if not env.agents:
            seen, _ = env.reset()


def test_state_before_reset():
    with pytest.raises(RuntimeError, match=r"reset\(\)"):
        smax.parallel_env("3m").state()


# --- how episodes end -------------------------------------------------------------------------------------------------


def test_time_limit_is_a_truncation():
    env = smax.parallel_env("3m", max_steps=3)
    env.reset(seed=0)
    for step in range(3):
        _, _, terminations, truncations, infos = env.step(stop_all(env))
        assert not any(terminations.values())
        assert all(truncations.values()) == any(truncations.values()) == (step == 2)
        assert not infos["ally_0"]["battle_won"]
    assert env.agents == []
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        env.step({})


@pytest.mark.parametrize(("on_the_wall", "won", "reward"), [([1], True, 20), ([0, 1], False, 10), ([0], False, 0)])
def test_win_draw_and_loss(on_the_wall, won, reward):
    env = smax.parallel_env("3m")
    env.reset(seed=0)
    place(env._vector, on_the_wall)
    _, rewards, terminations, truncations, infos = env.step(stop_all(env))
    assert all(info["battle_won"] == won for info in infos.values())
    assert_allclose(list(rewards.values()), reward, rtol=1e-5)
    assert all(terminations.values())
    assert not any(truncations.values())


def test_a_removed_agent_is_gone():
    env = smax.parallel_env("3m", death="remove")
    env.reset(seed=0)
    units = env._vector._state.state
    corner = units.unit_positions.at[0, 1].set(0.0)
    env._vector._state = env._vector._state.replace(state=units.replace(unit_positions=corner))
    observations, _, terminations, truncations, infos = env.step(stop_all(env))
    assert terminations == {"ally_0": False, "ally_1": True, "ally_2": False}
    assert not any(truncations.values())
    assert not infos["ally_1"]["alive"]
    assert not observations["ally_1"]["observation"].any()
    assert env.agents == ["ally_0", "ally_2"]
    with pytest.raises(ValueError, match="expected one action for each of"):
        env.step(dict.fromkeys(env.possible_agents, STOP))
    assert list(env.step(stop_all(env))[1]) == ["ally_0", "ally_2"]
    env.reset()
    assert env.agents == env.possible_agents


# --- actions ----------------------------------------------------------------------------------------------------------


def test_an_illegal_action_is_refused_and_changes_nothing():
    env, twin = smax.parallel_env("3m"), smax.parallel_env("3m")
    env.reset(seed=0), twin.reset(seed=0)
    for wrong in (FIRST_ATTACK, -1, 8, 1000):  # the enemy is out of range; there are eight actions
        with pytest.raises(ValueError, match=rf"action {wrong} of agent 'ally_1' .* \[0, 1, 2, 3, 4\]"):
            env.step({"ally_0": 1, "ally_1": wrong, "ally_2": 1})
    with pytest.raises(ValueError, match="expected one action for each of"):
        env.step({"ally_0": 1, "ally_1": 1})
    with pytest.raises(ValueError, match="actions must be integers"):
        env.step({"ally_0": 1.0, "ally_1": 1.0, "ally_2": 1.0})
    for _ in range(3):
        one, other = env.step(dict.fromkeys(env.agents, 1)), twin.step(dict.fromkeys(env.agents, 1))
        assert one[1:] == other[1:]
        for agent in env.agents:
            assert_array_equal(one[0][agent]["observation"], other[0][agent]["observation"])


def test_noop_stops_instead():
    env, twin = smax.parallel_env("3m", invalid_action="noop"), smax.parallel_env("3m")
    env.reset(seed=0), twin.reset(seed=0)
    one = env.step({"ally_0": 1, "ally_1": FIRST_ATTACK, "ally_2": 99})
    other = twin.step({"ally_0": 1, "ally_1": STOP, "ally_2": STOP})
    for agent in env.agents:
        assert_array_equal(one[0][agent]["observation"], other[0][agent]["observation"])
