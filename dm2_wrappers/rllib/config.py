"""RLlib configurations: any ``ParallelEnv``, one policy per agent, and distribution matching."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pettingzoo import ParallelEnv
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.algorithms.impala import IMPALAConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.env_context import EnvContext
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from dm2_wrappers import _checks, envs
from dm2_wrappers.rllib.env import RLlibEnv
from dm2_wrappers.rllib.env_runner import TeamEnvRunner
from dm2_wrappers.rllib.masked_module import MaskedPPOModule

if TYPE_CHECKING:
    from dm2_wrappers.matching import DistributionMatcher
    from dm2_wrappers.matching.coefficient import Coefficient


class IndependentAgentsConfigMixin:
    """For RLlib configurations: any ``ParallelEnv``, and one policy per agent that shares nothing with the others.

    Your own ``multi_agent(...)`` and ``rl_module(...)`` settings take precedence.

    Attributes:
        agent_spaces: Each agent's observation space. Known, like the next, after ``validate()``, which RLlib calls when it
            builds.
        first_actions: See `RLlibEnv`.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)  # type: ignore[call-arg]
        self.agent_spaces: dict[str, Any] = {}
        self.first_actions: dict[str, int] = {}
        # RLlib's check plays random actions without regard to action masks.
        self.disable_env_checking = True
        self.env_runner_cls = TeamEnvRunner

    def environment(self, env: Any = NotProvided, **options: Any) -> Any:
        """Set the environment.

        Args:
            env: A function without arguments (or a class) that makes a PettingZoo ``ParallelEnv``; closures work. Or the
                name of one of ours, such as "smax:5m_vs_6m". Or anything that RLlib takes.
            **options: RLlib's own.
        """
        name = isinstance(env, str) and env.partition(":")[0] in envs.BACKENDS
        theirs = isinstance(env, type) and not issubclass(env, ParallelEnv)
        if name or (callable(env) and not theirs):
            make_env = functools.partial(envs.parallel_env, env) if name else env
            return super().environment(RLlibEnv, env_config={"make_env": make_env}, **options)  # type: ignore[misc]
        return super().environment(env, **options)  # type: ignore[misc]

    def get_default_rl_module_spec(self) -> Any:
        """PPO's module gets action masks; another algorithm's module stays as it is."""
        if isinstance(self, PPOConfig):
            return RLModuleSpec(module_class=MaskedPPOModule)
        return super().get_default_rl_module_spec()  # type: ignore[misc]

    def validate(self) -> None:
        """RLlib's checks; one policy per agent where none are set."""
        if self.env is not None and not self.agent_spaces:  # type: ignore[attr-defined]
            self.agent_spaces, self.first_actions = _agents(self)  # type: ignore[arg-type]
        if self.agent_spaces and not self.is_multi_agent:  # type: ignore[attr-defined]
            self.multi_agent(policies=list(self.agent_spaces), policy_mapping_fn=_own_policy)  # type: ignore[attr-defined]
        super().validate()  # type: ignore[misc]


class DistributionMatchingConfigMixin(IndependentAgentsConfigMixin):
    """Gives the configuration of an on-policy RLlib algorithm ``distribution_matching(...)``.

    Put it before the algorithm's configuration in the list of bases; `DistributionMatchingMixin` has an example.
    """

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
        self.make_matcher: Callable[[], DistributionMatcher] | None = None
        self.coefficient: Coefficient = 0.0
        self.env_coefficient = 1.0

    def distribution_matching(
        self,
        make_matcher: Callable[[], DistributionMatcher],
        *,
        coefficient: Coefficient,
        env_coefficient: float = 1.0,
    ) -> Any:
        """Train on ``env_coefficient * r_env + coefficient * r_gail`` (line 11 of Algorithm 1).

        Args:
            make_matcher: A function without arguments that returns a `DistributionMatcher`, for example
                ``lambda: dm2.DistributionMatcher(demos, seed=0)``. It is called once, in the driver. A matcher itself
                cannot be passed, because RLlib copies configurations into its processes.
            coefficient: The paper's c: one for all agents, or ``{agent: c}``.
            env_coefficient: The factor on r_env; 0 is GAIL alone.

        Returns:
            This configuration.

        Raises:
            TypeError: ``make_matcher`` is not a function.
            ValueError: A coefficient that is not a number of at least 0.
        """
        if not callable(make_matcher):
            raise TypeError(
                f"make_matcher must be a function that returns a DistributionMatcher, got {type(make_matcher).__name__}; "
                "pass lambda: DistributionMatcher(demos)"
            )
        numbers = coefficient.values() if isinstance(coefficient, dict) else [coefficient]
        for number in numbers:
            _checks.number("coefficient", number, least=0)
        self.make_matcher, self.coefficient = make_matcher, coefficient
        self.env_coefficient = _checks.number("env_coefficient", env_coefficient, least=0)
        return self

    def validate(self) -> None:
        """RLlib's checks, and whether this algorithm can have distribution matching.

        Raises:
            ValueError: It cannot, or there is no matcher or no environment.
        """
        if reason := _reason_against(self):
            raise ValueError(f"distribution matching does not work with {type(self).__name__}: {reason}; use DM2PPOConfig")
        if self.make_matcher is None and not self.in_evaluation:  # type: ignore[attr-defined]
            raise ValueError(
                "there is no matcher: call .distribution_matching(lambda: DistributionMatcher(demos), coefficient=0.3), or "
                "use IPPOConfig for independent PPO alone"
            )
        if self.env is None:  # type: ignore[attr-defined]
            raise ValueError("there is no environment: call .environment(make_env)")
        super().validate()


def _own_policy(agent: str, *args: Any, **kwargs: Any) -> str:
    """RLlib's ``policy_mapping_fn``: each agent has the policy of its own name."""
    return agent


def _agents(config: AlgorithmConfig) -> tuple[dict[str, Any], dict[str, int]]:
    """Observation spaces and first actions, from one environment that is made in the driver and closed again."""
    _, create = Algorithm._get_env_id_and_creator(config.env, config)
    env = create(EnvContext(config.env_config, worker_index=0))
    try:
        if not isinstance(env, MultiAgentEnv):
            raise ValueError(
                f"the environment must be multi-agent, got {type(env).__name__}; call .environment(make_env) with a "
                "function that returns a PettingZoo ParallelEnv"
            )
        observed = {agent: env.get_observation_space(agent) for agent in env.possible_agents}
        return observed, getattr(env, "first_actions", {})
    finally:
        env.close()


def _reason_against(config: Any) -> str | None:
    """Why an algorithm cannot have distribution matching; None if it can."""
    if isinstance(config, IMPALAConfig):
        return "its learners get references to episodes, while other episodes are under way, so no rollout is in one place"
    if hasattr(config, "replay_buffer_config"):
        return "it is off-policy, and its replay buffer would keep rewards of outdated discriminators"
    if config.is_offline:
        return "it learns from recorded data and plays no episodes"
    if not (config.enable_rl_module_and_learner and config.enable_env_runner_and_connector_v2):
        return "it uses RLlib's old API stack"
    return None
