"""The loop that recording and evaluation share: quotas, presence, and what a policy is told."""

import numpy as np
import pytest

import dm2_wrappers as dm2
from dm2_wrappers.episodes import Quota, play
from tests.helpers.tiny_envs import TinyEnv, ToldEnv


class Counting:
    """Plays each sub-environment's number of steps so far, modulo 3; hears where episodes begin."""

    def __init__(self):
        self.calls, self.starts, self.seen = 0, [], []

    def start_episode(self, started):
        self.starts.append((self.calls, started.tolist()))

    def __call__(self, observations, infos):
        self.seen.append(infos["alive"].copy())
        self.calls += 1
        return np.full(observations.shape[:2], self.calls % 3)


def test_every_sub_environment_plays_the_same_number_and_broken_ones_again():
    quota = Quota(5, 2)
    assert quota.remaining.tolist() == [3, 2]
    assert quota.keep(0, broken=False)
    assert not quota.keep(0, broken=True)
    assert quota.remaining.tolist() == [2, 2]
    quota.broken = 10
    with pytest.raises(RuntimeError, match="11 episodes broke before 5 complete ones were played"):
        quota.keep(1, broken=True)


def test_steps_are_what_was_seen_before_the_action_and_the_teams_reward():
    env = dm2.vectorize(lambda: TinyEnv(sizes=(2, 2), limit=4, lifetimes=(None, 2), wins=True), 1)
    policy = Counting()
    first, second = play(env, policy, 2, 0, keep_steps=True)
    assert (first.length, first.won, second.won) == (4, True, False)
    actions = [1, 2, 0, 1]
    assert [step.observations[0].tolist() for step in first.steps] == [[0, 0], [1, 1], [2, 2], [3, 0]]
    assert [step.alive.tolist() for step in first.steps] == [[True, True]] * 2 + [[True, False]] * 2
    assert [step.actions[0] for step in first.steps] == actions
    assert [step.actions[1] for step in first.steps] == [1, 2, 0, 0]  # it is absent from the third step on
    # The sum of the present agents' actions, the same for both; 10 more for the win.
    assert [step.reward for step in first.steps] == [2, 4, 0, 1 + 10]
    assert first.team_return == 17
    assert not first.steps[2].observations[1].any()


def test_a_policy_hears_of_every_episode_but_those_that_are_not_played():
    lengths = iter([2, 3])
    env = dm2.vectorize(lambda: TinyEnv(sizes=(2, 2), limit=next(lengths)), 2)
    policy = Counting()
    assert [episode.length for episode in play(env, policy, 4, 0)] == [2, 3, 2, 3]
    assert policy.starts == [(0, [True, True]), (2, [True, False]), (3, [False, True]), (4, [True, False])]
    assert policy.calls == 6


def test_an_episode_whose_outcome_is_not_reported_is_neither_won_nor_lost():
    env = dm2.vectorize(lambda: ToldEnv(sizes=(2, 2), limit=1), 2)
    played = list(play(env, Counting(), 8, 0))
    assert [episode.won for episode in played[::2]] == [True, None, False, None]
    assert [episode.won for episode in played[1::2]] == [None, False, None, True]


def test_without_a_mask_every_episode_that_ends_reports_its_outcome():
    class Unmasked(dm2.MultiAgentVectorWrapper):
        def step(self, actions):
            *results, infos = super().step(actions)
            del infos["_battle_won"]
            return *results, infos

    env = Unmasked(dm2.vectorize(lambda: ToldEnv(sizes=(2, 2), limit=1), 2))
    assert [episode.won for episode in play(env, Counting(), 4, 0)] == [True, False, False, False]


def test_kept_steps_do_not_keep_the_arrays_of_all_sub_environments():
    env = dm2.vectorize(lambda: TinyEnv(sizes=(2, 2), limit=4), 3)
    for episode in play(env, Counting(), 3, 0, keep_steps=True):
        for step in episode.steps:
            assert all(array.base is None for array in (step.observations, step.alive, step.actions))
