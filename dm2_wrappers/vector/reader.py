"""Checks what a ParallelEnv returns against its spaces and puts it into arrays. All environments are read here.

**Which agents are present.** An agent is present if it is in ``env.agents`` and has not been terminated or truncated since
it last joined ``env.agents``. Present agents act next. An agent that was not in ``env.agents`` before has joined. An agent
that is no longer in it has left, even if the environment did not report a termination or truncation. Entries of the dicts
for agents that neither acted nor are present now are ignored. The joint episode is over when no agent is present.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers.vector.layout import Layout
from dm2_wrappers.vector.ordinary_step import LARGEST_NUMBER, OrdinaryStep
from dm2_wrappers.vector.outcome import Outcome, Seen, episode_news
from dm2_wrappers.vector.reset_arguments import reset_options
from dm2_wrappers.vector.spaces import action_mask, as_array, checked_mask, flatten, shown


class ParallelReader:
    """Reads what one ParallelEnv returns.

    Args:
        env: The environment.
        layout: How its agents and spaces map to arrays.
        name: What to call it in errors, such as "sub-environment 3".

    Attributes:
        present: The agents that act next, [K].
    """

    def __init__(self, env: Any, layout: Layout, name: str = "") -> None:
        self.env, self.layout = env, layout
        self._name = f"the environment {layout.env_id!r}" + (f" ({name})" if name else "")
        self._index = {agent: k for k, agent in enumerate(layout.agents)}
        self._shape = (len(layout.agents), max(layout.sizes))
        self._ended = np.zeros(self._shape[0], dtype=bool)  # by the newest report about each agent in env.agents
        self.present = np.zeros(self._shape[0], dtype=bool)
        self._ordinary: OrdinaryStep | None = None  # of the agents that are present now

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> list[Any]:
        """Reset the environment and return its raw observations and infos. What is None is not passed on.

        Raises:
            ValueError: A seed that is not an integer, or a result of another form.
            TypeError: ``options`` is not a dict, or the environment's ``reset`` does not take an argument.
        """
        seed, options = _checks.integer("seed", seed, none=True), reset_options(options)
        given = {name: value for name, value in (("seed", seed), ("options", options)) if value is not None}
        try:
            result = self.env.reset(**given)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            raise TypeError(
                f"{self._name} must take seed and options in reset(), as PettingZoo's ParallelEnv does: {error}"
            ) from error
        self._check_possible_agents()
        return self._parts(result, "(observations, infos)", "reset")

    def _check_possible_agents(self) -> None:
        listed = self.env.possible_agents
        if len(listed) != len(self.layout.agents) or set(listed) != set(self.layout.agents):
            raise ValueError(
                f"{self._name} had possible_agents {list(self.layout.agents)} when it was wrapped, and {list(listed)} after "
                "reset(): list every agent that can ever take part, from the beginning"
            )

    def step(self, actions: Mapping[str, Any]) -> list[Any]:
        """Step the environment and return its raw observations, rewards, terminations, truncations and infos."""
        names = "(observations, rewards, terminations, truncations, infos)"
        return self._parts(self.env.step(actions), names, "step")

    def read_reset(self, observations: Any, infos: Any) -> Seen:
        """What the agents see at an episode's start.

        Raises:
            ValueError: An answer that does not fit the agent's spaces; the message names environment and agent.
        """
        observations, infos = self._mapping("observations", observations), self._mapping("infos", infos)
        self._ended[:] = False
        self._find_present()
        if not self.present.any():
            raise ValueError(f"{self._name} has no agents after reset(); at least one must start the episode")
        return self._seen(observations, infos)

    def read_step(self, observations: Any, rewards: Any, terminations: Any, truncations: Any, infos: Any) -> Outcome:
        """What a joint step of the agents that were present led to.

        Raises:
            ValueError: An answer that does not fit the agent's spaces; the message names environment and agent.
        """
        if self._ordinary is not None and self._ordinary.goes_on(getattr(self.env, "agents", None)):
            outcome = self._ordinary.read(observations, rewards, terminations, truncations, infos)
            if outcome is not None:
                return outcome
        acted = self.present
        observations, rewards = self._mapping("observations", observations), self._mapping("rewards", rewards)
        terminations = self._mapping("terminations", terminations)
        truncations, infos = self._mapping("truncations", truncations), self._mapping("infos", infos)
        flags = np.zeros((2, self._shape[0]), dtype=bool)
        for agent, k in self._index.items():
            if agent in terminations or agent in truncations:
                flags[0, k] = self._flag("termination", agent, terminations.get(agent, False))
                flags[1, k] = self._flag("truncation", agent, truncations.get(agent, False))
                self._ended[k] = flags[:, k].any()
        self._find_present()
        seen = self._seen(observations, infos)
        # An agent that left without a flag died. The flags of an agent that was not there are not about its actions.
        flags[:, ~acted] = False
        flags[0] |= ~seen.present & ~flags.any(axis=0)
        final, final_alive = seen.observations.copy(), seen.alive.copy()
        paid = np.zeros(self._shape[0])
        env_paid: dict[int, float] = {}
        for k in map(int, np.flatnonzero(acted | seen.present)):
            agent = self.layout.agents[k]
            info = self._info(agent, infos)
            if agent in rewards:
                paid[k] = self._number("reward", agent, rewards[agent])
            elif acted[k] and (seen.present[k] or agent in terminations or agent in truncations):
                raise ValueError(f"{self._name} returned no reward for agent {agent!r}, which acted in this step")
            if "env_reward" in info:
                env_paid[k] = self._number("env_reward in infos", agent, info["env_reward"])
            if not seen.present[k] and observations.get(agent) is not None:
                self._put(final, k, observations[agent])
                final_alive[k] = self._flag("alive in infos", agent, info.get("alive", not flags[0, k]))
        self._check_finite(final)
        try:
            broken, won = episode_news(infos)
        except ValueError as error:
            raise ValueError(f"{self._name} returned {error}") from None
        return Outcome(
            seen=seen,
            final_observations=final,
            final_alive=final_alive,
            rewards=paid,
            env_rewards=np.array([env_paid.get(k, paid[k]) for k in range(len(paid))]) if env_paid else None,
            terminations=flags[0],
            truncations=flags[1],
            broken=broken,
            won=won,
        )

    def _find_present(self) -> None:
        """Find out who acts next: who is in ``env.agents`` and was not reported as ended."""
        agents = getattr(self.env, "agents", None)
        if agents is None:
            raise ValueError(f"{self._name} must list the agents that act next in its attribute agents, but has none")
        listed = np.zeros(self._shape[0], dtype=bool)
        for agent in agents:
            if agent not in self._index:
                raise ValueError(
                    f"{self._name} has {agent!r} in agents, which is not in possible_agents {list(self.layout.agents)}"
                )
            listed[self._index[agent]] = True
        self.present = listed & ~self._ended
        self._ended &= listed  # an agent that has left may come back
        if self._ordinary is None or not self._ordinary.of(agents, self.present):
            self._ordinary = OrdinaryStep.possible(self.layout, agents, self.present)

    def _seen(self, observations: Mapping[str, Any], infos: Mapping[str, Any]) -> Seen:
        layout, present = self.layout, self.present
        rows, alive = np.zeros(self._shape, np.float32), np.zeros(self._shape[0], dtype=bool)
        masks = None
        if layout.discrete:
            masks = np.zeros((self._shape[0], max(layout.action_sizes)), dtype=bool)
            masks[~present, 0] = True
        for k in map(int, np.flatnonzero(present)):
            agent = layout.agents[k]
            if agent not in observations:
                raise ValueError(f"{self._name} returned no observation for agent {agent!r}, which is in env.agents")
            info = self._info(agent, infos)
            self._put(rows, k, observations[agent])
            alive[k] = self._flag("alive in infos", agent, info.get("alive", True))
            if masks is not None:
                self._put_mask(masks, k, action_mask(observations[agent], info), bool(alive[k]))
        self._check_finite(rows)
        return Seen(rows, present, alive, masks)

    def _put(self, rows: NDArray[np.float32], k: int, observation: Any) -> None:
        agent = self.layout.agents[k]
        try:
            features = flatten(self.layout.native_observation_spaces[agent], observation)
        except ValueError as error:
            raise ValueError(
                f"{self._name} returned an observation of agent {agent!r} that is not in its observation_space: {error}"
            ) from None
        rows[k, : len(features)] = features

    def _check_finite(self, rows: NDArray[np.float32]) -> None:
        if not np.isfinite(rows).all():
            k, feature = np.argwhere(~np.isfinite(rows))[0]
            raise ValueError(
                f"{self._name} returned an observation of agent {self.layout.agents[k]!r} whose feature {feature} is "
                f"{rows[k, feature]}: expected finite numbers within float32"
            )

    def _put_mask(self, masks: NDArray[np.bool_], k: int, mask: Any, alive: bool) -> None:
        size, agent = self.layout.action_sizes[k], self.layout.agents[k]
        if mask is None:
            masks[k, :size] = True
            return
        masks[k, :size] = checked_mask(mask, size, agent, alive, f"{self._name} returned")

    def _number(self, what: str, agent: str, value: Any) -> float:
        array = as_array(value)
        if array.size != 1 or array.dtype.kind not in "biuf" or not abs(float(array.reshape(()))) <= LARGEST_NUMBER:
            raise ValueError(
                f"{self._name} returned the {what} {shown(value)} for agent {agent!r}: expected one finite number within "
                "float32"
            )
        return float(array.reshape(()))

    def _flag(self, what: str, agent: str, value: Any) -> bool:
        if value is True or value is False:
            return value
        array = as_array(value)
        if array.size != 1 or array.dtype.kind not in "biuf" or array.reshape(()) not in (0, 1):
            raise ValueError(f"{self._name} returned the {what} {shown(value)} for agent {agent!r}: expected True or False")
        return bool(array.reshape(()))

    def _info(self, agent: str, infos: Mapping[str, Any]) -> Mapping[str, Any]:
        info = infos.get(agent)
        if info is None:
            return {}
        if not isinstance(info, Mapping):
            raise ValueError(f"{self._name} must return the info of agent {agent!r} as a dict, got {_form(info)}")
        return info

    def _mapping(self, what: str, value: Any) -> Mapping[str, Any]:
        if value is None and what == "infos":
            return {}
        if not isinstance(value, Mapping):
            raise ValueError(f"{self._name} must return {what} as a dict with the agents' names, got {_form(value)}")
        if what in ("observations", "rewards") and not value.keys() <= self._index.keys():
            unknown = next(agent for agent in value if agent not in self._index)
            raise ValueError(
                f"{self._name} returned {what} of {unknown!r}, which is not in possible_agents {list(self.layout.agents)}"
            )
        return value

    def _parts(self, result: Any, names: str, method: str) -> list[Any]:
        """The parts of what a method returned, which may be any iterable of the right length."""
        expected = names.count(",") + 1
        parts = None
        if isinstance(result, Iterable) and not isinstance(result, Mapping | str | np.ndarray):
            parts = list(itertools.islice(result, expected + 1))
        if parts is None or len(parts) != expected:
            raise ValueError(f"{self._name} must return {names} from {method}(), but returned {_form(result)}")
        return parts


def _form(value: Any) -> str:
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else f"a {type(value).__name__}"
