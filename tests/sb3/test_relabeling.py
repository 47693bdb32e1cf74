"""Replay buffers whose rewards are paid under the present discriminators when a batch is sampled."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo import ParallelEnv
from stable_baselines3 import DQN, PPO, SAC

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.sb3_teams import SMALL, assert_equal_weights, matcher, venv, weights

OFF_POLICY = {**SMALL, "learning_starts": 5, "buffer_size": 500, "update_every": 30}


def team_of(algorithm=DQN, env=None, relabel=True, **options):
    options = {"matcher": matcher(), "coefficient": {"agent_0": 0.5, "agent_1": 2.0}, **OFF_POLICY, **options}
    return IndependentLearners(algorithm, env or venv(), seed=0, relabel=relabel, **options)


def sampled(team, agent, rows):
    """A batch of these rows: observations and rewards."""
    samples = team.models[agent].replay_buffer._get_samples(rows)
    return samples.observations.numpy(), samples.rewards.numpy()[:, 0]


def gail(team, k, observations):
    """r_gail by hand: the agent's logit less its offset."""
    joint = torch.zeros(len(observations), 2, 4)
    joint[:, k, : observations.shape[1]] = torch.as_tensor(observations)
    offset = team.matcher.metrics[f"offset/agent_{k}"]
    return team.matcher.discriminators.logits(joint)[:, k].numpy() - offset


def test_a_sampled_reward_differs_from_the_stale_one_exactly_by_the_change_of_r_gail():
    # Agent 1 dies in the third step; what the team earns afterwards is credited to the step of death.
    relabeled, stale = team_of(env_coefficient=3.0).learn(60), team_of(relabel=False, env_coefficient=3.0).learn(60)
    rows = np.arange(30)
    for k, (agent, c) in enumerate({"agent_0": 0.5, "agent_1": 2.0}.items()):
        observations, before = sampled(relabeled, agent, rows)
        np.testing.assert_array_equal(observations[:15], sampled(stale, agent, rows)[0][:15])  # played before any training
        then = gail(relabeled, k, observations)
        np.testing.assert_allclose(before - relabeled.models[agent].replay_buffer.rewards[rows, 0], c * then, atol=1e-5)
        # The very first steps were paid by discriminators that no update had trained yet.
        untrained = team_of()
        first = observations[:15]
        joint = torch.zeros(15, 2, 4)
        joint[:, k, : first.shape[1]] = torch.as_tensor(first)
        paid_then = untrained.matcher.discriminators.logits(joint)[:, k].numpy()
        difference = before[:15] - sampled(stale, agent, rows)[1][:15]
        np.testing.assert_allclose(difference, c * (then[:15] - paid_then), atol=1e-4)
        assert np.abs(difference).max() > 1e-3
        relabeled.matcher.record(np.ones((9, 1, 2, 4), np.float32), np.ones((9, 1, 2), bool))
        relabeled.matcher.update()
        after = sampled(relabeled, agent, rows)[1]
        np.testing.assert_allclose(after - before, c * (gail(relabeled, k, observations) - then), atol=1e-4)
        assert np.abs(after - before).max() > 1e-3
    relabeled.coefficient = 0.0
    np.testing.assert_array_equal(
        sampled(relabeled, "agent_1", rows)[1], relabeled.models["agent_1"].replay_buffer.rewards[rows, 0]
    )


@pytest.mark.parametrize("algorithm", [DQN, SAC])
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, algorithm):
    env = venv(wins=False, continuous=algorithm is SAC, actions=2 if algorithm is SAC else 3)
    options = {"learning_starts": 20, "matcher": dm2.DistributionMatcher(demos_of(env), updates=2, batch_size=8, seed=0)}
    team = team_of(algorithm, env, **options).learn(45)
    team.save(tmp_path / "team")
    team.restart_episodes()
    team.learn(30, reset_num_timesteps=False)
    loaded = IndependentLearners.load(tmp_path / "team", env)
    assert loaded.relabel
    loaded.learn(30)
    assert_equal_weights(weights(team), weights(loaded))


def demos_of(env):
    rng = np.random.default_rng(0)
    width = () if env.discrete else (2,)

    def policy(observations, infos):
        shape = (*observations.shape[:2], *width)
        return rng.integers(3, size=shape) if env.discrete else rng.uniform(-1, 1, shape).astype(np.float32)

    return dm2.Demonstrations.record(env, policy, 3, seed=5)


def test_a_replay_buffer_of_the_other_kind_is_refused(tmp_path):
    relabeled, stale = team_of().learn(30), team_of(relabel=False).learn(30)
    for source, target, words in ((relabeled, stale, "relabel=True"), (stale, relabeled, "relabel=False")):
        source.models["agent_0"].save_replay_buffer(tmp_path / "buffer")
        kept = target.models["agent_0"].replay_buffer
        target.models["agent_0"].load_replay_buffer(tmp_path / "buffer")
        with pytest.raises(ValueError, match=f"replay buffer loaded for agent 'agent_0' holds .*{words}"):
            target.learn(30)
        target.models["agent_0"].replay_buffer = kept
    relabeled.models["agent_0"].save_replay_buffer(tmp_path / "buffer")
    relabeled.models["agent_0"].load_replay_buffer(tmp_path / "buffer")
    relabeled.learn(30)


@pytest.mark.parametrize(
    ("algorithm", "options", "message"),
    [
        (DQN, {"matcher": None, "coefficient": None}, "relabel=True pays the present r_gail, so it needs a matcher"),
        (PPO, {"n_steps": 6, "batch_size": 6}, "relabel=True is for off-policy algorithms with a replay buffer"),
        (DQN, {"relabel": 1}, "relabel must be True or False, got 1"),
    ],
)
def test_where_nothing_can_be_relabeled_it_is_refused(algorithm, options, message):
    chosen = {"matcher": matcher(), "coefficient": 0.5, "relabel": True, **SMALL, **options}
    with pytest.raises(ValueError, match=message):
        IndependentLearners(algorithm, venv(), **chosen)


class Line(ParallelEnv):
    """Two agents on a line of five places; action 0 goes left, 1 right. Nothing is paid."""

    def __init__(self):
        self.metadata, self.render_mode = {"name": "line"}, None
        self.possible_agents, self.agents = ["a", "b"], []
        self.observation_spaces = dict.fromkeys(self.possible_agents, spaces.Box(-4.0, 4.0, (1,), np.float32))
        self.action_spaces = dict.fromkeys(self.possible_agents, spaces.Discrete(2))

    def observation_space(self, agent):
        return self.observation_spaces[agent]

    def action_space(self, agent):
        return self.action_spaces[agent]

    def reset(self, seed=None, options=None):
        self.agents, self.t, self.places = list(self.possible_agents), 0, dict.fromkeys(self.possible_agents, 0)
        return self._seen(), {agent: {} for agent in self.agents}

    def step(self, actions):
        for agent, action in actions.items():
            self.places[agent] = int(np.clip(self.places[agent] + (1 if action else -1), -2, 2))
        self.t += 1
        agents, over = self.agents, self.t == 6
        self.agents = [] if over else agents
        nothing, never = dict.fromkeys(agents, 0.0), dict.fromkeys(agents, False)
        return self._seen(), nothing, never, dict.fromkeys(agents, over), {agent: {} for agent in agents}

    def _seen(self):
        return {agent: np.array([2.0 * place], np.float32) for agent, place in self.places.items()}


def test_dqn_learns_where_its_experts_went_from_rewards_paid_anew():
    demos = dm2.Demonstrations.record(Line(), lambda seen: {agent: int(agent == "b") for agent in seen}, 8, seed=0)
    experts = dm2.DistributionMatcher(demos, updates=5, batch_size=64, learning_rate=1e-2, seed=0)
    team = IndependentLearners(
        DQN,
        dm2.vectorize(Line, 4),
        matcher=experts,
        coefficient=1.0,
        relabel=True,
        update_every=64,
        seed=0,
        gamma=0.8,
        learning_rate=1e-2,
        learning_starts=64,
        train_freq=4,
        gradient_steps=3,
        target_update_interval=64,
        exploration_fraction=0.5,
        **SMALL,
    )
    team.learn(1200)
    played = dm2.Demonstrations.record(dm2.vectorize(Line, 1), team.policy(deterministic=True), 1, seed=1)
    assert played.observations("a")[:, 0].tolist() == [0, -2, -4, -4, -4, -4]
    assert played.observations("b")[:, 0].tolist() == [0, 2, 4, 4, 4, 4]
