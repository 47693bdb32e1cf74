"""How a run in lockstep ends: a loop is done, a loop or the environment fails, or somebody presses Ctrl-C."""

import random
import sys

import numpy as np
import pytest
import torch

import dm2_wrappers as dm2
from dm2_wrappers.lockstep import Lockstep, LoopStopped
from tests.helpers.locksteps import loops_of, make
from tests.helpers.tiny_envs import FailingEnv


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
