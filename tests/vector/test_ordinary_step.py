"""Ordinary steps, which are read with whole arrays, against the reader that goes from agent to agent."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium import spaces

from dm2_wrappers.vector.layout import Layout
from dm2_wrappers.vector.outcome import Outcome
from dm2_wrappers.vector.reader import ParallelReader

AGENTS = ["ann", "bob", "cid"]
FLAGS = [True, np.bool_(False), np.bool_(True), 0, 1, np.zeros(1, bool), None, "no", 2, np.zeros(2, bool)]
REWARDS = [2, np.float32(0.1), np.float64(-3), np.array([1.0]), True, 10**30, np.nan, np.inf, None, "ten", 2**62]
INFOS = [
    *(None, [], [1], {"alive": False}, {"alive": np.bool_(True)}, {"alive": 1}, {"alive": "yes"}),
    *({"broken": True}, {"broken": np.zeros(2)}, {"battle_won": True}, {"battle_won": False}),
    *({"env_reward": 3.0}, {"env_reward": np.nan}),
    *({"action_mask": mask} for mask in (np.array([0, 1, 1]), np.zeros(3), np.full(3, 0.5), np.ones(2), None)),
]


def observations(size):
    """Good and bad ones of a ``Box`` of this size."""
    good = np.linspace(-1, 1, size, dtype=np.float32)
    return [
        *(good.astype(np.float64), good.astype(int), good.tolist(), good[::-1], good[None], good[:-1], None, "words"),
        *(np.full(size, number) for number in (1e300, np.float32(1e25), np.float32(np.nan), 1j)),
    ]


def mask(flags=(1, 1, 0)):
    return np.array(flags, np.int8)


class Env:
    """Three agents whose answers are given; ``kind`` says what their spaces are."""

    possible_agents = AGENTS

    def __init__(self, kind):
        sizes = {"sizes": (3, 5, 4)}.get(kind, (4, 4, 4))
        boxes = [spaces.Box(-9, 9, (size,), np.float32) for size in sizes]
        if kind == "images":
            boxes = [spaces.Box(0, 255, (2, 2), np.uint8)] * 3
        if kind == "masks":
            boxes = [spaces.Dict({"observation": box, "action_mask": spaces.MultiBinary(3)}) for box in boxes]
        self.kind, self.sizes, self.boxes, self.agents = kind, sizes, dict(zip(AGENTS, boxes, strict=True)), AGENTS[:]

    def observation_space(self, agent):
        return self.boxes[agent]

    def action_space(self, agent):
        return spaces.Box(-1, 1, (2,), np.float32) if self.kind == "continuous" else spaces.Discrete(3)

    def seen(self, agent, rng):
        k = AGENTS.index(agent)
        if self.kind == "images":
            return rng.integers(0, 256, (2, 2)).astype(np.uint8)
        row = rng.normal(size=self.sizes[k]).astype(np.float32)
        return {"observation": row, "action_mask": mask()} if self.kind == "masks" else row

    def answers(self, rng):
        """An ordinary step's five dicts."""
        acting = list(self.agents)
        no = dict.fromkeys(acting, False)
        rewards = {agent: float(rng.normal()) for agent in acting}
        infos = {agent: {"alive": True} for agent in acting}
        return [{agent: self.seen(agent, rng) for agent in acting}, rewards, no, dict(no), infos]

    def disturbed(self, answers, rng):
        """One thing of one agent is different."""
        agent = AGENTS[rng.integers(3)]
        part = int(rng.integers(6))
        if part == 5:
            self.agents = [[], AGENTS[:2], AGENTS[::-1], AGENTS[1:], ["ann", "ann", "bob"], AGENTS[:]][rng.integers(6)]
            return answers
        choices = [observations(self.sizes[AGENTS.index(agent)]), REWARDS, FLAGS, FLAGS, INFOS][part]
        value = choices[rng.integers(len(choices))]
        if part == 0 and self.kind == "masks" and rng.random() < 0.7:
            flags = [mask(), mask((0, 0, 0)), mask((0, 2, 0)), np.ones(3, bool), [1, 1, 1], np.ones(4)][rng.integers(6)]
            row = np.ones(4, np.float32) if rng.random() < 0.5 else value
            value = {"observation": row, "action_mask": flags, **({"more": 1} if rng.random() < 0.1 else {})}
        if rng.random() < 0.1:
            answers[part].pop(agent, None)
        else:
            answers[part][agent] = value
        if rng.random() < 0.1:
            answers[part] = [None, list(answers[part]), {**answers[part], "eve": 1}][rng.integers(3)]
        return answers


def read(reader, answers):
    """What the reader makes of it: plain data, or the words of its error."""
    try:
        outcome = reader.read_step(*answers)
    except (ValueError, TypeError) as error:
        return str(error)
    assert isinstance(outcome, Outcome)
    parts = {**vars(outcome), **vars(outcome.seen)}
    parts.pop("seen")
    return {name: (part.dtype, part.tolist()) if isinstance(part, np.ndarray) else part for name, part in parts.items()}


@pytest.mark.parametrize("kind", ["plain", "sizes", "masks", "images", "continuous"])
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_the_outcome_or_the_error_is_the_same(kind):
    rng = np.random.default_rng(0)
    env = Env(kind)
    fast, slow = ParallelReader(env, Layout(env)), ParallelReader(env, Layout(env))
    ordinary = 0
    for trial in range(250):
        env.agents = AGENTS[:]
        start = {agent: env.seen(agent, rng) for agent in AGENTS}
        for reader in (fast, slow):
            reader.read_reset(start, {})
        for step in range(4):
            answers = env.answers(rng)
            if step % 2 or not trial % 4:
                answers = env.disturbed(answers, rng)
            if slow.present.any() and fast._ordinary is not None and fast._ordinary.goes_on(env.agents):
                ordinary += fast._ordinary.read(*answers) is not None
            slow._ordinary = None
            found, expected = read(fast, answers), read(slow, answers)
            assert found == expected, answers
            np.testing.assert_array_equal(fast.present, slow.present)
            if isinstance(found, str):
                break
    assert ordinary > 250  # the fast way was taken


def test_an_ordinary_step_is_read_without_asking_each_agent(monkeypatch):
    env = Env("masks")
    reader = ParallelReader(env, Layout(env))
    rng = np.random.default_rng(0)
    reader.read_reset(env.answers(rng)[0], {})
    monkeypatch.setattr(reader, "_seen", None)
    assert reader.read_step(*env.answers(rng)).seen.alive.all()
