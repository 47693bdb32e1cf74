"""Loops of some agents beside the joint environment, those of the others where it is not."""

import pickle

import greenlet
import numpy as np
import pytest

import dm2_wrappers as dm2
from dm2_wrappers.lockstep import AgentVectorEnv, Lockstep
from dm2_wrappers.lockstep.in_worker import LockstepInWorker, Outline, state_of
from tests.helpers.tiny_envs import TinyEnv

OPTIONS = {"sizes": (4, 2, 3), "limit": 4, "lifetimes": (None, 2, 3)}


def make():
    return Lockstep(dm2.vectorize(lambda: TinyEnv(**OPTIONS), 3), seed=0)


def body(env, agent):
    """Two resets, the second amid episodes; actions drawn from the agent's own stream. Returns all that it saw."""
    seen = []
    for _ in range(2):
        seen.append(env.reset())
        for _ in range(7):
            seen.append(env.step(np.random.randint(0, 3, 3)))
    return seen


def loops(lockstep, agents, body=body):
    return {agent: (lambda agent=agent: body(AgentVectorEnv(lockstep, agent), agent)) for agent in agents}


class Elsewhere:
    """Some agents' loops, which get only copies of what `state_of` tells, as if in another process."""

    def __init__(self, outline, agents, body=body):
        self.agents, self.results, self.resets = agents, None, 0
        self.lockstep = LockstepInWorker(pickle.loads(pickle.dumps(outline)), agents, self._exchange)
        self.seeded_as(make())
        self._loops = greenlet.greenlet(lambda: self.lockstep.run(loops(self.lockstep, agents, body)))
        self._state = None

    def seeded_as(self, lockstep):
        self.lockstep.streams = {agent: lockstep.streams[agent] for agent in self.agents}

    def _exchange(self, requests):
        return self._main.switch(requests)

    def requests(self):
        self._main = greenlet.getcurrent()
        answer = self._loops.switch() if self._state is None else self._loops.switch(self._state)
        if self._loops.dead:
            self.results = answer
            return None
        return answer

    def answer(self, lockstep):
        state = state_of(lockstep, stepped=lockstep.resets == self.resets)
        self.resets = lockstep.resets
        assert "observations" not in (state["step"] or {})
        self._state = pickle.loads(pickle.dumps(state))


def assert_same(one, other):
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    elif hasattr(one, "__dataclass_fields__"):
        assert_same(vars(one), vars(other))
    else:
        np.testing.assert_array_equal(one, other)


def test_loops_elsewhere_see_the_same_as_beside_the_environment():
    lockstep = make()
    expected = lockstep.run(loops(lockstep, lockstep.agents))
    here = make()
    elsewhere = Elsewhere(Outline.of(here.env), ["agent_1", "agent_2"])
    results = here.run(loops(here, ["agent_0"]), elsewhere)
    assert_same({**results, **elsewhere.results}, expected)
    assert_same(elsewhere.lockstep.last_step, lockstep.last_step)  # with the observations before the step
    assert elsewhere.lockstep.resets == lockstep.resets == 2
    assert not here.running
    assert not elsewhere.lockstep.running


def test_the_loops_here_stop_when_one_elsewhere_has_ended():
    here, steps = make(), []

    def short(env, agent):
        env.reset()
        env.step(np.zeros(3, int))

    def long(env, agent):
        env.reset()
        while True:
            env.step(np.zeros(3, int))
            steps.append(agent)

    elsewhere = Elsewhere(Outline.of(here.env), ["agent_1", "agent_2"], short)
    assert here.run(loops(here, ["agent_0"], long), elsewhere) == {"agent_0": None}
    assert steps == ["agent_0"]


def test_loops_here_and_elsewhere_must_be_all_agents():
    here = make()
    with pytest.raises(
        ValueError, match=r"expected one loop for each of \['agent_0'\], got loops for \['agent_0', 'agent_1'\]"
    ):
        here.run(loops(here, ["agent_0", "agent_1"]), Elsewhere(Outline.of(here.env), ["agent_1", "agent_2"]))
    with pytest.raises(RuntimeError, match=r"agent_1, agent_2 called step\(\)|agent_0 called step\(\)"):
        here.run(
            loops(here, ["agent_0"], lambda env, agent: env.step(np.zeros(3, int))),
            Elsewhere(Outline.of(here.env), ["agent_1", "agent_2"]),
        )


def test_an_outline_is_a_copy_of_what_views_need():
    env = make().env
    outline = Outline.of(env)
    assert (outline.num_envs, outline.possible_agents) == (3, ("agent_0", "agent_1", "agent_2"))
    assert outline.observation_spaces == {agent: env.observation_spaces[agent] for agent in env.possible_agents}
    assert outline.action_spaces == {agent: env.action_spaces[agent] for agent in env.possible_agents}
