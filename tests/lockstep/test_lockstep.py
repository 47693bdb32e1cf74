import random
import sys

import numpy as np
import pytest
import torch

import dm2_wrappers as dm2
from dm2_wrappers.lockstep import AgentVectorEnv, Lockstep, LoopStopped
from tests.helpers.tiny_envs import FailingEnv, TinyEnv


def make(n=2, seed=0, **options):
    venv = dm2.vectorize(lambda: TinyEnv(**options), n)
    return venv, Lockstep(venv, seed=seed)


def loops_of(lockstep, body):
    """One loop per agent: ``body(env, agent)``."""
    return {
        agent: (lambda agent=agent: body(AgentVectorEnv(lockstep, agent), agent)) for agent in lockstep.env.possible_agents
    }


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


def test_each_agent_has_random_streams_of_its_own_whatever_the_others_draw():
    def draws(greedy_agent):
        _, lockstep = make(seed=7)

        def body(env, agent):
            env.reset()
            mine = []
            for _ in range(4):
                if agent == greedy_agent:
                    random.random(), np.random.rand(100), torch.rand(100)
                mine.append((random.random(), float(np.random.rand()), float(torch.rand(()))))
                env.step(np.zeros(2, int))
            return mine

        return lockstep.run(loops_of(lockstep, body))

    plain, disturbed = draws(None), draws("agent_0")
    assert plain["agent_1"] == disturbed["agent_1"]
    assert plain["agent_0"] != plain["agent_1"]
    assert draws(None) == plain


def test_the_processes_own_streams_and_gradient_mode_are_left_as_they_were():
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    _, lockstep = make()

    def body(env, agent):
        torch.set_grad_enabled(False)
        env.reset()
        torch.rand(3)

    lockstep.run(loops_of(lockstep, body))
    assert torch.rand(()) == expected
    assert torch.is_grad_enabled()


def test_gradient_mode_of_one_loop_does_not_leak_into_another():
    _, lockstep = make()

    def body(env, agent):
        env.reset()
        with torch.set_grad_enabled(agent == "agent_1"):
            env.step(np.zeros(2, int))
            return torch.is_grad_enabled()

    assert lockstep.run(loops_of(lockstep, body)) == {"agent_0": False, "agent_1": True}


def test_when_one_loop_ends_the_others_are_stopped_where_they_wait():
    _, lockstep = make()
    stopped = []

    def body(env, agent):
        env.reset()
        try:
            for _ in range(2 if agent == "agent_0" else 5):
                env.step(np.zeros(2, int))
        except LoopStopped:
            stopped.append(agent)
            raise
        return "done"

    steps = []
    lockstep.listeners.append(steps.append)
    assert lockstep.run(loops_of(lockstep, body)) == {"agent_0": "done", "agent_1": None}
    assert stopped == ["agent_1"]
    assert len(steps) == 2


def test_an_error_names_the_agent_stops_the_others_and_leaves_the_lockstep_usable():
    _, lockstep = make()
    cleaned = []

    def failing(env, agent):
        env.reset()
        try:
            env.step(np.zeros(2, int))
            if agent == "agent_1":
                raise ZeroDivisionError("oops")
            env.step(np.zeros(2, int))
        finally:
            cleaned.append(agent)

    with pytest.raises(ZeroDivisionError, match="oops") as caught:
        lockstep.run(loops_of(lockstep, failing))
    assert any("'agent_1'" in note for note in caught.value.__notes__)
    assert sorted(cleaned) == ["agent_0", "agent_1"]

    def fine(env, agent):
        env.reset()
        return env.step(np.zeros(2, int))[1].tolist()

    assert lockstep.run(loops_of(lockstep, fine))["agent_0"] == [0.0, 0.0]


def test_an_error_of_the_environment_ends_the_run():
    venv = dm2.vectorize(lambda: FailingEnv(fail_at=2), 1)
    lockstep = Lockstep(venv, seed=0)

    def body(env, agent):
        env.reset()
        while True:
            env.step(np.zeros(1, int))

    with pytest.raises(ZeroDivisionError, match="fell over"):
        lockstep.run(loops_of(lockstep, body))


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


def test_continuous_actions_of_unlike_widths_reach_the_environment():
    _, lockstep = make(n=2, sizes=(3, 3), actions=(1, 2), continuous=True)

    def body(env, agent):
        env.reset()
        return env.step(np.full((2, env.single_action_space.shape[0]), 0.5, np.float32))[1]

    results = lockstep.run(loops_of(lockstep, body))
    np.testing.assert_allclose(results["agent_0"], [1.5, 1.5])


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


def test_learners_do_not_share_their_spaces_random_streams():
    _, lockstep = make(sizes=(3, 3))
    views = [AgentVectorEnv(lockstep, agent) for agent in lockstep.env.possible_agents]
    assert views[0].single_action_space is not views[1].single_action_space
    assert views[0].single_action_space is not lockstep.env.action_spaces["agent_0"]


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
        infos["battle_won"][:] = False  # the other agent's is another array

    lockstep.run(loops_of(lockstep, body))
    assert seen["agent_0"] == seen["agent_1"]
    assert any(seen["agent_0"])


def test_seeds_of_restarted_episodes_fit_every_environment():
    _, lockstep = make(sizes=(2, 2))
    derived = set()
    for step in range(1, 60):
        lockstep.seed_env(7, step)
        derived.add(lockstep._env_seed)
    assert len(derived) == 59
    assert all(0 <= seed < 2**31 for seed in derived)
    lockstep.seed_env(7)
    assert lockstep._env_seed == 7


def test_an_error_while_a_loop_is_stopped_does_not_keep_the_others_from_being_stopped():
    _, lockstep = make(n=1, sizes=(2, 2, 2))
    stopped = []

    def body(env, agent):
        env.reset()
        try:
            for _ in range(2 if agent == "agent_0" else 9):
                env.step(np.zeros(1, int))
        except LoopStopped:
            stopped.append(agent)
            raise RuntimeError(f"{agent} fell over") from None

    with pytest.raises(RuntimeError, match="agent_1 fell over"):
        lockstep.run(loops_of(lockstep, body))
    assert stopped == ["agent_1", "agent_2"]


@pytest.mark.parametrize("function", ["run", "_end", "_take_turns", "_resume", "_stop"])
def test_a_keyboard_interrupt_at_any_line_leaves_the_lockstep_usable_and_the_streams_restored(function):
    """The interrupt comes once at each line: in a first run, as often as the function has lines."""

    def body(env, agent):
        env.reset()
        for _ in range(2 if agent == "agent_0" else 5):
            torch.rand(1), np.random.rand(), random.random()
            env.step(np.zeros(1, int))
        return "done"

    code = getattr(Lockstep, function).__code__
    lines = sorted({line for _, _, line in code.co_lines() if line is not None and line > code.co_firstlineno})
    interrupted, tracer = 0, sys.gettrace()
    for target in lines:
        _, lockstep = make(n=1)

        def trace(frame, event, argument, target=target):
            if frame.f_code is not code:
                return None
            if event == "line" and frame.f_lineno == target:
                sys.settrace(tracer)
                frame.f_trace = None
                raise KeyboardInterrupt
            return trace

        torch.manual_seed(0), np.random.seed(0), random.seed(0)
        before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        sys.settrace(trace)
        try:
            lockstep.run(loops_of(lockstep, body))
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(tracer)
        assert not lockstep.running, f"line {target}"
        assert torch.equal(torch.get_rng_state(), before[0]), f"line {target}"
        assert (np.random.get_state()[1] == before[1]).all(), f"line {target}"
        assert random.getstate() == before[2], f"line {target}"
        assert lockstep.run(loops_of(lockstep, body)) == {"agent_0": "done", "agent_1": None}, f"line {target}"
    assert interrupted >= 3


def test_a_second_run_inside_a_run_is_refused():
    _, lockstep = make(n=1)

    def body(env, agent):
        env.reset()
        lockstep.run({})

    with pytest.raises(RuntimeError, match="already running"):
        lockstep.run(loops_of(lockstep, body))
    assert not lockstep.running


def test_the_environment_draws_from_a_stream_of_its_own():
    """An environment that draws from NumPy's global stream: its draws and the agents' do not depend on each other."""

    class Drawing(TinyEnv):
        def step(self, actions):
            drawn.append(np.random.rand())
            return super().step(actions)

    def run(agents_draw):
        drawn.clear()
        venv = dm2.vectorize(lambda: Drawing(sizes=(3, 3)), 1)
        lockstep = Lockstep(venv, seed=5)

        def body(env, agent):
            env.reset()
            mine = []
            for _ in range(3):
                mine += [np.random.rand() for _ in range(agents_draw)]
                env.step(np.zeros(1, int))
            return mine

        results = lockstep.run(loops_of(lockstep, body))
        return list(drawn), results

    drawn = []
    first, second = run(1), run(4)
    assert first[0] == second[0]
    assert len(set(first[0])) == 3
    # One uninterrupted stream per agent, into which the environment's draws do not come.
    for agent in ("agent_0", "agent_1"):
        assert first[1][agent] == second[1][agent][:3]


def test_only_the_first_reset_is_seeded():
    venv, lockstep = make(n=1)
    seeds, reset = [], venv.reset
    venv.reset = lambda *, seed=None, options=None: seeds.append(seed) or reset(seed=seed)

    def body(env, agent):
        env.reset()
        env.reset()

    lockstep.run(loops_of(lockstep, body))
    lockstep.run(loops_of(lockstep, body))
    assert seeds == [0, None, None, None]
    lockstep.seed_env(3)
    lockstep.run(loops_of(lockstep, body))
    assert seeds[4:] == [3, None]


def test_what_building_a_learner_draws_is_gone_from_its_stream():
    _, lockstep = make(seed=7)
    outer = torch.get_rng_state()
    with lockstep.as_agent("agent_0"):
        built = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), outer)
    with lockstep.as_agent("agent_0"):
        later = torch.rand(3)
    _, fresh = make(seed=7)
    with fresh.as_agent("agent_0"):
        both = torch.rand(3), torch.rand(3)
    assert torch.equal(built, both[0])
    assert torch.equal(later, both[1])


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


def test_the_streams_of_an_agent_amid_its_turn_are_those_of_the_process():
    _, lockstep = make(n=1, sizes=(2, 2), seed=4)
    drawn, heard = {}, []

    def listen(step):  # between two turns: in the environment's
        heard.append(all(stream is lockstep.streams[agent] for agent, stream in lockstep.current_streams().items()))

    lockstep.listeners.append(listen)

    def body(env, agent):
        env.reset()
        env.step(np.zeros(1, int))
        np.random.rand()
        streams = lockstep.current_streams()
        assert set(streams) == {"agent_0", "agent_1"}
        now = np.random.get_state()
        streams[agent].restore()
        drawn[agent] = np.random.rand()
        np.random.set_state(now)
        assert np.random.rand() == drawn[agent]

    lockstep.run(loops_of(lockstep, body))
    assert drawn["agent_0"] != drawn["agent_1"]
    assert heard == [True]
    resting = lockstep.current_streams()
    assert all(resting[agent] is lockstep.streams[agent] for agent in lockstep.agents)


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
