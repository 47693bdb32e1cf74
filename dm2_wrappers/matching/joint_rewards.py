"""r_gail of joint steps (line 10 of Algorithm 1): who is paid, and what the absorbing state adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dm2_wrappers.matching.experts import Experts
from dm2_wrappers.matching.gail_reward import GailReward
from dm2_wrappers.matching.step_reader import StepReader
from dm2_wrappers.matching.torch_modes import standard_modes


class JointRewards:
    """Pays all agents for steps, as `DistributionMatcher.rewards` takes them.

    Args:
        pay: The reward of an input.
        reader: Makes inputs of steps.
        experts: Agents of which it has no rows are paid nothing.
        absorbing_row: Each agent's, float32 [K, W].
        agents: The agents' names.
        size: D, the number of features of the widest agent's observations.
    """

    def __init__(
        self,
        pay: GailReward,
        reader: StepReader,
        experts: Experts,
        absorbing_row: Tensor,
        agents: tuple[str, ...],
        size: int,
    ) -> None:
        self._pay, self._reader, self._experts = pay, reader, experts
        self._absorbing_row, self._agents = absorbing_row, agents
        self._step_shape = (1, len(agents), size)
        on_cpu = absorbing_row.device.type == "cpu"
        self._observations_are_all = on_cpu and not reader.needs_actions and not reader.needs_after

    def of(self, observations: Any, alive: Any, actions: Any, after: Any) -> Any:
        """Float32 [..., K], or a dict if ``observations`` is one; see `DistributionMatcher.rewards`."""
        if self._is_plain_step(observations, alive):
            of_step = self._pay.of_step(observations[0], alive[0])
            if of_step is not None:
                return of_step[None]
        return self._of(observations, alive, actions, after)

    @standard_modes
    def _of(self, observations: Any, alive: Any, actions: Any, after: Any) -> Any:
        """`of` in general."""
        if isinstance(observations, Mapping):
            joint, given, actions, after = self._reader.by_name(observations, actions, after)
            of_all = self._of(joint, given, actions, after)
            return {agent: float(of_all[self._agents.index(agent)]) for agent in observations}
        steps = self._reader.read(observations, alive, None, actions, after)
        paid = torch.where(steps.paid, self._pay.of(steps.rows), 0.0)
        if steps.factor is not None:
            paid = paid + steps.factor * self._pay.of(self._absorbing_row)
        if not all(self._experts.counts):
            paid = paid * torch.tensor([count > 0 for count in self._experts.counts], device=paid.device)
        rewards: NDArray[np.float32] = paid.cpu().numpy()
        if not np.isfinite(rewards).all():
            agent = self._agents[np.argwhere(~np.isfinite(rewards))[0, -1]]
            raise ValueError(f"the discriminator of agent {agent!r} pays a reward that is not finite; check its network")
        return rewards

    def _is_plain_step(self, observations: Any, alive: Any) -> bool:
        """Whether this is one joint step [1, K, D], as the wrappers pay it, and observations are all that counts."""
        return (
            self._observations_are_all
            and type(observations) is np.ndarray
            and type(alive) is np.ndarray
            and observations.dtype == np.float32
            and alive.dtype == np.bool_
            and observations.shape == self._step_shape
            and alive.shape == self._step_shape[:2]
            and all(self._experts.counts)
        )
