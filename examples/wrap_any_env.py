"""DM2 on an environment that is not StarCraft, with its own training loop, in one file.

    python examples/wrap_any_env.py
    python examples/wrap_any_env.py --coefficient 0        # the same learners without distribution matching

Three agents must cover three landmarks (simple_spread of MPE) within 25 steps. The experts are a scripted team, in which
agent k walks to landmark k. Only their observations are used. Three independent actor-critic learners then
learn from r_env + c * r_gail. The lines that DM2 adds are marked with "DM2".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import tyro
from mpe2 import simple_spread_v3
from torch import nn
from torch.nn import functional

import dm2_wrappers as dm2

Joint = Mapping[str, np.ndarray]
Policy = Callable[[Joint], dict[str, int]]


@dataclass
class Args:
    coefficient: float = 1.0
    """the paper's c; with 0 the agents learn from the environment's reward alone"""
    steps: int = 100_000
    """joint environment steps of training"""
    demonstrations: int = 100
    """episodes of the scripted team"""
    rollout_episodes: int = 20
    """episodes between two updates"""
    epochs: int = 4
    """passes over a rollout"""
    minibatches: int = 4
    """gradient steps per pass"""
    learning_rate: float = 1e-3
    """Adam's step size"""
    gamma: float = 0.95
    """discount"""
    gae_lambda: float = 0.95
    """lambda of generalized advantage estimation"""
    clip: float = 0.2
    """PPO's clipping"""
    entropy: float = 0.01
    """weight of the entropy bonus"""
    evaluation_episodes: int = 100
    """test episodes for each number of the final table"""
    seed: int = 0
    """seed of networks, actions, environment and discriminators"""


class Learner:
    """One agent's actor, critic and optimizer. It shares nothing with the other agents'."""

    def __init__(self, observation_size: int, num_actions: int, args: Args, seed: int) -> None:
        torch.manual_seed(seed)
        self.args, self.rng = args, np.random.default_rng(seed)

        def network(outputs: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(observation_size, 64), nn.Tanh(), nn.Linear(64, outputs))

        self.actor, self.critic = network(num_actions), network(1)
        parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=args.learning_rate)
        self.episodes: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    @torch.no_grad()
    def act(self, observation: np.ndarray) -> int:
        logits = self.actor(torch.as_tensor(observation, dtype=torch.float32)).numpy()
        return int(np.argmax(logits + self.rng.gumbel(size=len(logits))))  # a draw from softmax(logits)

    def learn(self) -> None:
        """PPO on the episodes collected since the last call: (observations [T + 1, D], actions [T], rewards [T])."""
        args, batches = self.args, []
        for observations, actions, rewards in self.episodes:
            with torch.no_grad():
                values = self.critic(torch.as_tensor(observations)).squeeze(1).numpy()
            # Episodes end by the time limit only, so the value of the last observation stands in for what would follow.
            deltas = rewards + args.gamma * values[1:] - values[:-1]
            advantages = np.zeros_like(deltas)
            following = 0.0
            for t in reversed(range(len(deltas))):
                advantages[t] = following = deltas[t] + args.gamma * args.gae_lambda * following
            batches.append((observations[:-1], actions, advantages, advantages + values[:-1]))
        self.episodes = []
        seen, done, advantages, returns = (torch.as_tensor(np.concatenate(x)) for x in zip(*batches, strict=True))
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        old = functional.log_softmax(self.actor(seen), 1).gather(1, done[:, None]).squeeze(1).detach()
        for _ in range(args.epochs):
            for rows in np.array_split(self.rng.permutation(len(done)), args.minibatches):
                log_probs = functional.log_softmax(self.actor(seen[rows]), 1)
                ratio = (log_probs.gather(1, done[rows, None]).squeeze(1) - old[rows]).exp()
                clipped = ratio.clamp(1 - args.clip, 1 + args.clip)
                gain = torch.minimum(ratio * advantages[rows], clipped * advantages[rows]).mean()
                entropy = -(log_probs.exp() * log_probs).sum(1).mean()
                error = functional.mse_loss(self.critic(seen[rows]).squeeze(1), returns[rows])
                self.optimizer.zero_grad()
                (0.5 * error - gain - args.entropy * entropy).backward()
                self.optimizer.step()


def expert(observations: Joint) -> dict[str, int]:
    """Agent k walks to landmark k. An observation is: own velocity, own position, landmarks relative to it, others."""
    actions = {}
    for k, (agent, observation) in enumerate(observations.items()):
        x, y = observation[4 + 2 * k : 6 + 2 * k] - observation[:2]  # where it will be if it just rolls on
        if max(abs(x), abs(y)) < 0.05:
            actions[agent] = 0  # stand still
        elif abs(x) > abs(y):
            actions[agent] = 2 if x > 0 else 1
        else:
            actions[agent] = 4 if y > 0 else 3
    return actions


def mean_return(env, policy: Policy, episodes: int, seed: int) -> tuple[float, float]:
    """Return of an episode, averaged over agents and episodes, and its standard error."""
    returns = []
    for episode in range(episodes):
        observations, _ = env.reset(seed=seed + episode)
        total = 0.0
        while env.agents:
            observations, rewards, *_ = env.step(policy(observations))
            total += float(np.mean(list(rewards.values())))
        returns.append(total)
    return float(np.mean(returns)), float(np.std(returns, ddof=1) / np.sqrt(episodes))


def train(args: Args, demos: dm2.Demonstrations) -> Policy:
    matcher = dm2.DistributionMatcher(demos, seed=args.seed)  # DM2
    env = simple_spread_v3.parallel_env(N=3, max_cycles=25)
    env = dm2.DM2ParallelEnv(env, matcher, coefficient=args.coefficient)  # DM2
    learners = {
        agent: Learner(env.observation_space(agent).shape[0], env.action_space(agent).n, args, 1000 * args.seed + k)
        for k, agent in enumerate(env.possible_agents)
    }

    def policy(observations: Joint) -> dict[str, int]:
        return {agent: learners[agent].act(observation) for agent, observation in observations.items()}

    steps, updates, start, seed, returns = 0, 0, time.time(), args.seed, []
    while steps < args.steps:
        for _ in range(args.rollout_episodes):
            observations, _ = env.reset(seed=seed)
            seed = None  # later episodes continue the environment's own random stream
            seen, taken, paid = [observations], [], []
            returns.append(0.0)
            while env.agents:
                taken.append(policy(observations))
                observations, rewards, _, _, infos = env.step(taken[-1])  # rewards: r_env + c * r_gail
                seen.append(observations)
                paid.append(rewards)
                returns[-1] += float(np.mean([info["env_reward"] for info in infos.values()]))
            steps += len(paid)
            for agent, learner in learners.items():
                episode = [np.array([joint[agent] for joint in rows]) for rows in (seen, taken, paid)]
                learner.episodes.append((episode[0].astype(np.float32), episode[1], episode[2].astype(np.float32)))
        for learner in learners.values():
            learner.learn()
        metrics = env.update()  # DM2: the discriminators learn from the rollout
        updates += 1
        if updates % 20 == 0 or steps >= args.steps:
            print(
                f"{steps:9,} steps  {steps / (time.time() - start):5.0f} a second  return {np.mean(returns):7.2f}  "
                f"discriminators right: expert {metrics['expert_accuracy']:.0%}, team {metrics['policy_accuracy']:.0%}",
                flush=True,
            )
            returns = []
    return policy


def main(args: Args) -> None:
    torch.set_num_threads(1)
    env = simple_spread_v3.parallel_env(N=3, max_cycles=25)
    demos = dm2.Demonstrations.record(env, expert, args.demonstrations, seed=args.seed + 1)  # DM2
    print(f"{len(demos)} demonstrated episodes, mean return {demos.mean_return:.2f}")
    team = train(args, demos)

    rng = np.random.default_rng(args.seed)
    policies = {
        "scripted experts": expert,
        "random team": lambda observations: {agent: int(rng.integers(5)) for agent in observations},
        f"team after {args.steps:,} steps, c = {args.coefficient:g}": team,
    }
    print(f"\n{'mean environment return':<40} {args.evaluation_episodes} episodes each")
    for name, policy in policies.items():
        mean, error = mean_return(env, policy, args.evaluation_episodes, seed=args.seed + 10_000)
        print(f"{name:<40} {mean:8.2f} +- {error:.2f}")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
