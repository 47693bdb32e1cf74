"""Stable-Baselines3 glue: one unmodified SB3 algorithm object per agent, or one for all agents."""

from dm2_wrappers._extras import require

require("stable_baselines3", "sb3")
require("sb3_contrib", "sb3")
require("greenlet", "sb3")

from dm2_wrappers.sb3.learners import IndependentLearners  # noqa: E402  after the check for the extra
from dm2_wrappers.sb3.pretraining import pretrain  # noqa: E402
from dm2_wrappers.sb3.shared_policy import SharedPolicy, SharedPolicyDM2  # noqa: E402
from dm2_wrappers.sb3.shared_vec_env import SharedPolicyVecEnv  # noqa: E402

__all__ = ["IndependentLearners", "SharedPolicy", "SharedPolicyDM2", "SharedPolicyVecEnv", "pretrain"]
