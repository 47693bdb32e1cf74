"""SMAX plays the same battles whatever JAX's process-wide modes are, which belong to the user's program."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from dm2_wrappers.envs import smax

MODES = {
    "jax_enable_x64": True,
    "jax_numpy_dtype_promotion": "strict",
    "jax_numpy_rank_promotion": "raise",
    "jax_debug_nans": True,
    "jax_debug_infs": True,
    "jax_default_prng_impl": "rbg",
}


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_same_battles_in_every_mode_of_jax(when):
    """Modes that are set before the environment is made, or in mid-episode."""

    def battle(switch=None):
        if switch == "before":
            turn_on()
        venv = smax.vector_env("3m", 3)
        observations, infos = venv.reset(seed=4)
        seen = [observations]
        for t in range(12):
            if switch == "after" and t == 5:
                turn_on()
            actions = np.where(infos["action_mask"], np.arange(8), -1).argmax(-1)
            observations, rewards, *_, infos = venv.step(actions)
            seen += [observations, rewards, infos["state"]]
        return [*seen, venv.units()["positions"]]

    def turn_on():
        for mode, value in MODES.items():
            jax.config.update(mode, value)

    expected = battle()
    original = {mode: getattr(jax.config, mode) for mode in MODES}
    try:
        found = battle(when)
    finally:
        for mode, value in original.items():
            jax.config.update(mode, value)
    for one, other in zip(expected, found, strict=True):
        assert one.dtype == other.dtype
        assert_array_equal(one, other)
