"""One agent's training loop among the others': its callbacks, its log, how it ends, and whether it gets to train."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.logger import Logger, make_output_format
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import TrainFrequencyUnit

Callbacks = Mapping[str, BaseCallback] | Callable[[str], BaseCallback] | None


class AgentCallbacks(CallbackList):
    """One agent's callbacks, and how far its loop has got.

    Attributes:
        started: Whether training has begun; only what has begun may be told of its end.
        stopped: Whether a callback has said stop: SB3 then leaves the learner with the observation before the last.
    """

    started, stopped = False, False

    def _on_training_start(self) -> None:
        self.started = True
        super()._on_training_start()

    def _on_step(self) -> bool:
        go_on = super()._on_step()
        self.stopped = self.stopped or not go_on
        return go_on


def callbacks_of(agent: str, agents: tuple[str, ...], callback: Callbacks) -> list[BaseCallback]:
    """The user's callback for one agent, if there is one.

    Raises:
        ValueError: A single callback for all learners, or callbacks for unknown agents.
    """
    if isinstance(callback, BaseCallback):
        raise ValueError("an SB3 callback belongs to one learner: pass {agent: callback} or a function of the agent")
    if isinstance(callback, Mapping):
        unknown = set(callback) - set(agents)
        if unknown:
            raise ValueError(f"callbacks for unknown agents {sorted(unknown)}; the agents are {list(agents)}")
        return [callback[agent]] if agent in callback else []
    return [] if callback is None else [callback(agent)]


def log_into(model: Any, folder: str) -> None:
    """Let a learner without a logger of its own log into a folder, as CSV and for TensorBoard."""
    if not model._custom_logger:
        # A loaded team's log begins a file of its own: SB3 would overwrite the one that is there.
        suffix = f"_from_{model.num_timesteps}" if model.num_timesteps else ""
        model.set_logger(Logger(folder, [make_output_format(kind, folder, suffix) for kind in ("csv", "tensorboard")]))


def warn_of_idle_learners(models: Mapping[str, Any], total_timesteps: int) -> None:
    """Warn if an agent's first rollout would still be unfinished when another agent's loop ends: it would not train."""
    rollouts = {agent: _rollout_steps(model) for agent, model in models.items()}
    end = min(-(-total_timesteps // steps) * steps for steps in rollouts.values())
    idle = {agent: steps for agent, steps in rollouts.items() if steps > end}
    if idle:
        warnings.warn(
            f"total_timesteps={total_timesteps} ends after {end} steps, before the first rollout of {list(idle)} of "
            f"{max(idle.values())} steps: they do not train; learn for more steps at once or give them a smaller n_steps",
            UserWarning,
            stacklevel=3,
        )


def _rollout_steps(model: Any) -> int:
    """Environment steps, summed over copies, that a learner collects before it trains."""
    if isinstance(model, OnPolicyAlgorithm):
        return int(model.n_steps * model.n_envs)
    # An episode may be as short as one step.
    frequency = model.train_freq.frequency if model.train_freq.unit == TrainFrequencyUnit.STEP else 1
    return int(frequency * model.n_envs)
