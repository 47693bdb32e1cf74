"""An honest learner of a page: softmax tables, REINFORCE, Algorithm 1 by hand. Faults can be put into it."""

from __future__ import annotations

import numpy as np

import dm2_wrappers as dm2

NUM_ENVS, ROLLOUT = 8, 64  # 512 joint steps a rollout: 8 episodes of each sub-environment
STEPS = 8


class TableTeam:
    """Each agent has its own table of logits, one row per time in the episode."""

    def __init__(self, seed, rate=0.5):
        self.logits = np.zeros((3, STEPS, 3))
        self.rng = np.random.default_rng(seed)
        self.rate = rate

    def probabilities(self):
        exps = np.exp(self.logits - self.logits.max(-1, keepdims=True))
        return exps / exps.sum(-1, keepdims=True)

    def act(self, times):
        """Actions of all agents in each sub-environment, [N, K]."""
        cumulative = self.probabilities()[:, times].swapaxes(0, 1).cumsum(-1)  # [N, K, A]
        return (self.rng.random((*cumulative.shape[:2], 1)) > cumulative).sum(-1).clip(max=2)

    def learn(self, times, actions, rewards, alive):
        """One gradient step. A step's return is the reward of the next step's observation, or of its own from outside."""
        for k in range(3):
            rows = alive[:, :, k]
            gain = rewards[:, :, k][rows]
            gain = (gain - gain.mean()) / (gain.std() + 1e-6)
            which, chosen = times[rows], actions[:, :, k][rows]
            gradient = -self.probabilities()[k, which] * gain[:, None]
            gradient[np.arange(len(chosen)), chosen] += gain
            for t in range(STEPS):
                if (which == t).any():
                    self.logits[k, t] += self.rate * gradient[which == t].mean(0)

    def policy(self, observations):
        agents = ("first", "second", "brief")
        times = np.rint(next(iter(observations.values()))[-1:] * STEPS).astype(int) - 1
        joint = self.act(times)[0]
        return {agent: int(joint[agents.index(agent)]) for agent in observations}
