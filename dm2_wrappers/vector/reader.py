"""What a ParallelEnv returns, checked against what it declares and put into arrays: the one way in.

**Who is present.** An agent is present if it is in ``env.agents`` and has not been reported as terminated or truncated by
the last step. Present agents act next. Everything else follows: an agent that is in ``env.agents`` for the first time has
joined; one that no longer is has left, whether or not the environment said so; keys of agents that neither acted nor are
present now are ignored. The joint episode is over when nobody is present.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.vector.layout import Layout
from dm2_wrappers.vector.spaces import action_mask, flatten


@dataclass(frozen=True)
class Seen:
    """What the agents of one environment see before their next actions; rows of absent agents are 0."""

    observations: NDArray[np.float32]  # [K, D]
    present: NDArray[np.bool_]  # [K]
    alive: NDArray[np.bool_]  # [K]
    action_mask: NDArray[np.bool_] | None  # [K, A]; None where actions are continuous


@dataclass(frozen=True)
class Outcome:
    """What one joint step led to, before any reset."""

    seen: Seen
    final_observations: NDArray[np.float32]  # [K, D], also of agents whose episode ended
    final_alive: NDArray[np.bool_]  # [K]
    rewards: NDArray[np.float64]  # [K]; those of agents that acted or have just joined
    env_rewards: NDArray[np.float64] | None  # [K], where a wrapper that shapes rewards says in infos what they were
    terminations: NDArray[np.bool_]  # [K], also true for absent agents
    truncations: NDArray[np.bool_]  # [K]
    broken: bool
    won: bool | None  # None where the environment does not report wins

    @property
    def over(self) -> bool:
        """Whether the joint episode ended with this step."""
        return not self.seen.present.any()


class ParallelReader:
    """Reads the answers of one ParallelEnv.

    Args:
        env: The environment.
        layout: How its agents and spaces map to arrays.
        name: What to call it in errors, such as "sub-environment 3".
    """

    def __init__(self, env: Any, layout: Layout, name: str = "") -> None:
        self.env, self.layout = env, layout
        self._name = f"the environment {layout.env_id!r}" + (f" ({name})" if name else "")
        self._index = {agent: k for k, agent in enumerate(layout.agents)}
        self._shape = (len(layout.agents), max(layout.sizes))
        self.present = np.zeros(len(layout.agents), dtype=bool)

    def reset(self, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
        """Reset the environment; its raw observations and infos. An environment need not know ``options``."""
        result = self.env.reset(seed=seed, **({} if options is None else {"options": dict(options)}))
        if not isinstance(result, tuple) or len(result) != 2:
            raise ValueError(
                f"{self._name} must return (observations, infos) from reset(), as PettingZoo has it since 1.24, "
                f"but returned {_form(result)}"
            )
        return result

    def step(self, actions: Mapping[str, Any]) -> tuple[Any, Any, Any, Any, Any]:
        """Step the environment; its raw results."""
        result = self.env.step(actions)
        if not isinstance(result, tuple) or len(result) != 5:
            raise ValueError(
                f"{self._name} must return (observations, rewards, terminations, truncations, infos) from step(), "
                f"but returned {_form(result)}"
            )
        return result

    def read_reset(self, observations: Any, infos: Any) -> Seen:
        """What the agents see at an episode's start.

        Raises:
            ValueError: An answer that does not fit the agent's spaces; the message names environment and agent.
        """
        return self._seen(self._present(()), self._mapping("observations", observations), self._mapping("infos", infos))

    def read_step(self, observations: Any, rewards: Any, terminations: Any, truncations: Any, infos: Any) -> Outcome:
        """What a joint step of the agents that were present led to.

        Raises:
            ValueError: An answer that does not fit the agent's spaces; the message names environment and agent.
        """
        acted = self.present
        observations, rewards = self._mapping("observations", observations), self._mapping("rewards", rewards)
        terminations = self._mapping("terminations", terminations)
        truncations, infos = self._mapping("truncations", truncations), self._mapping("infos", infos)
        flags = np.zeros((2, self._shape[0]), dtype=bool)
        for k in map(int, np.flatnonzero(acted)):
            agent = self.layout.agents[k]
            flags[0, k] = self._flag("termination", agent, terminations.get(agent, False))
            flags[1, k] = self._flag("truncation", agent, truncations.get(agent, False))
        ended = {self.layout.agents[k] for k in np.flatnonzero(flags.any(axis=0))}
        seen = self._seen(self._present(ended), observations, infos)
        # An agent that is gone without a flag died; an absent one counts as terminated.
        flags[0] |= ~seen.present & ~flags.any(axis=0)
        final, final_alive = seen.observations.copy(), seen.alive.copy()
        paid = np.zeros(self._shape[0])
        env_paid: NDArray[np.float64] | None = None
        for k in map(int, np.flatnonzero(acted | seen.present)):
            agent, info = self.layout.agents[k], infos.get(self.layout.agents[k]) or {}
            if agent in rewards:
                paid[k] = self._number("reward", agent, rewards[agent])
            elif seen.present[k] and acted[k]:
                raise ValueError(f"{self._name} returned no reward for agent {agent!r}, which acted and is in env.agents")
            if "env_reward" in info:
                env_paid = np.zeros(self._shape[0]) if env_paid is None else env_paid
                env_paid[k] = self._number("env_reward in infos", agent, info["env_reward"])
            if not seen.present[k] and agent in observations:
                self._put(final, k, observations[agent])
                final_alive[k] = bool(info.get("alive", not flags[0, k]))
        everybody = [info for info in infos.values() if isinstance(info, Mapping)]
        wins = [bool(info["battle_won"]) for info in everybody if "battle_won" in info]
        return Outcome(
            seen=seen,
            final_observations=final,
            final_alive=final_alive,
            rewards=paid,
            env_rewards=env_paid,
            terminations=flags[0],
            truncations=flags[1],
            broken=any(bool(info.get("broken", False)) for info in everybody),
            won=any(wins) if wins else None,
        )

    def _present(self, ended: Any) -> NDArray[np.bool_]:
        """Who is in ``env.agents`` and has not just been reported as ended, [K]; kept for the next step."""
        self.present = np.zeros(self._shape[0], dtype=bool)
        for agent in self.env.agents:
            if agent not in self._index:
                raise ValueError(
                    f"{self._name} has {agent!r} in agents, which is not in possible_agents {list(self.layout.agents)}"
                )
            self.present[self._index[agent]] = agent not in ended
        return self.present

    def _seen(self, present: NDArray[np.bool_], observations: Mapping[str, Any], infos: Mapping[str, Any]) -> Seen:
        layout = self.layout
        rows, alive = np.zeros(self._shape, np.float32), np.zeros(self._shape[0], dtype=bool)
        masks = None
        if layout.discrete:
            masks = np.zeros((self._shape[0], max(layout.action_sizes)), dtype=bool)
            masks[~present, 0] = True
        for k in map(int, np.flatnonzero(present)):
            agent = layout.agents[k]
            if agent not in observations:
                raise ValueError(f"{self._name} returned no observation for agent {agent!r}, which is in env.agents")
            info = infos.get(agent) or {}
            self._put(rows, k, observations[agent])
            alive[k] = bool(info.get("alive", True))
            if masks is not None:
                self._put_mask(masks, k, action_mask(observations[agent], info), bool(alive[k]))
        return Seen(rows, present, alive, masks)

    def _put(self, rows: NDArray[np.float32], k: int, observation: Any) -> None:
        agent = self.layout.agents[k]
        try:
            features = flatten(self.layout.native_observation_spaces[agent], observation)
        except ValueError as error:
            raise ValueError(
                f"{self._name} returned an observation of agent {agent!r} that is not in its observation_space: {error}"
            ) from None
        if len(features) != self.layout.sizes[k]:
            raise ValueError(
                f"{self._name} returned {len(features)} features of agent {agent!r}, "
                f"but its observation_space has {self.layout.sizes[k]}"
            )
        rows[k, : len(features)] = features

    def _put_mask(self, masks: NDArray[np.bool_], k: int, mask: Any, alive: bool) -> None:
        size, agent = self.layout.action_sizes[k], self.layout.agents[k]
        if mask is None:
            masks[k, :size] = True
            return
        mask = np.asarray(mask)
        if mask.shape != (size,) or mask.dtype.kind not in "biuf":
            raise ValueError(
                f"{self._name} returned an action mask of agent {agent!r} with shape {mask.shape} and dtype {mask.dtype}, "
                f"but it has {size} actions: expected {size} flags"
            )
        masks[k, :size] = mask
        if not masks[k].any():
            if alive:
                raise ValueError(
                    f"{self._name} returned an action mask of agent {agent!r} without any available action; allow at "
                    'least one, such as a no-op, or report the agent as dead (infos[agent]["alive"] = False)'
                )
            masks[k, 0] = True  # SMAC's own wrapper gives the dead a mask of zeros

    def _number(self, what: str, agent: str, value: Any) -> float:
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf" or not np.isfinite(array.reshape(())):
            raise ValueError(f"{self._name} returned the {what} {value!r} for agent {agent!r}: expected one finite number")
        return float(array.reshape(()))

    def _flag(self, what: str, agent: str, value: Any) -> bool:
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in "biuf":
            raise ValueError(f"{self._name} returned the {what} {value!r} for agent {agent!r}: expected True or False")
        return bool(array.reshape(()))

    def _mapping(self, what: str, value: Any) -> Mapping[str, Any]:
        if value is None and what == "infos":
            return {}
        if not isinstance(value, Mapping):
            raise ValueError(f"{self._name} must return {what} as a dict with the agents' names, got {_form(value)}")
        return value


def _form(value: Any) -> str:
    return f"a tuple of {len(value)}" if isinstance(value, tuple) else f"a {type(value).__name__}"
