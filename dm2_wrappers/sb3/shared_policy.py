"""Distribution matching for one Stable-Baselines3 policy that plays all agents, in Algorithm 1's exact order.

DM2 itself shares nothing between agents. This is for users of the common PettingZoo recipe in which they share one
policy. The discriminators still belong to one agent each and see the agent's own observations, without its number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CallbackList
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from dm2_wrappers import _checks
from dm2_wrappers.matching import Coefficient, DistributionMatcher, JointRollout
from dm2_wrappers.matching.mixing import check_both, load_both
from dm2_wrappers.sb3.buffers import LIVE_BUFFERS, set_after_death, use_live_buffer
from dm2_wrappers.sb3.callbacks import PauseWithoutSteps
from dm2_wrappers.sb3.exact_payment import ExactPayment
from dm2_wrappers.sb3.options import checked_coefficient
from dm2_wrappers.sb3.policy import check_fits
from dm2_wrappers.sb3.shared_vec_env import SharedPolicyVecEnv
from dm2_wrappers.sb3.vec_env import innermost
from dm2_wrappers.unwrap import owns_matcher
from dm2_wrappers.vector import Infos, MultiAgentVectorEnv
from dm2_wrappers.vector.spaces import MASK


class SharedPolicyDM2(CallbackList):
    """Callback for ``learn``: lines 6 to 12 of Algorithm 1 for an on-policy algorithm on a `SharedPolicyVecEnv`.

    When a rollout is complete, it updates the discriminators, adds c * r_gail to the rollout's rewards and computes
    returns and advantages again. SB3 then trains. It replaces the learner's rollout buffer by one that excludes the steps
    of absent and dead agents and of episodes that the simulator broke (`dm2_wrappers.sb3.rollout_buffers`).

    It logs c and the mean rewards over the agents and for each agent (``dm2/coefficient``, ``dm2/coefficient/<agent>``,
    ...), and the metrics of the discriminators.

    Args:
        matcher: The discriminators; None only excludes those steps, for comparison.
        coefficient: The paper's c, for all agents, ``{agent: c}`` or a schedule. Required with a matcher.
        env_coefficient: Factor on r_env; 0 is GAIL alone.
        after_death: How rewards received after an agent's death are credited: "earned", "mean" or "critic".

    Raises:
        ValueError: An option that cannot work; when ``learn`` begins also: demonstrations of other agents, an off-policy
            algorithm, or an environment that pays r_gail already.
        TypeError: When ``learn`` begins: the algorithm's environment is no `SharedPolicyVecEnv`.

    Example:
        >>> model = PPO("MlpPolicy", dm2.sb3.SharedPolicyVecEnv(venv), seed=0)
        >>> model.learn(100_000, callback=dm2.sb3.SharedPolicyDM2(matcher, coefficient=0.3))
    """

    matcher = _checks.Fixed[DistributionMatcher | None]()
    env_coefficient = _checks.Fixed[float]()

    def __init__(
        self,
        matcher: DistributionMatcher | None,
        *,
        coefficient: Coefficient | None = None,
        env_coefficient: float = 1.0,
        after_death: str = "earned",
    ) -> None:
        super().__init__([PauseWithoutSteps()])
        self.matcher = matcher
        self.env_coefficient = _checks.number("env_coefficient", env_coefficient, least=0)
        self.after_death = after_death
        self._rollout = None if matcher is None else JointRollout(matcher)
        self._payment: ExactPayment | None = None
        self.coefficient = coefficient

    @property
    def after_death(self) -> str:
        """How rewards received after an agent's death are credited. You can assign it between two calls of ``learn``."""
        return self._after_death

    @after_death.setter
    def after_death(self, value: str) -> None:
        self._after_death = _checks.choice("after_death", value, ("earned", "mean", "critic"))

    @property
    def coefficient(self) -> Coefficient | None:
        """The paper's c; None without a matcher. You can assign it at any time; it is read at the end of a rollout."""
        return self._coefficient

    @coefficient.setter
    def coefficient(self, value: Coefficient | None) -> None:
        agents = () if self.matcher is None else self.matcher.agents
        self._coefficient = checked_coefficient(value, agents, self.matcher)
        if self._payment is not None:
            self._payment.set_coefficient(self._coefficient)
        elif self._rollout is not None and self._coefficient is not None:
            self._payment = ExactPayment(self._rollout, self._coefficient, self.env_coefficient)

    @property
    def current_coefficient(self) -> dict[str, float] | None:
        """Each agent's present c; None without a matcher."""
        return None if self._payment is None else self._payment.mixing.by_agent()

    def state_dict(self) -> dict[str, Any]:
        """The state of the matcher and of a schedule; None where there is none."""
        return {
            "matcher": None if self.matcher is None else self.matcher.state_dict(),
            "schedule": None if self._payment is None else self._payment.mixing.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, between two calls of ``learn``; ``coefficient`` must be the same schedule.

        Raises:
            ValueError: Those of `DistributionMatcher.load_state_dict`, or a state of another schedule. Then nothing changes.
        """
        check_both(state, "SharedPolicyDM2")
        if (self.matcher is None) != (state["matcher"] is None):
            has, lacks = ("it", "this callback") if self.matcher is None else ("this callback", "it")
            raise ValueError(f"{has} has a matcher and {lacks} has none; make the callback as the saved one was made")
        if self.matcher is not None:
            mixing = None if self._payment is None else self._payment.mixing
            load_both(self.matcher, mixing, state["matcher"], state["schedule"])

    def _init_callback(self) -> None:
        env = innermost(self.model.get_env())
        if not isinstance(env, SharedPolicyVecEnv):
            raise TypeError(f"SharedPolicyDM2 needs an algorithm on a SharedPolicyVecEnv, got {type(env).__name__}")
        if not isinstance(self.model, OnPolicyAlgorithm):
            raise ValueError(
                f"SharedPolicyDM2 pays at the end of a rollout, which {type(self.model).__name__} does not have: wrap the "
                "vector environment in DM2VectorEnv, which pays at each step"
            )
        if self.matcher is not None and owns_matcher(env.vector_env):
            raise ValueError("the environment has a DM2 wrapper, so r_gail would be paid twice: use one of the two")
        if self.matcher is not None:
            joint = env.vector_env
            self.matcher.demonstrations.check_compatible(joint.possible_agents, joint.observation_sizes, joint.env_id)
            self.matcher.use_time_limit_of(joint)
            self.matcher.use_bootstrapping()
        self.env = env
        if type(self.model.rollout_buffer) in LIVE_BUFFERS.values():
            self.model.rollout_buffer.env = env  # type: ignore[attr-defined]
            set_after_death(self.model, env, self.after_death)  # type: ignore[arg-type]
        else:
            use_live_buffer(self.model, env, self.after_death)  # type: ignore[arg-type]
        super()._init_callback()

    def _on_rollout_start(self) -> None:
        super()._on_rollout_start()
        if self._payment is not None:
            self._payment.clear()

    def _on_step(self) -> bool:
        # In place: after this SB3 adds the bootstrap at time limits to the same array, and then stores it.
        self.locals["rewards"] *= np.float32(self.env_coefficient)
        if self._payment is not None:
            self._payment.append(self.env.last_joint_step)
        return super()._on_step()

    def _on_rollout_end(self) -> None:
        super()._on_rollout_end()
        buffer: Any = self.model.rollout_buffer  # type: ignore[attr-defined]
        counted = buffer.live & ~buffer.broken
        self._record("env_reward", buffer.env_rewards, counted)
        if self._payment is None or self._rollout is None:
            return
        gail = self._payment.gail_rewards()  # lines 8 to 10, [T, N, K]
        # Line 11. Added, not assigned: SB3 has already added the bootstrap at time limits to these rewards.
        buffer.rewards += (self._payment.mixing.array * gail).reshape(len(gail), -1)
        buffer.recompute()
        self.logger.record("dm2/coefficient", float(self._payment.mixing.array.mean()))
        for agent, c in self._payment.mixing.by_agent().items():
            self.logger.record(f"dm2/coefficient/{agent}", c)
        self._record("gail_reward", gail.reshape(len(gail), -1), counted)
        for k, agent in enumerate(self.env.agents):
            self._record(f"gail_reward/{agent}", gail[..., k], counted[:, k :: len(self.env.agents)])
        for name, value in self._rollout.metrics.items():
            self.logger.record(f"dm2/{name}", value)

    def _record(self, name: str, values: NDArray[np.float32], counted: NDArray[np.bool_]) -> None:
        self.logger.record(f"dm2/{name}", float(values[counted].mean()) if counted.any() else 0.0)


class SharedPolicy:
    """A shared policy as a joint policy: of arrays, for `evaluate` and ``Demonstrations.record``, or of PettingZoo's dicts.

    Args:
        model: A learner on a `SharedPolicyVecEnv`.
        env: That environment.
        deterministic: Choose the most likely action instead of sampling one.

    Raises:
        TypeError: ``env`` is not that environment.
        ValueError: A recurrent policy.
    """

    def __init__(self, model: BaseAlgorithm, env: SharedPolicyVecEnv, *, deterministic: bool = False) -> None:
        if isinstance(model, RecurrentPPO):
            raise ValueError("SharedPolicy keeps no recurrent states: call model.predict yourself")
        if not isinstance(env, SharedPolicyVecEnv):
            raise TypeError(f"env must be the SharedPolicyVecEnv on which the model learned, got {_checks.shown(env)}")
        self.model, self.env = model, env
        self.deterministic = _checks.flag("deterministic", deterministic)

    def check_env(self, env: MultiAgentVectorEnv) -> None:
        """Check that the environment has the agents of the training environment, in their order, and their spaces.

        Without ``indicator`` the policy does not know the agents, and may play others with observations as wide.

        Raises:
            ValueError: It does not.
        """
        own = self.env.vector_env
        if not self.env.indicator and max(env.observation_sizes) == max(own.observation_sizes):
            return
        check_fits(env, self.env.agents, own.observation_sizes, [own.action_spaces[agent] for agent in self.env.agents])

    def __call__(self, observations: NDArray[np.float32], infos: Infos) -> NDArray[Any]:
        """Actions [N, K] or [N, K, A] of joint observations [N, K, D]."""
        rows: Any = self.env.rows(observations)
        normalizer = self.model.get_vec_normalize_env()
        if normalizer is not None:
            rows = normalizer.normalize_obs(rows)
        options: dict[str, Any] = {"deterministic": self.deterministic}
        if isinstance(self.model, MaskablePPO):
            options["action_masks"] = np.asarray(infos[MASK], bool).reshape(len(rows), -1)
        actions, _ = self.model.predict(rows, **options)
        return np.asarray(actions).reshape(*observations.shape[:2], *np.shape(actions)[1:])

    def act(self, observations: Mapping[str, Any], infos: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Actions of the present agents of one ``ParallelEnv``, in its own form.

        Args:
            observations: ``{agent: observation}``.
            infos: ``{agent: info}``, which may hold action masks.

        Raises:
            ValueError: The vector environment was not made from a ``ParallelEnv``.
        """
        layout = getattr(self.env.vector_env, "layout", None)
        if layout is None:
            raise ValueError("this vector environment has no layout of a ParallelEnv: call the policy with its arrays")
        agents = self.env.agents
        joint, masks = layout.joint_arrays(observations, infos)
        actions = self(joint, {MASK: masks})[0]
        return {agent: layout.native_action(k, actions[k]) for k, agent in enumerate(agents) if agent in observations}
