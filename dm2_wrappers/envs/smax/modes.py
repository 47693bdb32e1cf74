"""JAX's process-wide modes: SMAX plays the same battles whatever the user's program has set."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dm2_wrappers._extras import require


@contextlib.contextmanager
def default_modes() -> Iterator[None]:
    """While this lasts, JAX computes in this thread as it does by default.

    JaxMARL does not run with 64-bit numbers, strict promotion of dtypes or strict ranks; it computes infinities and NaNs
    that it does not use; and another random generator would draw other battles for the same seed.
    """
    jax = require("jax", "smax")
    has_x64 = hasattr(jax, "enable_x64")  # older versions have it in jax.experimental
    x64 = jax.enable_x64 if has_x64 else require("jax.experimental", "smax").enable_x64
    with (
        x64(False),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_nans(False),
        jax.debug_infs(False),
        jax.default_prng_impl("threefry2x32"),
        jax.threefry_partitionable(True),
    ):
        yield
