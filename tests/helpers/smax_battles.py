"""Actions in SMAX battles.

Environments with the same scenario, copies and SMAX options share what they compile, so most tests use 3m in one copy
or in three.
"""

from __future__ import annotations

import numpy as np

STOP, FIRST_ATTACK = 4, 5


def random_actions(masks, rng):
    """A random legal action for each mask [..., A]."""
    return np.where(masks, rng.random(masks.shape), -1).argmax(-1)


def stop_all(env):
    return dict.fromkeys(env.agents, STOP)
