"""The joint environment and its loops: when it steps, with what, and what is refused."""

import numpy as np
import pytest

from dm2_wrappers.lockstep import AgentVectorEnv
from tests.helpers.locksteps import loops_of, make


def test_the_environment_steps_once_per_step_of_all_and_listeners_hear_it_before_the_loops_go_on():
    _, lockstep = make()
    order = []
    lockstep.listeners.append(lambda step: order.append("joint"))

    def body(env, agent):
        env.reset()
        for _ in range(3):
            env.step(np.zeros(2, int))
            order.append(agent)

    lockstep.run(loops_of(lockstep, body))
    assert order == ["joint", "agent_0", "agent_1"] * 3


def test_continuous_actions_of_unlike_widths_reach_the_environment():
    _, lockstep = make(n=2, sizes=(3, 3), actions=(1, 2), continuous=True)

    def body(env, agent):
        env.reset()
        return env.step(np.full((2, env.single_action_space.shape[0]), 0.5, np.float32))[1]

    results = lockstep.run(loops_of(lockstep, body))
    np.testing.assert_allclose(results["agent_0"], [1.5, 1.5])


def test_steps_tell_how_far_into_its_episode_each_sub_environment_was():
    _, lockstep = make(n=2, sizes=(2, 2), limit=3)
    times = []
    lockstep.listeners.append(lambda step: times.append(step.time.tolist()))

    def body(env, agent):
        for _ in range(2):  # the second reset is amid episodes
            env.reset()
            for _ in range(5):
                env.step(np.zeros(2, int))

    lockstep.run(loops_of(lockstep, body))
    assert times == 2 * [[t, t] for t in (0, 1, 2, 0, 1)]


def test_misuse_is_refused_in_a_sentence():
    _, lockstep = make()
    env = AgentVectorEnv(lockstep, "agent_0")
    with pytest.raises(RuntimeError, match="only together"):
        env.reset()
    with pytest.raises(ValueError, match="one loop for each"):
        lockstep.run({"agent_0": lambda: None})

    def mixed(env, agent):
        env.reset()
        return env.reset() if agent == "agent_0" else env.step(np.zeros(2, int))

    with pytest.raises(RuntimeError, match=r"agent_0 called reset\(\), but agent_1 called step"):
        lockstep.run(loops_of(lockstep, mixed))

    _, fresh = make()
    with pytest.raises(RuntimeError, match="reset the environment before"):
        fresh.run(loops_of(fresh, lambda env, agent: env.step(np.zeros(2, int))))


def test_a_second_run_inside_a_run_is_refused():
    _, lockstep = make(n=1)

    def body(env, agent):
        env.reset()
        lockstep.run({})

    with pytest.raises(RuntimeError, match="already running"):
        lockstep.run(loops_of(lockstep, body))
    assert not lockstep.running


@pytest.mark.parametrize(("what", "where"), [("reward", "reward"), ("observation", "observation")])
def test_nan_is_one_sentence_that_names_agent_and_sub_environment(what, where):
    venv, lockstep = make(n=2, sizes=(3, 2))
    step = venv.step

    def sick(actions):
        observations, rewards, terminations, truncations, infos = step(actions)
        (rewards if where == "reward" else observations)[1, 0] = np.nan
        return observations, rewards, terminations, truncations, infos

    venv.step = sick

    def body(env, agent):
        env.reset()
        env.step(np.zeros(2, int))

    with pytest.raises(ValueError, match=f"the {what} of agent 'agent_0' in sub-environment 1 holds NaN or infinity"):
        lockstep.run(loops_of(lockstep, body))


def test_nan_after_a_reset_and_after_an_episodes_last_step_are_found_too():
    for sick in ("reset", "final_obs"):
        venv, lockstep = make(n=2, sizes=(3, 2), limit=1)
        reset, step = venv.reset, venv.step

        def sick_reset(seed=None, options=None, reset=reset):
            observations, infos = reset(seed=seed)
            observations[1, 1, 0] = np.inf
            return observations, infos

        def sick_step(actions, step=step):
            *parts, infos = step(actions)
            infos["final_obs"][1, 1, 0] = np.inf
            return *parts, infos

        if sick == "reset":
            venv.reset = sick_reset
        else:
            venv.step = sick_step

        def body(env, agent):
            env.reset()
            env.step(np.zeros(2, int))

        with pytest.raises(ValueError, match="the observation of agent 'agent_1' in sub-environment 1 holds NaN"):
            lockstep.run(loops_of(lockstep, body))
