"""Vector environments that return the same arrays at every step, changed in place, and callers that change them."""

from __future__ import annotations

import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN, PPO

import dm2_wrappers as dm2
from dm2_wrappers.lockstep import Lockstep
from dm2_wrappers.matching.schedules import VarianceShare
from tests.helpers import sb3_teams, tiny_matchers
from tests.helpers.locksteps import loops_of
from tests.helpers.tiny_envs import TinyEnv

SOME_LEAVE = {"sizes": (3, 2), "lifetimes": (2, None), "limit": 4}


class Reusing(dm2.MultiAgentVectorWrapper):
    """Puts each step's numbers into the arrays of the first one."""

    def _reused(self, results):
        *arrays, infos = results
        store = self.__dict__.setdefault("store", {})
        for name, value in [*enumerate(arrays), *infos.items()]:
            kept = store.setdefault((name, value.shape), value)
            kept[...] = value
        return (
            *(store[i, array.shape] for i, array in enumerate(arrays)),
            {name: store[name, value.shape] for name, value in infos.items()},
        )

    def reset(self, **options):
        return self._reused(self.env.reset(**options))

    def step(self, actions):
        return self._reused(self.env.step(actions))


def venv(reusing):
    made = dm2.vectorize(lambda: TinyEnv(**SOME_LEAVE), 2)
    return Reusing(made) if reusing else made


def matcher(**options):
    demos = dm2.Demonstrations.record(TinyEnv(**SOME_LEAVE), lambda seen: dict.fromkeys(seen, 1), 3, seed=0)
    return dm2.DistributionMatcher(demos, updates=2, batch_size=8, seed=0, **options)


@pytest.mark.parametrize(
    "options", [{}, {"inputs": "transition"}, {"inputs": "state-action"}, {"ends": "absorbing", "max_steps": 4}]
)
def test_the_wrapper_pays_and_records_the_same(options):
    results = []
    for reusing in (False, True):
        env = dm2.DM2VectorEnv(venv(reusing), matcher(**options), coefficient=0.5, update_every=6)
        env.reset(seed=0)
        paid = [env.step(np.ones((2, 2), int))[1].copy() for _ in range(9)]
        results.append((np.stack(paid), env.state_dict()))
    assert np.array_equal(results[0][0], results[1][0])
    assert tiny_matchers.same(results[0][1], results[1][1])


def test_a_caller_may_change_what_the_wrapper_returns():
    paid = []
    for scale in (1.0, 0.01):
        env = dm2.DM2VectorEnv(venv(False), matcher(), coefficient=0.5, update_every=6)
        observations, infos = env.reset(seed=0)
        for _ in range(9):
            observations *= scale
            infos["alive"] &= scale == 1.0
            observations, rewards, _, _, infos = env.step(np.ones((2, 2), int))
            paid.append(rewards)
    assert np.array_equal(paid[:9], paid[9:])


def test_recordings_are_the_same():
    one, other = (
        dm2.Demonstrations.record(venv(reusing), lambda seen, infos: np.ones(seen.shape[:2], int), 4, seed=0)
        for reusing in (False, True)
    )
    for name in ("padded_observations", "alive", "rewards", "actions"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (PPO, {"n_steps": 8, "batch_size": 8, "n_epochs": 1}),
        (MaskablePPO, {"n_steps": 8, "batch_size": 8, "n_epochs": 1}),
        (DQN, {"learning_starts": 4, "batch_size": 4, "buffer_size": 50}),
    ],
)
def test_learners_in_lockstep_learn_the_same(algorithm, options):
    results = []
    for reusing in (False, True):
        own = matcher(inputs="transition")
        # The schedule reads the environment's rewards at the end of a rollout.
        schedule = VarianceShare(0.5, largest=100)
        team = dm2.sb3.IndependentLearners(
            algorithm, venv(reusing), matcher=own, coefficient=schedule, seed=0, **sb3_teams.SMALL, **options
        )
        team.learn(32)
        results.append((sb3_teams.weights(team), own.state_dict(), team.current_coefficient))
    sb3_teams.assert_equal_weights(results[0][0], results[1][0])
    assert tiny_matchers.same(results[0][1], results[1][1])
    assert results[0][2] == results[1][2]


def test_a_shared_policy_learns_the_same():
    results = []
    for reusing in (False, True):
        own = matcher()
        env = dm2.sb3.SharedPolicyVecEnv(venv(reusing))
        model = PPO("MlpPolicy", env, seed=0, n_steps=8, batch_size=8, n_epochs=1, **sb3_teams.SMALL)
        schedule = VarianceShare(0.5, largest=100)
        model.learn(64, callback=dm2.sb3.SharedPolicyDM2(own, coefficient=schedule))
        results.append(({"all": model.policy.state_dict()}, own.state_dict(), schedule.state_dict()))
    sb3_teams.assert_equal_weights(results[0][0], results[1][0])
    assert tiny_matchers.same(list(results[0][1:]), list(results[1][1:]))


def test_a_loop_may_use_its_arrays_again_for_a_joint_rollout():
    rollout = dm2.JointRollout(tiny_matchers.make())
    observations, alive = tiny_matchers.rollout(steps=4)
    kept = [np.empty_like(observations[0]), np.empty_like(alive[0]), np.zeros(2, bool)]
    for t in range(4):
        kept[0][...], kept[1][...], kept[2][...] = observations[t], alive[t], t == 1
        rollout.append(*kept)
    given = tiny_matchers.make()
    given.record(observations, alive)
    given.update()
    assert np.array_equal(rollout.gail_rewards(), given.rewards(observations, alive))


def test_what_an_agents_loop_keeps_stays_as_it_was():
    def body(env, agent):
        return [env.reset(), *(env.step(np.ones(2, int)) for _ in range(5))]

    kept = []
    for reusing in (False, True):
        lockstep = Lockstep(venv(reusing), seed=0)
        kept.append(lockstep.run(loops_of(lockstep, body)))
    for agent, steps in kept[0].items():
        for one, other in zip(steps, kept[1][agent], strict=True):
            for mine, reused in zip(one[:-1], other[:-1], strict=True):
                np.testing.assert_array_equal(mine, reused)
            assert one[-1].keys() == other[-1].keys()
            for name, value in one[-1].items():
                np.testing.assert_array_equal(value, other[-1][name], err_msg=name)
