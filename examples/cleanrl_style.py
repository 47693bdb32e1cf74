"""DM2 in a training loop of one's own, in the style of CleanRL: PPO by hand, one network per agent, one file.

    python examples/cleanrl_style.py
    python examples/cleanrl_style.py --coefficient 0           # the same learners without distribution matching
    python examples/cleanrl_style.py --env smax:3m --coefficient 0.3

The loop follows Algorithm 1 exactly: `dm2.JointRollout` collects what the agents see (line 6), trains the discriminators
when the rollout is complete and pays with them (lines 8 to 10). DM2 takes the lines that are marked with its name.
"""

from __future__ import annotations

from typing import Any

import _learners
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Categorical

import dm2_wrappers as dm2


def layer(inputs: int, outputs: int, std: float = np.sqrt(2)) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, std)
    nn.init.zeros_(linear.bias)
    return linear


class Agent(nn.Module):
    def __init__(self, features: int, actions: int) -> None:
        super().__init__()
        self.features, self.actions = features, actions
        self.critic = nn.Sequential(layer(features, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, 1, std=1.0))
        self.actor = nn.Sequential(layer(features, 64), nn.Tanh(), layer(64, 64), nn.Tanh(), layer(64, actions, std=0.01))

    def value(self, observations: Tensor) -> Tensor:
        return self.critic(observations[..., : self.features]).squeeze(-1)

    def distribution(self, observations: Tensor, masks: Tensor) -> Categorical:
        logits = self.actor(observations[..., : self.features])
        return Categorical(logits=logits.masked_fill(~masks[..., : self.actions], -1e8))


def train(
    make_env: Any,
    make_matcher: Any,
    *,
    coefficient: float,
    env_coefficient: float = 1.0,
    steps: int,
    seed: int,
    num_envs: int = 16,
    num_steps: int = 32,
    learning_rate: float = 2.5e-3,
    gamma: float = 0.95,
    gae_lambda: float = 0.95,
    epochs: int = 4,
    minibatches: int = 4,
    clip: float = 0.2,
    entropy: float = 0.01,
) -> _learners.Policy:
    torch.manual_seed(seed)
    venv = dm2.vectorize(make_env, num_envs)  # arrays [N, K, ...]; SMAX's own vector_env is faster
    names, n, k = venv.possible_agents, num_envs, venv.num_agents
    agents = [Agent(venv.observation_space(name).shape[0], int(venv.action_space(name).n)) for name in names]
    optimizers = [torch.optim.Adam(agent.parameters(), lr=learning_rate, eps=1e-5) for agent in agents]
    joint = dm2.JointRollout(make_matcher())  # DM2

    shape = (num_steps, n, k)
    observations = torch.zeros(*shape, max(venv.observation_sizes))
    masks = torch.zeros(*shape, max(agent.actions for agent in agents), dtype=torch.bool)
    actions, log_probs = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
    values, next_values, rewards = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape)
    present, alive = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)
    terminated, done = torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.bool)

    seen, infos = venv.reset(seed=seed)
    for _ in range(max(1, steps // (n * num_steps))):
        for t in range(num_steps):
            observations[t], masks[t] = torch.as_tensor(seen), torch.as_tensor(infos["action_mask"])
            present[t], alive[t] = torch.as_tensor(infos["present"]), torch.as_tensor(infos["alive"])
            with torch.no_grad():
                for i, agent in enumerate(agents):
                    distribution = agent.distribution(observations[t, :, i], masks[t, :, i])
                    actions[t, :, i] = distribution.sample()
                    log_probs[t, :, i] = distribution.log_prob(actions[t, :, i])
                    values[t, :, i] = agent.value(observations[t, :, i])
            before, before_alive = seen, infos["alive"]
            seen, reward, terminations, truncations, infos = venv.step(actions[t].numpy())
            rewards[t], terminated[t] = torch.as_tensor(env_coefficient * reward), torch.as_tensor(terminations)
            done[t] = torch.as_tensor(terminations | truncations)
            ended = (terminations | truncations).all(axis=1)
            joint.append(before, before_alive, ended, infos.get("broken"))  # DM2, line 6
            with torch.no_grad():  # what followed the actions: at a time limit its value stands for the rest
                for i, agent in enumerate(agents):
                    next_values[t, :, i] = agent.value(torch.as_tensor(infos["final_obs"][:, i]))

        rewards += coefficient * torch.as_tensor(joint.gail_rewards())  # DM2, lines 8 to 11

        advantages, following = torch.zeros(shape), torch.zeros(n, k)
        for t in reversed(range(num_steps)):
            delta = rewards[t] + gamma * next_values[t] * ~terminated[t] - values[t]
            advantages[t] = following = delta + gamma * gae_lambda * ~done[t] * following
        returns = advantages + values

        for i, (agent, optimizer) in enumerate(zip(agents, optimizers, strict=True)):
            # The critic learns from all steps of the agent, the actor from those at which it was alive.
            rows = torch.nonzero(present[:, :, i].flatten()).flatten()
            own = {
                name: array[:, :, i].flatten(0, 1)[rows]
                for name, array in {
                    "seen": observations, "masks": masks, "taken": actions, "old": log_probs, "alive": alive,
                    "advantages": advantages, "returns": returns,
                }.items()
            }  # fmt: skip
            gains = own["advantages"][own["alive"]]
            if len(gains) < 2:
                continue
            own["advantages"] = (own["advantages"] - gains.mean()) / (gains.std() + 1e-8)
            for _ in range(epochs):
                for batch in torch.randperm(len(rows)).chunk(minibatches):
                    b = {name: array[batch] for name, array in own.items()}
                    distribution = agent.distribution(b["seen"], b["masks"])
                    ratio = (distribution.log_prob(b["taken"]) - b["old"]).exp()
                    gain = torch.minimum(ratio * b["advantages"], ratio.clamp(1 - clip, 1 + clip) * b["advantages"])
                    gain = (gain + entropy * distribution.entropy()) * b["alive"]
                    error = (agent.value(b["seen"]) - b["returns"]) ** 2
                    optimizer.zero_grad()
                    (0.5 * error.mean() - gain.mean()).backward()
                    nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                    optimizer.step()

    @torch.no_grad()
    def act(observations: np.ndarray, masks: np.ndarray) -> np.ndarray:
        rows, available = torch.as_tensor(observations), torch.as_tensor(masks)
        sampled = [agent.distribution(rows[:, i], available[:, i]).sample() for i, agent in enumerate(agents)]
        return torch.stack(sampled, dim=1).numpy()

    return _learners.dict_policy(venv.layout, act)


if __name__ == "__main__":
    _learners.main(train, __doc__)
