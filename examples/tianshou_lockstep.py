"""DM2 with Tianshou: one of its PPO algorithms per agent, in lockstep on one environment.

    python examples/tianshou_lockstep.py
    python examples/tianshou_lockstep.py --env smax:3m --coefficient 0.3

Tianshou's own PettingZoo support takes turns, and pays an agent before the others have acted. Here each agent has a
single-agent loop with Tianshou's buffer and PPO; `dm2_wrappers.lockstep` steps the joint environment when all loops have
chosen their actions. `dm2.JointRollout` gives them the exact order of Algorithm 1. Needs the extra tianshou.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import _learners
import numpy as np
import torch
from tianshou.algorithm import PPO
from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Batch, VectorReplayBuffer
from torch import Tensor, nn

import dm2_wrappers as dm2
from dm2_wrappers.lockstep import AgentVectorEnv, JointStep, Lockstep


def network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))


class Actor(nn.Module):
    def __init__(self, features: int, actions: int) -> None:
        super().__init__()
        self.net = network(features, actions)

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        logits = self.net(torch.as_tensor(obs.obs, dtype=torch.float32))
        return logits.masked_fill(~torch.as_tensor(obs.mask, dtype=torch.bool), -1e8), state


class Critic(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.net = network(features, 1)

    def forward(self, obs: Any, **kwargs: Any) -> Tensor:
        return self.net(torch.as_tensor(obs.obs, dtype=torch.float32))


class DM2PPO(PPO):
    """Tianshou's PPO, which learns from mixed rewards, and only from the steps at which the agent was alive.

    Attributes:
        bonus: What to add to the rewards of the rollout, [T, N].
    """

    bonus: np.ndarray

    def _preprocess_batch(self, batch: Any, buffer: Any, indices: np.ndarray) -> Any:
        batch.rew = batch.rew + self.bonus.T.reshape(-1)  # the buffer holds sub-environment after sub-environment
        return super()._preprocess_batch(batch, buffer, indices)[batch.info.alive]


def learn(
    agent: str,
    *,
    lockstep: Lockstep,
    rollout: dm2.JointRollout,
    coefficient: float,
    env_coefficient: float,
    rollouts: int,
    num_steps: int,
) -> PPO:
    """One agent's training loop."""
    env = AgentVectorEnv(lockstep, agent)
    features, n = env.single_observation_space.shape[0], env.num_envs
    policy = DiscreteActorPolicy(
        actor=Actor(features, int(env.single_action_space.n)),
        action_space=env.single_action_space,
        observation_space=env.single_observation_space,
    )
    algorithm = DM2PPO(
        policy=policy,
        critic=Critic(features),
        optim=AdamOptimizerFactory(lr=2.5e-3, eps=1e-5),
        gamma=0.95,
        gae_lambda=0.95,
        ent_coef=0.01,
        max_grad_norm=0.5,
        advantage_normalization=True,
    )
    buffer = VectorReplayBuffer(n * num_steps, n)
    observations, infos = env.reset()
    for _ in range(rollouts):
        for _ in range(num_steps):
            seen = Batch(obs=observations, mask=infos["action_mask"])
            alive = infos["alive"]
            with torch.no_grad(), policy_within_training_step(policy):
                actions = policy(Batch(obs=seen, info=Batch())).act.numpy()
            observations, rewards, terminations, truncations, infos = env.step(actions)
            step = Batch(
                obs=seen,
                act=actions,
                rew=env_coefficient * rewards.astype(float),
                terminated=terminations,
                truncated=truncations,
                done=terminations | truncations,
                obs_next=Batch(obs=infos["final_obs"], mask=infos["action_mask"]),
                info=Batch(alive=alive),
            )
            buffer.add(step, buffer_ids=np.arange(n))
        # Lines 8 to 11: the first loop to come here updates the discriminators, and all get the same rewards [T, N, K].
        algorithm.bonus = coefficient * rollout.gail_rewards()[:, :, env.view.index]
        if buffer.info.alive.sum() > 1:
            with policy_within_training_step(policy):
                algorithm.update(buffer, batch_size=max(2, n * num_steps // 4), repeat=4)
        buffer.reset()
    return algorithm


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
) -> _learners.Policy:
    venv = dm2.vectorize(make_env, num_envs)
    lockstep, rollout = Lockstep(venv, seed=seed), dm2.JointRollout(make_matcher())

    def collect(step: JointStep) -> None:
        """Line 6 of Algorithm 1, after each joint step."""
        ended = (step.terminations | step.truncations).all(axis=1)
        rollout.append(step.observations, step.alive, ended, step.infos.get("broken"))

    lockstep.listeners.append(collect)
    loop = partial(
        learn,
        lockstep=lockstep,
        rollout=rollout,
        coefficient=coefficient,
        env_coefficient=env_coefficient,
        rollouts=max(1, steps // (num_envs * num_steps)),
        num_steps=num_steps,
    )
    algorithms = lockstep.run({agent: partial(loop, agent) for agent in venv.possible_agents})

    @torch.no_grad()
    def act(observations: np.ndarray, masks: np.ndarray) -> np.ndarray:
        actions = []
        for k, agent in enumerate(venv.possible_agents):
            size, width = venv.observation_sizes[k], int(venv.action_space(agent).n)
            seen = Batch(obs=observations[:, k, :size], mask=masks[:, k, :width])
            actions.append(algorithms[agent].policy(Batch(obs=seen, info=Batch())).act.numpy())
        return np.stack(actions, axis=1)

    return _learners.dict_policy(venv.layout, act)


if __name__ == "__main__":
    _learners.main(train, __doc__)
