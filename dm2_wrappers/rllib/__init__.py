"""RLlib glue: independent learners on Ray, with Algorithm 1 between their rollouts and their updates.

`DM2PPOConfig` is RLlib's ``PPOConfig`` with ``distribution_matching(...)``. Env runners play bare environments, in this
process or in others. The one matcher lives in the driver and sees the episodes of all of them.
"""

from dm2_wrappers._extras import require

require("ray.rllib", "rllib")

from dm2_wrappers.rllib.algorithm import DistributionMatchingMixin  # noqa: E402  after the check for the extra
from dm2_wrappers.rllib.config import DistributionMatchingConfigMixin  # noqa: E402
from dm2_wrappers.rllib.env import RLlibEnv  # noqa: E402
from dm2_wrappers.rllib.masked_module import MaskedPPOModule  # noqa: E402
from dm2_wrappers.rllib.policy import TeamPolicy  # noqa: E402
from dm2_wrappers.rllib.ppo import DM2PPO, DM2PPOConfig, IPPOConfig  # noqa: E402

__all__ = [
    "DM2PPO",
    "DM2PPOConfig",
    "DistributionMatchingConfigMixin",
    "DistributionMatchingMixin",
    "IPPOConfig",
    "MaskedPPOModule",
    "RLlibEnv",
    "TeamPolicy",
]
