"""`predict` and `policy`: action masks from everywhere, recurrent states, and exploration that leaves training alone."""

import copy

import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import QRDQN, MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO

import dm2_wrappers as dm2
from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.sb3_teams import ON_POLICY, SMALL, train, venv
from tests.helpers.tiny_envs import TinyEnv

OPTIONS = {**SMALL, **ON_POLICY[MaskablePPO]}


class MasksInInfos(TinyEnv):
    """Only one action is available, and only the infos say so."""

    def _info(self, agent):
        return {"action_mask": np.eye(3, dtype=np.int8)[1 + self.t % 2]}

    def step(self, actions):
        expected = 1 + self.t % 2
        assert all(action == expected for action in actions.values()), actions
        return super().step(actions)


def test_masks_in_infos_reach_predict_and_recordings(tmp_path):
    env = MasksInInfos(sizes=(4, 3))
    team = IndependentLearners(MaskablePPO, dm2.vectorize(lambda: MasksInInfos(sizes=(4, 3)), 3), seed=0, **OPTIONS)
    observations, infos = env.reset(seed=0)
    assert set(team.predict(observations)) == {"agent_0", "agent_1"}  # it has not seen a mask yet
    team.learn(18).save(tmp_path / "team")
    for each in (team, IndependentLearners.load(tmp_path / "team", team.env)):
        for _ in range(20):
            assert each.predict(observations, infos=infos) == {"agent_0": 1, "agent_1": 1}
        asked = {agent: {"observation": observations[agent], **infos[agent]} for agent in observations}
        assert each.predict(asked) == {"agent_0": 1, "agent_1": 1}
        for missing in ({}, {"infos": {}}, {"infos": {"agent_1": {}}}):
            with pytest.raises(ValueError, match="was given no action mask, but its environment has masks"):
                each.predict(observations, **missing)
        for wrong in (np.ones(2), np.zeros(3), np.ones((1, 3))):
            with pytest.raises(ValueError, match="action mask of agent 'agent_0' must hold 3 numbers, not all of them 0"):
                each.predict(observations, infos={"agent_0": {"action_mask": wrong}})
    demos = dm2.Demonstrations.record(env, team.predict, 2, seed=0)
    assert demos.actions[:, 0].tolist() == [1, 2, 1, 2, 1] * 2


def test_masks_that_the_observation_space_declares_may_not_be_missing():
    env = TinyEnv(sizes=(4, 3), masks=True)
    team = IndependentLearners(MaskablePPO, env, seed=0, **OPTIONS)
    observations, _ = env.reset(seed=0)
    bare = {agent: {"observation": seen["observation"]} for agent, seen in observations.items()}
    with pytest.raises(ValueError, match="'agent_0' was given no action mask"):
        team.predict(bare)
    plain = IndependentLearners(PPO, env, seed=0, **SMALL, **ON_POLICY[PPO])
    assert set(plain.predict(bare)) == set(bare)  # PPO takes no masks


@pytest.mark.parametrize("algorithm", [DQN, QRDQN])
def test_exploration_in_test_episodes_repeats_and_leaves_training_alone(algorithm):
    options = {"learning_starts": 5, "buffer_size": 100, "batch_size": 4, **SMALL}
    options |= {"exploration_initial_eps": 0.5, "exploration_final_eps": 0.5}
    team, plain = (IndependentLearners(algorithm, venv(), seed=0, **options).learn(30) for _ in range(2))

    def streams(one):
        return [model.action_space.np_random.bit_generator.state for model in one.models.values()]

    before, test_env = streams(team), venv(wins=False)  # wins go by the environment's age
    first = team.evaluate(test_env, 6, seed=7)
    assert team.evaluate(test_env, 6, seed=7) == first
    dm2.Demonstrations.record(test_env, team.policy(), 3, seed=0)
    team.predict(TinyEnv(sizes=(4, 3)).reset(seed=0)[0])
    assert streams(team) == before == streams(plain)
    # The training's stream plays no part: with other ones the same episodes are played.
    for model in team.models.values():
        model.action_space.seed(123)
    assert team.evaluate(venv(wins=False), 6, seed=7) == plain.evaluate(venv(wins=False), 6, seed=7)


def test_recurrent_states_are_carried_by_a_policy_and_not_lost_without_one():
    env = TinyEnv(sizes=(4, 3), limit=6)
    team = IndependentLearners(RecurrentPPO, venv(), seed=0, **SMALL, **ON_POLICY[RecurrentPPO]).learn(18)
    observations, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match=r"carry a state from step to step: make policy = team\.policy\(\) once"):
        team.predict(observations)
    policy = team.policy(deterministic=True)
    states = dict.fromkeys(team.agents)
    for start in (True, False, False, True, False):
        if start:
            observations, _ = env.reset(seed=1)
            policy.start_episode(np.ones(1, bool))
        expected = {}
        for agent, model in team.models.items():
            row = observations[agent][None]
            actions, states[agent] = model.predict(row, states[agent], np.array([start]), deterministic=True)
            expected[agent] = int(actions[0])
        assert team.predict(observations, policy=policy) == expected
        for agent, state in states.items():
            for mine, theirs in zip(policy._states[agent], state, strict=True):
                np.testing.assert_array_equal(mine, theirs)
        observations = env.step(expected)[0]


def test_the_recurrent_state_of_an_agent_that_comes_back_is_a_new_one():
    team = IndependentLearners(RecurrentPPO, venv(2), seed=0, **SMALL, **ON_POLICY[RecurrentPPO])
    rng = np.random.default_rng(0)
    seen = rng.normal(size=(4, 2, 2, 4)).astype(np.float32)
    present = np.ones((4, 2, 2), bool)
    present[1:3, 1, 1] = False
    policy, fresh = team.policy(), team.policy()
    for t in range(4):
        policy(seen[t], {"present": present[t]})
    fresh(seen[3], {})
    for mine, other in zip(policy._states["agent_1"], fresh._states["agent_1"], strict=True):
        np.testing.assert_allclose(mine[:, 1], other[:, 1], atol=1e-6)  # it came back in sub-environment 1
        assert not np.allclose(mine[:, 0], other[:, 0], atol=1e-4)


class AllZeroForTheDead(TinyEnv):
    """As SMAC's own wrapper: the dead have a mask of zeros, and may only do action 0."""

    def _observe(self, agent):
        seen = super()._observe(agent)
        return {**seen, "action_mask": seen["action_mask"] * (agent not in self.dead)}

    def step(self, actions):
        assert all(actions[agent] == 0 for agent in self.dead), actions
        return super().step(actions)


def test_the_dead_may_have_no_available_action():
    make = lambda: AllZeroForTheDead(sizes=(4, 3), masks=True, lifetimes=(None, 2), absorb=True)  # noqa: E731
    team = IndependentLearners(MaskablePPO, make(), seed=0, **OPTIONS)
    demos = dm2.Demonstrations.record(make(), team.predict, 1, seed=0)
    assert demos.alive[:, 1].tolist() == [True, True, False, False, False]
    env = dm2.sb3.SharedPolicyVecEnv(make())
    policy = dm2.sb3.SharedPolicy(MaskablePPO("MlpPolicy", env, n_steps=8, batch_size=8, **SMALL), env)
    assert dm2.Demonstrations.record(make(), lambda seen, infos: policy.act(seen, infos), 1).alive[:, 1].sum() == 2
    dead = {"agent_1": {"observation": np.zeros(3), "action_mask": np.zeros(3)}}
    with pytest.raises(ValueError, match=r"not all of them 0, .*; if the agent is dead, pass infos=infos"):
        team.predict(dead)
    assert team.predict(dead, infos={"agent_1": {"alive": False}}) == {"agent_1": 0}


def test_what_predict_does_not_take():
    env = TinyEnv(sizes=(4, 3))
    team = IndependentLearners(PPO, env, seed=0, **SMALL, **ON_POLICY[PPO])
    for given, message in ((env.reset(), "got tuple"), (np.zeros(4), "got ndarray"), (None, "got NoneType")):
        with pytest.raises(TypeError, match=f"predict.. takes observations as a dict with the agents' names, {message}"):
            team.predict(given)
    seen, _ = env.reset()
    with pytest.raises(TypeError, match=r"predict\(\) takes infos as a dict"):
        team.predict(seen, infos=[])
    with pytest.raises(TypeError, match=r"policy must be what team.policy\(\) returned, got function"):
        team.predict(seen, policy=lambda observations: {})
    with pytest.raises(ValueError, match="observation of agent 'agent_1' must hold finite numbers, got array"):
        team.predict({"agent_1": np.array([0, np.nan, 0])})


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
