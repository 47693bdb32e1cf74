"""What SB3 gets from the joint environment: bootstraps at time limits, rewards, statistics of episodes."""

import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback

import dm2_wrappers as dm2
from dm2_wrappers.lockstep import JointStep
from dm2_wrappers.sb3 import IndependentLearners
from dm2_wrappers.sb3.agent_step import EpisodeInfos, read_step
from tests.helpers.sb3_teams import ON_POLICY, SMALL, demonstrations, matcher, venv, weights
from tests.helpers.tiny_envs import TinyEnv, ToldEnv


class Steps(BaseCallback):
    """Keeps copies of what SB3 gets in each step."""

    def __init__(self):
        super().__init__()
        self.rewards, self.dones, self.infos = [], [], []

    def _on_step(self):
        self.rewards.append(self.locals["rewards"].copy())
        self.dones.append(self.locals["dones"].copy())
        self.infos.append(self.locals["infos"])
        return True


def untrained(algorithm=PPO, env=None, **options):
    """A team whose critics have biases, and whose training is left out."""
    kwargs = {**SMALL, **ON_POLICY.get(algorithm, {}), **options}
    team = IndependentLearners(algorithm, venv() if env is None else env, seed=0, **kwargs)
    for model in team.models.values():
        model.train = lambda: None
        with torch.no_grad():
            model.policy.value_net.bias += 1.0
    return team


@pytest.mark.parametrize("algorithm", [PPO, RecurrentPPO])
def test_a_time_limit_bootstraps_with_what_followed_the_last_action(algorithm):
    """The last observation is worked out from the environment's step, not read from SB3's infos."""
    team = untrained(algorithm, venv(lifetimes=(None, None), random_limit=False, limit=4, wins=False))
    steps, joint = {agent: Steps() for agent in team.agents}, []
    team._lockstep.listeners.append(joint.append)
    states = []

    class States(BaseCallback):
        def _on_step(self):
            if algorithm is RecurrentPPO:
                states.append(self.locals["lstm_states"])
            return True

    team.learn(18, callback={"agent_0": [steps["agent_0"], States()], "agent_1": steps["agent_1"]})
    model = team.models["agent_0"]
    buffer = model.rollout_buffer
    assert [done.tolist() for done in steps["agent_0"].dones] == [[False] * 3] * 3 + [[True] * 3] + [[False] * 3] * 2
    last = joint[3].infos["final_obs"][:, 0, :4]
    assert last[:, 0].tolist() == [4, 4, 4]  # feature 0 counts the steps: it is not the next episode's first observation
    np.testing.assert_array_equal(last[:, 1], joint[3].actions[:, 0])
    with torch.no_grad():
        if algorithm is RecurrentPPO:
            values = model.policy.predict_values(torch.as_tensor(last), states[3].vf, torch.zeros(3))
        else:
            values = model.policy.predict_values(torch.as_tensor(last))
    expected = joint[3].rewards[:, 0] + model.gamma * values.numpy().flatten()
    np.testing.assert_allclose(buffer.rewards[3], expected, rtol=1e-5)
    for t in (0, 1, 2, 4, 5):
        np.testing.assert_array_equal(buffer.rewards[t], joint[t].rewards[:, 0])


def test_env_coefficient_counts_once_in_every_mode():
    for mode in ("exact", "online"):
        for c in (0.0, 0.7):
            env = venv(1, lifetimes=(None, None), truncates=False, limit=100, random_limit=False)
            still = dm2.DistributionMatcher(demonstrations(), updates=1, batch_size=8, seed=0, center=False)
            still.update = dict
            options = {"matcher": still, "coefficient": c, "env_coefficient": 0.5, "mode": mode}
            team, joint = untrained(PPO, env, **options), []
            team._lockstep.listeners.append(joint.append)
            team.learn(6)
            for k, agent in enumerate(team.agents):
                env_rewards = np.stack([step.infos.get("env_reward", step.rewards)[:, k] for step in joint])
                gail = still.rewards(np.stack([step.observations for step in joint]))[:, :, k]
                assert env_rewards.any()
                expected = 0.5 * env_rewards + c * gail
                np.testing.assert_allclose(team.models[agent].rollout_buffer.rewards, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["exact", "online"])
def test_returns_and_rewards_in_the_log_are_the_environments_own_over_live_steps(mode):
    env = venv(1, limit=6, random_limit=False)
    team, joint = untrained(PPO, env, matcher=matcher(), coefficient=9.0, mode=mode), []
    team._lockstep.listeners.append(joint.append)
    logged = {}

    class Log(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            logged["env_reward"] = self.logger.name_to_value["dm2/env_reward"]

    team.learn(6, callback={"agent_1": Log()})
    env_rewards = np.stack([step.infos.get("env_reward", step.rewards)[0] for step in joint])
    assert [info["r"] for info in team.models["agent_1"].ep_info_buffer] == pytest.approx([env_rewards[:, 1].sum()])
    alive = np.stack([step.alive[0, 1] for step in joint])
    assert alive.tolist() == [True] * 3 + [False] * 3
    assert logged["env_reward"] == pytest.approx(env_rewards[alive, 1].mean(), rel=1e-5)
    assert env_rewards[alive, 1].mean() != pytest.approx(env_rewards[:, 1].mean(), rel=1e-3)


def test_wins_reach_sb3_as_successes():
    team = untrained(PPO, venv(1, limit=3, random_limit=False, lifetimes=(None, None), broken=(1,)), n_steps=12)
    steps = Steps()
    team.learn(12, callback={"agent_0": steps})
    ends = [infos[0] for infos, dones in zip(steps.infos, steps.dones, strict=True) if dones[0]]
    # Episodes 0 and 2 are won; episode 1 broke and counts as none.
    assert [end.get("is_success") for end in ends] == [True, None, True, False]
    assert [end.get("battle_won") for end in ends] == [True, None, True, False]
    assert list(team.models["agent_0"].ep_success_buffer) == [True, True, False]
    assert list(team.models["agent_1"].ep_success_buffer) == [True, True, False]


def test_an_outcome_that_is_not_reported_is_neither_a_success_nor_a_failure():
    # agent_1 leaves after the first of two steps, before the outcome is known.
    env = dm2.vectorize(lambda: ToldEnv(sizes=(4, 3), limit=2, lifetimes=(None, 1)), 2)
    team = untrained(PPO, env, n_steps=8, batch_size=16)
    steps = Steps()
    team.learn(16, callback={"agent_0": steps})
    ends = [infos for infos, dones in zip(steps.infos, steps.dones, strict=True) if dones.all()]
    # Copy 0 is won, not reported, lost, without a word; copy 1 begins with the second of these.
    expected = [[True, None], [None, False], [False, None], [None, True]]
    for name in ("is_success", "battle_won"):
        assert [[info.get(name) for info in infos] for infos in ends] == expected
    for model in team.models.values():
        assert [bool(won) for won in model.ep_success_buffer] == [True, False, False, True]


def test_in_an_exact_run_an_episode_that_breaks_is_forgotten_from_its_start_even_if_an_agent_has_left():
    recorded = []
    demos = matcher()
    record = demos.record
    demos.record = lambda obs, alive, broken=None: recorded.append(broken.copy()) or record(obs, alive, broken=broken)
    env = venv(1, limit=4, random_limit=False, lifetimes=(None, 2), absorb=False, broken=(1,))
    untrained(PPO, env, matcher=demos, coefficient=0.5, n_steps=12, batch_size=12).learn(12)
    assert recorded[0][:, 0].tolist() == [False] * 4 + [True] * 4 + [False] * 4


def test_an_unfinished_rollout_is_forgotten_by_the_next_call_of_learn():
    class Stop(BaseCallback):
        def _on_step(self):
            return self.num_timesteps < 12

    recorded, demos = [], matcher()
    record = demos.record
    demos.record = lambda obs, alive, broken=None: recorded.append(obs.shape[0]) or record(obs, alive, broken=broken)
    team = untrained(PPO, matcher=demos, coefficient=0.5)
    team.learn(36, callback={"agent_0": Stop()})
    team.learn(18)
    assert recorded == [6]


def test_learners_of_one_size_begin_unlike():
    team = IndependentLearners(PPO, venv(sizes=(3, 3)), seed=0, n_steps=6, batch_size=6, **SMALL)
    first, second = weights(team).values()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert [model.seed for model in team.models.values()] != [team.models["agent_0"].seed] * 2


def test_a_checkpoint_has_the_environments_stream_and_what_was_seen_since_the_last_update(tmp_path):
    class Drawing(TinyEnv):
        def step(self, actions):
            np.random.rand()
            return super().step(actions)

    env = dm2.vectorize(lambda: Drawing(sizes=(4, 3), limit=7, lifetimes=(None, 3), absorb=True), 1)
    options = {"learning_starts": 5, "buffer_size": 100, "update_every": 1000, **SMALL}
    team = IndependentLearners(DQN, env, seed=0, matcher=matcher(), coefficient=0.5, **options).learn(20)
    alive = team._lockstep.last_step.alive
    assert alive.shape == (1, 2)
    team.save(tmp_path / "team")
    loaded = IndependentLearners.load(tmp_path / "team", env)
    for mine, theirs in zip(team._lockstep.env_stream.numpy, loaded._lockstep.env_stream.numpy, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # Agent 0 lived through all 20 steps, agent 1 through 3 of each 7.
    assert loaded.matcher.state_dict()["new"].tolist() == [20, 3 + 3 + 3]


def joint_step(terminations, truncations, present=True, **infos):
    """A step of one sub-environment and two agents, who were alive before and after it."""
    zeros, yes = np.zeros((1, 2), np.float32), np.ones((1, 2), bool)
    infos = {"alive": yes, "final_alive": yes, "broken": np.array([False]), **infos}
    return JointStep(
        observations=zeros[..., None],
        present=yes & present,
        alive=yes & present,
        actions=zeros,
        rewards=zeros + 1,
        terminations=np.array([terminations]),
        truncations=np.array([truncations]),
        next_observations=zeros[..., None],
        next_present=yes,
        infos=infos,
        time=np.array([3]),
    )


def test_an_agent_that_is_terminated_and_truncated_at_once_has_met_no_time_limit():
    step = read_step(joint_step([True, False], [True, True]), slice(None), np.array([4]))
    assert step.joint_end.tolist() == [[True, True]]
    assert step.time_limit.tolist() == [[False, True]]


@pytest.mark.parametrize("broken", [False, True])
def test_a_broken_episode_was_neither_won_nor_lost(broken):
    joint = joint_step([True, True], [False, False], battle_won=np.array([True]), broken=np.array([broken]))
    step = read_step(joint, 0, np.array([4]))
    assert step.won.tolist() == [-1 if broken else 1]
    assert step.steps_to_discard.tolist() == [4 if broken else 0]


def test_the_length_of_an_episode_is_counted_from_the_step_in_which_the_agent_joined():
    infos = EpisodeInfos(2)
    final, unknown = np.zeros((2, 1), np.float32), np.full(2, -1, np.int8)
    for present, over in (([True, False], False), ([True, True], False), ([True, True], True)):
        joint = joint_step([over] * 2, [False] * 2, np.array([present]))
        step = read_step(joint, slice(None), np.array([1])).flat()
        said = infos.of(step, np.zeros(2, bool), final, unknown)
    assert [info["episode"]["l"] for info in said] == [3, 2]
