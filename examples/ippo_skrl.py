"""DM2 with skrl: its IPPO, models, memories and trainer, one policy per agent.

    python examples/ippo_skrl.py
    python examples/ippo_skrl.py --env smax:3m --coefficient 0.3

skrl's IPPO trains the agents one after the other when a rollout is complete. `DM2IPPO` lets the discriminators learn and pay
before the first agent's turn, so the order is exactly Algorithm 1's. skrl's own PettingZoo wrapper plays one environment in
which no agent may leave; `SkrlVectorEnv` plays several, in which agents may. Needs the extra skrl.
"""

from __future__ import annotations

import warnings
from typing import Any

import _learners
import numpy as np
import torch
from gymnasium import spaces
from skrl.envs.wrappers.torch import MultiAgentEnvWrapper
from skrl.memories.torch import RandomMemory
from skrl.models.torch import CategoricalMixin, DeterministicMixin, Model
from skrl.multi_agents.torch.ippo import IPPO
from skrl.trainers.torch import SequentialTrainer
from torch import Tensor, nn

import dm2_wrappers as dm2
from dm2_wrappers.vector import MultiAgentVectorEnv

warnings.filterwarnings("ignore", message="CUDA")


class SkrlVectorEnv(MultiAgentEnvWrapper):
    """A vector environment for skrl. An agent's "state" is its action mask, because skrl hands states to the models.

    Attributes:
        last: What the last step was: observations before it, who was alive and present then, and what followed it.
    """

    def __init__(self, venv: MultiAgentVectorEnv, rollout: dm2.JointRollout, env_coefficient: float, seed: int) -> None:
        super().__init__(venv)
        self.venv, self.rollout, self.env_coefficient, self.seed = venv, rollout, env_coefficient, seed
        self.last: dict[str, Any] = {}

    @property
    def agents(self) -> list[str]:
        return list(self.venv.possible_agents)

    @property
    def state_spaces(self) -> dict[str, spaces.Space]:
        return {agent: spaces.Box(0, 1, (int(self.venv.action_space(agent).n),)) for agent in self.agents}

    def by_agent(self, array: np.ndarray, sizes: Any) -> dict[str, Tensor]:
        """Each agent's columns of an array [N, K] or [N, K, D], as [N, D]."""
        columns = array.reshape(*array.shape[:2], -1)
        return {a: torch.as_tensor(columns[:, k, :size]) for k, (a, size) in enumerate(zip(self.agents, sizes, strict=True))}

    def reset(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        self.seen, self.infos = self.venv.reset(seed=self.seed)
        return self.by_agent(self.seen, self.venv.observation_sizes), {}

    def state(self) -> dict[str, Tensor]:
        return self.by_agent(
            self.infos["action_mask"].astype(np.float32), [box.shape[0] for box in self.state_spaces.values()]
        )

    def step(self, actions: dict[str, Tensor]) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        before, infos = self.seen, self.infos
        joint = torch.cat([actions[agent] for agent in self.agents], dim=1).numpy()
        self.seen, rewards, terminations, truncations, self.infos = self.venv.step(joint)
        self.rollout.append(
            before, infos["alive"], (terminations | truncations).all(axis=1), self.infos.get("broken")
        )  # DM2
        sizes, ones = self.venv.observation_sizes, [1] * len(self.agents)
        final = self.by_agent(self.infos["final_obs"], sizes)
        self.last = {"alive": self.by_agent(infos["alive"] & infos["present"], ones), "final": final}
        mixed = self.by_agent((self.env_coefficient * rewards).astype(np.float32), ones)
        ends = self.by_agent(terminations, ones), self.by_agent(truncations & ~terminations, ones)
        return self.by_agent(self.seen, sizes), mixed, *ends, {}

    def render(self, *args: Any, **kwargs: Any) -> Any:
        return self.venv.render()

    def close(self) -> None:
        self.venv.close()


class LiveMemory(RandomMemory):
    """skrl's memory, but minibatches hold only the steps at which the agent was alive."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.live = torch.ones(self.memory_size, self.num_envs, dtype=torch.bool)

    def sample(self, names: list[str], *, batch_size: int, mini_batches: int = 1, sequence_length: int = 1) -> Any:
        rows = torch.nonzero(self.live.flatten()).flatten()
        return self.sample_by_index(names=names, indexes=rows[torch.randperm(len(rows))], mini_batches=mini_batches)


class DM2IPPO(IPPO):
    """skrl's IPPO, with lines 8 to 11 of Algorithm 1 before the agents' updates (line 12)."""

    def __init__(self, *, env: SkrlVectorEnv, coefficient: float, **options: Any) -> None:
        super().__init__(**options)
        self.env, self.coefficient = env, coefficient

    def record_transition(self, *, next_observations: Any, next_states: Any, **step: Any) -> None:
        for agent in self.possible_agents:
            self.memories[agent].live[self.memories[agent].memory_index] = self.env.last["alive"][agent][:, 0]
        # At a time limit skrl wants the value of what followed, not of the next episode's start.
        super().record_transition(next_observations=self.env.last["final"], next_states=next_states, **step)
        self._current_next_observations = next_observations

    def update(self, *, timestep: int, timesteps: int, uid: str) -> None:
        if uid == self.possible_agents[0]:
            gail = torch.as_tensor(self.env.rollout.gail_rewards())  # [T, N, K]
            for k, agent in enumerate(self.possible_agents):
                self.memories[agent].get_tensor_by_name("rewards").add_(self.coefficient * gail[:, :, k : k + 1])
        if self.memories[uid].live.any():
            super().update(timestep=timestep, timesteps=timesteps, uid=uid)


def network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))


class Policy(CategoricalMixin, Model):
    def __init__(self, **of_agent: Any) -> None:
        Model.__init__(self, **of_agent, device="cpu")
        CategoricalMixin.__init__(self)
        self.net = network(self.num_observations, self.num_actions)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        return self.net(inputs["observations"]).masked_fill(inputs["states"] == 0, -1e8), {}


class Value(DeterministicMixin, Model):
    def __init__(self, **of_agent: Any) -> None:
        Model.__init__(self, **of_agent, device="cpu")
        DeterministicMixin.__init__(self)
        self.net = network(self.num_observations, 1)

    def compute(self, inputs: dict[str, Any], role: str = "") -> tuple[Tensor, dict[str, Any]]:
        return self.net(inputs["observations"]), {}


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
    venv = dm2.vectorize(make_env, num_envs)
    env = SkrlVectorEnv(venv, dm2.JointRollout(make_matcher()), env_coefficient, seed)
    agents = env.agents
    models, memories = {}, {}
    for agent in agents:
        of_agent = {
            "observation_space": venv.observation_space(agent),
            "state_space": env.state_spaces[agent],
            "action_space": venv.action_space(agent),
        }
        models[agent] = {"policy": Policy(**of_agent), "value": Value(**of_agent)}
        memories[agent] = LiveMemory(memory_size=num_steps, num_envs=num_envs, device="cpu")
    cfg = {
        "rollouts": num_steps, "learning_epochs": 4, "mini_batches": 4, "learning_rate": 2.5e-3, "discount_factor": 0.95,
        "value_loss_scale": 0.5, "value_clip": 0.0, "entropy_loss_scale": 0.01, "time_limit_bootstrap": True,
        "learning_rate_scheduler_kwargs": {agent: {} for agent in agents},  # the default raises an error for several agents
        "observation_preprocessor_kwargs": {agent: {} for agent in agents},
        "state_preprocessor_kwargs": {agent: {} for agent in agents},
        "value_preprocessor_kwargs": {agent: {} for agent in agents},
        "experiment": {"write_interval": 0, "checkpoint_interval": 0},
    }  # fmt: skip
    team = DM2IPPO(
        env=env,
        coefficient=coefficient,
        possible_agents=agents,
        models=models,
        memories=memories,
        observation_spaces=venv.observation_spaces,
        state_spaces=env.state_spaces,
        action_spaces=venv.action_spaces,
        device="cpu",
        cfg=cfg,
    )
    timesteps = max(1, steps // (num_envs * num_steps)) * num_steps
    trainer_cfg = {"timesteps": timesteps, "disable_progressbar": True, "close_environment_at_exit": False, "headless": True}
    SequentialTrainer(cfg=trainer_cfg, env=env, agents=team).train()

    @torch.no_grad()
    def act(observations: np.ndarray, masks: np.ndarray) -> np.ndarray:
        widths = [box.shape[0] for box in env.state_spaces.values()]
        seen, states = env.by_agent(observations, venv.observation_sizes), env.by_agent(masks.astype(np.float32), widths)
        sampled = [models[a]["policy"].act({"observations": seen[a], "states": states[a]})[0] for a in agents]
        return torch.cat(sampled, dim=1).numpy()

    return _learners.dict_policy(venv.layout, act)


if __name__ == "__main__":
    _learners.main(train, __doc__)
