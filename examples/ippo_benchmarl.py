"""DM2 with BenchMARL: its IPPO, one policy per agent, and the callback of `dm2_wrappers.torchrl.benchmarl`.

    python examples/ippo_benchmarl.py
    python examples/ippo_benchmarl.py --env smax:3m --coefficient 0.3

The callback pays a batch before BenchMARL computes advantages, so the order is exactly Algorithm 1's. BenchMARL needs an
older TorchRL than ippo_torchrl.py: install it in an environment of its own, with ``constraints-benchmarl.txt``
(``make check-benchmarl``).
"""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import _learners
import numpy as np
import torch
from benchmarl.algorithms import Ippo, IppoConfig
from benchmarl.environments.pettingzoo.common import PettingZooClass
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models import MlpConfig
from tensordict import TensorDict, TensorDictBase
from torchrl.envs import PettingZooWrapper
from torchrl.envs.utils import ExplorationType, MarlGroupMapType, set_exploration_type

from dm2_wrappers.torchrl.benchmarl import DistributionMatchingCallback
from dm2_wrappers.vector.layout import Layout

warnings.filterwarnings("ignore", message="PettingZoo in TorchRL is tested using version")


class TorchRLEnv(PettingZooWrapper):
    """TorchRL's wrapper, which in this version fails where environments have action masks and agents leave."""

    def _update_action_mask(self, td: TensorDictBase, observations: dict, infos: dict) -> tuple[dict, dict]:
        gone = {agent: {} for agent in self.possible_agents if agent not in observations}
        found, infos = super()._update_action_mask(td, {**gone, **observations}, {**gone, **infos})
        return {agent: found[agent] for agent in observations}, infos


class ParallelEnvTask(PettingZooClass):
    """BenchMARL's task for any ParallelEnv. One group per agent, so that each has its own networks and loss."""

    make_env: Callable[[], Any]

    def get_env_fun(self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any) -> Callable[[], Any]:
        seeds = itertools.count(seed or 0)  # BenchMARL calls the function once for each sub-environment

        def make() -> TorchRLEnv:
            groups = MarlGroupMapType.ONE_GROUP_PER_AGENT
            options = {"group_map": groups, "use_mask": True, "done_on_any": False, "seed": next(seeds), "device": device}
            return TorchRLEnv(self.make_env(), **options)

        return make

    def supports_continuous_actions(self) -> bool:
        return False

    def supports_discrete_actions(self) -> bool:
        return True

    def has_state(self) -> bool:
        return False

    def has_render(self, env: Any) -> bool:
        return False

    def max_steps(self, env: Any) -> int:
        return 1  # of BenchMARL's evaluations, which are off

    def __getstate__(self) -> dict[str, Any]:
        """BenchMARL pickles its task, but a function that makes environments need not be picklable."""
        return {**vars(self), "make_env": None}


class Matching(DistributionMatchingCallback):
    """The callback, with a function ``make_matcher`` that need not be picklable, because there are no checkpoints here."""

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "make_matcher": None}


class LiveIppo(Ippo):
    """BenchMARL's IPPO, which learns only from the steps at which the agent was alive."""

    def process_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        batch = super().process_batch(group, batch)  # advantages
        live = batch[group, "mask"].reshape(batch.shape)
        if (alive := batch.get((group, "info", "alive"), None)) is not None:
            live = live & (alive != 0).reshape(batch.shape)
        self.experiment.replay_buffers[group].empty()  # else fewer rows than the last time would leave some of those
        return batch[live]


@dataclass
class LiveIppoConfig(IppoConfig):
    @staticmethod
    def associated_class() -> type[Ippo]:
        return LiveIppo


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
    config, frames = ExperimentConfig.get_from_yaml(), num_envs * num_steps
    config.max_n_iters, config.max_n_frames = max(1, steps // frames), None
    config.on_policy_collected_frames_per_batch, config.on_policy_n_envs_per_worker = frames, num_envs
    config.on_policy_n_minibatch_iters, config.on_policy_minibatch_size = 4, frames // 4
    config.gamma, config.lr, config.clip_grad_val = 0.95, 2.5e-3, 0.5
    config.evaluation, config.render, config.loggers, config.create_json = False, False, [], False
    algorithm = LiveIppoConfig(**vars(IppoConfig.get_from_yaml()))
    algorithm.entropy_coef, algorithm.critic_coef, algorithm.lmbda = 0.01, 0.5, 0.95
    model = MlpConfig(num_cells=[64, 64], layer_class=torch.nn.Linear, activation_class=torch.nn.Tanh)
    task = ParallelEnvTask(name="DM2", config={})
    task.make_env = make_env
    matching = Matching(make_matcher, coefficient=coefficient, env_coefficient=env_coefficient)
    with tempfile.TemporaryDirectory() as folder:  # of files that BenchMARL writes of each experiment
        config.save_folder = folder
        options = {"model_config": model, "critic_model_config": model, "seed": seed, "config": config}
        experiment = Experiment(task, algorithm, callbacks=[matching], **options)
        experiment.run()
    layout = Layout(make_env())
    keys = experiment.policy.in_keys

    @torch.no_grad()
    def act(observations: np.ndarray, masks: np.ndarray) -> np.ndarray:
        joint = TensorDict({}, [1])
        for k, agent in enumerate(layout.agents):
            own = torch.as_tensor(observations[:, k : k + 1, : layout.sizes[k]])  # [1, 1, D]: a group of one agent
            joint[agent] = TensorDict({"action_mask": torch.as_tensor(masks[:, k : k + 1, : layout.action_sizes[k]])}, [1])
            nested = (agent, "observation", "observation") in keys
            joint[agent, "observation"] = TensorDict({"observation": own}, [1]) if nested else own
        with set_exploration_type(ExplorationType.RANDOM):
            experiment.policy(joint)
        return torch.cat([joint[agent, "action"] for agent in layout.agents], dim=1).numpy()

    return _learners.dict_policy(layout, act)


if __name__ == "__main__":
    _learners.main(train, __doc__)
