"""Compatibility by playing: clone each agent from its own demonstrations, run the clones together, and compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers.compatibility.permutation import check_rounds, distance, embed, holm
from dm2_wrappers.compatibility.shared import check_demonstrations
from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.rng_state import derive_seed
from dm2_wrappers.unwrap import without_matcher
from dm2_wrappers.vector import Infos, MultiAgentVectorEnv, as_vector_env
from dm2_wrappers.vector.spaces import MASK, action_mask, as_array, shown

Clone = Callable[[Demonstrations, np.random.Generator], Callable[..., Any]]
"""``clone(demos, rng)`` -> a joint policy for ``Demonstrations.record``, each agent's from its own demonstrations alone."""


@dataclass(frozen=True)
class PlaybackTest:
    """What :func:`playback_test` found.

    Attributes:
        agents: Their names.
        statistics: For each agent the squared distance of the mean embeddings (MMD^2) of what it saw and did in the
            demonstrations and when the clones played.
        p: For each agent, from the parametric bootstrap.
        p_holm: The same, corrected for the number of agents (Holm).
        playback: The clones' episodes.
        alpha: Level of the verdict.
    """

    agents: tuple[str, ...]
    statistics: tuple[float, ...]
    p: tuple[float, ...]
    p_holm: tuple[float, ...]
    playback: Demonstrations
    alpha: float

    @property
    def verdict(self) -> str:
        """Either "refuted" or "not refuted". The latter does not prove that the demonstrations are compatible."""
        return "refuted" if min(self.p_holm) <= self.alpha else "not refuted"

    def __str__(self) -> str:
        width = max(map(len, self.agents))
        lines = [f"{'agent':<{width}} {'statistic':>10} {'p':>7} {'Holm p':>7}"]
        for agent, statistic, p, p_holm in zip(self.agents, self.statistics, self.p, self.p_holm, strict=True):
            lines.append(f"{agent:<{width}} {statistic:>10.2e} {p:>7.3f} {p_holm:>7.3f}")
        return "\n".join(lines)


def playback_test(
    demos: Demonstrations,
    env: Any,
    clone: Clone | None = None,
    episodes: int | None = None,
    *,
    bootstrap: int = 99,
    seed: int = 0,
    alpha: float = 0.05,
) -> PlaybackTest:
    """Test whether these demonstrations can come from independent agents, by letting their clones play.

    If the demonstrations are compatible (Definition 1), agents that play together with the conditional action probabilities
    of their own demonstrations reproduce the same distributions. This test also detects pooled recordings of several teams,
    which agree on every shared feature. The clones are not exact, so a parametric bootstrap measures their error: it applies
    the same test many times to episodes of the clones, which are compatible, as many as there are demonstrations.

    The test is only as good as the clones. If the agents have a memory and the clones have none, the test refutes the
    demonstrations for this reason.

    Args:
        demos: The demonstrations, with discrete actions.
        env: A PettingZoo ``ParallelEnv`` or vector environment on which they were recorded.
        clone: Makes a joint policy from demonstrations; by default as :func:`count_actions`, for finitely many
            observations.
        episodes: How many episodes the clones play each time; as many as there are demonstrations by default.
        bootstrap: How many demonstrations of the clones are tested; the least p is 1 / (bootstrap + 1), times the
            number of agents. Each plays ``len(demos) + episodes`` episodes.
        seed: Seeds everything random in this test.
        alpha: Level of the verdict.

    Returns:
        The test for each agent, the verdict, and the clones' episodes.

    Raises:
        TypeError: ``demos`` are no demonstrations.
        ValueError: The demonstrations do not fit the environment, have continuous actions, or an option is out of range.
    """
    check_demonstrations(demos)
    seed = _checks.integer("seed", seed, least=0)
    check_rounds("bootstrap", bootstrap, alpha, len(demos.agents), "agents")
    if demos.actions.ndim != 2:
        raise ValueError(
            "the playback test needs demonstrations with discrete actions, but these have actions of "
            f"{demos.actions.shape[2]} numbers"
        )
    if set(env.possible_agents) != set(demos.agents):
        raise ValueError(
            f"the environment's agents are {list(env.possible_agents)}, the demonstrations' {list(demos.agents)}; pass the "
            "environment on which they were recorded"
        )
    make, number = clone or _OfArrays, len(demos) if episodes is None else episodes
    if clone is None:
        env = as_vector_env(without_matcher(env), "playback_test() takes")  # its observations are flat, as the recorded ones
        _check_spaces(demos, env)
    rng = np.random.default_rng(seed)

    def play(team: Callable[..., Any], count: int) -> Demonstrations:
        return Demonstrations.record(env, team, count, seed=int(rng.integers(2**31)))

    team = make(demos, rng)
    playback = play(team, number)
    observed = _distances(demos, playback, demos.agents, seed)
    beaten = np.zeros(len(demos.agents))
    for _ in range(bootstrap):
        again = play(team, len(demos))
        beaten += _distances(again, play(make(again, rng), number), demos.agents, seed) >= observed - 1e-12
    p = [float(value) for value in (1 + beaten) / (1 + bootstrap)]
    return PlaybackTest(demos.agents, tuple(map(float, observed)), tuple(p), tuple(holm(p)), playback, alpha)


def _check_spaces(demos: Demonstrations, env: MultiAgentVectorEnv) -> None:
    """Check that each agent's observations and actions are the environment's, whatever the order of the agents.

    Raises:
        ValueError: They are not.
    """
    sizes = dict(zip(env.possible_agents, env.observation_sizes, strict=True))
    demos.check_compatible(demos.agents, [sizes[agent] for agent in demos.agents])
    for k, agent in enumerate(demos.agents):
        space, end = env.action_spaces[agent], demos.offsets[k, -1]
        most = int(demos.actions[:end, k][demos.alive[:end, k]].max(initial=0))
        if not isinstance(space, spaces.Discrete) or most >= int(space.n):
            raise ValueError(
                f"in the demonstrations, agent {agent!r} took the action {most}, but its action space in the environment is "
                f"{space}; pass the environment on which they were recorded"
            )


class _Counts:
    """How often each agent took each action in each observation of its demonstrations.

    Args:
        demos: The demonstrations, with discrete actions.
        rng: Draws the actions.
    """

    def __init__(self, demos: Demonstrations, rng: np.random.Generator) -> None:
        self._rng, self.sizes = rng, dict(zip(demos.agents, demos.sizes, strict=True))
        self._tables: dict[str, dict[bytes, NDArray[Any]]] = {}
        self._anywhere: dict[str, NDArray[Any]] = {}
        for k, agent in enumerate(demos.agents):
            rows = np.flatnonzero(demos.alive[: demos.offsets[k, -1], k])
            seen, actions = demos.padded_observations[rows, k, : demos.sizes[k]], demos.actions[rows, k]
            kinds, which = np.unique(seen + np.float32(0), axis=0, return_inverse=True)  # -0 is 0
            counts = np.zeros((len(kinds), int(actions.max()) + 1))
            np.add.at(counts, (which.ravel(), actions), 1)
            self._tables[agent] = {kind.tobytes(): row for kind, row in zip(kinds, counts, strict=True)}
            self._anywhere[agent] = counts.sum(axis=0)

    def draw(self, agent: str, row: NDArray[Any], mask: Any) -> int:
        """An action in an observation [D], of those that the mask has."""
        counts = self._tables[agent].get((row + np.float32(0)).tobytes(), self._anywhere[agent])
        if mask is not None:
            available = np.asarray(mask, dtype=bool)
            for each in (counts, self._anywhere[agent]):
                counts = np.where(available[: len(each)], each, 0.0)
                if counts.any():
                    break
            else:
                counts = available.astype(np.float64)
        shares = np.cumsum(counts / counts.sum())
        return int(min(np.searchsorted(shares, self._rng.random(), "right"), np.flatnonzero(counts)[-1]))


class CountedActions(_Counts):
    """Agents that see finitely many observations and act as often in each as in their demonstrations.

    A joint policy of the dicts of a ParallelEnv, ``{agent: observation} -> {agent: action}``, whose actions are counted from
    0. In an observation that its demonstrations do not have, or where none of the actions that it took there is available,
    an agent draws one of the actions that it took anywhere, as often as it took them; and if none of these is available, any
    available one.

    Args:
        demos: The demonstrations, with discrete actions.
        rng: Draws the actions.
    """

    def __call__(self, observations: Mapping[str, Any], *, infos: Mapping[str, Any] | None = None) -> dict[str, int]:
        """The actions of the agents that observe something; ``infos`` may have their action masks."""
        given = infos or {}
        return {agent: self._action(agent, seen, given.get(agent) or {}) for agent, seen in observations.items()}

    def _action(self, agent: str, observation: Any, info: Mapping[str, Any]) -> int:
        seen = observation.get("observation") if isinstance(observation, Mapping) else observation
        row = np.zeros(0) if seen is None else as_array(seen).ravel()
        if row.size != self.sizes[agent] or row.dtype.kind not in "biuf":
            raise ValueError(
                f"expected an observation of agent {agent!r} of {self.sizes[agent]} numbers, as in its demonstrations, got "
                f"{shown(observation)}: let playback_test() make the clones, which see observations flattened as recorded"
            )
        return self.draw(agent, row.astype(np.float32), action_mask(observation, info))


class _OfArrays(_Counts):
    """The same agents in a vector environment: ``policy(observations [N, K, D], infos) -> actions [N, K]``."""

    def check_env(self, env: MultiAgentVectorEnv) -> None:
        """Take over the order of the environment's agents."""
        self._order = env.possible_agents

    def __call__(self, observations: NDArray[np.float32], infos: Infos) -> NDArray[np.int64]:
        masks = infos[MASK]
        actions = np.zeros(observations.shape[:2], np.int64)
        for n, k in np.ndindex(*actions.shape):
            agent = self._order[k]
            actions[n, k] = self.draw(agent, observations[n, k, : self.sizes[agent]], masks[n, k])
        return actions


def count_actions(demos: Demonstrations, rng: np.random.Generator) -> CountedActions:
    """Clone agents that see finitely many observations, by counting their actions in each.

    Args:
        demos: The demonstrations, with discrete actions.
        rng: Draws the actions.
    """
    return CountedActions(demos, rng)


def _distances(one: Demonstrations, other: Demonstrations, agents: Sequence[str], seed: int) -> NDArray[np.float64]:
    """For each of these agents the distance of what it saw and did in two recordings."""
    found = []
    for agent in agents:
        samples = [_steps(one, agent), _steps(other, agent)]
        number = max(int(actions.max()) for _, actions in samples) + 1
        rows = [np.concatenate([seen, np.eye(number)[actions]], axis=1) for seen, actions in samples]
        # The same random features in every round, so that the distances differ only by what was played.
        sums, counts = embed(rows, np.random.default_rng(derive_seed(seed, "features", agent)))
        found.append(distance(sums, counts, np.array([[True, False]]))[0])
    return np.array(found)


def _steps(demos: Demonstrations, agent: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """What an agent saw and did, in its live steps."""
    k = demos.agents.index(agent)
    end = demos.offsets[k, -1]
    return demos.observations(agent), demos.actions[:end, k][demos.alive[:end, k]]
