"""Checks of the options of `DistributionMatcher`. They become plain numbers and strings, which a checkpoint's JSON holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dm2_wrappers import _checks
from dm2_wrappers.matching.action_coding import described_spaces
from dm2_wrappers.matching.discriminators import checked_gradient_penalty, checked_learning_rate
from dm2_wrappers.matching.gail_reward import FUNCTIONS
from dm2_wrappers.matching.input_rows import KINDS
from dm2_wrappers.matching.self_imitation import SelfImitation

# The paper's weight of the gradient penalty, and the one for features in standard deviations: on a small grid, 10 there
# leaves discriminators nearly as blind as raw features in [0, 1] do (examples/grid.py).
_PENALTY, _STANDARDIZED_PENALTY = 10.0, 1.0


def checked_demonstrations(given: Any) -> tuple[Any, SelfImitation | None]:
    """The experts' demonstrations and the team's own episodes, of which either may be None.

    Raises:
        TypeError: ``given`` is neither `Demonstrations` nor `SelfImitation`.
    """
    if isinstance(given, SelfImitation):
        return given.experts, given
    if not all(hasattr(given, name) for name in ("agents", "sizes", "observations")):
        raise TypeError(
            f"DistributionMatcher needs Demonstrations, got {type(given).__name__}; "
            "read a file with Demonstrations.load(path)"
        )
    return given, None


def checked_options(
    experts: Any,
    own: SelfImitation | None,
    *,
    updates: int,
    batch_size: int,
    buffer_size: int,
    gradient_penalty: float | None,
    learning_rate: float,
    hidden: Sequence[int],
    reward: str,
    center: bool,
    inputs: str,
    action_spaces: Mapping[str, Any] | None,
    ends: str,
    gamma: float,
    max_steps: int | None,
    beyond_limit: bool | None,
    keep_buffer: bool,
    standardize: bool,
    seed: int | None,
) -> dict[str, Any]:
    """Everything that makes an equal matcher from the same demonstrations; numbers and strings only.

    "action_spaces", "max_steps" and "self_imitation" are only among them if they were given.

    Raises:
        ValueError: An option is out of range, or options exclude each other.
    """
    if standardize and experts is None:
        raise ValueError(
            "standardize=True needs experts' demonstrations, whose means and deviations stay the same: leave standardize "
            "out with SelfImitation alone"
        )
    if beyond_limit is None and ends == "live":
        beyond_limit = False
    if gradient_penalty is None:
        gradient_penalty = _STANDARDIZED_PENALTY if standardize else _PENALTY
    options: dict[str, Any] = {
        "updates": _checks.integer("updates", updates, least=1),
        "batch_size": _checks.integer("batch_size", batch_size, least=1),
        "buffer_size": _checks.integer("buffer_size", buffer_size, least=1),
        "gradient_penalty": checked_gradient_penalty(gradient_penalty),
        "learning_rate": checked_learning_rate(learning_rate),
        "hidden": list(_checks.widths("hidden", hidden)),
        "reward": _checks.choice("reward", reward, tuple(FUNCTIONS)),
        "center": _checks.flag("center", center),
        "keep_buffer": _checks.flag("keep_buffer", keep_buffer),
        "standardize": _checks.flag("standardize", standardize),
        "seed": _checks.integer("seed", seed, none=True),
        "inputs": _checks.choice("inputs", inputs, tuple(KINDS)),
        "ends": _checks.choice("ends", ends, ("live", "absorbing")),
        "gamma": _checked_gamma(gamma, beyond_limit),
        "beyond_limit": None if beyond_limit is None else _checks.flag("beyond_limit", beyond_limit),
    }
    if action_spaces is not None:
        agents = experts.agents if own is None else own.agents
        options["action_spaces"] = described_spaces(action_spaces, agents)
    if max_steps is not None:
        options["max_steps"] = _checks.integer("max_steps", max_steps, least=1)
    if own is not None:
        options["self_imitation"] = own.options
    return options


def _checked_gamma(gamma: Any, beyond_limit: Any) -> float:
    """A discount factor, below 1 where the absorbing state pays forever."""
    value = _checks.number("gamma", gamma, above=0)
    if value > 1 or (value == 1 and beyond_limit):
        raise ValueError(f"gamma must be at most 1, and below 1 with beyond_limit=True, got {gamma!r}")
    return value
