"""An honest learner of a page, softmax tables and REINFORCE, and places to put faults in."""

from __future__ import annotations

import numpy as np

import dm2_wrappers as dm2

AGENTS = ("first", "second", "brief")
STEPS = 8  # of an episode
NUM_ENVS, ROLLOUT = 8, 64


class TableTeam:
    """Each agent has a table of logits with a row for each time in the episode."""

    def __init__(self, seed: int, rate: float = 2.0) -> None:
        self.logits = np.zeros((len(AGENTS), STEPS, 3))
        self.rng = np.random.default_rng(seed)
        self.rate = rate

    def probabilities(self):
        weights = np.exp(self.logits - self.logits.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    def act(self, times):
        """Actions [N, K] at these times [N]."""
        cumulative = self.probabilities()[:, times].swapaxes(0, 1).cumsum(-1)
        return (self.rng.random((*cumulative.shape[:2], 1)) > cumulative).sum(-1).clip(max=2)

    def learn(self, times, actions, rewards, alive):
        """A step of REINFORCE; an action earns its own step's reward and the next one's."""
        later = np.zeros_like(rewards)
        later[:-1] = rewards[1:] * (times[1:] > times[:-1])[..., None]
        for k in range(len(AGENTS)):
            rows = alive[:, :, k]
            when, chosen, gain = times[rows], actions[:, :, k][rows], (rewards + later)[:, :, k][rows]
            gain = (gain - gain.mean()) / (gain.std() + 1e-6)
            gradient = (np.eye(3)[chosen] - self.probabilities()[k, when]) * gain[:, None]
            for t in np.unique(when):
                self.logits[k, t] += self.rate * gradient[when == t].mean(0)

    def policy(self, observations):
        actions = self.act(times_of(next(iter(observations.values()))[None]))[0]
        return {agent: int(actions[AGENTS.index(agent)]) for agent in observations}


def times_of(observations):
    """The time in the episode, from the last feature."""
    return np.rint(observations[..., -1] * STEPS).astype(int) - 1


class Rollout:
    """One rollout of a vector environment: [T, N, ...]."""

    def __init__(self, team, venv, observations, infos, steps):
        rows = []
        for _ in range(steps):
            times = times_of(observations[:, 0])
            actions = team.act(times)
            before, alive = observations, infos["alive"]
            observations, rewards, _, _, infos = venv.step(actions)
            following = np.where(infos["_final_obs"][:, None, None], infos["final_obs"], observations)
            rows.append((before, alive, times, actions, rewards, following))
        self.last = observations, infos
        parts = map(np.stack, zip(*rows, strict=True))
        self.observations, self.alive, self.times, self.actions, self.rewards, self.following = parts


class Exact:
    """Algorithm 1's lines 6 to 11 for a rollout; each method is a place for a fault."""

    def __init__(self, make_env, make_matcher, coefficient, env_coefficient):
        self.make_env, self.make_matcher = make_env, make_matcher
        self.coefficient, self.env_coefficient = coefficient, env_coefficient

    def begin(self):
        self.matcher = self.make_matcher()

    def venv(self):
        return dm2.vectorize(self.make_env, NUM_ENVS)

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

    def venv(self):
        options = {"coefficient": self.coefficient, "env_coefficient": self.env_coefficient}
        self.wrapped = dm2.DM2VectorEnv(super().venv(), self.matcher, **options)
        return self.wrapped

    def mixed(self, rollout):
        self.wrapped.update()
        return rollout.rewards


class Workers(Exact):
    """Two processes play bare environments; one call does lines 6 to 10 for chunks of single agents."""

    def venv(self):
        return dm2.vectorize(self.make_env, NUM_ENVS, workers=2)

    def gail_rewards(self, rollout):
        places = [(n, k) for k in range(len(AGENTS)) for n in range(NUM_ENVS)]
        chunks = [(AGENTS[k], rollout.observations[:, n, k][rollout.alive[:, n, k]]) for n, k in places]
        gail = np.zeros(rollout.alive.shape, np.float32)
        for (n, k), paid in zip(places, self.matcher.algorithm1(chunks), strict=True):
            gail[:, n, k][rollout.alive[:, n, k]] = paid
        return gail


def trains(kind):
    """A ``train`` function as `check_dm2_learner` takes it."""

    def train(make_env, make_matcher, *, coefficient, env_coefficient, steps, seed):
        matching = kind(make_env, make_matcher, coefficient, env_coefficient)
        matching.begin()
        team = TableTeam(seed)
        with matching.venv() as venv:
            last = venv.reset(seed=seed)
            for _ in range(steps // (NUM_ENVS * ROLLOUT)):
                rollout = Rollout(team, venv, *last, ROLLOUT)
                last = rollout.last
                team.learn(rollout.times, rollout.actions, matching.mixed(rollout), rollout.alive)
        return matching.returned(team)

    return train
