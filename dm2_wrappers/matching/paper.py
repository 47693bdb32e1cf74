"""The paper's settings for its SMAC scenarios."""

from __future__ import annotations

from typing import Any

import numpy as np

from dm2_wrappers.demonstrations import Demonstrations

# The reward mixture coefficients c, by scenario.
COEFFICIENTS = {"3s_vs_3z": 0.3, "3s_vs_4z": 0.05, "3s_vs_5z": 0.1, "5m_vs_6m": 0.3, "8m_vs_9m": 0.4}
# Episodes between two updates, and SMAC's time limits in steps. Where the paper does not give the number of episodes, it
# is 1,024, the size of the paper's buffer of policy episodes.
ROLLOUTS = {
    "3s_vs_3z": (1024, 150),
    "3s_vs_4z": (1024, 200),
    "3s_vs_5z": (1024, 250),
    "5m_vs_6m": (256, 70),
    "8m_vs_9m": (1024, 120),
}


def settings(demonstrations: Demonstrations, scenario: str) -> dict[str, Any]:
    """The options of a `DistributionMatcher`: 120 minibatches of 64 episodes per side, the raw logit, absorbing ends.

    A minibatch has as many transitions as an agent lives through in 64 episodes of the demonstrations. The policy's side
    comes from the last rollout only. `DistributionMatcher.paper` says how this compares with the paper's code.

    Raises:
        ValueError: Not one of the paper's scenarios.
    """
    if scenario not in ROLLOUTS:
        raise ValueError(f"the paper has no settings for {scenario!r}, only for {sorted(ROLLOUTS)}")
    episodes, limit = ROLLOUTS[scenario]
    live = np.mean([len(demonstrations.observations(agent)) for agent in demonstrations.agents])
    return {
        "updates": 120,
        "batch_size": max(1, round(64 * float(live) / len(demonstrations))),
        "buffer_size": episodes * limit,
        "center": False,
        "keep_buffer": False,
        "ends": "absorbing",
        "max_steps": limit,
    }
