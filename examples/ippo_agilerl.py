"""DM2 with AgileRL: its IPPO and its evolvable networks, one policy per agent.

    python examples/ippo_agilerl.py
    python examples/ippo_agilerl.py --env smax:3m --coefficient 0.3

AgileRL's IPPO learns from a rollout in ``learn``. There `DM2IPPO` lets the discriminators learn and pay first, so the order
is exactly Algorithm 1's. The rollouts come from `dm2.vectorize`: AgileRL's own ``AsyncPettingZooVecEnv`` forks, and
discriminators in a forked process would never be trained. AgileRL needs older packages than the other learners: install it
in an environment of its own, with ``constraints-agilerl.txt`` (``make check-agilerl``).
"""

from __future__ import annotations

from typing import Any

import _learners
import numpy as np
import torch
from agilerl.algorithms import IPPO
from agilerl.modules import ModuleDict
from agilerl.networks import StochasticActor, ValueNetwork
from gymnasium import spaces
from torch import Tensor

import dm2_wrappers as dm2
from dm2_wrappers.vector import MultiAgentVectorEnv

# What an agent's networks get: its features, then its action mask. AgileRL leaves masks in infos out when it learns.
Inputs = dict[str, np.ndarray]


class Actor(StochasticActor):
    """AgileRL's actor; the last inputs are the action mask."""

    def forward(self, obs: Any, action_mask: Any = None) -> tuple[Tensor, Tensor, Tensor]:
        features = self.observation_space.shape[0]
        return super().forward(obs[..., :features], obs[..., features:])


class Critic(ValueNetwork):
    """AgileRL's critic, which leaves the action mask out."""

    def forward(self, x: Any, hidden_state: Any = None) -> Any:
        return super().forward(x[..., : self.observation_space.shape[0]], hidden_state)


class DM2IPPO(IPPO):
    """AgileRL's IPPO, with lines 8 to 11 of Algorithm 1 before the agents' updates (line 12).

    Attributes:
        columns: Each agent's place on the agent axis; AgileRL sorts its ``agent_ids``.
        rollout: Collects what the discriminators learn from.
        coefficient: The paper's c.
        live: At which steps of the rollout each agent was alive, [T, N, K].
    """

    columns: dict[str, int]
    rollout: dm2.JointRollout
    coefficient: float
    live: np.ndarray

    def get_group_id(self, agent_id: str) -> str:
        """Each agent has its own networks; by default agents whose names differ in their number share them."""
        return agent_id

    def learn(self, experiences: tuple[Any, ...]) -> dict[str, float]:
        states, actions, log_probs, rewards, *rest = experiences
        gail = self.coefficient * self.rollout.gail_rewards()  # [T, N, K]
        mixed = {agent: rewards[agent] + gail[:, :, k] for agent, k in self.columns.items()}
        return super().learn((states, actions, log_probs, mixed, *rest))

    def _learn_individual(self, agent_id: str, **options: Any) -> float:
        self.rows = np.flatnonzero(self.live[:, :, self.columns[agent_id]])
        return super()._learn_individual(agent_id, **options) if len(self.rows) > 1 else 0.0

    def to_device(self, *experiences: Any) -> tuple[Any, ...]:
        """AgileRL calls this with the rollout and its advantages; the steps of dead agents are left out."""
        return tuple(each[self.rows] for each in super().to_device(*experiences))

    @torch.no_grad()
    def final_values(self, observations: np.ndarray) -> np.ndarray:
        """The critics' values [N, K] of observations [N, K, D]; at a time limit they stand for what would follow."""
        values = [self.critics[agent](torch.as_tensor(observations[:, k])) for agent, k in self.columns.items()]
        return torch.cat(values, dim=1).numpy()


def make_team(venv: MultiAgentVectorEnv, num_steps: int) -> DM2IPPO:
    inputs, actors, critics = {}, ModuleDict(), ModuleDict()
    for agent in venv.possible_agents:
        features, action_space = venv.observation_space(agent), venv.action_space(agent)
        inputs[agent] = spaces.Box(-np.inf, np.inf, (features.shape[0] + int(action_space.n),))
        layers = {"encoder_config": {"hidden_size": [64]}, "head_config": {"hidden_size": [64]}}
        actors[agent], critics[agent] = Actor(features, action_space, **layers), Critic(features, **layers)
    return DM2IPPO(
        spaces.Dict(inputs),
        spaces.Dict(venv.action_spaces),
        actor_networks=actors,
        critic_networks=critics,
        batch_size=max(2, venv.num_envs * num_steps // 4),
        lr=2.5e-3,
        gamma=0.95,
        ent_coef=0.01,
    )


def by_agent(venv: MultiAgentVectorEnv, array: np.ndarray) -> Inputs:
    """Each agent's columns of an array [N, K], as [N]."""
    return {agent: array[:, k] for k, agent in enumerate(venv.possible_agents)}


def network_inputs(venv: MultiAgentVectorEnv, observations: np.ndarray, masks: np.ndarray) -> Inputs:
    """Each agent's features and action mask side by side, [N, D + A], from [N, K, D] and [N, K, A]."""
    return {
        agent: np.concatenate([observations[:, k, :size], masks[:, k, : int(venv.action_space(agent).n)]], axis=1)
        for k, (agent, size) in enumerate(zip(venv.possible_agents, venv.observation_sizes, strict=True))
    }


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
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  AgileRL shuffles its minibatches with it
    venv = dm2.vectorize(make_env, num_envs)
    agents, team = list(venv.possible_agents), make_team(venv, num_steps)
    team.columns = {agent: k for k, agent in enumerate(agents)}
    team.rollout, team.coefficient = dm2.JointRollout(make_matcher()), coefficient

    observations, infos = venv.reset(seed=seed)
    done = np.zeros((num_envs, len(agents)))  # whether the step before was an agent's last
    for _ in range(max(1, steps // (num_envs * num_steps))):
        stored: list[tuple[Inputs, ...]] = []
        live = []
        for _ in range(num_steps):
            seen = network_inputs(venv, observations, infos["action_mask"])
            actions, log_probs, _, values = team.get_action(seen)
            before, alive, present = observations, infos["alive"], infos["present"]
            joint = np.stack([actions[agent] for agent in agents], axis=1)
            observations, rewards, terminations, truncations, infos = venv.step(joint)
            team.rollout.append(before, alive, (terminations | truncations).all(axis=1), infos.get("broken"))  # DM2
            cut = truncations & ~terminations
            rewards = env_coefficient * rewards + team.gamma * cut * team.final_values(infos["final_obs"])
            stored.append((seen, actions, log_probs, by_agent(venv, rewards), by_agent(venv, done), values))
            live.append(alive & present)
            done = (terminations | truncations).astype(float)
        team.live = np.stack(live)
        fields = [{agent: [step[agent] for step in field] for agent in agents} for field in zip(*stored, strict=True)]
        team.learn((*fields, network_inputs(venv, observations, infos["action_mask"]), by_agent(venv, done)))

    def act(observations: np.ndarray, masks: np.ndarray) -> np.ndarray:
        actions, *_ = team.get_action(network_inputs(venv, observations, masks))
        return np.stack([actions[agent] for agent in agents], axis=1)

    return _learners.dict_policy(venv.layout, act)


if __name__ == "__main__":
    _learners.main(train, __doc__)
