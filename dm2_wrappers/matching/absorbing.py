r"""``ends="absorbing"``: an agent's time after its death or its episode's end counts, up to the time limit.

With ``ends="live"`` only live steps train a discriminator and are paid. A constant b in the logit then adds
``b * (number of live steps)`` to an agent's return, so a team that is worse than its experts (b < 0) gains by ending its
episodes early. Here every agent enters an absorbing state when it dies, leaves, or its episode ends, as in DAC (Kostrikov
et al. 2019), and stays there until the time limit of H steps, as on the padded rows of the paper's code. All absorbing
states are one row: 0 but for a last feature, which is 1 there and 0 for live steps.

*Trained.* An agent whose last live step is step t (counted from 0) spends the ``n = H - t - 1`` steps after it in the
absorbing state. If an agent's episodes in the demonstrations have L live rows and A absorbing steps in total, each row of
the experts' side of a minibatch is the absorbing one with probability A / (L + A); the policy's side likewise, from what
was recorded. Its expected loss is that of padded episodes, without any padding.

*Paid.* The last live step gets the discounted rewards of the absorbing steps in addition to its own::

    r(s_t) + gamma r_abs + gamma^2 r_abs + ... + gamma^n r_abs  =  r(s_t) + r_abs * gamma (1 - gamma^n) / (1 - gamma)

so the discounted return from each live step is that of the padded episode, and no rollout gets longer. Steps at which the
agent is dead get 0: they are paid for already. With a constant reward b each live step's return is
``b (1 - gamma^(H - t)) / (1 - gamma)``, whatever the agent does, so b is neutral.

*At the time limit* nothing remains to be paid, n = 0. That is right for a learner to which the limit is an end, as in the
paper's code. A learner that bootstraps there (SB3 does, and all teams of ``dm2_wrappers.sb3``) goes on to value what would
follow: with a constant reward b its critic says b / (1 - gamma) there, which dying agents would not get. For such
learners ``beyond_limit=True`` lets the absorbing state pay forever, n = infinity, as in DAC::

    r(s_t) + r_abs * gamma / (1 - gamma)

An episode that the time limit ended while the agent was alive gets nothing: the bootstrap is its rest. Then each step's
value is b / (1 - gamma) everywhere, and b is neutral.

With ``inputs="transition"`` the step into the absorbing state has no next live observation, so it counts as an absorbing
one itself: it is paid ``r_abs`` in place of r(s_t).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dm2_wrappers.matching.after_step import AfterStep
from dm2_wrappers.matching.transition_buffer import TransitionBuffer


class AbsorbingEnds:
    """The arithmetic of ``ends="absorbing"``.

    Args:
        gamma: The learners' discount factor.
        max_steps: H, the time limit in steps; None until it is known.
        beyond_limit: Whether the absorbing state pays forever.
        counts_entry: Whether the step into the absorbing state is an absorbing one itself.
    """

    def __init__(self, gamma: float, max_steps: int | None, beyond_limit: bool, counts_entry: bool) -> None:
        self.gamma, self.max_steps = gamma, max_steps
        self.beyond_limit, self.counts_entry = beyond_limit, counts_entry

    def limit(self) -> int:
        """H.

        Raises:
            ValueError: It is not known.
        """
        if self.max_steps is None:
            raise ValueError(
                'ends="absorbing" needs the time limit of an episode in steps: pass max_steps to the matcher, or use an '
                "environment with an attribute max_steps"
            )
        return self.max_steps

    def entered(self, alive: NDArray[np.bool_], after: AfterStep) -> NDArray[np.bool_]:
        """The steps with which an agent entered the absorbing state: it died, left, or its episode ended, bool [..., K]."""
        # Learners that bootstrap at time limits do so where a limit of its own makes an agent leave, too.
        at_limit = after.truncated & after.alive & (after.ended[..., None] | self.beyond_limit)
        return alive & ~after.goes_on & ~at_limit

    def remaining(self, alive: NDArray[np.bool_], after: AfterStep) -> NDArray[np.int64]:
        """How many absorbing steps come with each step, int64 [..., K]; 0 where life goes on.

        Raises:
            ValueError: The time limit or the time is not known, or an episode went on beyond the limit.
        """
        limit, time = self.limit(), self._time(after)
        if (time >= limit).any():
            raise ValueError(
                f"max_steps is {limit}, but an episode has gone on for {int(time.max()) + 1} steps; "
                "pass the environment's own time limit as max_steps"
            )
        steps = (limit - 1 - time)[..., None] + int(self.counts_entry)
        return np.where(self.entered(alive, after), steps, 0)

    def factor(self, alive: NDArray[np.bool_], after: AfterStep) -> NDArray[np.float64]:
        """What each step is paid in units of the absorbing reward, float64 [..., K]; see the module."""
        entered = self.entered(alive, after)
        first = 0 if self.counts_entry else 1
        if self.beyond_limit:
            return np.where(entered, self.gamma**first / (1 - self.gamma), 0.0)
        count = self.remaining(alive, after)
        total = count if self.gamma == 1 else self.gamma**first * (1 - self.gamma**count) / (1 - self.gamma)
        return np.where(entered, total, 0.0)

    def of_experts(self, demonstrations: Any) -> NDArray[np.int64]:
        """How many absorbing steps each agent has in demonstrations, int64 [K].

        Raises:
            ValueError: An episode is longer than the time limit.
        """
        limit, totals = self.limit(), []
        longest = int(np.diff(demonstrations.offsets).max())
        if longest > limit:
            raise ValueError(f"max_steps is {limit}, but the demonstrations have an episode of {longest} steps")
        for k, offsets in enumerate(demonstrations.offsets):
            alive = demonstrations.alive[: offsets[-1], k]
            next_alive = np.append(alive[1:], False)
            next_alive[offsets[1:] - 1] = False  # after an episode's last step
            time = np.arange(len(alive)) - np.repeat(offsets[:-1], np.diff(offsets))
            entered = alive & ~next_alive
            left = limit - 1 - time[entered]
            # Whoever lives to the limit is taken to have met it alive: no step into the absorbing state either.
            totals.append(int((left + int(self.counts_entry) * (left > 0)).sum()))
        return np.array(totals)

    @staticmethod
    def _time(after: AfterStep) -> NDArray[np.int64]:
        if after.time is None:
            raise ValueError('ends="absorbing" needs the time in the episode: give AfterStep its time')
        return after.time


@dataclass(frozen=True)
class AbsorbingRow:
    """The absorbing row in minibatches.

    Attributes:
        row: Each agent's, float32 [K, W].
        expert_share: The probability with which it stands in for a row of the experts, float [K].
        policy_share: The same for the policy's side.
    """

    row: Tensor
    expert_share: Tensor
    policy_share: Tensor

    def put_in(self, expert: Tensor, policy: Tensor, expert_draw: Tensor, policy_draw: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [K, B, W] of both sides, with the absorbing row where a uniform draw [K, B] is below its share."""
        row = self.row[:, None]
        return (
            torch.where((expert_draw < self.expert_share[:, None])[..., None], row, expert),
            torch.where((policy_draw < self.policy_share[:, None])[..., None], row, policy),
        )


def share(steps: Tensor, live: Tensor) -> Tensor:
    """The probability of the absorbing row, float64 [K], from the numbers of absorbing steps and live rows."""
    total = steps + live
    return torch.where(total > 0, steps.double() / total.clamp(min=1).double(), 0.0)


def kept_in(buffer: TransitionBuffer) -> Tensor:
    """The sum of each agent's numbers in a buffer of one feature, float64 [K]."""
    counts = buffer.counts
    if not counts.any():
        return torch.zeros(len(counts), dtype=torch.float64)
    index = torch.arange(int(counts.max()), device=counts.device).expand(len(counts), -1)
    rows = buffer.gather(index)[..., 0].double()
    return torch.where(index < counts[:, None], rows, 0.0).sum(1).cpu()
