"""How a team's matcher pays: Algorithm 1's rollouts, worked out by hand, and coefficients."""

import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.sb3_teams import (
    ON_POLICY,
    OPTIONS,
    SMALL,
    assert_equal_weights,
    demonstrations,
    matcher,
    train,
    venv,
    weights,
)
from tests.helpers.tiny_envs import ShapedEnv


def by_hand(team, rollout, gail, agent, k, c):
    """GAE of one agent, on its mixed rewards, written down plainly; every agent alive all the time."""
    model = team.models[agent]
    rewards, values, starts, bootstraps, last_values, last_dones = rollout
    steps, copies = rewards.shape
    mixed = rewards + bootstraps + c * gail[:, :, k]
    advantages = np.zeros_like(mixed)
    for n in range(copies):
        advantage = 0.0
        for t in reversed(range(steps)):
            over = last_dones[n] if t == steps - 1 else starts[t + 1, n]
            following = last_values[n] if t == steps - 1 else values[t + 1, n]
            delta = mixed[t, n] + model.gamma * following * (1 - over) - values[t, n]
            advantage = delta + model.gamma * model.gae_lambda * (1 - over) * advantage
            advantages[t, n] = advantage
    return mixed, advantages


@pytest.mark.parametrize("algorithm", ON_POLICY)
def test_a_relabelled_rollout_equals_one_computed_by_hand(algorithm):
    """Exact Algorithm 1: the updated discriminators pay, time limits stay bootstrapped, advantages are recomputed."""
    c, checked = 0.7, []

    class Check(BaseCallback):
        def __init__(self, agent):
            super().__init__()
            self.agent, self.steps = agent, []

        def _on_step(self):
            rewards = np.array(self.locals["rewards"], copy=True)
            self.steps.append((rewards, self.locals["dones"].copy(), self.locals["infos"]))
            return True

        def _on_rollout_end(self):
            buffer, k = self.model.rollout_buffer, team.agents.index(self.agent)
            env_rewards = np.stack([step[0] for step in self.steps])
            size = buffer.observations.shape[-1]
            seen = np.zeros((*env_rewards.shape, 2, 4), np.float32)
            seen[:, :, k, :size] = buffer.observations
            alive = np.zeros(seen.shape[:3], bool)
            alive[:, :, k] = True
            gail = team.matcher.rewards(seen, alive)  # asked for now: after the update
            bootstraps = np.zeros_like(env_rewards)
            for t, (_, dones, infos) in enumerate(self.steps):
                for n in np.flatnonzero(dones):
                    assert infos[n]["TimeLimit.truncated"]
                    bootstraps[t, n] = buffer.rewards[t, n] - env_rewards[t, n] - c * gail[t, n, k]
                    if algorithm is not RecurrentPPO:
                        last = torch.as_tensor(infos[n]["terminal_observation"])[None]
                        with torch.no_grad():
                            value = self.model.policy.predict_values(last).item()
                        np.testing.assert_allclose(bootstraps[t, n], self.model.gamma * value, atol=1e-4)
            rollout = (
                env_rewards,
                buffer.values,
                buffer.episode_starts,
                bootstraps,
                buffer.last_values.numpy().flatten(),
                self.steps[-1][1],
            )
            mixed, advantages = by_hand(team, rollout, gail, self.agent, k, c)
            np.testing.assert_allclose(buffer.rewards, mixed, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(buffer.advantages, advantages, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(buffer.returns, advantages + buffer.values, rtol=1e-4, atol=1e-4)
            checked.append(self.agent)
            self.steps = []

    env = venv(lifetimes=(None, None))
    demos = dm2.DistributionMatcher(demonstrations(lifetimes=(None, None)), updates=2, batch_size=8, seed=0)
    kwargs = {**SMALL, **ON_POLICY[algorithm]}
    team = IndependentLearners(algorithm, env, seed=1, matcher=demos, coefficient=c, **kwargs)
    team.learn(3 * 18, callback=Check)
    assert checked == ["agent_0", "agent_1"] * 3


def test_discriminators_are_updated_once_per_rollout_of_all_agents_on_everybodys_live_steps():
    demos = matcher()
    updates, recorded = [], []
    update, record = demos.update, demos.record
    demos.update = lambda: updates.append(1) or update()
    demos.record = lambda obs, alive, broken=None: recorded.append((obs.shape, alive.copy())) or record(obs, alive)
    train(PPO, steps=36, matcher=demos, coefficient=0.5)
    assert len(updates) == 2
    assert [shape for shape, _ in recorded] == [(6, 3, 2, 4)] * 2
    assert recorded[0][1][:, :, 0].all()
    assert not recorded[0][1][:, :, 1].all()


def test_exact_and_online_agree_on_the_reward_where_the_discriminators_do_not_change():
    """Before any update both pay c times the logit of the same, untrained networks."""
    rewards = {}
    for mode in ("exact", "online"):
        still = matcher(center=False)
        still.update = dict
        team = IndependentLearners(
            PPO, venv(), seed=0, mode=mode, matcher=still, coefficient=0.5, n_steps=6, batch_size=6, **SMALL
        ).learn(18)
        rewards[mode] = {a: m.rollout_buffer.rewards.copy() for a, m in team.models.items()}
    for agent, values in rewards["exact"].items():
        np.testing.assert_allclose(values, rewards["online"][agent], atol=1e-5)


def test_each_agent_may_have_a_coefficient_of_its_own():
    # In the first rollout, with equal data, agent 0 learns as if there were no matcher and agent 1 as if for both.
    first = [train(PPO, steps=18, matcher=matcher(), coefficient=c) for c in (0.0, {"agent_0": 0.0, "agent_1": 1.0}, 1.0)]
    zero, own, one = (weights(team) for team in first)
    assert_equal_weights({"agent_0": zero["agent_0"], "agent_1": one["agent_1"]}, own)
    assert any(not torch.equal(v, zero["agent_1"][n]) for n, v in own["agent_1"].items())
    with pytest.raises(ValueError, match="coefficient must have one number for each of"):
        train(PPO, matcher=matcher(), coefficient={"agent_0": 0.0})


def test_a_coefficient_that_a_callback_changes_is_paid_from_the_next_step_on():
    class Change(BaseCallback):
        def _on_step(self):
            team.coefficient = {"agent_0": np.float32(0.0), "agent_1": 2.0}
            return True

    steps = []
    team = IndependentLearners(
        DQN, venv(), seed=0, matcher=matcher(), coefficient=0.5, learning_starts=100, buffer_size=100, **SMALL
    )
    team._lockstep.listeners.append(steps.append)
    team.learn(12, callback={"agent_1": Change()})
    for number, step in enumerate(steps):
        c = np.array([0.5, 0.5] if number == 0 else [0.0, 2.0], np.float32)
        np.testing.assert_allclose(step.rewards, step.infos["env_reward"] + c * step.infos["gail_reward"], atol=1e-6)
    with pytest.raises(ValueError, match="coefficient must be"):
        team.coefficient = -1.0
    with pytest.raises(ValueError, match="needs a coefficient"):
        team.coefficient = None


@pytest.mark.parametrize("mode", ["exact", "online"])
def test_a_team_reports_the_environments_own_return_where_a_wrapper_shapes_rewards(mode):
    class LastLog(BaseCallback):
        def _on_step(self):
            names.update(self.logger.name_to_value)
            return True

        def _on_rollout_end(self):
            names.update(self.logger.name_to_value)

    names = {}
    env = dm2.vectorize(lambda: ShapedEnv(**OPTIONS), 1)
    options = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, **SMALL}
    team = IndependentLearners(PPO, env, matcher=matcher(), coefficient=0.5, mode=mode, seed=0, **options)
    team.learn(16, callback={"agent_0": LastLog()})
    episodes = team.models["agent_0"].ep_info_buffer
    assert [episode["r"] for episode in episodes] == [episode["l"] for episode in episodes] != []
    assert names["dm2/env_reward"] == 1.0


def test_relabelled_rewards_are_those_that_the_wrapper_mixes():
    env = dm2.vectorize(lambda: ShapedEnv(**OPTIONS), 1)
    team = IndependentLearners(
        DQN, env, matcher=matcher(), coefficient=0.0, env_coefficient=0.5, relabel=True, seed=0, learning_starts=100, **SMALL
    )
    team.learn(8)
    assert (team.models["agent_0"].replay_buffer.rewards[:8] == 5).all()


@pytest.mark.parametrize("mode", ["exact", "online"])
def test_schedules_are_told_the_environments_own_returns(mode):
    gap = dm2.schedules.ReturnGap(1.0, first=0.0, target=1000.0)
    env = dm2.vectorize(lambda: ShapedEnv(**OPTIONS), 1)
    options = {"n_steps": 8, "batch_size": 8, "n_epochs": 1, "update_every": 8, **SMALL}
    IndependentLearners(PPO, env, matcher=matcher(), coefficient=gap, mode=mode, seed=0, **options).learn(16)
    assert 0 < max(gap.state_dict()["newest"]) < 10
