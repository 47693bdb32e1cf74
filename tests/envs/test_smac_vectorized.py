"""SMAC's environment in several processes, on a double of ``StarCraft2Env``."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import dm2_wrappers as dm2
from dm2_wrappers.envs import smac
from tests.helpers.processes import children, gone, offspring
from tests.helpers.smac_double import StarCraft2Env
from tests.helpers.smac_envs import NO_OP, STOP, double

linux = pytest.mark.skipif(not Path("/proc/self").exists(), reason="asks Linux for the processes that a worker has started")


def vector(num_envs=2, attributes=None, **options):
    return smac.vector_env("3m", num_envs, simulator=double(**(attributes or {})), progress_bar=False, **options)


def idle(observations, infos):
    return np.where(infos["alive"], STOP, NO_OP)


CRASHES = {"crash_after": (14, 14, 14, 14, 14, 14), "passive": True}


def test_a_vector_environments_broken_episodes_are_counted_and_the_others_go_on():
    with vector(attributes=CRASHES, max_steps=10) as venv:
        observations, infos = venv.reset(seed=3)
        ends = []
        for t in range(1, 30):
            before = observations
            observations, rewards, terminations, truncations, infos = venv.step(idle(observations, infos))
            if truncations.any():
                ends.append((t, infos["broken"].tolist()))
            for i in np.flatnonzero(infos["broken"]):
                assert truncations[i].all()
                assert not terminations[i].any()
                assert not rewards[i].any()
                assert_array_equal(infos["final_obs"][i], before[i])
                assert not infos["battle_won"][i]
                assert infos["alive"][i].all()  # of the next episode
        # A reset within a game is a request, too: 10 steps, the reset, and the third step after it.
        assert ends == [(10, [False] * 2), (13, [True] * 2), (23, [False] * 2), (26, [True] * 2)]
        assert venv.broken_episodes == 4


def test_broken_episodes_are_neither_recorded_nor_evaluated_nor_trained_on():
    from sb3_contrib import MaskablePPO

    with vector(attributes=CRASHES, max_steps=10) as venv:
        demos = dm2.Demonstrations.record(venv, idle, 6, seed=0)
        assert venv.broken_episodes >= 2
        assert len(demos) == 6
        assert demos.observations("marine_0").shape[0] == 6 * 10  # each of its full length

        matcher = dm2.DistributionMatcher(demos, updates=1, seed=0)
        team = dm2.sb3.IndependentLearners(
            MaskablePPO, venv, matcher=matcher, coefficient=0.1, seed=0, n_steps=26, batch_size=52, device="cpu"
        )
        team.learn(2 * 26)
        assert matcher._recorded.transitions.counts.tolist() == [2 * 20] * 3
        for model in team.models.values():
            assert model.rollout_buffer.broken.sum(axis=0).tolist() == [6, 6]
            assert [end["l"] for end in model.ep_info_buffer] == [10] * 4
        assert team.evaluate(venv, episodes=4, seed=1)["length"] == 10


@linux
def test_a_worker_that_is_killed_takes_its_starcraft_along():
    with vector() as venv:
        venv.reset()
        pids = children(venv)
        starcrafts = [pid for worker in pids for pid in offspring(worker)]
        assert len(starcrafts) == 2
        os.kill(pids[0], signal.SIGKILL)
        with pytest.raises(RuntimeError, match=r"worker 0 .* ended without an answer"):
            venv.step(np.full((2, 3), STOP))
    assert all(gone(pid) for pid in [*pids, *starcrafts])


@linux
def test_a_worker_that_is_told_to_stop_closes_its_starcraft():
    with vector(num_envs=1) as venv:
        venv.reset()
        (pid,) = children(venv)
        (starcraft,) = offspring(pid)
        os.kill(pid, signal.SIGTERM)
        assert gone(starcraft)


def test_options_of_a_vector_environment_are_checked_before_any_process_starts():
    with pytest.raises(ValueError, match="death must be"):
        vector(death="none")
    with pytest.raises(TypeError, match="no_such_option"):
        vector(no_such_option=1)


def test_an_unavailable_action_of_a_living_agent_becomes_stop_and_of_a_dead_one_no_op():
    """SMAC would refuse the no-op of a living agent."""
    with vector(num_envs=1, invalid_action="noop") as venv, vector(num_envs=1) as twin:
        for each in (venv, twin):
            each.reset(seed=3)
        seen = []
        for _ in range(40):
            alive = venv._alive.copy()
            seen += alive.ravel().tolist()
            mine, theirs = venv.step(np.full((1, 3), 99)), twin.step(np.where(alive, STOP, NO_OP))
            assert_array_equal(mine[0], theirs[0])
            assert_array_equal(mine[1], theirs[1])
        assert set(seen) == {True, False}


def test_seeds_of_a_vector_environment_and_the_bar(capsys):
    options = {"simulator": StarCraft2Env}
    with (
        smac.vector_env("3m", 2, seed=5, **options) as one,
        smac.vector_env("3m", 2, progress_bar=False, **options) as other,
    ):
        first = one.reset()[0]
        assert "starting StarCraft (smac:3m)" in capsys.readouterr().err
        assert_array_equal(first, other.reset(seed=5)[0])
        assert not np.array_equal(first, one.reset()[0])
        assert capsys.readouterr().err == ""
