"""Distribution matching: discriminators, the transitions they are trained on, and the reward that they pay."""

from dm2_wrappers.matching.after_step import AfterStep
from dm2_wrappers.matching.coefficient import Coefficient
from dm2_wrappers.matching.convergence import Convergence
from dm2_wrappers.matching.discriminators import Discriminators
from dm2_wrappers.matching.joint_rollout import JointRollout
from dm2_wrappers.matching.matcher import DistributionMatcher
from dm2_wrappers.matching.pending_steps import PendingSteps
from dm2_wrappers.matching.self_imitation import SelfImitation

__all__ = [
    "AfterStep",
    "Coefficient",
    "Convergence",
    "Discriminators",
    "DistributionMatcher",
    "JointRollout",
    "PendingSteps",
    "SelfImitation",
]
