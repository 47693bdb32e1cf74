"""Algorithm 1's lines 6 to 11 for a joint rollout: its r_gail, and each agent's c, which may be a schedule's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.episodes import team_rewards
from dm2_wrappers.lockstep import JointStep
from dm2_wrappers.matching import AfterStep, Coefficient, JointRollout
from dm2_wrappers.matching.mixing import Mixing
from dm2_wrappers.vector.base import joint_ends, own_rewards


class ExactPayment:
    """Collects a rollout's joint steps, computes r_gail when it is complete, and tells the schedule, if c is one.

    Args:
        rollout: The joint rollout, with the discriminators.
        coefficient: The paper's c.
        env_coefficient: Factor on r_env.

    Attributes:
        mixing: The coefficient in use.
    """

    def __init__(self, rollout: JointRollout, coefficient: Coefficient, env_coefficient: float) -> None:
        self.mixing = Mixing(coefficient, rollout.matcher)
        self._rollout, self._matcher, self._env_coefficient = rollout, rollout.matcher, env_coefficient
        self._steps: list[tuple[NDArray[np.float32], NDArray[np.bool_]]] = []  # r_env and who was alive, [N, K] each

    def set_coefficient(self, coefficient: Coefficient | None) -> None:
        """Use another c from the next payment on."""
        self.mixing = Mixing(0.0 if coefficient is None else coefficient, self._matcher)

    def clear(self) -> None:
        """Discard an unfinished rollout."""
        self._rollout.clear()
        self._steps.clear()

    def append(self, step: JointStep) -> None:
        """Add one joint step (line 6)."""
        ended, broken = joint_ends(step.terminations, step.truncations), step.infos.get("broken")
        own = own_rewards(step.infos, step.rewards)
        more: dict[str, Any] = {}
        if self._matcher.needs_after or self._matcher.self_imitation is not None:
            more["after"] = AfterStep.of(step.terminations, step.truncations, step.infos, step.time)
        if self._matcher.self_imitation is not None:
            more["team_rewards"] = team_rewards(own, step.present)
        self._rollout.append(step.observations, step.alive, ended, broken, actions=step.actions, **more)
        if self.mixing.schedule is not None:
            self.mixing.count(own, step.present, ended, broken, step.time)
            self._steps.append((step.rewards, step.alive))

    def gail_rewards(self) -> NDArray[np.float32]:
        """r_gail of the complete rollout, [T, N, K] (lines 8 to 10). Then `mixing` has the c to pay it with."""
        gail_rewards = self._rollout.gail_rewards()
        if self._steps:  # the schedule has not been told of this rollout
            env_rewards, alive = map(np.stack, zip(*self._steps, strict=True))
            self._steps.clear()
            # A schedule that was given in mid-rollout knows only the rollout's later steps.
            self.mixing.paid(env_rewards, gail_rewards[-len(alive) :], alive)
            self.mixing.updated(self._env_coefficient)
        return gail_rewards
