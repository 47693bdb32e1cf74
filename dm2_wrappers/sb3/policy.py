"""K learners' policies as one function of the joint arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm

from dm2_wrappers.vector import Infos
from dm2_wrappers.vector.layout import Layout
from dm2_wrappers.vector.spaces import action_mask, flatten


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

    def native_actions(self, observations: Mapping[str, Any], layout: Layout | None) -> dict[str, Any]:
        """Actions for the present agents of one ``ParallelEnv``; see ``IndependentLearners.predict``.

        Args:
            observations: ``{agent: observation}``.
            layout: How the ParallelEnv's spaces map to arrays; None where they are flat already.

        Raises:
            ValueError: An unknown agent, or an observation of another size.
        """
        agents = list(self.models)
        unknown = set(observations) - set(agents)
        if unknown:
            raise ValueError(f"observations of unknown agents {sorted(unknown)}; the agents are {agents}")
        actions: dict[str, Any] = {}
        for agent, observation in observations.items():
            mask = action_mask(observation, {})
            if layout is not None:
                try:
                    features = flatten(layout.native_observation_spaces[agent], observation)
                except ValueError as error:
                    raise ValueError(f"the observation of agent {agent!r} is not in its space: {error}") from None
            else:
                features = observation["observation"] if isinstance(observation, Mapping) else observation
            rows = np.asarray(features, dtype=np.float32).reshape(1, -1)
            size = int(np.prod(self.models[agent].observation_space.shape))  # type: ignore[arg-type]
            if rows.shape[1] != size:
                raise ValueError(f"agent {agent!r} learned from {size} features, but its observation has {rows.shape[1]}")
            action = self.act(agent, rows, None if mask is None else np.asarray(mask)[None])[0]
            if layout is not None:
                actions[agent] = layout.native_action(agents.index(agent), action)
            else:
                actions[agent] = int(action) if np.ndim(action) == 0 else action
        return actions

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
