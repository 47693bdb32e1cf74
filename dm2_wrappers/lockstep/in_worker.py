"""A lockstep's part in a worker process: the loops of some agents, while the joint environment is in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gymnasium import spaces

from dm2_wrappers.lockstep.scheduler import Act, JointStep, Lockstep, Reset
from dm2_wrappers.vector import MultiAgentVectorEnv


@dataclass(frozen=True)
class Outline:
    """What agents' views of the joint environment need to know of it, for processes that do not have it."""

    num_envs: int
    possible_agents: tuple[str, ...]
    observation_spaces: Mapping[str, spaces.Box]
    action_spaces: Mapping[str, spaces.Space[Any]]

    @classmethod
    def of(cls, env: MultiAgentVectorEnv) -> Outline:
        """The outline of an environment."""
        agents = env.possible_agents
        observation_spaces = {agent: env.observation_spaces[agent] for agent in agents}
        action_spaces = {agent: env.action_spaces[agent] for agent in agents}
        return cls(env.num_envs, agents, observation_spaces, action_spaces)


def state_of(lockstep: Lockstep, *, stepped: bool) -> dict[str, Any]:
    """Where the joint environment is now, as `LockstepInWorker.follow` takes it.

    Args:
        lockstep: The lockstep of the environment's process.
        stepped: Whether it has just stepped. The step's observations are left out, because the workers have them.
    """
    step = {name: value for name, value in vars(lockstep.last_step).items() if name != "observations"} if stepped else None
    names = ("observations", "present", "infos", "resets")
    return {**{name: getattr(lockstep, name) for name in names}, "step": step}


class LockstepInWorker(Lockstep):
    """Runs the loops of some agents, in the same turns as the others' in other processes.

    Args:
        outline: The joint environment, which is elsewhere.
        agents: The agents whose loops run here.
        exchange: Hands over what these loops ask for, and returns what `state_of` then returns.
    """

    def __init__(
        self,
        outline: Outline,
        agents: Sequence[str],
        exchange: Callable[[Mapping[str, Reset | Act]], Mapping[str, Any]],
    ) -> None:
        super().__init__(outline)  # type: ignore[arg-type]
        self.agents = tuple(agents)
        self._exchange = exchange

    def follow(self, state: Mapping[str, Any]) -> None:
        """Take over where the joint environment is now."""
        if state["step"] is not None:
            assert self.observations is not None
            self.last_step = JointStep(observations=self.observations, **state["step"])
        self.observations, self.present = state["observations"], state["present"]
        self.infos, self.resets = state["infos"], state["resets"]

    def _answer(self, requests: Mapping[str, Reset | Act]) -> dict[str, Any]:
        state = self._exchange(requests)
        self.follow(state)
        return dict.fromkeys(requests, None if state["step"] is None else self.last_step)
