import numpy as np

import dm2_wrappers as dm2
from dm2_wrappers.vector import MultiAgentVectorEnv
from dm2_wrappers.vector.base import EpisodeClock, joint_ends, outcomes, present_after, present_at_reset
from tests.helpers.tiny_envs import TinyEnv


def test_who_acts_next_where_the_environment_does_not_report_it():
    terminations = np.array([[False, True, False], [True, True, False], [False, False, False]])
    truncations = np.array([[False, False, False], [False, False, True], [True, False, True]])
    expected = [[True, False, True], [True, True, True], [False, True, False]]  # the second one has begun a new episode
    assert present_after(terminations, truncations, {}).tolist() == expected
    assert joint_ends(terminations, truncations).tolist() == [False, True, False]
    reported = np.array([[1, 0, 0]] * 3)
    assert present_after(terminations, truncations, {"present": reported}).tolist() == [[True, False, False]] * 3


def test_who_acts_first():
    alive = np.array([[True, False]])
    assert present_at_reset({"alive": alive}).tolist() == [[True, True]]
    assert present_at_reset({"alive": alive, "present": np.array([[0, 1]])}).tolist() == [[False, True]]


def test_an_outcome_is_known_where_it_is_reported():
    won, alive = np.array([True, False, False]), np.ones((3, 2), bool)
    assert outcomes({"battle_won": won, "_battle_won": np.array([True, False, True])}).tolist() == [1, -1, 0]
    assert outcomes({"battle_won": won}).tolist() == [1, 0, 0]  # an environment that does not say where: everywhere
    assert outcomes({"alive": alive}).tolist() == [-1, -1, -1]
    assert outcomes({"alive": alive}).dtype == outcomes({"battle_won": won}).dtype == np.int8


def test_the_clock_counts_the_steps_before_each_step():
    clock, times = EpisodeClock(), []
    for ended in ([False, False], [True, False], [False, True], [False, False]):
        times.append(clock.tick(np.array(ended)).tolist())
    assert times == [[0, 0], [1, 1], [0, 2], [1, 0]]
    clock.restart()
    assert clock.tick(np.array([False, False])).tolist() == [0, 0]


def test_an_environment_without_a_time_limit_of_its_own_says_none():
    assert MultiAgentVectorEnv.max_steps is None
    assert MultiAgentVectorEnv.render_mode is None
    venv = dm2.vectorize(lambda: TinyEnv(sizes=(2, 2)), 2)
    assert venv.max_steps is None


def test_options_of_a_reset_reach_every_environment():
    class Remembers(TinyEnv):
        def reset(self, seed=None, options=None):
            received.append(options)
            return super().reset(seed=seed)

    received = []
    venv = dm2.vectorize(lambda: Remembers(sizes=(2, 2)), 2)
    received.clear()
    venv.reset(seed=0, options={"map": "b"})
    venv.reset()
    assert received == [{"map": "b"}, {"map": "b"}, None, None]
