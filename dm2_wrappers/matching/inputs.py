"""The one door through which observations reach a matcher: checked, padded, on its device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


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
            ValueError: A shape that does not fit, or NaN or infinity in a live observation.
        """
        rows = self._tensor(observations)
        expected = (len(self._agents), max(self._sizes))
        if rows.shape[-2:] != expected:
            raise ValueError(
                f"expected observations [..., {expected[0]}, {expected[1]}] (agents, features of the widest), "
                f"got {tuple(rows.shape)}; pad narrower agents with 0"
            )
        live = torch.ones(rows.shape[:-1], dtype=torch.bool, device=self._device)
        if alive is not None:
            live = self._flags("alive", alive, rows.shape[:-1])
        if broken is not None:
            live = live & ~self._flags("broken", broken, rows.shape[:-2]).unsqueeze(-1)
        wrong = live & ~rows.abs().amax(-1).isfinite()
        if wrong.any():
            agent = self._agents[int(wrong.nonzero()[0, -1])]
            raise ValueError(f"an observation of agent {agent!r} holds NaN or infinity; mend the environment's output")
        return rows, live

    def by_name(self, observations: Mapping[str, Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """``{agent: observation}`` of some agents as one joint observation [K, D], and who is in it, bool [K].

        An observation is an array of the agent's own features, or ``{"observation": ..., "action_mask": ...}``.

        Raises:
            ValueError: An unknown agent, or another number of features than it has.
        """
        joint = np.zeros((len(self._agents), max(self._sizes)), dtype=np.float32)
        given = np.zeros(len(self._agents), dtype=bool)
        for agent, observation in observations.items():
            if agent not in self._agents:
                raise ValueError(f"expected agents among {list(self._agents)}, got {agent!r}; leave it out")
            k = self._agents.index(agent)
            features = observation["observation"] if isinstance(observation, Mapping) else observation
            features = np.asarray(features, dtype=np.float32).ravel()
            if len(features) != self._sizes[k]:
                raise ValueError(
                    f"expected {self._sizes[k]} features of agent {agent!r}, as in the demonstrations, got "
                    f"{len(features)}; flatten and order them as when the demonstrations were recorded"
                )
            joint[k, : len(features)] = features
            given[k] = True
        return joint, given

    def stacked(self, observations: list[NDArray[np.float32]]) -> Tensor:
        """Each agent's own observations [n_k, D_k], one agent after the other and padded: [sum of n_k, D].

        Raises:
            ValueError: An agent has none, another number of features than it should, or NaN or infinity in them.
        """
        for agent, size, rows in zip(self._agents, self._sizes, observations, strict=True):
            if not len(rows):
                raise ValueError(f"expected live observations of agent {agent!r} in the demonstrations, got none")
            if rows.shape[1:] != (size,) or not np.isfinite(rows).all():
                raise ValueError(
                    f"expected finite observations [n, {size}] of agent {agent!r} in the demonstrations, "
                    f"got shape {rows.shape} or values that are not finite"
                )
        widest = max(self._sizes)
        return self._tensor(np.concatenate([np.pad(rows, ((0, 0), (0, widest - rows.shape[1]))) for rows in observations]))

    def _tensor(self, observations: ArrayLike | Tensor) -> Tensor:
        if isinstance(observations, Tensor):
            return observations.detach().to(self._device, torch.float32)
        # Writable, because torch warns of arrays that are not (JAX's), although nobody writes here.
        return torch.from_numpy(np.require(observations, np.float32, ["C", "W"])).to(self._device)

    def _flags(self, name: str, flags: ArrayLike | Tensor, shape: tuple[int, ...]) -> Tensor:
        array = flags if isinstance(flags, Tensor) else np.array(flags, dtype=bool)
        if array.shape != shape:
            raise ValueError(f"expected {name} of shape {tuple(shape)}, got {tuple(array.shape)}; give one flag each")
        return torch.as_tensor(array, dtype=torch.bool, device=self._device)
