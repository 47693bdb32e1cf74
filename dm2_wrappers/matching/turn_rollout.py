"""The joint rollout of Algorithm 2: one agent's turn to train its discriminator and to learn, then the next agent's."""

from __future__ import annotations

from dm2_wrappers.matching.convergence import Convergence
from dm2_wrappers.matching.joint_rollout import JointRollout
from dm2_wrappers.matching.matcher import DistributionMatcher


class TurnRollout(JointRollout):
    """A `JointRollout` that trains the discriminator of one agent only, until it has converged.

    Of the rewards that `gail_rewards` returns, use those of `agent`; then call `next_turn`.

    Args:
        matcher: The discriminators.
        convergence: When a discriminator has converged.

    Attributes:
        turn: The place on the agent axis of the agent whose turn it is.
    """

    def __init__(self, matcher: DistributionMatcher, convergence: Convergence) -> None:
        super().__init__(matcher)
        self.convergence = convergence
        self.turn = 0

    @property
    def agent(self) -> str:
        """The agent whose turn it is."""
        return self.matcher.agents[self.turn]

    def next_turn(self) -> None:
        """The turn passes to the next agent, after the last one to the first."""
        self.turn = (self.turn + 1) % self.matcher.num_agents

    def _update(self) -> dict[str, float]:
        """Algorithm 2, line 8."""
        return self.matcher.update([self.agent], convergence=self.convergence)
