"""Three agents on a grid with observations in [0, 1]: blind discriminators, and standardized ones that see."""

import warnings

import grid
import numpy as np
import pytest
from pettingzoo.test import parallel_api_test

import dm2_wrappers as dm2


def test_the_grid_is_a_parallel_env_that_its_experts_solve():
    parallel_api_test(grid.Grid(), num_cycles=100)
    demos = dm2.Demonstrations.record(grid.Grid(), grid.expert, 200, seed=0)
    assert demos.mean_return == 1.0
    assert 6.2 < demos.mean_length < 7.2
    env = grid.Grid(scale=6.0, cells=3)
    env.reset(seed=0)
    env.places, env.goals = np.array([[0, 0], [2, 1], [1, 1]]), np.array([[1, 2], [2, 1], [0, 1]])
    observations, rewards, terminations, truncations, _ = env.step({"red": 1, "green": 0, "blue": 2})
    assert observations["red"].tolist() == [3.0, 0.0, 3.0, 6.0]
    assert (rewards["red"], terminations["red"], truncations["red"]) == (0.0, False, False)
    env.step({"red": 3, "green": 0, "blue": 0})
    _, rewards, terminations, *_ = env.step({"red": 3, "green": 0, "blue": 0})
    assert (set(rewards.values()), set(terminations.values()), env.agents) == ({1.0}, {True}, [])


def test_the_reward_falls_with_the_distance_only_where_observations_are_standardized():
    options = {"updates": 20, "seed": 0}
    with pytest.warns(UserWarning, match="still cannot tell the experts"):
        blind, metrics = grid.reward_by_distance(**options)
    assert abs(blind[0] - blind[8]) < 0.15
    assert metrics["separation/red"] < 0.4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paid, metrics = grid.reward_by_distance(standardize=True, **options)
    assert paid[0] - paid[4] > 0.5
    assert paid[4] - paid[8] > 0.5
    assert metrics["separation/red"] > 0.8


def test_a_team_learns_on_standardized_observations_and_not_on_raw_ones():
    after = {}
    for standardize in (True, False):
        team = grid.team_on(cells=5, limit=12, standardize=standardize)
        after[standardize] = grid.final_distance(team.learn(13 * 768), 5, 12)
    # Random teams end about 3.4 cells from their goals.
    assert after[True] < 2.2
    assert after[False] > 2.8


def test_test_episodes_are_seeded():
    team = grid.team_on(cells=5, limit=12)
    distances = [grid.final_distance(team, 5, 12, episodes=3, seed=seed) for seed in (0, 0, 1)]
    assert distances[0] == distances[1] != distances[2]
