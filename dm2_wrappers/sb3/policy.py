"""K learners' policies as one function of the joint arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm

from dm2_wrappers.vector import Infos


class TeamPolicy:
    """Joint policy: ``policy(observations [N, K, D], infos) -> actions [N, K]`` (or [N, K, A], padded with 0).

    Keeps the recurrent states of recurrent policies: call ``start_episode`` where episodes begin, as
    ``Demonstrations.record`` and ``evaluate`` do.
    """

    def __init__(self, models: Mapping[str, BaseAlgorithm], *, deterministic: bool = False) -> None:
        self.models, self.deterministic = models, deterministic
        self._states: dict[str, Any] = {}
        self._starts: NDArray[np.bool_] | None = None

    def start_episode(self, started: NDArray[np.bool_]) -> None:
        """Forget the recurrent states of the copies in which an episode begins, [N]."""
        self._starts = np.asarray(started, dtype=bool)

    def __call__(self, observations: NDArray[np.float32], infos: Infos) -> NDArray[Any]:
        """Every agent's action for its own slice of the arrays."""
        actions = [
            self.act(agent, observations[:, k], infos["action_mask"][:, k] if "action_mask" in infos else None)
            for k, agent in enumerate(self.models)
        ]
        self._starts = None
        if actions[0].ndim == 1:
            return np.stack(actions, axis=1)
        width = max(each.shape[1] for each in actions)
        return np.stack([np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in actions], axis=1)

    def act(self, agent: str, observations: NDArray[np.float32], masks: NDArray[Any] | None) -> NDArray[Any]:
        """One agent's actions [N] or [N, A] for its observations [N, >= D], masks [N, >= A]."""
        model: Any = self.models[agent]
        size = int(np.prod(model.observation_space.shape))
        options: dict[str, Any] = {"deterministic": self.deterministic}
        if isinstance(model, MaskablePPO):
            width = int(model.action_space.n)  # type: ignore[attr-defined]
            options["action_masks"] = np.ones((len(observations), width), bool) if masks is None else masks[:, :width]
        if isinstance(model, RecurrentPPO):
            options["state"] = self._states.get(agent)
            starts = np.zeros(len(observations), bool) if self._starts is None else self._starts
            options["episode_start"] = starts
        actions, self._states[agent] = model.predict(observations[:, :size], **options)
        return np.asarray(actions)
