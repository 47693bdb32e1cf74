"""Schedules of c in a team's two modes, in its logs and in its checkpoints, and in the wrappers."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from stable_baselines3 import A2C

import dm2_wrappers as dm2
from dm2_wrappers.matching.schedules import LinearFall, ReturnGap, Schedule, VarianceShare
from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.sb3_teams import SMALL, assert_equal_weights, demonstrations, matcher, venv, weights
from tests.helpers.tiny_envs import TinyEnv

OPTIONS = {**SMALL, "n_steps": 6, "seed": 0, "update_every": 18}
ROLLOUT = 18  # steps of 3 sub-environments


class Third(Schedule):
    """c is 1 / 3 of the number of updates; keeps what it is told."""

    def __init__(self):
        self.told, self.number = [], 0

    def coefficient(self):
        return {"agent_0": self.number / 3, "agent_1": 0.25}

    def update(self, progress):
        self.told.append(progress)
        self.number += 1

    def state_dict(self):
        return {"number": self.number}

    def load_state_dict(self, state):
        self.number = int(state["number"])


def team(coefficient, mode="exact", env=None, **options):
    return IndependentLearners(
        A2C, env or venv(), matcher=matcher(), coefficient=coefficient, mode=mode, **{**OPTIONS, **options}
    )


@pytest.mark.parametrize("mode", ["exact", "online"])
def test_a_schedule_is_told_once_per_update_and_its_c_is_paid(mode):
    schedule = Third()
    learners = team(schedule, mode, env_coefficient=2.0)
    assert learners.coefficient is schedule
    seen, running = [], np.zeros(3)

    def listen(step):
        nonlocal running
        rewards = step.infos.get("env_reward", step.rewards)
        running = running + rewards.mean(1)  # nobody ever leaves
        ended = (step.terminations | step.truncations).all(1)
        seen.append((rewards, step.alive, running[ended].tolist()))
        running = np.where(ended, 0.0, running)

    learners._lockstep.listeners.append(listen)
    learners.learn(2 * ROLLOUT)
    assert [progress.steps for progress in schedule.told] == [ROLLOUT, 2 * ROLLOUT]
    for progress, steps in zip(schedule.told, (seen[:6], seen[6:]), strict=True):
        assert progress.returns == pytest.approx([each for _, _, ended in steps for each in ended], abs=1e-4)
        rewards, alive = (np.stack([step[i] for step in steps]) for i in (0, 1))
        assert progress.live_steps.tolist() == alive.sum((0, 1)).tolist()
        for k in range(2):
            live = 2 * rewards[..., k][alive[..., k]].astype(np.float64)
            assert progress.env_mean[k] == pytest.approx(live.mean(), rel=1e-5)
            assert progress.env_std[k] == pytest.approx(live.std(), rel=1e-5)
        if mode == "exact":  # centered on the rollout's own mean
            assert progress.gail_mean == pytest.approx([0, 0], abs=1e-6)
            expected = [learners.matcher.metrics[f"gail_reward_std/{agent}"] for agent in learners.agents]
            if progress is schedule.told[1]:
                assert progress.gail_std == pytest.approx(expected, rel=1e-4)
    assert progress.returns.size
    assert learners.current_coefficient == pytest.approx({"agent_0": 2 / 3, "agent_1": 0.25})


@pytest.mark.parametrize("mode", ["exact", "online"])
def test_returns_of_episodes_that_a_reset_cut_short_are_not_told(mode):
    schedule = Third()
    env = venv(random_limit=False, lifetimes=None, wins=False)
    options = {} if mode == "exact" else {"update_every": 18}
    learners = team(schedule, mode, env=env, **options)
    for _ in range(3):
        learners.learn(ROLLOUT, reset_num_timesteps=False)  # 6 of the 7 steps of an episode
        learners.restart_episodes()
    assert [len(progress.returns) for progress in schedule.told] == [0, 0, 0]
    learners.learn(2 * ROLLOUT, reset_num_timesteps=False)  # one whole episode in each sub-environment
    told = np.concatenate([progress.returns for progress in schedule.told])
    assert len(told) == 3
    assert told.max() <= 7 * 4  # seven steps, two agents, actions of at most 2; with 18 steps before it could be more


def test_an_exact_rollout_is_paid_with_the_c_after_its_own_update():
    schedule = Third()
    learners = team(schedule)
    learners.learn(ROLLOUT)
    gail = learners._matching._rollout.gail_rewards()
    for k, (agent, c) in enumerate({"agent_0": 1 / 3, "agent_1": 0.25}.items()):
        buffer = learners.models[agent].rollout_buffer
        live = buffer.live & ~buffer.dead_at_time_limit
        bootstrapped = np.abs(buffer.rewards - buffer.env_rewards - c * gail[..., k]) > 1e-4
        assert not bootstrapped[live & (np.abs(gail[..., k]) > 0)].all()
        assert (np.abs(gail[..., k][live]) > 1e-3).any()
        inside = np.zeros_like(live)
        inside[:-1] = buffer.episode_starts[1:] == 0  # not the last step of an episode: no bootstrap
        assert not bootstrapped[live & inside].any()


def test_numbers_dicts_and_constant_schedules_are_alike_bit_for_bit():
    c = {"agent_0": 0.3, "agent_1": 0.1}
    for mode in ("exact", "online"):
        teams = [team(each, mode).learn(2 * ROLLOUT) for each in (c, dm2.schedules.Constant(c))]
        assert_equal_weights(*map(weights, teams))


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        (lambda: LinearFall(0.5, steps=5 * ROLLOUT), "online"),
        (lambda: ReturnGap(0.5, target=99), "exact"),
        (lambda: VarianceShare(0.3, largest=100), "online"),
    ],
)
def test_an_interrupted_run_with_a_schedule_goes_on_alike(tmp_path, make, mode):
    env = venv(wins=False)  # which episodes are won goes by their number since the environment was made
    whole = team(make(), mode, env).learn(ROLLOUT + 1)
    whole.restart_episodes()
    whole.save(tmp_path / "team")
    loaded = IndependentLearners.load(tmp_path / "team", env)
    restored = team(make(), mode, env).restore(tmp_path / "team")
    assert loaded.current_coefficient == restored.current_coefficient == whole.current_coefficient
    assert repr(loaded.coefficient) == repr(make())
    for learners in (whole, loaded, restored):
        learners.learn(2 * ROLLOUT, reset_num_timesteps=False)
        assert learners.current_coefficient == whole.current_coefficient
        assert_equal_weights(weights(learners), weights(whole))
    assert 0 < whole.current_coefficient["agent_0"] < 100


def test_a_schedule_of_ones_own_is_needed_to_load(tmp_path):
    learners = team(Third()).learn(ROLLOUT)
    learners.save(tmp_path / "team")
    with pytest.raises(ValueError, match=r"the schedule 'Third' of your own.*pass coefficient="):
        IndependentLearners.load(tmp_path / "team", venv())
    loaded = IndependentLearners.load(tmp_path / "team", venv(), coefficient=Third())
    assert loaded.coefficient.number == 1
    assert loaded.current_coefficient == learners.current_coefficient
    with pytest.raises(ValueError, match="saved with the schedule Third"):
        team(LinearFall(0.3, steps=9)).restore(tmp_path / "team")
    assert team(0.5).restore(tmp_path / "team").coefficient == 0.5
    assert IndependentLearners.load(tmp_path / "team", venv(), coefficient=0.5).coefficient == 0.5


@pytest.mark.parametrize("mode", ["exact", "online"])
def test_c_is_logged(tmp_path, mode):
    team(Third(), mode, log_dir=tmp_path).learn(2 * ROLLOUT, log_interval=1)
    for agent, c in (("agent_0", 2 / 3), ("agent_1", 0.25)):
        rows = list(csv.DictReader((tmp_path / agent / "progress.csv").open()))
        assert float(rows[-1]["dm2/coefficient"]) == pytest.approx(c)


def test_a_c_that_was_assigned_after_the_last_update_is_logged(tmp_path):
    learners = team(0.3, "online", log_dir=tmp_path, update_every=24)

    def assign(local, _):
        if local["self"].num_timesteps == 30:
            learners.coefficient = 0.75
        return True

    learners.learn(2 * ROLLOUT, callback={"agent_0": assign}, log_interval=1)
    rows = list(csv.DictReader((tmp_path / "agent_1" / "progress.csv").open()))
    assert float(rows[-1]["dm2/coefficient"]) == pytest.approx(0.75)


def test_wrappers_tell_their_schedule_and_save_it():
    envs = [dm2.DM2ParallelEnv(TinyEnv(limit=4), demos_of(), coefficient=Third(), update_every=6) for _ in range(2)]
    envs.append(
        dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(limit=4), 1), demos_of(), coefficient=Third(), update_every=6)
    )
    for env in (envs[0], envs[2]):
        env.reset(seed=0)
        for step in range(13):
            if env is envs[2]:
                _, rewards, *_, infos = env.step(np.array([[1, 2]]))
                reward, info = rewards[0, 0], {name: infos[name][0, 0] for name in ("env_reward", "gail_reward")}
            else:
                _, rewards, _, _, infos = env.step({"agent_0": 1, "agent_1": 2})
                reward, info = rewards["agent_0"], infos["agent_0"]
                if not env.agents:
                    env.reset()
            assert reward == pytest.approx(info["env_reward"] + step // 6 / 3 * info["gail_reward"], abs=1e-5)
        told = env.coefficient.told
        assert [progress.steps for progress in told] == [6, 12]
        assert [progress.returns.tolist() for progress in told] == [[12.0], [12.0, 12.0]]
        assert env.current_coefficient == pytest.approx({"agent_0": 2 / 3, "agent_1": 0.25})
    envs[1].load_state_dict(envs[0].state_dict())
    assert envs[1].coefficient.number == 2
    assert envs[1].current_coefficient == envs[0].current_coefficient
    observation = {"agent_0": np.ones(3, np.float32)}
    assert envs[1].matcher.rewards(observation) == envs[0].matcher.rewards(observation)
    envs[0].training = False
    envs[0].reset()
    envs[0].step({"agent_0": 1, "agent_1": 2})
    assert len(envs[0].coefficient.told) == 2
    envs[0].coefficient = 0.5
    assert (envs[0].coefficient, envs[0].current_coefficient["agent_1"]) == (0.5, 0.5)


def demos_of():
    demos = demonstrations(sizes=(3, 2), limit=4, random_limit=False, lifetimes=None)
    return dm2.DistributionMatcher(demos, updates=2, batch_size=8, seed=0)


def test_a_fall_goes_on_when_it_is_given_again_and_after_that_is_saved(tmp_path):
    fall = LinearFall(1.0, steps=96)
    options = {"n_steps": 6, "seed": 0, **SMALL}
    team = IndependentLearners(A2C, venv(2), matcher=matcher(), coefficient=fall, **options)
    team.learn(48)
    assert team.current_coefficient["agent_0"] == 0.5
    team.coefficient = fall
    team.learn(24, reset_num_timesteps=False)
    assert team.current_coefficient["agent_0"] == 0.25
    team.save(tmp_path / "team")
    other = IndependentLearners(A2C, venv(2), matcher=matcher(), coefficient=LinearFall(1.0, steps=96), **options)
    for each in (other.restore(tmp_path / "team"), IndependentLearners.load(tmp_path / "team", venv(2), device="cpu")):
        each.learn(12)
        assert each.current_coefficient["agent_0"] == 0.125
