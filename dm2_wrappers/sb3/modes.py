"""How a team's matcher pays: the two ways to get Algorithm 1's order, and none.

"exact" is Algorithm 1 as written, for on-policy learners with equal ``n_steps``: when a rollout is complete, the
discriminators are updated, and the rollout's rewards and advantages are computed with the updated ones. "online", for any
learner, pays at each step with the current discriminators and updates them every ``update_every`` steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from dm2_wrappers.episodes import team_rewards
from dm2_wrappers.lockstep import JointStep, Lockstep
from dm2_wrappers.matching import AfterStep, Coefficient, DistributionMatcher, JointRollout
from dm2_wrappers.matching.coefficient import as_array
from dm2_wrappers.sb3.algorithm1 import MixRewards
from dm2_wrappers.sb3.callbacks import LogOnline
from dm2_wrappers.sb3.vec_env import AgentVecEnv
from dm2_wrappers.vector.base import joint_ends
from dm2_wrappers.wrapper import DM2VectorEnv


class NoMatcher:
    """Plain independent learning; the base of the other two."""

    def set_coefficient(self, coefficient: Coefficient | None) -> None:
        """Use another c from now on."""

    def callback(self, agent: str) -> BaseCallback | None:
        """The callback of this agent's training loop, made once."""
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
    """

    def __init__(self, lockstep: Lockstep, matcher: DistributionMatcher, coefficient: Coefficient) -> None:
        self._agents, self._coefficient = lockstep.env.possible_agents, coefficient
        matcher.use_time_limit_of(lockstep.env)
        self._matcher, self._rollout = matcher, JointRollout(matcher)
        self._callbacks = {
            agent: MixRewards(self._rollout, k, agent, partial(self._coefficient_of, k))
            for k, agent in enumerate(self._agents)
        }
        lockstep.listeners.append(self._append)

    def set_coefficient(self, coefficient: Coefficient | None) -> None:
        """Use another c from the next payment on."""
        self._coefficient = 0.0 if coefficient is None else coefficient

    def callback(self, agent: str) -> BaseCallback:
        """The callback of this agent's training loop."""
        return self._callbacks[agent]

    def begin(self) -> None:
        """``learn`` begins: forget an unfinished rollout."""
        self._rollout.clear()

    def _append(self, step: JointStep) -> None:
        ended = joint_ends(step.terminations, step.truncations)
        more: dict[str, Any] = {}
        if self._matcher.needs_after or self._matcher.self_imitation is not None:
            more["after"] = AfterStep.of(step.terminations, step.truncations, step.infos, step.time)
        if self._matcher.self_imitation is not None:
            more["team_rewards"] = team_rewards(step.infos.get("env_reward", step.rewards), step.present)
        self._rollout.append(step.observations, step.alive, ended, step.infos.get("broken"), actions=step.actions, **more)

    def _coefficient_of(self, k: int) -> float:
        return float(as_array(self._coefficient, self._agents)[k])


class OnlineMode(NoMatcher):
    """Pays at each step, through `DM2VectorEnv`.

    Args:
        lockstep: The joint environment, which is wrapped here.
        views: Each agent's view of it.
        matcher: The discriminators.
        coefficient: The paper's c.
        env_coefficient: Factor on r_env.
        update_every: Joint steps, summed over sub-environments, between two updates.
    """

    def __init__(
        self,
        lockstep: Lockstep,
        views: Mapping[str, AgentVecEnv],
        matcher: DistributionMatcher,
        coefficient: Coefficient,
        env_coefficient: float,
        update_every: int,
    ) -> None:
        options: dict[str, Any] = {"env_coefficient": env_coefficient, "update_every": update_every}
        self._env = lockstep.env = DM2VectorEnv(lockstep.env, matcher, coefficient=coefficient, **options)
        for view in views.values():
            view.env_coefficient = 1.0  # the wrapper has multiplied by it
        self._callbacks = {agent: LogOnline(self._env, lockstep, k, agent) for k, agent in enumerate(views)}

    def set_coefficient(self, coefficient: Coefficient | None) -> None:
        """Use another c from the next payment on."""
        self._env.coefficient = 0.0 if coefficient is None else coefficient

    def callback(self, agent: str) -> BaseCallback:
        """The callback of this agent's training loop."""
        return self._callbacks[agent]

    def flush(self) -> None:
        """Hand over to the matcher what was seen since its last update."""
        self._env.flush()


def chosen(mode: str, models: Mapping[str, Any], matcher: DistributionMatcher | None) -> str:
    """The mode for these learners, "exact" or "online".

    Raises:
        ValueError: "exact" for off-policy learners, an exact run with different ``n_steps``, or absorbing ends with another
            discount factor than the learners'.
    """
    off_policy = sorted({type(m).__name__ for m in models.values() if not isinstance(m, OnPolicyAlgorithm)})
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
