"""DM2 with TorchRL: its collector, its GAE and ClipPPOLoss, one network and one optimizer per agent.

    python examples/ippo_torchrl.py
    python examples/ippo_torchrl.py --env smax:3m --coefficient 0.3

The collector plays the bare environment. `dm2.torchrl.DistributionMatching` stands between the collector and the
advantages, so the order is exactly Algorithm 1's. To collect with several processes, replace ``Collector`` by
``MultiSyncCollector``; nothing else changes. Needs the extra torchrl.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import _learners
import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torch.distributions import Categorical
from torchrl.collectors import Collector
from torchrl.envs import PettingZooWrapper, SerialEnv
from torchrl.envs.utils import MarlGroupMapType
from torchrl.modules import MaskedCategorical, ProbabilisticActor
from torchrl.objectives import ClipPPOLoss, ValueEstimators

import dm2_wrappers as dm2
from dm2_wrappers.vector.layout import Layout

warnings.filterwarnings("ignore", message="PettingZoo in TorchRL is tested using version")


def torchrl_env(make_env: Any) -> PettingZooWrapper:
    """One group per agent, so that each has its own networks. Agents may leave before the episode ends."""
    groups = MarlGroupMapType.ONE_GROUP_PER_AGENT
    return PettingZooWrapper(make_env(), group_map=groups, use_mask=True, done_on_any=False)


def network(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs))


def networks(env: PettingZooWrapper, agent: str, layout: Layout) -> tuple[ProbabilisticActor, TensorDictModule]:
    """The actor and the critic of one agent."""
    k = layout.agents.index(agent)
    masked = (agent, "action_mask") in env.observation_spec.keys(True)
    # Where observations hold an action mask, TorchRL puts the mask beside and leaves the rest one level deeper.
    observation = (agent, "observation", "observation") if masked else (agent, "observation")
    logits = TensorDictModule(network(layout.sizes[k], layout.action_sizes[k]), [observation], [(agent, "logits")])
    inputs = {"logits": (agent, "logits")} | ({"mask": (agent, "action_mask")} if masked else {})
    actor = ProbabilisticActor(
        logits,
        in_keys=inputs,
        out_keys=[(agent, "action")],
        distribution_class=MaskedCategorical if masked else Categorical,
        return_log_prob=True,
        log_prob_key=(agent, "log_prob"),
    )
    critic = TensorDictModule(network(layout.sizes[k], 1), [observation], [(agent, "value")])
    return actor, critic


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
    epochs: int = 4,
    minibatches: int = 4,
    entropy: float = 0.01,
) -> _learners.Policy:
    torch.manual_seed(seed)
    envs = SerialEnv(num_envs, partial(torchrl_env, make_env))
    envs.set_seed(seed)
    layout, one = Layout(make_env()), torchrl_env(make_env)
    actors, losses, optimizers = {}, {}, {}
    for agent in layout.agents:
        actors[agent], critic = networks(one, agent, layout)
        loss = ClipPPOLoss(
            actors[agent], critic, clip_epsilon=0.2, entropy_coeff=entropy, critic_coeff=0.5, loss_critic_type="l2",
            normalize_advantage=False,
        )  # fmt: skip
        keys = ("action", "reward", "done", "terminated", "value", "advantage", "value_target")
        loss.set_keys(sample_log_prob=(agent, "log_prob"), **{key: (agent, key) for key in keys})
        loss.make_value_estimator(ValueEstimators.GAE, gamma=0.95, lmbda=0.95)
        losses[agent], optimizers[agent] = loss, torch.optim.Adam(loss.parameters(), lr=learning_rate, eps=1e-5)

    frames = num_envs * num_steps
    team = TensorDictSequential(*actors.values())
    collector = Collector(
        envs,
        team,
        frames_per_batch=frames,
        total_frames=max(1, steps // frames) * frames,
        auto_register_policy_transforms=False,
    )
    matching = dm2.torchrl.DistributionMatching(
        make_matcher(), coefficient=coefficient, env_coefficient=env_coefficient, group_map=one.group_map
    )
    for batch in collector:  # [num_envs, num_steps]
        matching(batch)  # lines 6 to 11
        for agent, loss in losses.items():
            with torch.no_grad():
                loss.value_estimator(batch)
            acted = batch[agent, "mask"].squeeze(-1)
            if (alive := batch.get((agent, "info", "alive"), None)) is not None:
                acted = acted & (alive != 0).reshape(acted.shape)
            rows = batch[acted]
            if len(rows) < 2:
                continue
            gains = rows[agent, "advantage"]
            rows[agent, "advantage"] = (gains - gains.mean()) / (gains.std() + 1e-8)
            for _ in range(epochs):
                for part in torch.randperm(len(rows)).chunk(minibatches):
                    parts = loss(rows[part])
                    optimizers[agent].zero_grad()
                    (parts["loss_objective"] + parts["loss_critic"] + parts["loss_entropy"]).backward()
                    nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
                    optimizers[agent].step()
    collector.shutdown()
    one.close()

    @torch.no_grad()
    def act(observations: np.ndarray, masks: np.ndarray) -> np.ndarray:
        joint = TensorDict({}, [1])
        for k, agent in enumerate(layout.agents):
            own = torch.as_tensor(observations[:, k : k + 1, : layout.sizes[k]])  # [1, 1, D]: a group of one agent
            joint[agent] = TensorDict({"action_mask": torch.as_tensor(masks[:, k : k + 1, : layout.action_sizes[k]])}, [1])
            joint[agent, "observation"] = own
            if (agent, "observation", "observation") in team.in_keys:
                joint[agent, "observation"] = TensorDict({"observation": own}, [1])
        team(joint)
        return torch.cat([joint[agent, "action"] for agent in layout.agents], dim=1).numpy()

    return _learners.dict_policy(layout, act)


if __name__ == "__main__":
    _learners.main(train, __doc__)
