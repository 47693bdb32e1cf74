"""Random streams, seeds and gradient mode: each loop and the environment have their own, and the process keeps its own."""

import random

import numpy as np
import torch

import dm2_wrappers as dm2
from dm2_wrappers.lockstep import Lockstep
from tests.helpers.locksteps import loops_of, make
from tests.helpers.tiny_envs import TinyEnv


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
