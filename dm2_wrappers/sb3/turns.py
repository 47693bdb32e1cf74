"""The paper's Algorithm 2 for on-policy Stable-Baselines3 learners: agent after agent gathers its own data and learns.

All agents act in every rollout, with SB3's own loops, but only the agent whose turn it is learns from it; the others'
policies do not change, and their data of this rollout are thrown away. For agent k's turn:

====== ==================================================== =======================================================
line   paper                                                here
====== ==================================================== =======================================================
7      gather M steps of data from env                      SB3's ``collect_rollouts``; `TurnRollout.append`
8      update discriminator D_k until convergence           ``matcher.update([agent], convergence=...)``
8, 9   its reward, mixed as in Algorithm 1                  `MixRewards`, after the update
9      update policy pi_k using TRPO                        SB3's ``train()`` of agent k alone
====== ==================================================== =======================================================

Total timesteps count environment steps, as in Algorithm 1, so each agent learns from one in K rollouts. With the matcher's
``keep_buffer=False`` a discriminator converges on the newest rollout alone, as the paper has it.
"""

from __future__ import annotations

from functools import partial

from dm2_wrappers.lockstep import Lockstep
from dm2_wrappers.matching import Coefficient, Convergence, DistributionMatcher
from dm2_wrappers.matching.turn_rollout import TurnRollout
from dm2_wrappers.sb3.algorithm1 import MixRewards
from dm2_wrappers.sb3.modes import ExactMode
from dm2_wrappers.sb3.resting import learn_again, skip_training


class TakeTurns(MixRewards):
    """For one agent: mixes the rewards of its rollout when it is its turn, and else keeps the agent from learning."""

    rollout: TurnRollout
    _dead_value = 0.0

    def _on_rollout_start(self) -> None:
        learn_again(self.model)
        self._dead_value = self.model.rollout_buffer.dead_value  # type: ignore[attr-defined]

    def _on_rollout_end(self) -> None:
        if self.rollout.turn == self.index:
            super()._on_rollout_end()
        else:
            skip_training(self.model)
            # This rollout has no r_gail, so its value of being dead must not be kept for the agent's own turn.
            self.model.rollout_buffer.dead_value = self._dead_value  # type: ignore[attr-defined]
        if self.index == self.rollout.matcher.num_agents - 1:  # the loops come here in the order of the agents
            self.rollout.next_turn()

    def _on_training_end(self) -> None:
        learn_again(self.model)


class TurnMode(ExactMode):
    """Pays one agent at the end of each rollout, and lets only that agent learn.

    Args:
        lockstep: The joint environment.
        matcher: The discriminators.
        coefficient: The paper's c.
        env_coefficient: Factor on r_env.
        convergence: When a discriminator has converged.
    """

    _rollout: TurnRollout

    def __init__(
        self,
        lockstep: Lockstep,
        matcher: DistributionMatcher,
        coefficient: Coefficient,
        env_coefficient: float,
        convergence: Convergence,
    ) -> None:
        self._convergence = convergence
        super().__init__(lockstep, matcher, coefficient, env_coefficient)

    @property
    def turn(self) -> int:  # type: ignore[override]
        """The place on the agent axis of the agent that learns next."""
        return self._rollout.turn

    @turn.setter
    def turn(self, value: int) -> None:
        self._rollout.turn = value

    def _new_rollout(self, matcher: DistributionMatcher) -> TurnRollout:
        return TurnRollout(matcher, self._convergence)

    def _new_callback(self, k: int, agent: str) -> TakeTurns:
        return TakeTurns(self._rollout, k, agent, partial(self._coefficient_of, k))
