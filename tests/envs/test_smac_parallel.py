"""SMAC's environment on a double of ``StarCraft2Env``: observations, options, and ordinary ends of episodes."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pettingzoo import ParallelEnv

from tests.helpers.smac_envs import EAST, NO_OP, STOP, make, play, stop_all


def test_it_is_a_parallel_env():
    assert isinstance(make(), ParallelEnv)


# --- observations -----------------------------------------------------------------------------------------------------


def test_last_action_and_agent_id_follow_smacs_features():
    env, bare = make(seed=1), make(seed=1, agent_id=False, last_action=False)
    only_id, only_last = make(seed=1, last_action=False), make(seed=1, agent_id=False)
    views = [each.reset()[0] for each in (env, bare, only_id, only_last)]
    for actions in (None, [EAST, STOP, 3], [STOP, EAST, EAST]):
        if actions is not None:
            joint = dict(zip(env.possible_agents, actions, strict=True))
            views = [each.step(joint)[0] for each in (env, bare, only_id, only_last)]
        for k, agent in enumerate(env.possible_agents):
            full, own, with_id, with_last = (view[agent]["observation"] for view in views)
            last = np.zeros(9) if actions is None else np.eye(9)[actions[k]]
            assert_array_equal(own, bare.game.smac.get_obs_agent(k))
            assert_array_equal(full, np.concatenate([own, last, np.eye(3)[k]]))
            assert_array_equal(with_id, np.concatenate([own, np.eye(3)[k]]))
            assert_array_equal(with_last, np.concatenate([own, last]))
    observations, _ = env.reset()
    assert not observations["marine_0"]["observation"][-12:-3].any()  # of the episode before


def test_with_smacs_own_tactics_the_last_action_is_the_one_that_was_played():
    env = make(heuristic_ai=True)
    env.reset()
    observations = env.step(stop_all(env))[0]
    assert np.argmax(observations["marine_0"]["observation"][-12:-3]) == 5  # the double's highest legal one: west


@pytest.mark.parametrize(
    "options",
    [
        {"obs_timestep_number": True},
        {"obs_instead_of_state": True, "obs_timestep_number": True},
        {"state_last_action": False},
    ],
)
def test_sizes_are_what_smac_really_gives(options):
    env = make(max_steps=4, **options)
    observations, _ = env.reset()
    for _ in range(4):
        assert env.state_space.contains(env.state())
        for agent, seen in observations.items():
            assert env.observation_space(agent).contains(seen)
        observations = play(env, 1)[0]
    if options.get("obs_timestep_number"):
        own = observations["marine_0"]["observation"][: env._own_size]
        assert own[-1] == 1.0


def test_state_is_smacs():
    env = make()
    with pytest.raises(RuntimeError, match=r"call reset\(\)"):
        env.state()
    env.reset()
    play(env, 2)
    assert_array_equal(env.state(), env.game.smac.get_state())


# --- the paper's options ----------------------------------------------------------------------------------------------


def test_defaults_are_those_of_the_papers_runs():
    game = make("5m_vs_6m").game.smac
    assert (game.difficulty, game.episode_limit, game.reward_scale, game.reward_scale_rate) == ("7", 70, True, 20)
    assert make("5m_vs_6m", difficulty="3", reward_scale_rate=10).game.smac.reward_scale_rate == 10


@pytest.mark.parametrize(
    "option",
    [{"difficulty": "10"}, {"difficulty": 7}, {"timeout": 0}, {"timeout": float("inf")}, {"max_steps": 2.5}],
    ids=str,
)
def test_options_are_validated(option):
    ((name, value),) = option.items()
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        make(**option)


def test_continuing_episode_is_not_a_choice():
    with pytest.raises(ValueError, match="continuing_episode cannot be chosen"):
        make(continuing_episode=False)


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_draw_is_a_termination_without_a_win():
    env = make()
    env.reset()
    process = env.game.smac._sc2_proc
    process.fight = process.units.clear
    observations, _, terminations, truncations, infos = env.step(stop_all(env))
    assert all(terminations.values())
    assert not any(truncations.values())
    assert not any(info["battle_won"] or info["alive"] or info["broken"] for info in infos.values())
    assert all(np.flatnonzero(seen["action_mask"]).tolist() == [NO_OP] for seen in observations.values())


def test_at_the_end_nothing_but_standing_still_is_legal():
    env = make(max_steps=2, attributes={"passive": True})
    env.reset()
    observations = play(env, 2)[0]
    assert all(np.flatnonzero(seen["action_mask"]).tolist() == [STOP] for seen in observations.values())
