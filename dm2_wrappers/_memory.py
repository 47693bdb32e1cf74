"""A warning before arrays are allocated that may not fit into memory, as with images as observations."""

from __future__ import annotations

import warnings

_LARGE = 8 * 2**30  # bytes


def warn_if_large(what: str, count: float, num_agents: int, features: int, advice: str, *, stacklevel: int) -> None:
    """Warn if joint observations take more than 8 GiB.

    Args:
        what: What holds them, for the warning.
        count: How many joint observations, of `num_agents` times ``features`` float32 each.
        num_agents: K.
        features: D, of the widest agent.
        advice: What to do about it, besides smaller observations.
        stacklevel: Of the warning, counted from the caller.

    Warns:
        UserWarning: They take more.
    """
    size = 4.0 * count * num_agents * features
    if size > _LARGE:
        warnings.warn(
            f"{what} will take up to {size / 2**30:,.0f} GiB of memory ({count:,.0f} observations of {num_agents} agents "
            f"with {features:,} features, in float32): {advice}, or make the observations smaller. For images, SuperSuit's "
            "color_reduction_v0 and resize_v1 do this",
            stacklevel=stacklevel + 1,
        )
