"""One agent's environment: what it shows of the joint one."""

import numpy as np
import pytest

import dm2_wrappers as dm2
from dm2_wrappers.lockstep import AgentVectorEnv, Lockstep
from tests.helpers.locksteps import loops_of, make
from tests.helpers.tiny_envs import ShapedEnv, TinyEnv


def test_every_loop_sees_its_own_slice_of_what_the_joint_environment_plays():
    _, lockstep = make(n=3, sizes=(4, 2, 3), limit=4)
    rng = np.random.default_rng(0)
    plan = rng.integers(0, 3, (11, 3, 3))

    def body(env, agent):
        k = env.view.index
        seen = [env.reset()[0]]
        for actions in plan:
            observations, rewards, terminations, truncations, infos = env.step(actions[:, k])
            seen.append((observations, rewards, terminations, truncations, infos["final_obs"]))
        return seen

    results = lockstep.run(loops_of(lockstep, body))
    reference = dm2.vectorize(lambda: TinyEnv(sizes=(4, 2, 3), limit=4), 3)
    observations, _ = reference.reset(seed=0)
    for k, (agent, size) in enumerate(zip(reference.possible_agents, (4, 2, 3), strict=True)):
        np.testing.assert_array_equal(results[agent][0], observations[:, k, :size])
    for t, actions in enumerate(plan):
        observations, rewards, terminations, truncations, infos = reference.step(actions)
        for k, (agent, size) in enumerate(zip(reference.possible_agents, (4, 2, 3), strict=True)):
            got = results[agent][t + 1]
            for mine, joint in zip(got, (observations, rewards, terminations, truncations), strict=False):
                np.testing.assert_array_equal(mine, joint[:, k, :size] if joint.ndim == 3 else joint[:, k])
            np.testing.assert_array_equal(got[4], infos["final_obs"][:, k, :size])


def test_masks_and_alive_are_the_agents_own():
    _, lockstep = make(n=1, sizes=(3, 3), actions=(3, 2), masks=True, absorb=True, lifetimes=(1, None), limit=3)

    def body(env, agent):
        _, infos = env.reset()
        return infos, env.step(np.array([0]))[4]

    results = lockstep.run(loops_of(lockstep, body))
    assert results["agent_0"][0]["action_mask"].tolist() == [[True, False, True]]
    assert results["agent_1"][0]["action_mask"].tolist() == [[True, False]]
    assert results["agent_0"][1]["alive"].tolist() == [False]
    assert results["agent_1"][1]["alive"].tolist() == [True]


@pytest.mark.parametrize("matching", [True, False])
def test_infos_have_the_environments_own_rewards_and_returns(matching):
    # Agent 0 leaves after 2 of the 3 steps. The team reward is the sum of the present agents' actions.
    venv = dm2.vectorize(lambda: TinyEnv(sizes=(3, 3), lifetimes=(2, None), limit=3), 1)
    if matching:
        demos = dm2.Demonstrations.record(TinyEnv(sizes=(3, 3)), lambda seen: dict.fromkeys(seen, 1), 2, seed=0)
        venv = dm2.DM2VectorEnv(venv, demos, coefficient=0.5, env_coefficient=2.0)
    lockstep = Lockstep(venv, seed=0)

    def body(env, agent):
        steps = [(np.zeros(1), env.reset()[1])]
        for action in (1, 2, 1, 2):
            _, reward, _, _, infos = env.step(np.array([action]))
            steps.append((reward, infos))
        return steps

    results = lockstep.run(loops_of(lockstep, body))
    rewards = {agent: [float(info["env_reward"][0]) for _, info in steps] for agent, steps in results.items()}
    assert rewards == {"agent_0": [0, 2, 4, 0, 4], "agent_1": [0, 2, 4, 1, 4]}
    ends = {agent: [bool(info["_env_return"][0]) for _, info in steps] for agent, steps in results.items()}
    assert ends == {"agent_0": [False, False, True, False, False], "agent_1": [False, False, False, True, False]}
    returns = {agent: [float(info["env_return"][0]) for _, info in steps] for agent, steps in results.items()}
    assert returns == {"agent_0": [0, 0, 6, 0, 0], "agent_1": [0, 0, 0, 7, 0]}
    for steps in results.values():
        for reward, info in steps[1:]:
            assert ("gail_reward" in info) == matching
            if matching:
                np.testing.assert_allclose(reward, 2 * info["env_reward"] + 0.5 * info["gail_reward"], rtol=1e-6)
    assert len({frozenset(info) - {"final_obs"} for steps in results.values() for _, info in steps}) == 1
    if matching:
        assert any(info["gail_reward"].any() for steps in results.values() for _, info in steps)


def test_a_reset_amid_an_episode_begins_its_return_anew():
    _, lockstep = make(n=1, sizes=(2, 2), limit=3)
    returns = []

    def body(env, agent):
        env.reset()
        env.step(np.ones(1, int))
        env.reset()
        earned = [env.step(np.ones(1, int)) for _ in range(3)]
        *_, infos = earned[-1]
        assert infos["_env_return"].tolist() == [True]
        returns.append((float(infos["env_return"][0]), sum(float(rewards[0]) for _, rewards, *_ in earned)))

    lockstep.run(loops_of(lockstep, body))
    assert len(returns) == 2
    assert all(told == summed > 0 for told, summed in returns)


def test_an_agents_view_has_the_batched_spaces_and_a_copy_of_who_won():
    _, lockstep = make(n=2, sizes=(3, 2), wins=True, limit=2)
    seen = {}

    def body(env, agent):
        assert env.observation_space.shape == (2, *env.single_observation_space.shape)
        assert env.action_space.nvec.tolist() == [3, 3]
        env.reset()
        for _ in range(2):
            *_, infos = env.step(np.zeros(2, int))
        seen[agent] = infos["battle_won"].tolist()
        assert seen[agent] == lockstep.infos["battle_won"].tolist()
        assert infos["_battle_won"].tolist() == [True, True]
        infos["battle_won"][:] = infos["_battle_won"][:] = False  # the other agent's are other arrays

    lockstep.run(loops_of(lockstep, body))
    assert seen["agent_0"] == seen["agent_1"]
    assert any(seen["agent_0"])


def test_learners_do_not_share_their_spaces_random_streams():
    _, lockstep = make(sizes=(3, 3))
    views = [AgentVectorEnv(lockstep, agent) for agent in lockstep.env.possible_agents]
    assert views[0].single_action_space is not views[1].single_action_space
    assert views[0].single_action_space is not lockstep.env.action_spaces["agent_0"]
    assert views[0].single_observation_space is not lockstep.env.observation_spaces["agent_0"]


@pytest.mark.parametrize("matched", [False, True])
def test_returns_are_the_environments_own_and_final_observations_are_marked(matched):
    options = {"sizes": (3, 2), "limit": 3}
    venv = dm2.vectorize(lambda: ShapedEnv(**options), 2)
    if matched:
        demos = dm2.Demonstrations.record(TinyEnv(**options), lambda seen: dict.fromkeys(seen, 1), 2, seed=0)
        venv = dm2.DM2VectorEnv(venv, demos, coefficient=1.0)
    lockstep = Lockstep(venv, seed=0)

    def body(env, agent):
        env.reset()
        return [env.step(np.ones(2, int))[4] for _ in range(3)]

    for steps in lockstep.run(loops_of(lockstep, body)).values():
        assert [infos["env_reward"].tolist() for infos in steps] == [[1.0, 1.0]] * 3
        assert steps[-1]["env_return"].tolist() == [3.0, 3.0]
        assert [infos["_final_obs"].tolist() for infos in steps] == [[False] * 2, [False] * 2, [True] * 2]


@pytest.mark.parametrize("given", [np.zeros((2, 1), int), np.zeros(3, int), np.int64(0)])
def test_actions_of_another_shape_are_the_agents_own_error(given):
    _, lockstep = make(n=2, sizes=(3, 2), limit=3)

    def body(env, agent):
        env.reset()
        env.step(given if agent == "agent_1" else np.zeros(2, int))

    with pytest.raises(ValueError, match=r"expected actions of shape \(2,\) from agent 'agent_1', got") as error:
        lockstep.run(loops_of(lockstep, body))
    assert any("agent_1" in note for note in error.value.__notes__)
    with pytest.raises(ValueError, match=r"agent must be one of \['agent_0', 'agent_1'\], got 'zz'"):
        AgentVectorEnv(lockstep, "zz")
