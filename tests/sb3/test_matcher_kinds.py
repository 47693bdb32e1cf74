"""Teams whose matcher needs more than observations: exact and online mode, and checkpoints."""

import numpy as np
import pytest
from stable_baselines3 import PPO

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners, checkpoint
from tests.helpers.sb3_teams import OPTIONS, SMALL, assert_equal_weights, demonstrations, weights
from tests.helpers.tiny_envs import TinyEnv
from tests.helpers.tiny_matchers import same

KINDS = {
    "actions": {"inputs": "state-action"},
    "transitions": {"inputs": "transition", "ends": "absorbing", "max_steps": 9},
    "absorbing": {"ends": "absorbing", "beyond_limit": True},
    "own": {},
    "own, newest": {},
}
PLAY = {"n_steps": 6, "batch_size": 6, "n_epochs": 1, "seed": 3, **SMALL}


def env():
    env = TinyEnv(**{**OPTIONS, "wins": False})
    env.max_steps = 8
    return env


def make(kind, mode="exact", **options):
    venv = dm2.vectorize(env, 3)
    own = dm2.SelfImitation(env=venv, episodes=3, prefer_newest=kind == "own, newest")
    source = own if kind.startswith("own") else demonstrations()
    given = {"updates": 2, "batch_size": 8, "seed": 0, **KINDS[kind]}
    matcher = dm2.DistributionMatcher(source, **given)
    return IndependentLearners(PPO, venv, matcher=matcher, coefficient=0.3, mode=mode, update_every=18, **PLAY, **options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_team_and_a_restored_one_go_on_alike(kind, tmp_path):
    team = make(kind)
    team.learn(18 * 3)
    team.restart_episodes()
    team.save(tmp_path / "team")
    loaded = IndependentLearners.load(tmp_path / "team", dm2.vectorize(env, 3))
    restored = make(kind).restore(tmp_path / "team")
    for each in (team, loaded, restored):
        each.learn(18 * 2, reset_num_timesteps=False)
        assert_equal_weights(weights(team), weights(each))
        assert same(team.matcher.state_dict(), each.matcher.state_dict())
        assert each.matcher.options == team.matcher.options
    if kind.startswith("own"):
        assert len(team.matcher.self_imitation) == 3
        assert checkpoint.read(tmp_path / "team").demonstrations is None
    else:
        other = make("actions" if kind != "actions" else "absorbing")
        with pytest.raises(ValueError, match=r"it was saved with (inputs|ends)="):
            other.restore(tmp_path / "team")


@pytest.mark.parametrize("kind", KINDS)
def test_online_mode_records_what_exact_mode_records(kind):
    """Until the first update both play alike."""
    states = []
    for mode in ("exact", "online"):
        team = make(kind, mode)
        team.learn(18)
        states.append(team.matcher.state_dict())
    assert same(*states)


def test_checkpoints_from_before_these_options_can_be_restored(tmp_path):
    def plain():
        matcher = dm2.DistributionMatcher(demonstrations(), updates=2, batch_size=8, seed=0)
        return IndependentLearners(PPO, dm2.vectorize(env, 3), matcher=matcher, coefficient=0.3, **PLAY)

    team = plain().learn(18)
    for name in ("inputs", "ends", "gamma", "beyond_limit"):
        del team.matcher.options[name]
    team.save(tmp_path / "old")
    restored = plain().restore(tmp_path / "old")
    assert same(team.matcher.state_dict(), restored.matcher.state_dict())
    loaded = IndependentLearners.load(tmp_path / "old", dm2.vectorize(env, 3))
    assert loaded.matcher.options["ends"] == "live"


def test_absorbing_ends_discount_as_the_learners_do():
    with pytest.raises(ValueError, match=r'ends="absorbing" has gamma=0.99, but the learners have .*0.9'):
        make("absorbing", gamma=0.9)
    assert make("absorbing").matcher.options["max_steps"] == 8


def test_the_clock_of_an_episode_goes_on_over_rollouts_and_calls_of_learn():
    team, times = make("absorbing"), []
    team._lockstep.listeners.append(lambda step: times.append((step.time.copy(), step.infos["_final_obs"].copy())))
    team.learn(18)
    team.learn(18, reset_num_timesteps=False)
    expected = np.zeros(3, int)
    for time, ended in times:
        np.testing.assert_array_equal(time, expected)
        expected = np.where(ended, 0, expected + 1)


@pytest.mark.parametrize(("gamma", "given", "expected"), [(0.99, None, True), (0.99, False, False), (1.0, None, False)])
def test_absorbing_ends_pay_beyond_the_limit_where_the_learners_bootstrap(gamma, given, expected):
    """The same pay as with the option, unless the program says otherwise or the sum would be infinite."""
    absorbing = {"ends": "absorbing", "gamma": gamma, "max_steps": 9}
    own = dm2.DistributionMatcher(demonstrations(), beyond_limit=given, seed=0, **absorbing)
    assert own.options["beyond_limit"] is given
    IndependentLearners(PPO, dm2.vectorize(env, 3), matcher=own, coefficient=0.3, gamma=gamma, **PLAY)
    assert own.options["beyond_limit"] is expected
    same_pay = dm2.DistributionMatcher(demonstrations(), beyond_limit=bool(expected), seed=0, **absorbing)
    after = dm2.AfterStep(
        np.zeros((1, 2, 4), np.float32), np.zeros((1, 2), bool), np.array([True]), np.zeros((1, 2), bool), np.array([3])
    )
    observations = np.ones((1, 2, 4), np.float32)
    paid = [each.rewards(observations, after=after) for each in (own, same_pay)]
    np.testing.assert_array_equal(*paid)


def test_a_time_limit_other_than_the_environments_is_warned_of():
    own = dm2.DistributionMatcher(demonstrations(), ends="absorbing", max_steps=300, seed=0)
    with pytest.warns(UserWarning, match="max_steps is 300, but the environment's time limit is 8 steps"):
        dm2.DM2VectorEnv(dm2.vectorize(env, 3), own, coefficient=0.3)
