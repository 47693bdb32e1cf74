"""Checks all observations that a matcher gets, pads them and moves them to its device."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dm2_wrappers import _checks

# Products of larger numbers overflow float32 in the discriminators or in Adam.
_LARGEST = 1e18
# From about this scale on, tanh layers saturate and the gradient penalty outweighs everything else.
_BLINDING = 1e4


class AgentInputs:
    """Checks and converts observations of K agents, D features the widest.

    Args:
        agents: The agents' names, in the order of the agent axis.
        sizes: Each agent's own number of features.
        device: Where tensors go.
    """

    def __init__(self, agents: tuple[str, ...], sizes: tuple[int, ...], device: torch.device) -> None:
        self._agents = agents
        self._sizes = sizes
        self._device = device

    def joint(
        self,
        observations: ArrayLike | Tensor,
        alive: ArrayLike | Tensor | None = None,
        broken: ArrayLike | Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Observations float32 [..., K, D] and which of them count, bool [..., K], as tensors.

        Args:
            observations: Padded to the widest agent.
            alive: Bool [..., K]; all by default.
            broken: Bool [...]; joint observations of which none counts. None by default.

        Raises:
            ValueError: A shape that does not fit, or a live observation that is not finite or beyond 1e18.
        """
        rows = self._tensor(observations)
        expected = (len(self._agents), max(self._sizes))
        if rows.shape[-2:] != expected:
            raise ValueError(
                f"expected observations [..., {expected[0]}, {expected[1]}] (agents, features of the widest), "
                f"got {tuple(rows.shape)}; pad narrower agents with 0"
            )
        if alive is None:
            live = torch.ones(rows.shape[:-1], dtype=torch.bool, device=self._device)
        else:
            live = self._flags("alive", alive, rows.shape[:-1])
        if broken is not None:
            live = live & ~self._flags("broken", broken, rows.shape[:-2]).unsqueeze(-1)
        if not _within_limits(rows):  # of anybody, dead or alive
            wrong = live & ~(rows.abs().amax(-1) <= _LARGEST)
            if wrong.any():
                place = tuple(wrong.nonzero()[0].tolist())
                self._refuse(self._agents[place[-1]], rows[place].cpu().numpy(), "what the environment returns")
        return rows, live

    def by_name(self, observations: Mapping[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """``{agent: observation}`` of some agents as one joint observation [K, D], and which agents it has, bool [K].

        An observation is an array of the agent's own features, or ``{"observation": ..., "action_mask": ...}``.

        Raises:
            ValueError: An unknown agent, the wrong number of features, or a dict of parts.
        """
        joint = np.zeros((len(self._agents), max(self._sizes)), dtype=np.float32)
        given = np.zeros(len(self._agents), dtype=bool)
        for agent, observation in observations.items():
            k = self._index(agent)
            features = _float32(_without_mask(agent, observation)).ravel()
            if len(features) != self._sizes[k]:
                raise ValueError(
                    f"expected {self._sizes[k]} features of agent {agent!r}, as in the demonstrations, got "
                    f"{len(features)}; flatten and order them as when the demonstrations were recorded"
                )
            joint[k, : len(features)] = features
            given[k] = True
        return joint, given

    def from_chunks(
        self, chunks: Sequence[tuple[str, ArrayLike | Tensor]]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_], list[tuple[slice, int]]]:
        """Ragged chunks of single agents as joint steps of one sub-environment.

        Args:
            chunks: Pairs of an agent and its observations [n, D_agent], in any order.

        Returns:
            Observations [T, 1, K, D], which of them are given, bool [T, 1, K], and where in time and on the agent axis
            each chunk lies.

        Raises:
            ValueError: An unknown agent, or observations of another shape.
        """
        rows, places = [], []
        lengths = [0] * len(self._agents)
        for number, chunk in enumerate(chunks):
            if not isinstance(chunk, tuple | list) or len(chunk) != 2:
                raise ValueError(f"chunk {number} must be a pair (agent, observations), got {type(chunk).__name__}")
            k = self._index(chunk[0])
            features = _float32(chunk[1])
            if features.ndim < 2 or features.size != len(features) * self._sizes[k]:
                raise ValueError(
                    f"chunk {number} must hold [n, {self._sizes[k]}] numbers of agent {chunk[0]!r}, got {features.shape}"
                )
            rows.append(features.reshape(len(features), self._sizes[k]))
            places.append((slice(lengths[k], lengths[k] + len(features)), k))
            lengths[k] += len(features)
        joint = np.zeros((max(lengths), 1, len(self._agents), max(self._sizes)), dtype=np.float32)
        given = np.zeros(joint.shape[:3], dtype=bool)
        for features, (steps, k) in zip(rows, places, strict=True):
            joint[steps, 0, k, : self._sizes[k]] = features
            given[steps, 0, k] = True
        return joint, given, places

    def stacked(
        self, observations: list[NDArray[np.float32]], *, any_scale: bool = False, some_empty: bool = False
    ) -> Tensor:
        """Each agent's own observations [n_k, D_k], one agent after the other and padded: [sum of n_k, D].

        Args:
            observations: Of each agent.
            any_scale: Whether discriminators can learn from features of any scale; then there is no warning.
            some_empty: Whether agents may have none.

        Warns:
            UserWarning: Features are so large that discriminators cannot learn from them.

        Raises:
            ValueError: An agent has none, the wrong number of features, or an observation not finite or beyond 1e18.
        """
        large = []
        for agent, size, rows in zip(self._agents, self._sizes, observations, strict=True):
            if not len(rows):
                if some_empty:
                    continue
                raise ValueError(f"expected live observations of agent {agent!r} in the demonstrations, got none")
            if rows.shape[1:] != (size,):
                raise ValueError(
                    f"expected observations [n, {size}] of agent {agent!r} in the demonstrations, got shape {rows.shape}"
                )
            peaks = np.abs(rows).max(0)
            if not (peaks <= _LARGEST).all():
                self._refuse(agent, peaks, "the demonstrations")
            large += [f"{agent!r} feature {i} (up to {peaks[i]:g})" for i in np.flatnonzero(peaks >= _BLINDING)]
        if large and not any_scale:
            more = f" and {len(large) - 5} more" if len(large) > 5 else ""
            warnings.warn(
                f"discriminators learn little from observations of {_BLINDING:g} and more, because their layers saturate: "
                f"agent {', agent '.join(large[:5])}{more}. Scale these features to about [-1, 1], in the "
                "environment and in the demonstrations, or use DistributionMatcher(standardize=True)",
                stacklevel=5,
            )
        widest = max(self._sizes)
        return self._tensor(np.concatenate([np.pad(rows, ((0, 0), (0, widest - rows.shape[1]))) for rows in observations]))

    def _index(self, agent: Any) -> int:
        if not isinstance(agent, Hashable):  # an array, for example, because a pair was swapped
            raise ValueError(f"expected the name of an agent among {list(self._agents)}, got {type(agent).__name__}")
        if agent not in self._agents:
            raise ValueError(f"expected agents among {list(self._agents)}, got {agent!r}; leave it out")
        return self._agents.index(agent)

    def _refuse(self, agent: str, features: NDArray[np.float32], source: str) -> NoReturn:
        """Raise for an observation that `_LARGEST` does not allow."""
        i = int(np.flatnonzero(~(np.abs(features) <= _LARGEST))[0])
        raise ValueError(
            f"feature {i} of an observation of agent {agent!r} is {features[i]:g} as float32; observations must be finite "
            f"and of at most {_LARGEST:g} in size; correct {source}"
        )

    def _tensor(self, observations: ArrayLike | Tensor) -> Tensor:
        if isinstance(observations, Tensor) and not observations.is_complex():
            return observations.detach().to(self._device, torch.float32)
        # Writable, because torch warns about arrays that are not (JAX's), although nothing is written here.
        array = _float32(observations)
        if not array.flags.carray:
            array = np.require(array, None, ["C", "W", "A"])
        return torch.from_numpy(array).to(self._device)

    def _flags(self, name: str, flags: ArrayLike | Tensor, shape: tuple[int, ...]) -> Tensor:
        if isinstance(flags, Tensor):
            flags = flags.detach().cpu().numpy()
        return torch.from_numpy(_checks.flags(name, flags, tuple(shape))).to(self._device)


def _within_limits(rows: Tensor) -> bool:
    """Whether all numbers together, and so each of them, are at most `_LARGEST` in size; False if any is not a number."""
    return torch.linalg.vector_norm(rows).item() <= _LARGEST


def _without_mask(agent: str, observation: Any) -> Any:
    """An observation without its action mask. Only the environment knows how other parts become one vector."""
    parts = observation
    if isinstance(observation, Mapping) and "observation" in observation:
        parts = observation["observation"]
    if isinstance(parts, Mapping):
        raise ValueError(
            f"the observation of agent {agent!r} has the parts {sorted(map(str, parts))}, but its features are needed as "
            "one array, as in the demonstrations: flatten it, or let DM2ParallelEnv do it"
        )
    return parts


def _float32(observations: Any) -> NDArray[np.float32]:
    """As float32; numbers beyond its range become infinite, whatever ``np.seterr`` says, and are refused later."""
    if isinstance(observations, Tensor):
        observations = observations.detach().cpu()
    if isinstance(observations, np.ndarray) and observations.dtype == np.float32:
        return observations
    expected = "expected observations as an array of real numbers, got"
    try:
        given = np.asarray(observations)
        if given.dtype.kind not in "cSUmM":  # NumPy would take strings and dates for numbers, and a complex number's part
            with np.errstate(all="ignore"):
                return given.astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{expected} {type(observations).__name__}: {error}") from None
    raise ValueError(f"{expected} {type(observations).__name__} of dtype {given.dtype}")
