"""IndependentLearners with real SB3 algorithms on tiny environments and on their own numbers."""

import copy
import csv
import sys
import warnings
from functools import partial

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import QRDQN, TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC
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
from tests.helpers.tiny_envs import FailingEnv, TinyEnv


@pytest.mark.parametrize("algorithm", ON_POLICY)
def test_one_seed_gives_one_team_and_coefficient_zero_is_no_matcher(algorithm):
    plain = train(algorithm)
    assert plain.num_timesteps == 54
    assert_equal_weights(weights(plain), weights(train(algorithm)))
    zero = train(algorithm, matcher=matcher(), coefficient=0.0)
    assert_equal_weights(weights(plain), weights(zero))
    some = [train(algorithm, matcher=matcher(), coefficient=1.0) for _ in range(2)]
    assert_equal_weights(weights(some[0]), weights(some[1]))
    observations = np.random.default_rng(0).normal(size=(50, 2, 4)).astype(np.float32)
    first, second = (team.matcher.rewards(observations) for team in some)
    np.testing.assert_array_equal(first, second)
    paid = weights(some[0])["agent_0"]
    assert any(not torch.equal(paid[name], value) for name, value in weights(plain)["agent_0"].items())


def test_agents_begin_unlike_and_share_nothing():
    team = train(PPO, steps=18)
    first, second = (team.models[agent] for agent in team.agents)
    assert first.policy is not second.policy
    assert first.rollout_buffer is not second.rollout_buffer
    heads = [model.policy.action_net.weight for model in (first, second)]
    assert not torch.equal(*heads)


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


@pytest.mark.parametrize("algorithm", [PPO, MaskablePPO, DQN, QRDQN, TRPO])
def test_any_algorithm_trains_online_or_exact_and_saves_and_loads(algorithm, tmp_path):
    kwargs = {
        PPO: {"n_steps": 6, "batch_size": 9},
        MaskablePPO: {"n_steps": 6, "batch_size": 9},
        TRPO: {"n_steps": 6, "batch_size": 18},
    }.get(algorithm, {"learning_starts": 9, "batch_size": 4, "buffer_size": 500})
    team = IndependentLearners(
        algorithm, venv(), seed=0, matcher=matcher(), coefficient=0.5, update_every=18, **SMALL, **kwargs
    )
    assert team.mode == ("online" if algorithm in (DQN, QRDQN) else "exact")
    team.learn(36)
    team.save(tmp_path / "team")
    loaded = IndependentLearners.load(tmp_path / "team", venv())
    assert_equal_weights(weights(team), weights(loaded))
    assert loaded.num_timesteps == team.num_timesteps
    loaded.learn(18, reset_num_timesteps=False)
    assert loaded.num_timesteps >= team.num_timesteps + 18


def test_a_dict_gives_each_agent_its_own_algorithm():
    algorithms = {
        "agent_0": partial(PPO, n_steps=6, batch_size=6),
        "agent_1": partial(DQN, learning_starts=5, buffer_size=100),
    }
    team = IndependentLearners(algorithms, venv(), matcher=matcher(), coefficient=0.3, update_every=18, seed=0, device="cpu")
    assert team.mode == "online"
    team.learn(36)
    assert isinstance(team.models["agent_1"], DQN)
    assert team.matcher.state_dict()["offsets"].any()


def test_continuous_actions_of_unlike_widths():
    env = dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), actions=(1, 2), continuous=True), 2)
    team = IndependentLearners(SAC, env, seed=0, learning_starts=4, batch_size=4, buffer_size=100, **SMALL)
    team.learn(12)
    assert team.evaluate(env, episodes=2, seed=0)["length"] == 5


def test_a_wrapped_environment_brings_its_matcher_along():
    wrapped = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=0.25)
    team = IndependentLearners(PPO, wrapped, seed=0, n_steps=6, batch_size=6, **SMALL)
    assert (team.mode, team.coefficient, team.matcher) == ("exact", 0.25, wrapped.matcher)
    team.learn(12)
    assert team.env.num_envs == 1


def test_a_wrappers_options_are_taken_over_and_not_given_twice():
    demos = matcher()
    wrapped = dm2.DM2VectorEnv(venv(), demos, coefficient=0.25, env_coefficient=0.5, update_every=100)
    team = IndependentLearners(PPO, wrapped, n_steps=6, batch_size=6, **SMALL)
    assert (team.env, team.matcher, team.coefficient) == (wrapped.env, demos, 0.25)
    assert (team.env_coefficient, team.update_every) == (0.5, 100)
    single = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), demos, coefficient=0.25)
    assert IndependentLearners(PPO, single, n_steps=6, batch_size=6, update_every=50, **SMALL).update_every == 50
    assert IndependentLearners(PPO, single, n_steps=6, batch_size=6, **SMALL).update_every == 4096
    twice = {"matcher": demos, "coefficient": 1.0, "env_coefficient": 1.0, "update_every": 4096}
    for name, value in twice.items():
        with pytest.raises(ValueError, match=f"DM2VectorEnv has {name} already: give them to the wrapper or to"):
            IndependentLearners(PPO, wrapped, **{name: value})
    with pytest.raises(ValueError, match="DM2ParallelEnv has matcher, coefficient already"):
        IndependentLearners(PPO, single, matcher=demos, coefficient=1.0)


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


def test_when_one_agents_callback_says_stop_all_stop_and_can_go_on():
    class Stop(BaseCallback):
        def _on_step(self):
            return self.num_timesteps < 30

    ended = []

    class Note(BaseCallback):
        def _on_step(self):
            return True

        def _on_training_end(self):
            ended.append(self.num_timesteps)

    team = IndependentLearners(PPO, venv(), seed=0, n_steps=6, batch_size=6, **SMALL)
    team.learn(90, callback={"agent_0": Note(), "agent_1": Stop()})
    assert team.models["agent_1"].num_timesteps == 30
    assert len(ended) == 1
    team.learn(18, reset_num_timesteps=False)
    assert team.num_timesteps > 30


class StopAt(BaseCallback):
    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def _on_step(self):
        return self.num_timesteps < self.steps


class SeesItsObservations(BaseCallback):
    """Checks that the learner acts on what the environment shows: feature 0 counts the episode's steps."""

    def __init__(self, team, agent):
        super().__init__()
        self.team, self.index, self.steps = team, team.agents.index(agent), 0

    def _on_step(self):
        before = self.team._lockstep.last_step.observations[:, self.index, : self.model._last_obs.shape[1]]
        np.testing.assert_array_equal(self.model._last_obs, before)
        self.steps += 1
        return True


@pytest.mark.parametrize("total", [9, 12, 18, 90])
@pytest.mark.parametrize("algorithm", [PPO, DQN])
@pytest.mark.parametrize("stopping", [("agent_0",), ("agent_1",), ("agent_0", "agent_1")])
def test_after_a_callbacks_stop_nobody_acts_on_old_observations(algorithm, total, stopping):
    kwargs = {PPO: {"n_steps": 6, "batch_size": 6}, DQN: {"learning_starts": 100, "buffer_size": 100, "train_freq": 4}}
    team = IndependentLearners(algorithm, venv(), seed=0, **kwargs[algorithm], **SMALL)
    team.learn(total, callback={agent: StopAt(12) for agent in stopping})
    assert team.num_timesteps == 12 or total == 9
    seen = {agent: SeesItsObservations(team, agent) for agent in team.agents}
    team.learn(18, callback=seen, reset_num_timesteps=False)
    assert seen["agent_0"].steps >= 6


def test_a_run_that_ends_with_whole_rollouts_goes_on_in_its_episodes():
    team = IndependentLearners(PPO, venv(limit=100, random_limit=False), seed=0, n_steps=6, batch_size=6, **SMALL)
    team.learn(18).learn(18, reset_num_timesteps=False)
    assert (team._lockstep.observations[:, 0, 0] == 12).all()


def test_an_error_in_reset_is_not_hidden_by_callbacks_that_have_not_started():
    class NoReset(TinyEnv):
        def reset(self, seed=None, options=None):
            raise ZeroDivisionError("the simulator does not start")

    class Note(BaseCallback):
        def _on_step(self):
            return True

        def _on_training_end(self):
            ended.append(self.num_timesteps)

    ended = []
    team = IndependentLearners(PPO, NoReset(**OPTIONS), seed=0, n_steps=6, batch_size=6, **SMALL)
    with pytest.raises(ZeroDivisionError, match="does not start"):
        team.learn(18, callback={"agent_1": Note()}, progress_bar=True)
    assert ended == []


def test_learning_for_less_than_an_agents_rollout_warns():
    algorithms = {
        "agent_0": partial(DQN, learning_starts=5, buffer_size=100, train_freq=1),
        "agent_1": partial(PPO, n_steps=8, batch_size=8),
    }
    team = IndependentLearners(algorithms, venv(), seed=0, **SMALL)
    message = r"total_timesteps=20 ends after 21 steps, before the first rollout of agent_1 \(24 steps\)"
    with pytest.warns(UserWarning, match=message):
        team.learn(20)
    assert team.models["agent_1"]._n_updates == 0
    assert [model._last_obs for model in team.models.values()] == [None, None]  # agent 1 was amid a rollout
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        team.learn(22)
        IndependentLearners(PPO, venv(), seed=0, n_steps=6, batch_size=6, **SMALL).learn(1)
    assert team.models["agent_1"]._n_updates > 0


def test_an_agents_error_stops_the_run_with_its_name():
    class Fail(BaseCallback):
        def _on_step(self):
            raise ZeroDivisionError("bad callback")

    team = IndependentLearners(PPO, venv(), seed=0, n_steps=6, batch_size=6, **SMALL)
    with pytest.raises(ZeroDivisionError) as caught:
        team.learn(18, callback={"agent_1": Fail()})
    assert "agent_1" in caught.value.__notes__[0]
    team.learn(18)


def test_an_environments_error_reaches_the_caller():
    env = dm2.vectorize(lambda: FailingEnv(fail_at=9), 1)
    with pytest.raises(ZeroDivisionError, match="fell over"):
        IndependentLearners(PPO, env, seed=0, n_steps=6, batch_size=6, **SMALL).learn(90)


def test_logs_go_to_a_folder_per_agent(tmp_path):
    team = IndependentLearners(
        PPO, venv(), seed=0, matcher=matcher(), coefficient=0.5, log_dir=tmp_path, n_steps=6, batch_size=6, **SMALL
    )
    team.learn(54, log_interval=1)
    header = (tmp_path / "agent_1" / "progress.csv").read_text().splitlines()[0].split(",")
    assert {"dm2/env_reward", "dm2/gail_reward", "dm2/loss", "dm2/expert_accuracy", "rollout/ep_rew_mean"} <= set(header)
    assert list((tmp_path / "agent_0").glob("events.out.tfevents*"))


def test_an_online_run_logs_the_means_since_the_last_log_and_the_newest_metrics(tmp_path):
    steps = []
    team = IndependentLearners(
        DQN,
        venv(),
        seed=0,
        matcher=matcher(),
        coefficient=0.5,
        update_every=18,
        log_dir=tmp_path,
        learning_starts=100,
        buffer_size=100,
        **SMALL,
    )
    team._lockstep.listeners.append(steps.append)
    for chunk in (60, 60):  # what was not logged in the first is in the next
        team.learn(chunk, log_interval=4, reset_num_timesteps=not team.num_timesteps)
    for k, agent in enumerate(team.agents):
        with (tmp_path / agent / "progress.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert len(rows) > 3
        assert {"dm2/loss", "dm2/expert_accuracy", "dm2/offset"} <= set(rows[-1])
        first = 0
        for row in rows:
            end = int(row["time/total_timesteps"]) // 3
            live = np.stack([step.alive[:, k] for step in steps[first:end]])
            if live.any():
                for name in ("env_reward", "gail_reward"):
                    paid = np.stack([step.infos[name][:, k] for step in steps[first:end]])
                    assert float(row[f"dm2/{name}"]) == pytest.approx(paid[live].mean(), rel=1e-4, abs=1e-5)
            first = end
    newest = team._lockstep.env.metrics["expert_accuracy/agent_0"]
    assert team.models["agent_0"].logger.name_to_value.get("dm2/expert_accuracy", newest) == newest


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


def test_tensorboard_log_is_a_folder_per_agent(tmp_path):
    IndependentLearners(PPO, venv(), seed=0, n_steps=6, batch_size=6, tensorboard_log=str(tmp_path), **SMALL).learn(18)
    assert {path.name for path in tmp_path.iterdir()} == {"agent_0", "agent_1", "team"}


def test_progress_bar_counts_environment_steps(capsys):
    IndependentLearners(PPO, venv(), seed=0, n_steps=6, batch_size=6, **SMALL).learn(36, progress_bar=True)
    captured = capsys.readouterr()
    assert "36/36" in captured.out + captured.err


def test_predict_takes_a_parallel_envs_observations_with_masks():
    env = TinyEnv(sizes=(4, 3), masks=True)
    team = IndependentLearners(MaskablePPO, env, seed=0, n_steps=6, batch_size=6, **SMALL)
    observations, _ = env.reset(seed=0)
    for _ in range(20):
        actions = team.predict(observations)
        assert all(observations[a]["action_mask"][action] for a, action in actions.items())
    assert team.predict(observations, deterministic=True) == team.predict(observations, deterministic=True)
    assert set(team.predict({"agent_1": observations["agent_1"]})) == {"agent_1"}
    with pytest.raises(ValueError, match="unknown agents"):
        team.predict({"nobody": observations["agent_0"]})
    with pytest.raises(
        ValueError,
        match="agent 'agent_1' is not in its space: expected shape",
    ):
        team.predict({"agent_1": observations["agent_0"]})


class NativeEnv(TinyEnv):
    """Observations and actions of all shapes: a Discrete observation and one of 2 x 2; checks what it is given."""

    def _observation_space(self, agent):
        if agent == "agent_0":
            return spaces.Discrete(4, start=2)
        return spaces.Box(-1, 1, (2, 2), np.float32)

    def _action_space(self, agent):
        if self.continuous:
            return spaces.Box(-1, 1, (2, self.numbers[agent]), np.float32)
        return super()._action_space(agent)

    def _observe(self, agent):
        return 2 + self.t % 4 if agent == "agent_0" else np.full((2, 2), 0.1 * self.t, np.float32)

    def step(self, actions):
        for agent, action in actions.items():
            assert action in self.action_space(agent), (agent, action)
        return super().step(actions)


@pytest.mark.parametrize("batched", [False, True])
def test_predict_is_in_the_environments_own_spaces(batched, tmp_path):
    def make():
        env = NativeEnv(start=1, limit=4)
        return dm2.vectorize(lambda: env, 1) if batched else env

    team = IndependentLearners(PPO, make(), seed=0, n_steps=6, batch_size=6, **SMALL)
    team.save(tmp_path / "team")
    for each in (team, IndependentLearners.load(tmp_path / "team", make())):
        demos = dm2.Demonstrations.record(NativeEnv(start=1, limit=4), each.predict, 20, seed=0)
        assert set(demos.actions.flat) == {0, 1, 2}
        assert demos.sizes == (4, 4)
        # The learner's own action for the one-hot 2, of which the first number stands for 3, is one less.
        state = np.array([[0, 1, 0, 0]], np.float32)
        expected = each.models["agent_0"].predict(state, deterministic=True)[0][0] + 1
        assert each.predict({"agent_0": 3}, deterministic=True) == {"agent_0": expected}


def test_predict_shapes_continuous_actions():
    env = NativeEnv(continuous=True, actions=(1, 3), limit=4)
    team = IndependentLearners(PPO, env, seed=0, n_steps=6, batch_size=6, **SMALL)
    observations, _ = env.reset(seed=0)
    actions = team.predict(observations)
    assert {agent: action.shape for agent, action in actions.items()} == {"agent_0": (2, 1), "agent_1": (2, 3)}
    assert dm2.Demonstrations.record(env, team.predict, 2, seed=0).actions.shape == (8, 2, 6)


def test_a_team_of_a_batched_environment_without_a_layout_takes_flat_observations():
    env = venv()
    team = IndependentLearners(MaskablePPO, env, seed=0, n_steps=6, batch_size=6, **SMALL)
    del env.layout
    observation = {"observation": np.zeros(4, np.float32), "action_mask": np.array([0, 1, 0])}
    assert team.predict({"agent_0": observation}) == {"agent_0": 1}


def test_maskable_ppo_gets_masks_of_ones_where_there_are_none():
    team = train(MaskablePPO, steps=18)
    assert team.models["agent_0"].rollout_buffer.action_masks.all()


def test_recurrent_policies_keep_their_state_through_an_episode():
    team = train(RecurrentPPO, steps=18)
    policy = team.policy(deterministic=True)
    observations, infos = venv().reset(seed=0)
    policy.start_episode(np.ones(3, bool))
    policy(observations, infos)
    first = copy.deepcopy(policy._states)
    policy(observations, infos)
    assert any((a != b).any() for a, b in zip(first["agent_0"], policy._states["agent_0"], strict=True))
    policy.start_episode(np.ones(3, bool))
    policy(observations, infos)
    for a, b in zip(first["agent_0"], policy._states["agent_0"], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "sometimes"}, "mode must be"),
        ({"matcher": "M"}, "needs a coefficient"),
        ({"coefficient": 0.3}, "needs a matcher"),
        ({"matcher": "M", "coefficient": -1.0}, "coefficient must be"),
        ({"matcher": "M", "coefficient": float("nan")}, "coefficient must be"),
        ({"env_coefficient": -1.0}, "env_coefficient must be"),
        ({"after_death": "heaven"}, "after_death must be"),
        ({"update_every": 0}, "update_every must be an integer of at least 1, got 0"),
        ({"update_every": 2.5}, "update_every must be an integer of at least 1, got 2.5"),
        ({"seed": 1.5}, "seed must be None or an integer, got 1.5"),
        ({"env_coefficient": "1"}, "env_coefficient must be a finite number of at least 0, got '1'"),
        ({"log_dir": "logs", "tensorboard_log": "logs"}, "log_dir or tensorboard_log, not both"),
    ],
)
def test_options_are_checked(change, message):
    if change.get("matcher"):
        change = {**change, "matcher": matcher()}
    with pytest.raises(ValueError, match=message):
        IndependentLearners(PPO, venv(), n_steps=6, batch_size=6, **SMALL, **change)


def test_numpys_numbers_are_saved_like_pythons(tmp_path):
    third = np.float32(0.3)
    for coefficient in (third, {"agent_0": third, "agent_1": np.int64(1)}):
        demos = dm2.DistributionMatcher(demonstrations(), updates=1, batch_size=8, seed=np.int64(0))
        options = {"env_coefficient": np.float32(0.5), "update_every": np.int64(18), "seed": np.int64(3)}
        team = IndependentLearners(
            PPO, venv(), matcher=demos, coefficient=coefficient, n_steps=6, batch_size=6, **options, **SMALL
        )
        team.save(tmp_path / "team")
        loaded = IndependentLearners.load(tmp_path / "team", venv())
        assert (loaded.env_coefficient, loaded.update_every, loaded.seed) == (0.5, 18, 3)
        expected = float(third) if coefficient is third else {"agent_0": float(third), "agent_1": 1.0}
        assert loaded.coefficient == team.coefficient == expected
    with pytest.raises(ValueError, match=r"seed must be None or an integer, got 1\.5"):
        dm2.DistributionMatcher(demonstrations(), seed=1.5)


def test_logging_without_tensorboard_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"package 'tensorboard', which is not installed: run pip install"):
        IndependentLearners(PPO, venv(), log_dir=tmp_path, n_steps=6, batch_size=6, **SMALL)


def test_unlike_n_steps_in_an_exact_run_are_refused():
    algorithms = {agent: partial(PPO, n_steps=n) for agent, n in (("agent_0", 6), ("agent_1", 12))}
    with pytest.raises(ValueError, match="same n_steps"):
        IndependentLearners(algorithms, venv(), matcher=matcher(), coefficient=0.3, batch_size=6, **SMALL)
    with pytest.raises(ValueError, match="needs on-policy"):
        IndependentLearners(DQN, venv(), matcher=matcher(), coefficient=0.3, mode="exact", **SMALL)


def test_wrong_agents_are_refused():
    with pytest.raises(ValueError, match="one algorithm for each"):
        IndependentLearners({"agent_0": PPO}, venv())
    with pytest.raises(ValueError, match="algorithm class"):
        IndependentLearners(dict, venv())
    with pytest.raises(ValueError, match="features"):
        IndependentLearners(PPO, venv(sizes=(4, 9)), matcher=matcher(), coefficient=0.3)
    team = IndependentLearners(PPO, venv(), n_steps=6, batch_size=6, **SMALL)
    with pytest.raises(ValueError, match="unknown agents"):
        team.learn(18, callback={"nobody": None})

    class Nothing(BaseCallback):
        def _on_step(self):
            return True

    with pytest.raises(ValueError, match="belongs to one learner"):
        team.learn(18, callback=Nothing())


def test_each_agent_may_have_a_coefficient_of_its_own():
    # In the first rollout, with equal data, agent 0 learns as if there were no matcher and agent 1 as if for both.
    first = [train(PPO, steps=18, matcher=matcher(), coefficient=c) for c in (0.0, {"agent_0": 0.0, "agent_1": 1.0}, 1.0)]
    zero, own, one = (weights(team) for team in first)
    assert_equal_weights({"agent_0": zero["agent_0"], "agent_1": one["agent_1"]}, own)
    assert any(not torch.equal(v, zero["agent_1"][n]) for n, v in own["agent_1"].items())
    with pytest.raises(ValueError, match="coefficient must have one number for each of"):
        train(PPO, matcher=matcher(), coefficient={"agent_0": 0.0})


def test_what_sb3_asserts_names_the_agent():
    for algorithm, options, message in (
        (DQN, {"continuous": True}, r"DQN cannot learn for agent 'agent_0', whose actions are Box.*only supports"),
        (partial(SAC, buffer_size=9), {}, r"SAC cannot learn for agent 'agent_0', .*Discrete\(3\).*supports"),
        (partial(PPO, n_steps=1), {}, "PPO cannot learn for agent 'agent_0', .* must be greater than 1"),
    ):
        with pytest.raises(ValueError, match=message):
            IndependentLearners(algorithm, TinyEnv(**options), device="cpu")


def test_numbers_of_steps_and_folders_that_are_none():
    team = IndependentLearners(PPO, TinyEnv(), device="cpu", n_steps=8, batch_size=8)
    for value in (float("nan"), float("inf"), None, "many"):
        with pytest.raises(ValueError, match="total_timesteps must be a number of environment steps, got"):
            team.learn(value)
    with pytest.raises(TypeError, match="log_dir must be the path of a folder, got 3"):
        IndependentLearners(PPO, TinyEnv(), device="cpu", log_dir=3)
