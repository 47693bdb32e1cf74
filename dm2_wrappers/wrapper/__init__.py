"""Wrappers that add DM2 to an environment: each agent's reward becomes r_env + c * r_gail.

This is Algorithm 1 "online": r_gail is computed at each step with the current discriminators, and ``update()`` (lines 8
and 9) trains the discriminators between rollouts. This works with any learner. `JointRollout` and ``dm2_wrappers.sb3`` have
the exact order of Algorithm 1, which computes the rewards of a rollout after the update.
"""

from dm2_wrappers.wrapper.parallel_env import DM2ParallelEnv
from dm2_wrappers.wrapper.vector_env import DM2VectorEnv

__all__ = ["DM2ParallelEnv", "DM2VectorEnv"]
