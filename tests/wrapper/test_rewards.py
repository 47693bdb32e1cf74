"""What the wrappers pay, by hand, around a ParallelEnv and around a batched environment."""

import numpy as np
import pytest

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import TinyEnv
from tests.helpers.tiny_matchers import same
from tests.helpers.wrapped import OPTIONS, before_the_last_step, demonstrations, flat, matcher, recording, zeros


@pytest.mark.parametrize("masks", [False, True])
def test_the_reward_is_env_plus_c_times_gail_of_the_observation_before_the_action(masks):
    demos = demonstrations(masks=masks)
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS, masks=masks), matcher(demos), coefficient=0.3)
    twin = TinyEnv(**OPTIONS, masks=masks)
    observations, infos = env.reset(seed=1)
    twin.reset(seed=1)
    for _ in range(3):
        actions = zeros(env)
        gail = env.matcher.rewards({a: flat(o) for a, o in observations.items()})
        observations, rewards, _, _, infos = env.step(actions)
        env_rewards = twin.step(actions)[1]
        for agent in env.possible_agents:
            assert rewards[agent] == pytest.approx(env_rewards[agent] + 0.3 * gail[agent], rel=1e-5)
            assert infos[agent]["env_reward"] == env_rewards[agent]
            assert infos[agent]["gail_reward"] == pytest.approx(gail[agent], rel=1e-5)


def test_each_agent_may_have_a_coefficient_of_its_own():
    own = {"agent_0": 0.0, "agent_1": 2.0}
    single = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=own)
    single.reset(seed=0)
    _, rewards, _, _, infos = single.step({"agent_0": 0, "agent_1": 1})
    assert infos["agent_1"]["gail_reward"] != 0.0
    for agent, c in own.items():
        assert rewards[agent] == pytest.approx(infos[agent]["env_reward"] + c * infos[agent]["gail_reward"])
    batched = dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 1), matcher(), coefficient=own)
    batched.reset(seed=0)
    np.testing.assert_allclose(batched.step(np.array([[0, 1]]))[1][0], [rewards["agent_0"], rewards["agent_1"]], rtol=1e-6)


def test_env_coefficient_zero_is_gail_alone():
    env = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(), coefficient=2.0, env_coefficient=0.0)
    env.reset(seed=1)
    _, rewards, _, _, infos = env.step({"agent_0": 2, "agent_1": 1})
    assert rewards["agent_0"] == pytest.approx(2 * infos["agent_0"]["gail_reward"])
    assert infos["agent_0"]["env_reward"] == 3


def test_the_dead_and_the_gone_are_neither_recorded_nor_paid():
    for absorb in (True, False):
        options = {**OPTIONS, "lifetimes": (2, None), "absorb": absorb}
        env = dm2.DM2ParallelEnv(TinyEnv(**options), matcher(demonstrations(**options)), coefficient=1.0)
        heard = recording(env)
        env.reset(seed=0)
        paid = []
        while env.agents:
            infos = env.step(zeros(env))[4]
            paid.append(infos.get("agent_0", {}).get("gail_reward", 0.0) != 0.0)
        env.update()
        assert heard[0][1][:, 0, 0].tolist() == [True, True, False, False, False]
        assert paid == [True, True, False, False, False]


def test_batched_wrapper_pays_what_single_ones_pay():
    demos, n = demonstrations(), 3
    venv = dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**OPTIONS), n), matcher(demos), coefficient=0.3)
    singles = [dm2.DM2ParallelEnv(TinyEnv(**OPTIONS), matcher(demos), coefficient=0.3) for _ in range(n)]
    venv.reset(seed=4)
    for i, env in enumerate(singles):
        env.reset(seed=4 + i)
    rng = np.random.default_rng(0)
    for _ in range(12):
        actions = rng.integers(0, 3, (n, 2))
        _, rewards, _, _, infos = venv.step(actions)
        for i, env in enumerate(singles):
            single = env.step(dict(zip(env.possible_agents, actions[i].tolist(), strict=True)))
            np.testing.assert_allclose(rewards[i], list(single[1].values()), rtol=1e-5)
            assert infos["env_reward"][i, 0] == single[4]["agent_0"]["env_reward"]
            if not env.agents:
                env.reset()
    assert venv.update()["transitions"] == 12 * n * 2
    assert sum(env.update()["transitions"] for env in singles) == 12 * n * 2


def test_batched_rewards_and_recorded_steps_by_hand():
    """The factor on the environment's reward, observations before the action, broken episodes, and whose end it is."""
    options = {"sizes": (4, 3), "limit": 4, "lifetimes": (2, None), "broken": (1,)}
    demos = demonstrations(sizes=(4, 3), limit=4)
    venv = dm2.DM2VectorEnv(
        dm2.vectorize(lambda: TinyEnv(**options), 2), matcher(demos), coefficient=0.5, env_coefficient=3.0
    )
    heard = recording(venv)
    venv.reset(seed=0)
    for t in range(8):  # agent_0 leaves after two of four steps; the second episode breaks
        actions = np.full((2, 2), 1)
        _, rewards, _, _, infos = venv.step(actions)
        present = [True, True] if t % 4 < 2 else [False, True]
        env_reward = np.where(present, float(sum(present)), 0.0)
        np.testing.assert_array_equal(infos["env_reward"], [env_reward] * 2)
        assert ((infos["gail_reward"] != 0) == present).all()
        np.testing.assert_allclose(rewards, 3.0 * infos["env_reward"] + 0.5 * infos["gail_reward"], rtol=1e-6)
    metrics = venv.update()
    ((observations, alive, broken),) = heard
    assert observations[:, 0, 1, 0].tolist() == [0, 1, 2, 3] * 2  # the time before each action
    assert alive[:, 0, 0].tolist() == [True, True, False, False] * 2
    assert broken.tolist() == [[False, False]] * 4 + [[True, True]] * 4  # all of an episode, not up to the first death
    assert metrics["transitions"] == 2 * (2 + 4)


@pytest.mark.parametrize("options", [{"start": 2}, {"continuous": True, "actions": (2, 1)}])
def test_parallel_and_vector_pay_equally_for_actions(options):
    demos = demonstrations(**options)
    single = dm2.DM2ParallelEnv(TinyEnv(**OPTIONS, **options), matcher(demos, inputs="state-action"), coefficient=1.0)
    batched = dm2.vectorize(lambda: TinyEnv(**OPTIONS, **options), 1)
    batched = dm2.DM2VectorEnv(batched, matcher(demos, inputs="state-action"), coefficient=1.0)
    single.reset(seed=3)
    batched.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(4):
        if "start" in options:
            joint = rng.integers(3, size=(1, 2))
            actions = {agent: 2 + int(joint[0, k]) for k, agent in enumerate(single.agents)}
        else:
            joint = rng.uniform(-1, 1, (1, 2, 2)).astype(np.float32)
            actions = {"agent_0": joint[0, 0].copy(), "agent_1": joint[0, 1, :1].copy()}
            joint[0, 1, 1] = 0  # padding
        infos, arrays = single.step(actions)[4], batched.step(joint)[4]
        paid = [infos[agent]["gail_reward"] for agent in single.possible_agents]
        np.testing.assert_allclose(arrays["gail_reward"][0], paid, rtol=1e-5)
        assert abs(paid[0]) > 1e-4
    assert single.update() == pytest.approx(batched.update(), rel=1e-4)


@pytest.mark.parametrize("truncates", [False, True])
def test_a_reset_starts_the_clock_of_absorbing_ends_and_the_schedules_returns_anew(truncates):
    demos, told = demonstrations(), []

    class Listening(dm2.schedules.Constant):
        def update(self, progress):
            told.append(progress.returns.tolist())

    def tiny():
        return TinyEnv(**OPTIONS, truncates=truncates)

    def absorbing():
        return matcher(demos, ends="absorbing", max_steps=9, gamma=0.9)

    single = dm2.DM2ParallelEnv(tiny(), absorbing(), coefficient=Listening(0.5))
    batched = dm2.DM2VectorEnv(dm2.vectorize(tiny, 1), absorbing(), coefficient=Listening(0.5))

    def step(env):
        if env is batched:
            return env.step(np.ones((1, 2), np.int64))[4]["gail_reward"][0]
        infos = env.step(dict.fromkeys(env.agents, 1))[4]
        return np.array([infos[agent]["gail_reward"] for agent in env.possible_agents])

    def episode(env, steps):
        env.reset(seed=1)
        return [step(env) for _ in range(steps)]

    paid = []
    for env in (single, batched):
        episode(env, 2)  # unfinished
        paid += [episode(env, 5), episode(env, 5)]
        env.update()
    for each in paid[1:]:
        np.testing.assert_allclose(each, paid[0], rtol=1e-5)
    live = absorbing().rewards(before_the_last_step(["agent_0"], tiny))["agent_0"]
    assert (paid[0][4][0] == pytest.approx(live, rel=1e-5)) == truncates  # a time limit is no absorbing end
    assert told == [[10.0, 10.0]] * 2  # ten points for each agent: the mean over the agents


def test_callers_may_use_their_array_of_actions_again():
    paid, states = [], []
    for reuses in (False, True):
        env = dm2.vectorize(lambda: TinyEnv(**OPTIONS), 2)
        env = dm2.DM2VectorEnv(env, matcher(inputs="state-action"), coefficient=1.0)
        env.reset(seed=3)
        rng, buffer = np.random.default_rng(0), np.zeros((2, 2), int)
        for _ in range(4):
            actions = buffer if reuses else np.zeros((2, 2), int)
            actions[:] = rng.integers(3, size=(2, 2))
            infos = env.step(actions)[4]
        paid.append(infos["gail_reward"])
        states.append(env.state_dict())
    np.testing.assert_array_equal(*paid)
    assert same(*states)


def test_the_rewards_in_infos_at_reset_are_arrays_of_their_own():
    env = dm2.DM2VectorEnv(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 2), matcher(), coefficient=1.0)
    infos = env.reset(seed=3)[1]
    infos["env_reward"] += 1
    assert not infos["gail_reward"].any()
