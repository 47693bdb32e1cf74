"""What `check_dm2_learner` concludes from where the trained agents go."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.testing.bait_env import AGENTS
from dm2_wrappers.testing.faults import names, require

FOLLOWS = 0.25  # an agent that goes at least this far in its experts' direction follows them; the experts go 0.9


def check_following(places: NDArray[Any], directions: tuple[int, ...], mirrored: NDArray[Any]) -> float:
    """Every agent follows its experts, and turns round when these are mirrored.

    Args:
        places: How far each agent goes to the right, where the bait is, -1 to 1, [K].
        directions: Of its experts, -1 or 1.
        mirrored: How far each agent goes to the right when trained with the mirrored experts, [K].

    Returns:
        How far the agent that follows least goes in its experts' direction, in the worse of the two runs.
    """
    first, second = places * directions, mirrored * np.negative(directions)
    numbers = ", ".join(f"{agent} {a:.2f} and {b:.2f}" for agent, a, b in zip(AGENTS, first, second, strict=True))
    measured = f"with the experts and with the mirrored ones, it went {numbers} in their direction, where experts go 0.9"
    lost = [agent for agent, place in zip(AGENTS, np.minimum(first, second), strict=True) if place < FOLLOWS]
    if not lost:
        return float(np.minimum(first, second).min())
    if (places > FOLLOWS).all() and (mirrored > FOLLOWS).all():
        fault = "the agents went for the environment's reward although env_coefficient is 0: multiply that reward by it"
    elif (first < -FOLLOWS).all() and (second < -FOLLOWS).all():
        fault = "the agents went the other way than their experts: r_gail has the wrong sign"
    elif len(lost) == len(AGENTS):
        fault = "no agent follows its experts: r_gail does not reach the learners, or too weakly to learn in these steps"
    elif lost == list(AGENTS[:-1]):
        fault = "only the last agent follows its experts: r_gail of the others is lost, or they get each other's"
    else:
        verb = "does" if len(lost) == 1 else "do"
        fault = f"{names(lost)} {verb} not follow the experts: r_gail is lost, or goes to another agent (are they swapped?)"
    raise AssertionError(f"{fault} ({measured})")


def check_without_matching(places: NDArray[Any]) -> None:
    """With coefficient 0, every agent goes right, for the environment's reward, although all its experts go left.

    Args:
        places: How far each agent goes to the right, -1 to 1, [K].
    """
    numbers = ", ".join(f"{agent} {place:.2f}" for agent, place in zip(AGENTS, places, strict=True))
    copied = [agent for agent, place in zip(AGENTS, places, strict=True) if place < -FOLLOWS]
    require(
        not copied,
        f"with coefficient=0 the experts were followed by {names(copied)}: multiply r_gail by coefficient (1 is the "
        f"environment's optimum, -0.9 the experts' way: {numbers})",
    )
    idle = [agent for agent, place in zip(AGENTS, places, strict=True) if place < FOLLOWS]
    require(
        not idle,
        f"with coefficient=0 and env_coefficient=1 the environment's reward was not followed by {names(idle)}: it "
        f"does not reach the learner, or r_gail does although coefficient is 0 (1 is the optimum: {numbers})",
    )
