"""How a team's matcher pays: the two ways to get Algorithm 1's order, and none.

"exact" is Algorithm 1 as written, for on-policy learners with equal ``n_steps``: when a rollout is complete, the
discriminators are updated, and the rollout's rewards and advantages are computed with the updated ones. "online", for any
learner, pays at each step with the current discriminators and updates them every ``update_every`` steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from dm2_wrappers.lockstep import JointStep, Lockstep
from dm2_wrappers.matching import Coefficient, DistributionMatcher, JointRollout
from dm2_wrappers.matching.mixing import Mixing
from dm2_wrappers.sb3.algorithm1 import MixRewards
from dm2_wrappers.sb3.callbacks import LogOnline
from dm2_wrappers.sb3.exact_payment import ExactPayment
from dm2_wrappers.sb3.present_pay import PresentPay
from dm2_wrappers.sb3.vec_env import AgentVecEnv
from dm2_wrappers.wrapper import DM2VectorEnv


class NoMatcher:
    """Plain independent learning; the base of the others.

    Attributes:
        turn: The place on the agent axis of the agent that learns next, for Algorithm 2; otherwise 0.
    """

    turn = 0

    @property
    def steps_since_update(self) -> int:
        """Joint steps since the last update, if the next one comes after ``update_every``; otherwise 0."""
        return 0

    @steps_since_update.setter
    def steps_since_update(self, steps: int) -> None:
        """Only online mode counts them."""

    @property
    def mixing(self) -> Mixing | None:
        """The coefficient in use."""
        return None

    def set_coefficient(self, coefficient: Coefficient | None) -> None:
        """Use another c from now on."""

    def callback(self, agent: str) -> BaseCallback | None:
        """The callback of this agent's training loop, made once."""
        return None

    def present_pay(self, agent: str) -> PresentPay | None:
        """What stored steps are paid when they are sampled; None: what they were paid when played."""
        return None

    def begin(self) -> None:
        """``learn`` begins."""

    def flush(self) -> None:
        """Hand over to the matcher what was seen since its last update."""


class ExactMode(NoMatcher):
    """Pays at the end of each rollout.

    Args:
        lockstep: The joint environment.
        matcher: The discriminators.
        coefficient: The paper's c.
        env_coefficient: Factor on r_env.
    """

    def __init__(
        self, lockstep: Lockstep, matcher: DistributionMatcher, coefficient: Coefficient, env_coefficient: float
    ) -> None:
        matcher.use_time_limit_of(lockstep.env)
        self._lockstep = lockstep
        self._rollout = self._new_rollout(matcher)
        self._payment = ExactPayment(self._rollout, coefficient, env_coefficient)
        self._callbacks = {agent: self._new_callback(k, agent) for k, agent in enumerate(matcher.agents)}
        lockstep.listeners.append(self._append)

    def _new_rollout(self, matcher: DistributionMatcher) -> JointRollout:
        return JointRollout(matcher)

    def _new_callback(self, k: int, agent: str) -> MixRewards:
        return MixRewards(self._rollout, k, agent, partial(self._coefficient_of, k))

    @property
    def mixing(self) -> Mixing:
        """The coefficient in use."""
        return self._payment.mixing

    def set_coefficient(self, coefficient: Coefficient | None) -> None:
        """Use another c from the next payment on."""
        self._payment.set_coefficient(coefficient)

    def callback(self, agent: str) -> BaseCallback:
        """The callback of this agent's training loop."""
        return self._callbacks[agent]

    def begin(self) -> None:
        """``learn`` begins: forget an unfinished rollout."""
        self._payment.clear()

    def payment(self) -> tuple[NDArray[np.float32], NDArray[Any], dict[str, float]]:
        """What the complete rollout pays: r_gail [T, N, K], the agents' c [K], and the metrics of the discriminators."""
        gail_rewards = self._payment.gail_rewards()
        return gail_rewards, self._payment.mixing.array, self._rollout.metrics

    def _append(self, step: JointStep) -> None:
        self._payment.append(step)

    def _coefficient_of(self, k: int) -> float:
        """One agent's c, read at the end of a rollout."""
        self._payment.gail_rewards()  # tells the schedule of the rollout, once for all agents
        return float(self._payment.mixing.array[k])


class OnlineMode(NoMatcher):
    """Pays at each step, through `DM2VectorEnv`.

    Args:
        lockstep: The joint environment, which is wrapped here.
        views: Each agent's view of it.
        matcher: The discriminators.
        coefficient: The paper's c.
        env_coefficient: Factor on r_env.
        update_every: Joint steps, summed over sub-environments, between two updates.
        relabel: Whether off-policy learners' stored steps are paid anew whenever they are sampled.
    """

    def __init__(
        self,
        lockstep: Lockstep,
        views: Mapping[str, AgentVecEnv],
        matcher: DistributionMatcher,
        coefficient: Coefficient,
        env_coefficient: float,
        update_every: int,
        relabel: bool,
    ) -> None:
        options: dict[str, Any] = {"env_coefficient": env_coefficient, "update_every": update_every}
        self._env = lockstep.env = DM2VectorEnv(lockstep.env, matcher, coefficient=coefficient, **options)
        for view in views.values():
            view.env_coefficient = 1.0  # the wrapper has multiplied by it
        self._callbacks = {agent: LogOnline(self._env, lockstep, k, agent) for k, agent in enumerate(views)}
        self._pay = {agent: PresentPay(self._env, k) for k, agent in enumerate(views)} if relabel else {}

    @property
    def steps_since_update(self) -> int:
        """Joint steps since the last update."""
        return self._env.steps_since_update

    @steps_since_update.setter
    def steps_since_update(self, steps: int) -> None:
        self._env.steps_since_update = steps

    @property
    def mixing(self) -> Mixing:
        """The coefficient in use."""
        return self._env._mixing

    def set_coefficient(self, coefficient: Coefficient | None) -> None:
        """Use another c from the next payment on."""
        self._env.coefficient = 0.0 if coefficient is None else coefficient

    def callback(self, agent: str) -> BaseCallback:
        """The callback of this agent's training loop."""
        return self._callbacks[agent]

    def present_pay(self, agent: str) -> PresentPay | None:
        """With ``relabel``, what stored steps are paid when they are sampled."""
        return self._pay.get(agent)

    def flush(self) -> None:
        """Hand over to the matcher what was seen since its last update."""
        self._env.flush()


def chosen(mode: str, models: Mapping[str, Any], matcher: DistributionMatcher | None, order: str) -> str:
    """The mode for these learners, "exact" or "online".

    Raises:
        ValueError: "exact" or turns for off-policy learners, online turns, an exact run with different ``n_steps``, or
            absorbing ends with another discount factor than the learners'.
    """
    off_policy = sorted({type(m).__name__ for m in models.values() if not isinstance(m, OnPolicyAlgorithm)})
    if order == "turn" and off_policy:
        raise ValueError(
            f"order='turn' needs on-policy algorithms, such as TRPO or PPO, and {off_policy} are not: use "
            "order='simultaneous'"
        )
    if order == "turn" and mode == "online":
        raise ValueError("order='turn' pays a rollout after its discriminator has converged: use mode='exact'")
    if mode == "exact" and off_policy:
        raise ValueError(f"mode='exact' needs on-policy algorithms, and {off_policy} are not: use mode='online'")
    if mode == "auto":
        mode = "online" if off_policy else "exact"
    if matcher is not None and matcher.options["ends"] == "absorbing":
        gammas, gamma = {agent: model.gamma for agent, model in models.items()}, matcher.options["gamma"]
        if set(gammas.values()) != {gamma}:
            raise ValueError(f'ends="absorbing" has gamma={gamma}, but the learners have {gammas}; make them equal')
    if mode == "exact" and matcher is not None:
        n_steps = {agent: model.n_steps for agent, model in models.items()}
        if len(set(n_steps.values())) > 1:
            raise ValueError(f"an exact run needs the same n_steps for all agents, got {n_steps}")
    return mode
