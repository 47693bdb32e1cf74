"""Agents that join, leave and come back: every route gives the numbers of a slow computation that is written down here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest
from gymnasium import spaces
from numpy.testing import assert_allclose
from pettingzoo import ParallelEnv

import dm2_wrappers as dm2
from dm2_wrappers.evaluation import evaluate

AGENTS, SIZES = ("a", "b", "c"), {"a": 2, "b": 2, "c": 3}


class Episode(NamedTuple):
    """The agents before each step, and what the environment's dicts hold.

    Args:
        there: The agents after reset and after each step but the last, which ends the episode.
        dicts: "acted": those that acted or act next, as PettingZoo has it. "there": only those that act next.
            "everybody": all possible agents, always.
        stay: ``agents`` holds everybody all the time; only the flags say who has ended.
    """

    there: tuple[str, ...]
    dicts: str = "acted"
    stay: bool = False
    flags: str = "all"  # or "acted": ends are told only of those that acted


EPISODES = (
    Episode(("abc", "abc")),
    Episode(("a", "ab", "abc"), "acted"),  # join
    Episode(("a", "ab", "abc"), "there"),
    Episode(("ac", "abc", "abc"), "everybody"),
    Episode(("abc", "ab", "a"), "acted"),  # leave
    Episode(("abc", "ab", "a"), "there"),
    Episode(("abc", "b", "b"), "everybody"),
    Episode(("abc", "c", "ac", "bc"), "acted"),  # come back, and swap places
    Episode(("abc", "c", "ac", "bc"), "there"),
    Episode(("abc", "c", "ac", "bc"), "everybody"),
    Episode(("abc", "c", "ac", "bc"), "acted", flags="acted"),
    Episode(("ab", "ab"), "acted"),  # c takes no part
    Episode(("abc", "ab", "b"), "everybody", stay=True),  # the ended stay in agents
    Episode(("abc", "b", "ab"), "everybody", stay=True),
)


class ScriptedEnv(ParallelEnv):
    """Plays ``EPISODES`` in turn. Every observation and reward says whose it is, and when."""

    metadata = {"name": "scripted"}
    possible_agents = list(AGENTS)

    def __init__(self, infos: str = "dicts") -> None:
        self.number, self.infos = -1, infos

    def observation_space(self, agent):
        return spaces.Box(-1e6, 1e6, (SIZES[agent],), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(2, start=1)

    def reset(self, seed=None):  # an environment need not take options
        self.number, self.t = self.number + 1, 0
        return self._answer()[0], self._infos(self._keys())

    def step(self, actions):
        assert set(actions) == set(self._present()), "asked for the actions of those that are present"
        assert set(actions.values()) <= {1, 2}
        self.t += 1
        observations, flags = self._answer()
        rewards = {agent: reward(self.number, self.t - 1, agent) for agent in observations}
        return observations, rewards, flags, dict.fromkeys(flags, False), self._infos(observations)

    def _episode(self):
        return EPISODES[self.number % len(EPISODES)]

    def _present(self):
        there = self._episode().there
        return there[self.t] if self.t < len(there) else ""

    def _keys(self):
        episode, now = self._episode(), self._present()
        before = episode.there[self.t - 1] if self.t else ""
        return {"acted": sorted({*before, *now}), "there": list(now), "everybody": list(AGENTS)}[episode.dicts]

    def _answer(self):
        self.agents = list(AGENTS) if self._episode().stay else list(self._present())
        observations = {agent: observation(self.number, self.t, agent) for agent in self._keys()}
        told = observations if self._episode().flags == "all" else self._episode().there[max(0, self.t - 1)]
        return observations, {agent: agent not in self._present() for agent in told}

    def _infos(self, keys):
        return {"dicts": {agent: {} for agent in keys}, "nones": dict.fromkeys(keys), "none": None}[self.infos]


def observation(number: int, t: int, agent: str) -> np.ndarray:
    k = AGENTS.index(agent)
    return np.array([100 * number + t, k + 1, 7][: SIZES[agent]], np.float32)


def reward(number: int, t: int, agent: str) -> float:
    return 1.0 + number + 10 * t + 100 * AGENTS.index(agent)


class Expected(NamedTuple):
    """One joint step, computed from the script alone."""

    before: dict[str, np.ndarray]  # the observations of those that acted
    rewards: dict[str, float]  # of those that acted or have just joined
    ended: bool

    @property
    def team(self) -> float:
        return float(np.mean([self.rewards.get(agent, 0.0) for agent in self.before]))


def expected(number: int) -> list[Expected]:
    episode = EPISODES[number % len(EPISODES)]
    steps = []
    for t, acted in enumerate(episode.there):
        after = episode.there[t + 1] if t + 1 < len(episode.there) else ""
        told = after if episode.dicts == "there" else {*acted, *after}
        steps.append(
            Expected(
                {agent: observation(number, t, agent) for agent in acted},
                {agent: reward(number, t, agent) for agent in told},
                not after,
            )
        )
    return steps


ALL = [expected(number) for number in range(len(EPISODES))]
RETURNS = [sum(step.team for step in steps) for steps in ALL]


def seen_by(agent: str) -> np.ndarray:
    return np.array([step.before[agent] for steps in ALL for step in steps if agent in step.before])


def first_action(observations: Any, infos: Mapping[str, Any] | None = None) -> Any:
    """The first action, for either kind of environment."""
    return dict.fromkeys(observations, 1) if infos is None else np.zeros(observations.shape[:2], int)


def matcher() -> dm2.DistributionMatcher:
    demos = dm2.Demonstrations.record(ScriptedEnv(), lambda observations: first_action(observations), len(EPISODES))
    return dm2.DistributionMatcher(demos, updates=1, batch_size=4, seed=0)


@pytest.mark.parametrize("infos", ["dicts", "nones", "none"])
def test_recordings_of_both_kinds(infos):
    single = dm2.Demonstrations.record(ScriptedEnv(infos), lambda observations: first_action(observations), len(EPISODES))
    batch = dm2.vectorize(lambda: ScriptedEnv(infos), 1)
    batched = dm2.Demonstrations.record(batch, lambda observations, infos: first_action(observations, infos), len(EPISODES))
    for demos in (single, batched):
        assert len(demos) == len(EPISODES)
        assert demos.mean_return == pytest.approx(np.mean(RETURNS), rel=1e-6)
        for agent in AGENTS:
            rows = demos.observations(agent)
            assert_allclose(rows[np.argsort(rows[:, 0])], seen_by(agent))


@pytest.mark.parametrize("make", [ScriptedEnv, lambda: dm2.vectorize(ScriptedEnv, 1)])
def test_evaluation(make):
    result = evaluate(first_action, make(), len(EPISODES))
    assert result["return"] == pytest.approx(np.mean(RETURNS), rel=1e-6)
    assert result["length"] == np.mean([len(steps) for steps in ALL])


@pytest.mark.parametrize("infos", ["dicts", "none"])
def test_the_parallel_wrapper(infos):
    env = dm2.DM2ParallelEnv(ScriptedEnv(infos), matcher(), coefficient=0.5, env_coefficient=2.0)
    heard = recorded(env.matcher)
    for number, steps in enumerate(ALL):
        observations, said = env.reset()
        assert all(said[agent] == {"env_reward": 0.0, "gail_reward": 0.0} for agent in observations), number
        for step in steps:
            assert sorted(env.agents) == sorted(step.before)
            gail = env.matcher.rewards({agent: step.before.get(agent, np.zeros(SIZES[agent])) for agent in AGENTS})
            _, rewards, _, _, said = env.step(dict.fromkeys(env.agents, 1))
            for agent, paid in rewards.items():
                own_gail = gail[agent] if agent in step.before else 0.0
                assert paid == pytest.approx(2 * step.rewards.get(agent, 0.0) + 0.5 * own_gail, rel=1e-5), (number, agent)
                assert said[agent].keys() == {"env_reward", "gail_reward"}
                assert said[agent]["env_reward"] == step.rewards.get(agent, 0.0)
            assert rewards.keys() >= step.rewards.keys()
        assert env.agents == []
    env.update()
    for agent in AGENTS:
        assert_allclose(heard(agent), seen_by(agent))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_vector_wrapper_in_this_process_and_in_others(workers):
    n = 2
    with dm2.DM2VectorEnv(
        dm2.vectorize(ScriptedEnv, n, workers=workers), matcher(), coefficient=0.5, env_coefficient=2.0
    ) as venv:
        heard = recorded(venv.matcher)
        _, infos = venv.reset()
        script = [step for steps in ALL for step in steps]
        for step, later in zip(script, [*script[1:], None], strict=True):
            present = [agent in step.before for agent in AGENTS]
            assert infos["present"].tolist() == infos["alive"].tolist() == [present] * n
            before = np.zeros((3, 3), np.float32)
            for agent, row in step.before.items():
                before[AGENTS.index(agent), : len(row)] = row
            gail = venv.matcher.rewards(before, np.array(present))
            observations, rewards, terminations, truncations, infos = venv.step(np.zeros((n, 3), int))
            env_rewards = np.array([step.rewards.get(agent, 0.0) for agent in AGENTS])
            assert_allclose(infos["env_reward"], [env_rewards] * n)
            assert_allclose(rewards, [2 * env_rewards + 0.5 * gail] * n, rtol=1e-5)
            assert (terminations | truncations).all(axis=1).tolist() == infos["_final_obs"].tolist() == [step.ended] * n
            if later is not None:
                for agent, row in later.before.items():
                    assert_allclose(observations[:, AGENTS.index(agent), : len(row)], [row] * n)
        venv.update()
    for agent in AGENTS:
        assert_allclose(heard(agent), np.repeat(seen_by(agent), n, axis=0))


def recorded(matcher: dm2.DistributionMatcher):
    """A function of an agent: the live observations that the matcher is given, in order."""
    parts = []
    record = matcher.record

    def listen(observations, alive, **options):
        parts.append((np.asarray(observations), np.asarray(alive)))
        return record(observations, alive, **options)

    matcher.record = listen

    def heard(agent: str) -> np.ndarray:
        k = AGENTS.index(agent)
        return np.concatenate([rows[:, :, k, : SIZES[agent]][alive[:, :, k]] for rows, alive in parts])

    return heard


def test_an_agent_that_ended_and_stays_in_agents_is_back_once_it_is_reported_as_running():
    venv = dm2.vectorize(ScriptedEnv, 1)
    venv.envs[0].number = len(EPISODES) - 2  # the last episode is next
    _, infos = venv.reset()
    present = [infos["present"][0].tolist()]
    for _ in range(2):
        present.append(venv.step(np.zeros((1, 3), int))[4]["present"][0].tolist())
    assert present == [[True, True, True], [False, True, False], [True, True, False]]
