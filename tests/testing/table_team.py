"""An honest learner of a page, softmax tables and REINFORCE, and places to put faults in."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass
from typing import Any

import numpy as np

import dm2_wrappers as dm2

AGENTS = ("first", "second", "brief")
STEPS = 8  # of an episode
EPISODES = 50  # of a rollout


@dataclass
class Rollout:
    """Whole episodes, one beside the other: arrays [T, N, ...] as a vector environment has them."""

    observations: np.ndarray  # before the actions; zeros once an agent is gone
    alive: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    following: np.ndarray  # after the actions


def play(env: Any, actions: np.ndarray) -> Rollout:
    """Play these actions [T, N, K] in one environment, episode after episode."""
    shape = actions.shape
    observations, following = np.zeros((2, *shape, 5), np.float32)
    alive, rewards = np.zeros(shape, bool), np.zeros(shape, np.float32)
    for n in range(shape[1]):
        seen, _ = env.reset(seed=n)
        for t in range(STEPS):
            present = [AGENTS.index(agent) for agent in env.agents]
            alive[t, n, present] = True
            observations[t, n, present] = [seen[AGENTS[k]] for k in present]
            seen, paid, *_ = env.step({AGENTS[k]: int(actions[t, n, k]) for k in present})
            rewards[t, n, present] = [paid[AGENTS[k]] for k in present]
            following[t, n, present] = [seen[AGENTS[k]] for k in present]
    return Rollout(observations, alive, actions, rewards, following)


def make_and_play(make_env: Any, actions: np.ndarray) -> Rollout:
    return play(make_env(), actions)


class TableTeam:
    """Each agent has a table of logits with a row for each time in the episode."""

    def __init__(self, seed: int, rate: float = 2.0) -> None:
        self.logits = np.zeros((STEPS, len(AGENTS), 3))
        self.rng = np.random.default_rng(seed)
        self.rate = rate

    def probabilities(self):
        weights = np.exp(self.logits - self.logits.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    def actions(self, episodes=EPISODES):
        """Sampled actions of whole episodes, [T, N, K]."""
        cumulative = self.probabilities().cumsum(-1)[:, None]
        return (self.rng.random((STEPS, episodes, len(AGENTS), 1)) > cumulative).sum(-1).clip(max=2)

    def learn(self, actions, rewards, alive):
        """A step of REINFORCE; an action earns its own step's reward and the next one's."""
        gain = np.where(alive, rewards, 0.0)
        gain[:-1] += gain[1:].copy()
        for k in range(len(AGENTS)):
            rows = alive[:, :, k]
            own = gain[:, :, k]
            advantage = np.where(rows, (own - own[rows].mean()) / (own[rows].std() + 1e-6), 0.0)
            gradient = (np.eye(3)[actions[:, :, k]] - self.probabilities()[:, None, k]) * advantage[..., None]
            self.logits[:, k] += self.rate * gradient.mean(1)

    def policy(self, observations):
        t = round(float(next(iter(observations.values()))[-1]) * STEPS) - 1
        actions = self.actions(episodes=1)[t, 0]
        return {agent: int(actions[AGENTS.index(agent)]) for agent in observations}


class Exact:
    """Algorithm 1's lines 6 to 11 for a rollout; each method is a place for a fault."""

    def __init__(self, make_env, make_matcher, coefficient, env_coefficient):
        self.make_env, self.make_matcher = make_env, make_matcher
        self.coefficient, self.env_coefficient = coefficient, env_coefficient
        self.begin()

    def begin(self):
        self.matcher = self.make_matcher()
        self.env = self.make_env()

    def collect(self, actions):
        return play(self.env, actions)

    def record(self, rollout):
        self.matcher.record(rollout.observations, rollout.alive)

    def update(self):
        self.matcher.update()

    def pay(self, rollout):
        return self.matcher.rewards(rollout.observations, rollout.alive)

    def gail_rewards(self, rollout):
        self.record(rollout)
        self.update()
        return self.pay(rollout)

    def mixed(self, rollout):
        return self.env_coefficient * rollout.rewards + self.coefficient * self.gail_rewards(rollout)

    def returned(self, team):
        return team.policy


class Online(Exact):
    """The wrapper pays each step; `update` between rollouts."""

    def begin(self):
        options = {"coefficient": self.coefficient, "env_coefficient": self.env_coefficient}
        self.env = dm2.DM2VectorEnv(dm2.vectorize(self.make_env, EPISODES), self.make_matcher(), **options)
        self.observations, self.infos = self.env.reset(seed=0)

    def collect(self, actions):
        rows = []
        for joint in actions:
            before, alive = self.observations, self.infos["alive"]
            self.observations, rewards, _, _, self.infos = self.env.step(joint)
            rows.append((before, alive, joint, rewards, self.infos["final_obs"]))
        return Rollout(*map(np.stack, zip(*rows, strict=True)))

    def mixed(self, rollout):
        self.env.update()
        return rollout.rewards


class Workers(Exact):
    """Two processes play bare environments; one call does lines 6 to 10 for chunks of single agents."""

    def begin(self):
        self.matcher = self.make_matcher()
        self.pool = multiprocessing.get_context("fork").Pool(2)

    def collect(self, actions):
        halves = np.split(actions, 2, axis=1)
        played = self.pool.starmap(make_and_play, [(self.make_env, half) for half in halves])
        return Rollout(*(np.concatenate(parts, 1) for parts in zip(*(vars(one).values() for one in played), strict=True)))

    def gail_rewards(self, rollout):
        places = [(n, k) for k in range(len(AGENTS)) for n in range(EPISODES)]
        chunks = [(AGENTS[k], rollout.observations[:, n, k][rollout.alive[:, n, k]]) for n, k in places]
        gail = np.zeros(rollout.alive.shape, np.float32)
        for (n, k), paid in zip(places, self.matcher.algorithm1(chunks), strict=True):
            gail[rollout.alive[:, n, k], n, k] = paid
        return gail

    def returned(self, team):
        self.pool.terminate()
        return team.policy


def trains(kind):
    """A ``train`` function as `check_dm2_learner` takes it."""

    def train(make_env, make_matcher, *, coefficient, env_coefficient, steps, seed):
        matching = kind(make_env, make_matcher, coefficient, env_coefficient)
        team = TableTeam(seed)
        for _ in range(steps // (STEPS * EPISODES)):
            rollout = matching.collect(team.actions())
            team.learn(rollout.actions, matching.mixed(rollout), rollout.alive)
        return matching.returned(team)

    return train
