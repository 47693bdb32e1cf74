"""One call of ``learn``: K training loops of SB3's in lockstep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from dm2_wrappers.lockstep import Lockstep, LoopStopped
from dm2_wrappers.lockstep.scheduler import Elsewhere
from dm2_wrappers.sb3.callbacks import AgentCallbacks


def run_loops(
    lockstep: Lockstep,
    models: Mapping[str, BaseAlgorithm],
    callbacks: Mapping[str, Sequence[BaseCallback]],
    total_timesteps: int,
    *,
    elsewhere: Elsewhere | None = None,
    **learn_kwargs: Any,
) -> bool:
    """Train all agents until the first loop ends.

    Args:
        lockstep: The joint environment.
        models: The learners.
        callbacks: Each agent's callbacks.
        total_timesteps: Passed to every ``model.learn``.
        elsewhere: The other agents' loops, in other processes.
        **learn_kwargs: Passed to every ``model.learn``.

    Returns:
        Whether all loops came to their own ends; else some learners were stopped in the middle of a rollout.

    Raises:
        Exception: Whatever one agent's loop raised, with a note that names the agent.
    """
    lists = {agent: AgentCallbacks(list(callbacks[agent])) for agent in models}
    loops = {
        agent: partial(_learn_one, model, lists[agent], total_timesteps, learn_kwargs) for agent, model in models.items()
    }
    ended = lockstep.run(loops, elsewhere)
    return all(ended.values()) and not any(each.stopped for each in lists.values())


def _learn_one(model: BaseAlgorithm, callback: AgentCallbacks, total_timesteps: int, learn_kwargs: dict[str, Any]) -> bool:
    """One agent's loop; true if it came to its own end."""
    try:
        model.learn(total_timesteps, callback=callback, **learn_kwargs)
    except LoopStopped:
        if callback.started:
            callback.on_training_end()
        raise
    return True
