"""The callbacks of one agent's training loop: the user's, in each of SB3's forms, and the library's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback

from dm2_wrappers.lockstep import Lockstep
from dm2_wrappers.sb3.resting import learn_again, skip_training
from dm2_wrappers.sb3.vec_env import AgentVecEnv, innermost
from dm2_wrappers.vector.base import own_rewards
from dm2_wrappers.wrapper import DM2VectorEnv

# What SB3 takes for one learner: a callback, a list of them, a function of (locals, globals), or None.
AgentCallback = BaseCallback | Sequence[BaseCallback] | Callable[[dict[str, Any], dict[str, Any]], bool] | None
Callbacks = Mapping[str, AgentCallback] | Callable[[str], AgentCallback] | None


class AgentCallbacks(CallbackList):
    """One agent's callbacks, and the state of its loop.

    Attributes:
        started: Whether training has begun. Only then are callbacks told of its end.
        stopped: Whether a callback has ended training. SB3 then leaves the learner with the last observation but one.
    """

    started, stopped = False, False

    def _on_training_start(self) -> None:
        self.started = True
        super()._on_training_start()

    def _on_step(self) -> bool:
        go_on = super()._on_step()
        self.stopped = self.stopped or not go_on
        return go_on


class LogOnline(BaseCallback):
    """Logs one agent's discriminator metrics and mean rewards in an online run, under the names that an exact run has.

    The means are taken over the agent's live steps since the last log.

    Args:
        env: The wrapper that pays the rewards.
        lockstep: Knows the last joint step.
        index: The agent's place on the agent axis.
        agent: Its name.
    """

    def __init__(self, env: DM2VectorEnv, lockstep: Lockstep, index: int, agent: str) -> None:
        super().__init__()
        self.env, self.lockstep, self.index, self.agent = env, lockstep, index, agent
        self._sums = {"dm2/env_reward": 0.0, "dm2/gail_reward": 0.0}
        self._count = 0

    def _on_step(self) -> bool:
        step = self.lockstep.last_step
        assert step is not None
        logged = "dm2/env_reward" not in self.logger.name_to_value  # SB3's logger forgets what it has written
        if logged:
            self._sums, self._count = dict.fromkeys(self._sums, 0.0), 0
        live = step.alive[:, self.index]
        self._count += int(live.sum())
        paid = {"dm2/env_reward": own_rewards(step.infos, step.rewards), "dm2/gail_reward": step.infos["gail_reward"]}
        for name, rewards in paid.items():
            self._sums[name] += float(rewards[live, self.index].sum())
            if self._count:
                self.logger.record(name, self._sums[name] / self._count)
        suffix = f"/{self.agent}"
        for name, value in self.env.metrics.items():
            if name.endswith(suffix):
                self.logger.record(f"dm2/{name.removesuffix(suffix)}", value)
        # After the metrics, whose c is that of the last update: it may have been assigned since.
        self.logger.record("dm2/coefficient", self.env.current_coefficient[self.agent])
        return True


class CountWins(BaseCallback):
    """Adds the episodes that the agent left before their end to ``rollout/success_rate``.

    SB3 counts a win or defeat when the agent is done. If it leaves early, the outcome is not known then.

    Args:
        env: The agent's environment.
    """

    def __init__(self, env: AgentVecEnv) -> None:
        super().__init__()
        self.env = env

    def _on_step(self) -> bool:
        step, infos = self.env.last_step, self.locals["infos"]
        left = (step.won >= 0) & [not info for info in infos]
        self.model.ep_success_buffer.extend(step.won[left].astype(float))  # type: ignore[union-attr]
        return True


class PauseWithoutSteps(BaseCallback):
    """Keeps a learner unchanged while it has no step to learn from, because its agent was absent or dead throughout.

    SB3's training loops do not expect an empty buffer. An off-policy learner does not train until its buffer has a step. An
    on-policy learner trains on a meaningless minibatch, and gets its weights and optimizers back afterwards.
    """

    def __init__(self) -> None:
        super().__init__()
        self._parameters: dict[str, Any] | None = None

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        model: Any = self.model
        if hasattr(model, "rollout_buffer"):
            if not model.rollout_buffer.learnable().any():
                self._parameters = _copied(model.get_parameters())
        elif model.replay_buffer.size() == 0:
            skip_training(model)

    def _on_rollout_start(self) -> None:
        self._undo()

    def _on_training_end(self) -> None:
        self._undo()

    def _undo(self) -> None:
        model: Any = self.model
        if self._parameters is not None:
            model.set_parameters(self._parameters, exact_match=True, device=model.device)
            self._parameters = None
        elif not hasattr(model, "rollout_buffer"):
            learn_again(model)


def agent_callbacks(of_mode: BaseCallback | None, env: AgentVecEnv, of_user: Sequence[BaseCallback]) -> list[BaseCallback]:
    """One agent's callbacks: ours first, so that the user's see the mixed rewards.

    Args:
        of_mode: The one that mixes them; None without a matcher.
        env: The agent's environment.
        of_user: The user's.
    """
    return [*([] if of_mode is None else [of_mode]), PauseWithoutSteps(), CountWins(env), *of_user]


def _copied(value: Any) -> Any:
    """State dicts whose tensors are copies; training changes the originals in place."""
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(each) for each in value)
    return value.detach().clone() if hasattr(value, "detach") else value


def user_callbacks(callback: Callbacks, agents: Sequence[str]) -> dict[str, list[BaseCallback]]:
    """Each agent's callbacks, as a list.

    Args:
        callback: ``{agent: callback}`` or a function from an agent's name to its callback; see `AgentCallback`.
        agents: The agents.

    Raises:
        ValueError: ``callback`` has another form, is for unknown agents, or has one callback object for two agents.
    """
    form = "pass {agent: callback} or a function of the agent, e.g. callback=lambda agent: MyCallback()"
    if callback is None:
        return {agent: [] for agent in agents}
    if isinstance(callback, Mapping):
        if unknown := set(callback) - set(agents):
            raise ValueError(f"got callbacks for unknown agents {sorted(map(str, unknown))}; the agents are {list(agents)}")
        chosen = {agent: callback.get(agent) for agent in agents}
    elif isinstance(callback, BaseCallback | Sequence):
        raise ValueError(f"an SB3 callback belongs to one learner, but this would be shared by {len(agents)}: {form}")
    elif not callable(callback) or _takes_locals(callback):
        raise ValueError(f"callback must be given for each agent: {form}")
    else:
        chosen = {agent: callback(agent) for agent in agents}
    lists = {agent: _as_list(agent, one) for agent, one in chosen.items()}
    owners: dict[int, str] = {}
    for agent, each in lists.items():
        for one in each:
            _refuse_training_env(agent, one)
            if owners.setdefault(id(one), agent) != agent:
                raise ValueError(
                    f"the same callback object was given to {owners[id(one)]!r} and {agent!r}, but an SB3 callback belongs "
                    "to one learner: make a new one for each agent"
                )
    return lists


def _refuse_training_env(agent: str, callback: BaseCallback) -> None:
    if isinstance(innermost(getattr(callback, "eval_env", None)), AgentVecEnv):
        raise ValueError(
            f"the {type(callback).__name__} of agent {agent!r} would evaluate in the training environment, without the "
            "other agents: call team.evaluate(other_env) in a callback of one agent, or between two calls of learn()"
        )
    for inner in (*getattr(callback, "callbacks", ()), getattr(callback, "callback", None)):
        if isinstance(inner, BaseCallback):
            _refuse_training_env(agent, inner)


def _takes_locals(function: Any) -> bool:
    """Whether this is a callback function of SB3's, of (locals, globals), rather than a function of the agent."""
    try:
        inspect.signature(function).bind("agent")
    except TypeError:
        return True
    except ValueError:  # no signature
        return False
    return False


def _as_list(agent: str, callback: Any) -> list[BaseCallback]:
    if callback is None:
        return []
    if isinstance(callback, BaseCallback):
        return [callback]
    if isinstance(callback, Sequence) and not isinstance(callback, str):
        return [each for one in callback for each in _as_list(agent, one)]
    if callable(callback) and not isinstance(callback, type):
        return [ConvertCallback(callback)]
    raise ValueError(
        f"the callback of agent {agent!r} must be an SB3 callback, a list of them, a function of (locals, globals) or None, "
        f"got {callback!r}"
    )
