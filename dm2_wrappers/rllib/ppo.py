"""Independent PPO on RLlib, with distribution matching and without."""

from __future__ import annotations

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPO, PPOConfig

from dm2_wrappers.rllib.algorithm import DistributionMatchingMixin
from dm2_wrappers.rllib.config import DistributionMatchingConfigMixin, IndependentAgentsConfigMixin


class IPPOConfig(IndependentAgentsConfigMixin, PPOConfig):
    """RLlib's ``PPOConfig`` for independent PPO on any ``ParallelEnv``, with action masks and without DM2.

    Example:
        >>> algorithm = dm2.rllib.IPPOConfig().environment("smax:5m_vs_6m").build_algo()
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or PPO)


class DM2PPOConfig(DistributionMatchingConfigMixin, PPOConfig):
    """RLlib's ``PPOConfig`` with distribution matching: independent PPO with one policy per agent, and the paper's reward.

    Everything else is RLlib's: env runners, learners, ``training(...)``, checkpoints.

    Example:
        >>> demos = dm2.Demonstrations.load("demos_data/smax_5m_vs_6m_win30.npz")
        >>> config = (
        ...     dm2.rllib.DM2PPOConfig()
        ...     .environment("smax:5m_vs_6m")
        ...     .env_runners(num_env_runners=2, num_envs_per_env_runner=8)
        ...     .distribution_matching(lambda: dm2.DistributionMatcher(demos, seed=0), coefficient=0.3)
        ... )
        >>> algorithm = config.build_algo()
        >>> result = algorithm.train()
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or DM2PPO)


class DM2PPO(DistributionMatchingMixin, PPO):
    """RLlib's PPO, one policy per agent, with distribution matching. Made by ``DM2PPOConfig().build_algo()``."""

    @classmethod
    def get_default_config(cls) -> AlgorithmConfig:
        """A new `DM2PPOConfig`."""
        return DM2PPOConfig(cls)
