"""Any PettingZoo ``ParallelEnv`` as one of RLlib's multi-agent environments.

RLlib's own ``ParallelPettingZooEnv`` does not fit here: it knows only the agents that are there at the first reset, it
orders them by a set, and a time limit reaches the learners as a termination.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from dm2_wrappers.rng_state import derive_seed
from dm2_wrappers.unwrap import owns_matcher
from dm2_wrappers.vector.layout import Layout, check_parallel_env
from dm2_wrappers.vector.reader import ParallelReader

Dicts = tuple[dict[str, Any], dict[str, Any]]
Step = tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, Any]]


class RLlibEnv(MultiAgentEnv):
    """A ``ParallelEnv`` for RLlib.

    ``DM2PPOConfig().environment(make_env)`` uses it. With a configuration of RLlib's own, write
    ``PPOConfig().environment(RLlibEnv, env_config={"make_env": make_env})``. Nothing is registered, so closures work.

    * Agents that die or join late are agents that leave or appear. Those that stay after their death
      (``death="absorb"``) say so in ``infos[agent]["alive"]``.
    * The end of an episode at a time limit stays a truncation, after which PPO bootstraps.
    * Runners that are seeded alike play different episodes.

    Args:
        config: ``"make_env"``, a function without arguments that returns the ``ParallelEnv``. RLlib pickles it with
            cloudpickle for its processes.

    Attributes:
        env: The ``ParallelEnv``.
        first_actions: ``{agent: number}`` of the agents whose discrete actions do not begin with 0.

    Raises:
        ValueError: No ``make_env``, or an environment inside a DM2 wrapper.
        TypeError: ``make_env`` returns something else.
    """

    def __init__(self, config: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        make_env = (config or {}).get("make_env")
        if not callable(make_env):
            raise ValueError(
                "RLlibEnv needs a function that makes the ParallelEnv: call .environment(make_env), or "
                f'.environment(RLlibEnv, env_config={{"make_env": make_env}}); got {make_env!r}'
            )
        self.env = make_env()
        if owns_matcher(self.env):
            raise ValueError(
                "make_env returns a DM2 wrapper, but every env runner would train discriminators of its own: return the "
                "environment without it, and pass make_matcher to distribution_matching()"
            )
        check_parallel_env(self.env, "make_env() must return")
        self._reader = ParallelReader(self.env, Layout(self.env, flatten_actions=True))
        self.possible_agents = list(self.env.possible_agents)
        self.agents = self.possible_agents.copy()
        self.observation_spaces = {agent: self.env.observation_space(agent) for agent in self.possible_agents}
        own_actions = {agent: self.env.action_space(agent) for agent in self.possible_agents}
        # RLlib's policies count discrete actions from 0.
        self.first_actions = {a: int(s.start) for a, s in own_actions.items() if isinstance(s, spaces.Discrete) and s.start}
        self.action_spaces = {a: spaces.Discrete(int(s.n)) if a in self.first_actions else s for a, s in own_actions.items()}
        self.observation_space = spaces.Dict(self.observation_spaces)
        self.action_space = spaces.Dict(self.action_spaces)
        self._runner = str(getattr(config, "worker_index", 0))
        self._seen: set[str] = set()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Dicts:
        """Start an episode. RLlib seeds runner i's sub-environment j with seed + i + j, so the runner is mixed in."""
        seed = None if seed is None else derive_seed(seed, "runner", self._runner)
        observations, infos = self._reader.reset(seed, options)
        self._reader.read_reset(observations, infos)
        self.agents = self._present()
        self._seen = set(self.agents)
        return _of(self.agents, observations, infos)

    def step(self, action_dict: dict[str, Any]) -> Step:
        """Take one joint step.

        Raises:
            RuntimeError: All agents so far have left while others join, which RLlib takes for the episode's end; or an
                agent that has left comes back, which RLlib does not know.
            ValueError: The environment returned something that does not fit its spaces.
        """
        actions = {
            a: action + self.first_actions[a] if a in self.first_actions else action for a, action in action_dict.items()
        }
        acted = self.agents
        observations, rewards, terminations, truncations, infos = self._reader.step(actions)
        outcome = self._reader.read_step(observations, rewards, terminations, truncations, infos)
        self.agents = self._present()
        self._check_seen(acted)
        everybody = dict(zip(self.possible_agents, range(len(self.possible_agents)), strict=True))
        told = [agent for agent in everybody if agent in acted or agent in self.agents]
        ended = {agent: bool(outcome.terminations[everybody[agent]]) for agent in acted}
        cut = {agent: bool(outcome.truncations[everybody[agent]]) and not ended[agent] for agent in acted}
        over, at_limit = outcome.over, any(cut.values())
        # RLlib marks every agent as terminated once each one has a flag of its own, and then no agent bootstraps. At a
        # joint time limit the flag of the whole episode stands for those of the agents.
        ended["__all__"] = over and not at_limit
        cut = {"__all__": True} if over and at_limit else {**cut, "__all__": False}
        paid = {agent: float(outcome.rewards[everybody[agent]]) for agent in told if agent in acted or agent in rewards}
        seen, infos = _of(told, observations, infos)
        return seen, paid, ended, cut, infos

    def _present(self) -> list[str]:
        """The agents that act next, in the environment's order."""
        return [agent for agent, present in zip(self.possible_agents, self._reader.present, strict=True) if present]

    def _check_seen(self, acted: list[str]) -> None:
        """Refuse what RLlib's episodes cannot hold."""
        if self.agents and not self._seen.intersection(self.agents):
            raise RuntimeError(
                f"all agents have left, and {self.agents} join in the same step: RLlib ends the episode there; end it in "
                "the environment, or let one agent stay"
            )
        if back := [agent for agent in self.agents if agent in self._seen and agent not in acted]:
            raise RuntimeError(
                f"{back} come back in the episode that they left, which RLlib does not know: let them stay as dead agents, "
                'with infos[agent]["alive"] = False'
            )
        self._seen.update(self.agents)

    def render(self) -> Any:
        """What the ``ParallelEnv`` draws."""
        return self.env.render()

    def close(self) -> None:
        """Close the ``ParallelEnv``."""
        self.env.close()


def _of(agents: list[str], observations: Mapping[str, Any], infos: Mapping[str, Any] | None) -> Dicts:
    """These agents' observations, where the environment gave one, and infos, in new dicts."""
    seen = {agent: observations[agent] for agent in agents if observations.get(agent) is not None}
    return seen, {agent: dict((infos or {}).get(agent) or {}) for agent in seen}


def observation_size(agent: str, space: spaces.Space) -> int:
    """The number of features of an agent's observation, without its action mask.

    Raises:
        ValueError: Neither a ``Box`` nor ``{"observation": Box, "action_mask": ...}``.
    """
    box = space["observation"] if isinstance(space, spaces.Dict) and "observation" in space.spaces else space
    if not isinstance(box, spaces.Box):
        raise ValueError(
            f'the observation of agent {agent!r} must be a Box or a Dict with "observation" and "action_mask", got {space}'
        )
    return int(np.prod(box.shape))
