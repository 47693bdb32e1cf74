"""Gymnasium environments as PettingZoo ones: of one agent, or of several in Gymnasium's interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv

from dm2_wrappers import _checks


def from_gymnasium(env: gymnasium.Env[Any, Any], *, multi_agent: bool = False) -> GymnasiumParallelEnv:
    """A Gymnasium environment as a PettingZoo ``ParallelEnv``.

    With one agent (K = 1), DM2 is GAIL on observations. Its name is "agent_0".

    Some multi-agent packages, such as ``lbforaging`` and ``rware``, use Gymnasium's interface with one part for each agent:
    spaces, observations and actions are tuples, and ``step`` returns a list of rewards. Pass ``multi_agent=True`` for
    these. Their agents are "agent_0", "agent_1", ...

    Example:
        >>> import gymnasium
        >>> import dm2_wrappers as dm2
        >>> venv = dm2.vectorize(lambda: dm2.envs.from_gymnasium(gymnasium.make("CartPole-v1")), num_envs=4)
        >>> venv.possible_agents, venv.observation_sizes
        (('agent_0',), (4,))

    Args:
        env: The environment, as ``gymnasium.make`` returns it.
        multi_agent: Whether its spaces are ``Tuple`` with one part for each agent.

    Raises:
        TypeError: ``env`` is not a ``gymnasium.Env``.
        ValueError: ``multi_agent`` is True, but the spaces are not tuples of the same length.
    """
    return GymnasiumParallelEnv(env, multi_agent=multi_agent)


class GymnasiumParallelEnv(ParallelEnv):
    """What `from_gymnasium` returns.

    The episode ends for all agents at once. Each agent's info is a copy of the environment's, so an ``"action_mask"`` in it
    is used.

    Attributes:
        env: The Gymnasium environment.
        env_id: Its name, such as "CartPole-v1".
        max_steps: Its time limit in steps, as registered; None if it has none.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], *, multi_agent: bool = False) -> None:
        if not isinstance(env, gymnasium.Env):
            advice = "make it with gymnasium.make"
            if isinstance(env, gymnasium.vector.VectorEnv):
                advice = "pass one environment, and batch with vectorize(lambda: from_gymnasium(...), num_envs)"
            raise TypeError(f"from_gymnasium takes a gymnasium.Env, got {type(env).__name__}; {advice}")
        self.env = env
        self._multi_agent = _checks.flag("multi_agent", multi_agent)
        self.env_id = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
        self.max_steps = None if env.spec is None else env.spec.max_episode_steps
        self.metadata = {**env.metadata, "name": self.env_id}
        self.render_mode = env.render_mode
        observed, done = self._spaces()
        self.possible_agents = [f"agent_{k}" for k in range(len(observed))]
        self.agents: list[str] = []
        self.observation_spaces = dict(zip(self.possible_agents, observed, strict=True))
        self.action_spaces = dict(zip(self.possible_agents, done, strict=True))

    def _spaces(self) -> tuple[Sequence[spaces.Space[Any]], Sequence[spaces.Space[Any]]]:
        """Each agent's observation space and action space."""
        observed, done = self.env.observation_space, self.env.action_space
        if not self._multi_agent:
            return [observed], [done]
        tuples = isinstance(observed, spaces.Tuple) and isinstance(done, spaces.Tuple)
        if tuples and len(observed.spaces) == len(done.spaces) > 0:  # type: ignore[attr-defined]
            return observed.spaces, done.spaces  # type: ignore[attr-defined]
        raise ValueError(
            f"multi_agent=True needs spaces that are Tuple, with one part for each agent, but {self.env_id!r} has the "
            f"observation space {observed} and the action space {done}"
        )

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """The agent's part of the environment's space."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """The agent's part of the environment's space."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start a new episode."""
        observation, info = self.env.reset(seed=seed, options=options)
        self.agents = list(self.possible_agents)
        return self._of_agents("observations", observation), {agent: dict(info) for agent in self.agents}

    def step(self, actions: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """Take one step of all agents."""
        if not self.agents:
            return {}, {}, {}, {}, {}
        agents = self.agents
        joint = tuple(actions[agent] for agent in agents)
        observation, reward, terminated, truncated, info = self.env.step(joint if self._multi_agent else joint[0])
        ends = self._for_all("terminated", terminated), self._for_all("truncated", truncated)
        self.agents = [] if any(ends) else agents
        return (
            self._of_agents("observations", observation),
            {agent: float(own) for agent, own in self._of_agents("rewards", reward).items()},
            dict.fromkeys(agents, ends[0]),
            dict.fromkeys(agents, ends[1]),
            {agent: dict(info) for agent in agents},
        )

    def render(self) -> Any:
        """What the environment renders."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _of_agents(self, what: str, joint: Any) -> dict[str, Any]:
        """Each agent's part."""
        parts = joint if self._multi_agent else [joint]
        if not isinstance(parts, Sequence | np.ndarray) or len(parts) != len(self.possible_agents):
            raise ValueError(f"{self.env_id!r} must return {what} of {len(self.possible_agents)} agents, got {parts!r}")
        return dict(zip(self.possible_agents, parts, strict=True))

    def _for_all(self, what: str, flag: Any) -> bool:
        """One flag for all agents, which the environment may return once or for each agent."""
        flags = np.unique(np.asarray(flag, dtype=bool))
        if len(flags) != 1:
            raise ValueError(
                f"{self.env_id!r} returned {what}={flag!r}, but an episode must end for all agents at once; write a "
                "ParallelEnv in which agents leave"
            )
        return bool(flags[0])
