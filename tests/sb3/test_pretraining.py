"""Behavior cloning of every agent's policy."""

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners, pretrain
from tests.helpers.sb3_teams import ON_POLICY, SMALL, assert_equal_weights, demonstrations, venv, weights
from tests.helpers.tiny_envs import TinyEnv

ENV = {"sizes": (3, 2), "limit": 4}
CLONING = {"epochs": 40, "batch_size": 20, "learning_rate": 3e-2}


def expert(observations):
    """Agent 0 does 0, 1, 2, 0, ... by the time; agent 1 twice the time, modulo 3."""
    return {agent: int(seen[0] * (1 + k)) % 3 for k, (agent, seen) in enumerate(observations.items())}


def team_of(algorithm, env=None, **options):
    kwargs = {**SMALL, **ON_POLICY.get(algorithm, {"n_steps": 6}), **options}
    return IndependentLearners(algorithm, env or dm2.vectorize(lambda: TinyEnv(**ENV), 2), seed=3, **kwargs)


@pytest.fixture(scope="module")
def demos():
    return dm2.Demonstrations.record(TinyEnv(**ENV), expert, 20, seed=0)


@pytest.mark.parametrize("algorithm", [PPO, A2C, MaskablePPO, RecurrentPPO, TRPO])
def test_a_cloned_team_plays_like_its_experts(algorithm, demos):
    team = team_of(algorithm)
    history = pretrain(team, demos, **CLONING)
    assert {agent: len(each["loss"]) for agent, each in history.items()} == {"agent_0": 40, "agent_1": 40}
    for each in history.values():
        assert each["loss"][-1] < 0.3 < each["loss"][0]
        assert each["accuracy"][-1] == 1.0
    played = dm2.Demonstrations.record(dm2.vectorize(lambda: TinyEnv(**ENV), 1), team.policy(deterministic=True), 3, seed=9)
    expected = np.array([[0, 0], [1, 2], [2, 1], [0, 0]])
    np.testing.assert_array_equal(played.actions, np.tile(expected, (3, 1)))


def test_a_recurrent_clone_uses_its_memory():
    # Without the time in view only the number of steps so far says what the experts do.
    class Blind(TinyEnv):
        def _observe(self, agent):
            return super()._observe(agent) * 0

    steps = iter(range(10**6))
    demos = dm2.Demonstrations.record(Blind(**ENV), lambda seen: dict.fromkeys(seen, (0, 1, 1, 0)[next(steps) % 4]), 9)
    env = dm2.vectorize(lambda: Blind(**ENV), 1)
    recurrent = pretrain(team_of(RecurrentPPO, env), demos, **CLONING)
    assert recurrent["agent_0"]["accuracy"][-1] == 1.0
    assert pretrain(team_of(PPO, env), demos, **CLONING)["agent_0"]["accuracy"][-1] < 0.6


def test_continuous_actions_are_cloned_and_the_spread_stays():
    env = TinyEnv(sizes=(3, 2), actions=(1, 2), limit=4, continuous=True)
    demos = dm2.Demonstrations.record(
        env, lambda o: {a: np.full(1 + k, 0.2 * seen[0] - 0.3 * k, np.float32) for k, (a, seen) in enumerate(o.items())}, 9
    )
    team = team_of(PPO, dm2.vectorize(lambda: TinyEnv(sizes=(3, 2), actions=(1, 2), limit=4, continuous=True), 1))
    spread = team.models["agent_1"].policy.log_std.clone()
    history = pretrain(team, demos, **CLONING)
    assert max(each["error"][-1] for each in history.values()) < 0.05 < min(each["error"][0] for each in history.values())
    seen = {"agent_0": np.array([2, 0, 0], np.float32), "agent_1": np.array([2, 0], np.float32)}
    actions = team.predict(seen, deterministic=True)
    np.testing.assert_allclose(actions["agent_0"], [0.4], atol=0.1)
    np.testing.assert_allclose(actions["agent_1"], [0.1, 0.1], atol=0.1)
    assert torch.equal(team.models["agent_1"].policy.log_std, spread)


def continuous(actions):
    env = TinyEnv(sizes=(3, 2), actions=1, limit=4, continuous=True)
    return dm2.Demonstrations.record(env, lambda seen: {a: np.full(1, actions, np.float32) for a in seen}, 3)


def wide():
    """The same with actions from -4 to 4."""
    env = TinyEnv(sizes=(3, 2), actions=1, limit=4, continuous=True)
    env.action_spaces = {agent: spaces.Box(-4, 4, (1,), np.float32) for agent in env.possible_agents}
    env.action_space = env.action_spaces.__getitem__
    return env


def test_a_squashed_policy_is_cloned_in_its_own_units():
    env = dm2.vectorize(wide, 1)
    demos = dm2.Demonstrations.record(wide(), lambda seen: {a: np.full(1, 2, np.float32) for a in seen}, 9)
    options = {"use_sde": True, "policy_kwargs": {**SMALL["policy_kwargs"], "squash_output": True}}
    team = team_of(PPO, env, **options)
    history = pretrain(team, demos, **{**CLONING, "epochs": 150})
    assert max(each["error"][-1] for each in history.values()) < 0.05
    seen = {agent: demos.observations(agent)[0] for agent in team.agents}
    for action in team.predict(seen, deterministic=True).values():
        np.testing.assert_allclose(action, [2], atol=0.2)  # and not 4, the end of the range


def test_actions_beyond_the_action_space_are_refused():
    team = team_of(PPO, dm2.vectorize(lambda: TinyEnv(sizes=(3, 2), actions=1, limit=4, continuous=True), 1))
    before = weights(team)
    demos = continuous(1)
    demos.actions[4, 1] = -1.5
    with pytest.raises(ValueError, match=r"'agent_1' has actions from \[-1.0\] to \[1.0\], but its .* hold \[-1.5\]: clip"):
        pretrain(team, demos)
    assert_equal_weights(before, weights(team))
    demos.actions[4, 1] = 1.5
    with pytest.raises(ValueError, match=r"hold \[1.5\]: clip"):
        pretrain(team, demos)
    demos.alive[4, 1] = False  # what the dead did does not matter
    pretrain(team, demos, epochs=1)
    demos.alive[4, 1] = True
    demos.actions[4, 1] = 1 + 1e-6  # rounding
    pretrain(team, demos, epochs=1)


def test_the_loss_is_the_mean_negative_log_probability_of_live_steps():
    demos = demonstrations()  # agent 1 is dead from its fourth step on
    team = IndependentLearners(PPO, venv(), seed=3, **SMALL, n_steps=6, batch_size=6)
    k, policy = 1, team.models["agent_1"].policy
    with torch.no_grad():
        seen = torch.as_tensor(demos.observations("agent_1"))
        actions = torch.as_tensor(demos.actions[demos.alive[:, k], k])
        expected = -policy.evaluate_actions(seen, actions)[1].mean()
    critic = [p.clone() for p in policy.mlp_extractor.value_net.parameters()]
    history = pretrain(team, demos, epochs=1, batch_size=10**6)
    assert history["agent_1"]["loss"][0] == pytest.approx(float(expected), rel=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(critic, policy.mlp_extractor.value_net.parameters(), strict=True))
    assert not policy.optimizer.state  # the learner's own optimizer begins fresh
    recurrent = IndependentLearners(RecurrentPPO, venv(), seed=3, **SMALL, n_steps=6, batch_size=6)
    lstm, k_seen = recurrent.models["agent_1"].policy, demos.padded_observations[:, k, :3]
    with torch.no_grad():
        losses = []
        for first, last in zip(demos.offsets[k, :-1], demos.offsets[k, 1:], strict=True):
            state = (torch.zeros(1, 1, 256), torch.zeros(1, 1, 256))
            for t in range(first, last):  # step after step, with the state carried along
                distribution, state = lstm.get_distribution(torch.as_tensor(k_seen[t : t + 1]), state, torch.zeros(1))
                if demos.alive[t, k]:
                    losses.append(-float(distribution.log_prob(torch.as_tensor(demos.actions[t : t + 1, k]))))
    history = pretrain(recurrent, demos, epochs=1, batch_size=10**6)
    assert history["agent_1"]["loss"][0] == pytest.approx(np.mean(losses), rel=1e-5)


def test_a_recurrent_clone_begins_with_empty_memory_whenever_its_agent_comes():
    rng, there = np.random.default_rng(0), {"agent_0": np.ones(6, bool), "agent_1": np.array([0, 0, 1, 1, 0, 1], bool)}
    episode = {
        "observations": {agent: 5 * rng.normal(size=(6, 3)).astype(np.float32) for agent in there},
        "actions": {agent: rng.integers(0, 3, 6) for agent in there},
        "alive": there,
    }
    demos = dm2.Demonstrations.from_episodes([episode, episode])
    team = team_of(RecurrentPPO, dm2.vectorize(lambda: TinyEnv(sizes=(3, 3)), 1))
    lstm, losses = team.models["agent_1"].policy, []
    with torch.no_grad():
        for first in (2, 5):  # it is there in steps 2 and 3, and in step 5
            state = (torch.zeros(1, 1, 256), torch.zeros(1, 1, 256))
            for t in (2, 3) if first == 2 else (5,):
                seen = torch.as_tensor(episode["observations"]["agent_1"][t : t + 1])
                distribution, state = lstm.get_distribution(seen, state, torch.zeros(1))
                losses.append(-float(distribution.log_prob(torch.as_tensor(episode["actions"]["agent_1"][t : t + 1]))))
    history = pretrain(team, demos, epochs=1, batch_size=10**6)
    assert history["agent_1"]["loss"][0] == pytest.approx(np.mean(losses), rel=1e-6)


def test_it_is_deterministic_and_an_agent_depends_on_no_other(demos):
    one, same, other, alone = (team_of(PPO) for _ in range(4))
    kwargs = {"epochs": 2, "batch_size": 7}
    assert pretrain(one, demos, **kwargs) == pretrain(same, demos, **kwargs)
    assert_equal_weights(weights(one), weights(same))
    pretrain(other, demos, **kwargs, seed=8)
    assert not torch.equal(one.models["agent_0"].policy.action_net.weight, other.models["agent_0"].policy.action_net.weight)
    elsewhere = dm2.Demonstrations.record(TinyEnv(**ENV), lambda seen: dict.fromkeys(seen, 2), 20, seed=0)
    pretrain(alone, dm2.Demonstrations.mix({"agent_0": demos, "agent_1": elsewhere}), **kwargs)
    assert_equal_weights({"agent_0": weights(one)["agent_0"]}, {"agent_0": weights(alone)["agent_0"]})


def test_a_clone_is_a_start_for_distribution_matching(demos):
    experts = dm2.DistributionMatcher(demos, updates=2, batch_size=8, seed=0)
    team = team_of(PPO, matcher=experts, coefficient=0.5)
    pretrain(team, demos, **CLONING)
    cloned = weights(team)
    team.learn(24)
    assert team.num_timesteps == 24
    assert not torch.equal(cloned["agent_0"]["action_net.weight"], weights(team)["agent_0"]["action_net.weight"])


class Inside(BaseCallback):
    def __init__(self, team, demos):
        super().__init__()
        self.team, self.demos = team, demos

    def _on_step(self):
        pretrain(self.team, self.demos)
        return True


def test_what_cannot_be_cloned_is_refused_in_a_sentence(demos, capsys):
    with pytest.raises(TypeError, match=r"pretrain\(\) trains the learners of an IndependentLearners, got PPO"):
        pretrain(PPO("MlpPolicy", "CartPole-v1"), demos)
    with pytest.raises(ValueError, match=r"clones policies of on-policy algorithms.*but agent 'agent_0' has DQN"):
        pretrain(IndependentLearners(DQN, dm2.vectorize(lambda: TinyEnv(**ENV), 1), **SMALL), demos)
    team = team_of(PPO)
    empty = dm2.Demonstrations.from_episodes([{"agent_0": np.ones((3, 3)), "agent_1": np.ones((3, 2))}])
    with pytest.raises(ValueError, match="these demonstrations hold none"):
        pretrain(team, empty)
    large = {"observations": {"agent_0": np.ones((3, 3)), "agent_1": np.ones((3, 2))}, "actions": np.array([0, 1, 3])}
    with pytest.raises(ValueError, match="'agent_0' has the actions 0 to 2, but its demonstrations hold 0 to 3"):
        pretrain(team, dm2.Demonstrations.from_episodes([large]))
    continuous = {**large, "actions": np.ones((3, 2), np.float32)}
    with pytest.raises(ValueError, match=r"action space Discrete\(3\), but its demonstrations hold actions \[3, 2\]"):
        pretrain(team, dm2.Demonstrations.from_episodes([continuous]))
    boxes = dm2.vectorize(lambda: TinyEnv(**ENV, continuous=True), 1)
    size = boxes.action_spaces["agent_0"].shape[0]
    wide = {**large, "actions": np.full((3, size + 1), 0.5, np.float32)}
    message = f"agent 'agent_0' has actions of {size} numbers, but its demonstrations hold actions of {size + 1}"
    with pytest.raises(ValueError, match=message):
        pretrain(team_of(PPO, boxes), dm2.Demonstrations.from_episodes([wide]))
    with pytest.raises(ValueError, match="agent 'agent_0' has 3 observation features"):
        pretrain(team, dm2.Demonstrations.record(TinyEnv(sizes=(2, 2)), expert, 1))
    with pytest.raises(TypeError, match="needs Demonstrations, got str"):
        pretrain(team, "demos.npz")
    with pytest.raises(ValueError, match="epochs must be an integer of at least 1"):
        pretrain(team, demos, epochs=0)
    with pytest.raises(RuntimeError, match=r"pretrain\(\) was called while learn\(\) is under way"):
        team.learn(12, {"agent_0": Inside(team, demos)})
    pretrain(team, demos, epochs=1, progress_bar=True)
    assert "cloning" in capsys.readouterr().err
