"""A `DistributionMatcher` that keeps books of what a learner asks of it."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.matching import DistributionMatcher
from dm2_wrappers.matching.inputs import AgentInputs
from dm2_wrappers.testing.bait_env import AGENTS, LIFETIMES, STEPS, observation

# Rows that no environment returned, and rows of 0 (padding), in `Seen.other`.
UNKNOWN, ZEROS = "unknown", "zeros"
_SNAPSHOTS = 64
# All observations of each agent but for the newest move, [K, STEPS + 1, SIZE].
_EXPECTED = np.array([[observation(k, 0.0, t) for t in range(STEPS + 1)] for k in range(len(AGENTS))])


class Seen:
    """Which observations were handed over, by agent and time.

    Attributes:
        at: How often agent k's observation of time t, [K, STEPS + 1]; the last column is after an episode's last step.
        other: How often, per agent, an observation that is not its own: another agent's name, `ZEROS` or `UNKNOWN`.
    """

    def __init__(self) -> None:
        self.at = np.zeros((len(AGENTS), STEPS + 1), np.int64)
        self.other: list[Counter[str]] = [Counter() for _ in AGENTS]

    @property
    def live(self) -> NDArray[np.int64]:
        """How many observations per agent at which it was alive and about to act, [K]."""
        return np.array([self.at[k, :life].sum() for k, life in enumerate(LIFETIMES)])

    @property
    def total(self) -> NDArray[np.int64]:
        """All observations per agent, [K]."""
        return self.at.sum(1) + np.array([sum(other.values()) for other in self.other])

    def add(self, rows: NDArray[np.float32], live: NDArray[np.bool_]) -> int:
        """Count the live rows of joint observations [..., K, D]; returns how many there are."""
        flat, flags = rows.reshape(-1, *rows.shape[-2:]), live.reshape(-1, live.shape[-1])
        for k in range(len(AGENTS)):
            own = flat[flags[:, k], k]
            fits, times = _times(own, k)
            self.at[k] += np.bincount(times[fits], minlength=STEPS + 1)
            strange = own[~fits]
            if not len(strange):
                continue
            for owner, name in enumerate(AGENTS):
                fits, _ = _times(strange, owner)
                self.other[k][name] += int(fits.sum())
                strange = strange[~fits]
            zeros = ~strange.any(1)
            self.other[k][ZEROS] += int(zeros.sum())
            self.other[k][UNKNOWN] += int((~zeros).sum())
        return int(flags.sum())


def _times(rows: NDArray[np.float32], k: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which rows [n, SIZE] agent k can have seen, and at which times."""
    times = (np.rint(rows[:, -1] * STEPS).astype(np.int64) - 1).clip(0, STEPS)
    return (rows[:, 1:] == _EXPECTED[k, times, 1:]).all(1) & np.isin(rows[:, 0], (-1, 0, 1)), times


@dataclass(frozen=True)
class Payment:
    """One call of ``rewards``: under which weights, for how many observations, and how many steps were not paid before."""

    version: int
    rows: int
    unpaid_steps: int


@dataclass(frozen=True)
class Snapshot:
    """The matcher's state at a payment, and what it paid."""

    state: dict[str, Any]
    observations: NDArray[np.float32]
    alive: NDArray[np.bool_]
    paid: NDArray[np.float32]


class SpiedMatcher(DistributionMatcher):
    """A matcher that remembers what was recorded, trained and paid. It behaves like any other.

    Attributes:
        recorded: The observations that `record` was given.
        paid: The observations that `rewards` was asked for.
        trainings: How often an update changed the discriminators' weights.
        updates_without_effect: Updates that had data but left all weights as they were.
        payments: Every call of `rewards`.
        snapshots: The first payment under each of the first versions of the weights.
        first_training_at: Joint steps played before the first training.
    """

    def __init__(self, *args: Any, tally: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tally = tally
        self._inputs = AgentInputs(self.agents, self.sizes, self.discriminators.device)
        self.recorded, self.paid = Seen(), Seen()
        self.trainings, self.updates_without_effect = 0, 0
        self.payments: list[Payment] = []
        self.snapshots: dict[int, Snapshot] = {}
        self.first_training_at = 0
        self._versions = {self._weights(): 0}

    def record(self, observations: Any, alive: Any, **more: Any) -> None:
        """Keep what the agents saw (line 6), and count it."""
        super().record(observations, alive, **more)
        rows, live = self._inputs.joint(observations, alive, more.get("broken"))
        self.recorded.add(rows.cpu().numpy(), live.cpu().numpy())

    def update(self, *args: Any, **options: Any) -> dict[str, float]:
        """Train (lines 8-9), and count it."""
        had_data, before = bool(self._recorded.new.any()), self._weights()
        played = os.path.getsize(self._tally)
        metrics = super().update(*args, **options)
        after = self._weights()
        self._versions.setdefault(after, len(self._versions))
        if after != before:
            self.trainings += 1
            self.first_training_at = self.first_training_at or played
        elif had_data:
            self.updates_without_effect += 1
        return metrics

    def rewards(self, observations: Any, alive: Any = None, **more: Any) -> Any:
        """Pay (line 10), and count it."""
        paid = super().rewards(observations, alive, **more)
        if isinstance(observations, Mapping):  # this called `rewards` with arrays, which was counted
            return paid
        rows, live = (tensor.cpu().numpy() for tensor in self._inputs.joint(observations, alive))
        version = self._versions.setdefault(self._weights(), len(self._versions))
        before = int(self.paid.total.max())
        number = self.paid.add(rows, live)
        if number:
            unpaid = os.path.getsize(self._tally) - before
            self.payments.append(Payment(version, number, unpaid))
            if version not in self.snapshots and len(self.snapshots) < _SNAPSHOTS:
                self.snapshots[version] = Snapshot(self.state_dict(), rows.copy(), live.copy(), np.array(paid))
        return paid

    def _weights(self) -> bytes:
        """A digest of all weights."""
        digest = hashlib.blake2b()
        for network in self.discriminators._networks.tensors():
            for tensor in network.values():
                digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.digest()
