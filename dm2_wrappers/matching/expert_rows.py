"""The experts' side of the discriminators' inputs, from demonstrations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dm2_wrappers.matching.action_coding import ActionCoding
from dm2_wrappers.matching.input_rows import InputRows


def expert_rows(demonstrations: Any, rows: InputRows, coding: ActionCoding | None) -> list[NDArray[np.float32]]:
    """Each agent's rows [n_k, W_k] of its live steps in demonstrations.

    Steps whose next observation is part of the input count if the agent lives on in the same episode: demonstrations lack
    the observation after an episode's last step.
    """
    if rows.parts == ("observation",):
        observations = [demonstrations.observations(agent) for agent in demonstrations.agents]
        return [np.pad(own, ((0, 0), (0, size - own.shape[1]))) for own, size in zip(observations, rows.sizes, strict=True)]
    seen, alive, offsets = demonstrations.padded_observations, demonstrations.alive, demonstrations.offsets
    live = alive & (np.arange(len(alive))[:, None] < offsets[:, -1])
    available = {"observation": seen}
    if coding is not None:
        available["action"] = coding.features(demonstrations.actions, live)
    if "next_observation" in rows.parts:
        available["next_observation"] = np.roll(seen, -1, axis=0)
        live = live & np.roll(alive, -1, axis=0)
        for k, ends in enumerate(offsets[:, 1:]):
            live[ends - 1, k] = False  # an episode's last step
    joined = rows.joined([torch.from_numpy(np.array(available[part], np.float32)) for part in rows.parts]).numpy()
    return [joined[live[:, k], k, :size] for k, size in enumerate(rows.sizes)]
