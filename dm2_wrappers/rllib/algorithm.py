"""Distribution matching inside an RLlib algorithm.

====== ============================================================ ===========================================
line   paper                                                        here
====== ============================================================ ===========================================
6      gather M steps of data (s, a, r_env)                         RLlib's env runners
8-11   discriminators, r_GAIL, r_mix                                `mix_rewards`, before the learners' update
12     update policy pi_k on (s, a, r_mix)                          RLlib's learners
====== ============================================================ ===========================================

The hook is the learner group's ``update``. There the episodes of all env runners are together in the driver, before they
are split over learners and before advantages are computed.
"""

from __future__ import annotations

import warnings
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from dm2_wrappers.matching import DistributionMatcher
from dm2_wrappers.matching import coefficient as coefficients
from dm2_wrappers.rllib.env import observation_size
from dm2_wrappers.rllib.episodes import mix_rewards

_STATE = "dm2"


class DistributionMatchingMixin:
    """Gives an on-policy RLlib algorithm the paper's Algorithm 1; put it before the algorithm in the list of bases.

    The algorithm must hand its learners whole rollouts, as episodes, right after they were played, as PPO does. Its
    configuration needs `DistributionMatchingConfigMixin`::

        class MyConfig(dm2.rllib.DistributionMatchingConfigMixin, MyPPOConfig):
            def __init__(self, algo_class=None):
                super().__init__(algo_class=algo_class or MyAlgorithm)

        class MyAlgorithm(dm2.rllib.DistributionMatchingMixin, MyPPO):
            @classmethod
            def get_default_config(cls):
                return MyConfig()

    Checkpoints hold the discriminators, too. ``result["dm2"]`` has the matcher's metrics and each agent's mean rewards.

    Attributes:
        matcher: The one `DistributionMatcher`, in this process.
    """

    matcher: DistributionMatcher
    learner_group: Any  # RLlib's, as is the next
    config: Any

    def setup(self, config: AlgorithmConfig) -> None:
        """Make the matcher, check it against the environment, then build everything else."""
        self.matcher = _checked_matcher(config.make_matcher, config.agent_spaces)
        self.coefficient = config.coefficient
        self._env_coefficient = config.env_coefficient
        # RLlib sends the configuration to every process; the demonstrations that the function may hold stay here.
        self._make_matcher = config.make_matcher
        config = config.copy(copy_frozen=False)
        config.make_matcher = None
        config.freeze()
        self.config = config
        super().setup(config)  # type: ignore[misc]
        self._update_learners = self.learner_group.update
        self.learner_group.update = self._match_and_update

    def training_step(self) -> Any:
        """RLlib's, which returns without a word when it got no episodes.

        Warns:
            UserWarning: It did, so nobody learned anything.
        """
        self._matched = False
        result = super().training_step()  # type: ignore[misc]
        if not self._matched:
            warnings.warn(
                "no episodes reached the learners in this iteration, so nothing was learned: all env runners have died, or "
                f"they took longer than {self.config.sample_timeout_s} s; set env_runners(sample_timeout_s=...) higher",
                stacklevel=2,
            )
        return result

    @property
    def coefficient(self) -> coefficients.Coefficient:
        """The paper's c, for all agents or for each; a new value counts from the next rollout on."""
        return self._coefficient

    @coefficient.setter
    def coefficient(self, coefficient: coefficients.Coefficient) -> None:
        self._coefficient = coefficients.checked_fixed(coefficient, self.matcher.agents, "dm2.rllib")

    def _match_and_update(self, *args: Any, episodes: Any = None, **kwargs: Any) -> Any:
        """Lines 8 to 12: in place of the learner group's ``update``."""
        self._matched = True
        if episodes is None:
            raise RuntimeError(
                f"{type(self).__name__} does not pass episodes to its learners, so their rewards cannot be mixed: use an "
                "on-policy algorithm that calls learner_group.update(episodes=...), such as PPO"
            )
        agents = self.matcher.agents
        each = dict(zip(agents, coefficients.as_array(self.coefficient, agents).tolist(), strict=True))
        episodes, metrics = mix_rewards(episodes, self.matcher, each, self._env_coefficient)
        for name, value in metrics.items():
            self.metrics.log_value((_STATE, name), value, window=1)  # type: ignore[attr-defined]
        return self._update_learners(*args, episodes=episodes, **kwargs)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What a checkpoint makes a new algorithm with: the configuration, again with the function for the matcher."""
        (config,), options = super().get_ctor_args_and_kwargs()  # type: ignore[misc]
        return ({**config, "make_matcher": self._make_matcher},), options

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state, with the matcher's."""
        state = super().get_state(components, not_components=not_components, **kwargs)  # type: ignore[misc]
        if self._check_component(_STATE, components, not_components):  # type: ignore[attr-defined]
            state[_STATE] = {"matcher": self.matcher.state_dict(), "coefficient": self.coefficient}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore what `get_state` returned. A state of an algorithm without DM2 leaves the matcher as it is.

        Raises:
            ValueError: The matcher's state is of other agents, sizes or networks.
        """
        if _STATE in state:
            self.matcher.load_state_dict(state[_STATE]["matcher"])
            self.coefficient = state[_STATE]["coefficient"]
        super().set_state(state)  # type: ignore[misc]


def _checked_matcher(make_matcher: Any, spaces: dict[str, Any]) -> DistributionMatcher:
    """The matcher, if it fits the environment's agents.

    Raises:
        TypeError: ``make_matcher`` returns something else.
        ValueError: It is for other agents or observations of another size, or needs more than observations.
    """
    matcher = make_matcher()
    if not isinstance(matcher, DistributionMatcher):
        raise TypeError(
            f"make_matcher must return a DistributionMatcher, got {type(matcher).__name__}; pass a function such as "
            "lambda: DistributionMatcher(demos)"
        )
    matcher.check_needs_observations_only("dm2.rllib")
    if set(matcher.agents) != set(spaces):
        raise ValueError(
            f"the demonstrations have the agents {list(matcher.agents)}, but the environment has {list(spaces)}; use "
            "demonstrations of this environment"
        )
    for agent, size in zip(matcher.agents, matcher.sizes, strict=True):
        if observation_size(agent, spaces[agent]) != size:
            raise ValueError(
                f"the demonstrations have {size} features of agent {agent!r}, but its observation has "
                f"{observation_size(agent, spaces[agent])}; use demonstrations of this environment"
            )
    return matcher
