"""Gives a learner the buffer that excludes steps after its agent's death."""

from __future__ import annotations

from typing import Any

from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer, RolloutBuffer

from dm2_wrappers.sb3.present_pay import PresentPay, RelabelingReplayBuffer
from dm2_wrappers.sb3.replay_buffer import LiveReplayBuffer
from dm2_wrappers.sb3.rollout_buffers import LiveMaskableRolloutBuffer, LiveRecurrentRolloutBuffer, LiveRolloutBuffer
from dm2_wrappers.sb3.vec_env import AgentVecEnv

LIVE_BUFFERS: dict[type[Any], type[Any]] = {
    RolloutBuffer: LiveRolloutBuffer,
    MaskableRolloutBuffer: LiveMaskableRolloutBuffer,
    RecurrentRolloutBuffer: LiveRecurrentRolloutBuffer,
    ReplayBuffer: LiveReplayBuffer,
}


def use_live_buffer(
    model: BaseAlgorithm, env: AgentVecEnv, after_death: str = "earned", pay: PresentPay | None = None
) -> None:
    """Replace a newly built learner's buffer by one that excludes steps after the agent's death.

    Args:
        model: The learner.
        env: Its environment.
        after_death: "earned", "mean" or "critic"; see `dm2_wrappers.sb3.rollout_buffers`.
        pay: What stored steps are paid whenever they are sampled; None: what they were paid when played.

    Raises:
        ValueError: The learner's buffer is not one of SB3's or sb3-contrib's for flat observations.
    """
    name = "rollout_buffer" if hasattr(model, "rollout_buffer") else "replay_buffer"
    old = getattr(model, name)
    live_class = LIVE_BUFFERS.get(type(old))
    if live_class is None:
        raise ValueError(
            f"a learner's buffer must be one of {', '.join(base.__name__ for base in LIVE_BUFFERS)}, because steps after an "
            f"agent's death have to be excluded from it, got {type(old).__name__}"
        )
    shapes = {"observation_space": old.observation_space, "action_space": old.action_space, "device": old.device}
    if name == "replay_buffer":
        timeouts = old.handle_timeout_termination
        if pay is not None:
            live_class = RelabelingReplayBuffer
        buffer = live_class(old.buffer_size * old.n_envs, n_envs=1, handle_timeout_termination=timeouts, **shapes)
        buffer.gamma, buffer.pay = model.gamma, pay  # type: ignore[attr-defined]
    else:
        if isinstance(old, RecurrentRolloutBuffer):
            shapes["hidden_state_shape"] = old.hidden_state_shape
        estimates = {"gae_lambda": old.gae_lambda, "gamma": old.gamma}
        buffer = live_class(old.buffer_size, n_envs=old.n_envs, **estimates, **shapes)
    buffer.env = env
    setattr(model, name, buffer)
    set_after_death(model, env, after_death)


def reconnect(agent: str, model: BaseAlgorithm, env: AgentVecEnv, pay: PresentPay | None = None) -> None:
    """Check that a learner still has its environment and buffer; connect a replay buffer that the user has loaded.

    Args:
        agent: The agent's name, for the error.
        model: Its learner.
        env: Its environment.
        pay: As in `use_live_buffer`.

    Raises:
        ValueError: The learner was given another environment, or a buffer that no `IndependentLearners` made.
    """
    if model.get_env() is not env:
        raise ValueError(
            f"the learner of agent {agent!r} was given the environment {type(model.get_env()).__name__} with set_env(), but "
            "it can learn only in the team's environment: put wrappers around the multi-agent environment"
        )
    buffer = getattr(model, "replay_buffer", None)
    if buffer is None or getattr(buffer, "env", None) is env:
        return
    if not isinstance(buffer, LiveReplayBuffer):
        raise ValueError(
            f"the replay buffer of agent {agent!r} is a {type(buffer).__name__} that was not saved from a team, so it "
            "does not know at which steps the agent was alive; load one that model.save_replay_buffer() saved in a team"
        )
    if isinstance(buffer, RelabelingReplayBuffer) != (pay is not None):
        holds = "the environment's rewards alone" if pay is None else "rewards as they were paid when played"
        raise ValueError(
            f"the replay buffer loaded for agent {agent!r} holds {holds}: build the team with relabel={pay is None}, as the "
            "saved one"
        )
    spaces = ("observation_space", "action_space")
    if any(getattr(buffer, name).shape != getattr(model, name).shape for name in spaces) or buffer.n_envs != 1:
        raise ValueError(f"the replay buffer loaded for agent {agent!r} holds other observations or actions than its own")
    buffer.env, buffer.gamma = env, model.gamma  # type: ignore[attr-defined]
    if isinstance(buffer, RelabelingReplayBuffer):
        buffer.pay = pay


def set_after_death(model: BaseAlgorithm, env: AgentVecEnv, after_death: str) -> None:
    """Set how rewards after the agent's death are credited; off-policy learners have only one way."""
    if hasattr(model, "rollout_buffer"):
        model.rollout_buffer.after_death = after_death
        env.bootstrap_when_dead = after_death == "critic"
