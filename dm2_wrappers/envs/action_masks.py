"""Joint actions against action masks: one check for every environment that has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.vector.spaces import as_array, form


def available_actions(
    actions: Any, masks: NDArray[Any], no_op: NDArray[Any] | int, agents: Sequence[str], *, replace: bool
) -> NDArray[np.int32]:
    """The actions to play [N, K].

    Args:
        actions: Integers [N, K].
        masks: Whether each action is available now, [N, K, A].
        no_op: What replaces an unavailable action, [N, K] or one for all.
        agents: The K names.
        replace: Replace unavailable actions instead of refusing them.

    Raises:
        ValueError: Wrong shape or type, or an unavailable action and not ``replace``.
    """
    given, actions = actions, as_array(actions)
    if actions.shape != masks.shape[:2] or not np.issubdtype(actions.dtype, np.integer):
        raise ValueError(
            f"actions must be integers of shape {masks.shape[:2]} (sub-environments, agents), got {form(given)}"
        )
    inside = (actions >= 0) & (actions < masks.shape[2])
    available = np.take_along_axis(masks, np.where(inside, actions, 0)[..., None], axis=2)[..., 0].astype(bool) & inside
    if available.all():
        return actions.astype(np.int32)
    if replace:
        return np.where(available, actions, no_op).astype(np.int32)
    i, k = np.argwhere(~available)[0]
    raise ValueError(
        f"action {actions[i, k]} of agent {agents[k]!r} in sub-environment {i} is not available now; its available actions "
        f"are {np.flatnonzero(masks[i, k]).tolist()} (use the action mask, or invalid_action='noop')"
    )
