"""One update of the discriminators (lines 8 and 9 of Algorithm 1), and what it measures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dm2_wrappers.matching.absorbing import AbsorbingEnds, AbsorbingRow, share
from dm2_wrappers.matching.convergence import Convergence
from dm2_wrappers.matching.diagnosis import Diagnosis
from dm2_wrappers.matching.discriminators import Discriminators
from dm2_wrappers.matching.experts import Experts
from dm2_wrappers.matching.gail_reward import GailReward
from dm2_wrappers.matching.minibatches import Minibatches
from dm2_wrappers.matching.recorded import Recorded


class Training:
    """Trains the discriminators on both sides, and sets the offsets of the rewards.

    Args:
        discriminators: Of K agents.
        experts: The experts' side.
        pay: The rewards, whose offsets an update sets.
        absorbing: The arithmetic of ``ends="absorbing"``; None with ``ends="live"``.
        absorbing_row: Each agent's, float32 [K, W].
        diagnosis: Measures after each update.
        seed: Of the minibatches.

    Attributes:
        minibatches: Where both sides are sampled; their random streams are part of a matcher's state.
        diagnosis: As given; its counts are part of it, too.
    """

    def __init__(
        self,
        discriminators: Discriminators,
        experts: Experts,
        pay: GailReward,
        absorbing: AbsorbingEnds | None,
        absorbing_row: Tensor,
        diagnosis: Diagnosis,
        *,
        seed: int | None,
    ) -> None:
        self._discriminators, self._experts, self._pay = discriminators, experts, pay
        self._absorbing, self._absorbing_row = absorbing, absorbing_row
        self._agents = discriminators.agents
        self.minibatches = Minibatches(experts, self._agents, seed)
        self.diagnosis = diagnosis

    def update(
        self,
        recorded: Recorded,
        chosen: Tensor,
        *,
        updates: int,
        batch_size: int,
        center: bool,
        convergence: Convergence | None,
    ) -> dict[str, float]:
        """Train on what was recorded. If that fails or is interrupted, everything is as before.

        Args:
            recorded: The policy's side.
            chosen: The agents whose discriminators are trained, bool [K].
            updates: How many minibatches.
            batch_size: Transitions per side, minibatch and agent.
            center: Whether to set the offsets of the rewards.
            convergence: Train until convergence instead of for ``updates`` minibatches.

        Returns:
            The metrics of `DistributionMatcher.update` that need training.

        Raises:
            ValueError: A discriminator cannot be trained, or pays rewards that are not finite.
        """
        discriminators, streams = self._discriminators.state_dict(), self.minibatches.state()
        try:
            metrics = self._train(recorded, chosen.tolist(), updates, batch_size, convergence)
            return metrics | self._measure(recorded, chosen, center)
        except BaseException:  # an interrupt must not leave them half trained either
            self._discriminators.load_state_dict(discriminators)
            self.minibatches.load_state(streams)
            raise

    def absorbing_shares(self, recorded: Recorded) -> AbsorbingRow | None:
        """The absorbing row and how often it is drawn, from both sides as they are; None with ``ends="live"``."""
        if self._absorbing is None:
            return None
        of_experts = share(self._experts.absorbing_steps(self._absorbing), torch.tensor(self._experts.counts))
        of_policy = share(recorded.absorbing_steps(), recorded.transitions.counts.cpu())
        shares = (each.to(self._discriminators.device, torch.float32) for each in (of_experts, of_policy))
        return AbsorbingRow(self._absorbing_row, *shares)

    def _train(
        self, recorded: Recorded, chosen: Sequence[bool], updates: int, batch_size: int, convergence: Convergence | None
    ) -> dict[str, float]:
        """Lines 8 and 9, ``updates`` times or until convergence."""
        buffer = recorded.transitions
        both = zip(chosen, buffer.counts.tolist(), self._experts.counts, strict=True)
        active = [flag and own > 0 and demonstrated > 0 for flag, own, demonstrated in both]
        absorbing = self.absorbing_shares(recorded)
        history: list[dict[str, Tensor]] = []
        while count := updates - len(history) if convergence is None else convergence.more(history, active):
            for expert, policy, alpha in self.minibatches.draw(buffer, count, batch_size, active, absorbing):  # line 8
                history.append(self._discriminators.update(expert, policy, alpha, active))  # line 9
        metrics = {} if convergence is None else convergence.metrics(history, self._agents, active)
        for name in history[0]:
            means = torch.stack([minibatch[name] for minibatch in history]).mean(0).tolist()
            of_agents = {f"{name}/{agent}": means[k] for k, agent in enumerate(self._agents) if active[k]}
            metrics |= {name: sum(of_agents.values()) / len(of_agents), **of_agents}
        return metrics | self.diagnosis.metrics(self._discriminators, expert, policy, active)

    def _measure(self, recorded: Recorded, chosen: Tensor, center: bool) -> dict[str, float]:
        """The new offsets, and the standard deviation of each chosen agent's reward over its new transitions."""
        new = torch.where(chosen, recorded.new, 0).minimum(recorded.transitions.counts.cpu())
        means, deviations = self._pay.moments(recorded.transitions, new)
        for agent, mean in zip(self._agents, means.tolist(), strict=True):
            if not np.isfinite(mean):
                raise ValueError(f"the discriminator of agent {agent!r} pays rewards that are not finite; check its network")
        if center:
            self._pay.offsets = torch.where(new > 0, means, self._pay.offsets)
        return {
            f"gail_reward_std/{agent}": float(deviation)
            for agent, deviation, count in zip(self._agents, deviations, new, strict=True)
            if count > 0
        }
