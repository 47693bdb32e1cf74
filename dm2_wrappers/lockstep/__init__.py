"""K single-agent training loops in lockstep on one multi-agent environment."""

from dm2_wrappers.lockstep.agent_env import AgentVectorEnv, AgentView
from dm2_wrappers.lockstep.scheduler import JointStep, Lockstep, LoopStopped

__all__ = ["AgentVectorEnv", "AgentView", "JointStep", "Lockstep", "LoopStopped"]
