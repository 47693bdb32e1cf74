"""Joint actions against masks: one check for every environment that has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def legal_actions(
    actions: Any, masks: NDArray[Any], do_nothing: NDArray[Any] | int, agents: Sequence[str], *, replace: bool
) -> NDArray[np.int32]:
    """The actions to play [N, K].

    Args:
        actions: Integers [N, K].
        masks: Whether each action is legal now, [N, K, A].
        do_nothing: What stands in for an illegal action, [N, K] or one for all.
        agents: The K names.
        replace: Let illegal actions be replaced instead of refused.

    Raises:
        ValueError: Wrong shape or type, or an illegal action and not ``replace``.
    """
    actions = np.asarray(actions)
    if actions.shape != masks.shape[:2] or not np.issubdtype(actions.dtype, np.integer):
        raise ValueError(
            f"actions must be integers of shape {masks.shape[:2]} (copies, agents), "
            f"got {actions.dtype} of shape {actions.shape}"
        )
    inside = (actions >= 0) & (actions < masks.shape[2])
    legal = np.take_along_axis(masks, np.where(inside, actions, 0)[..., None], axis=2)[..., 0].astype(bool) & inside
    if legal.all():
        return actions.astype(np.int32)
    if replace:
        return np.where(legal, actions, do_nothing).astype(np.int32)
    copy, agent = np.argwhere(~legal)[0]
    raise ValueError(
        f"action {actions[copy, agent]} of agent {agents[agent]!r} in copy {copy} is illegal "
        f"now; its legal actions are {np.flatnonzero(masks[copy, agent]).tolist()} "
        "(use the action mask, or invalid_action='noop')"
    )
