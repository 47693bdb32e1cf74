"""Compatibility by playing: clone each agent from its own demonstrations, run the clones together, and compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.compatibility.permutation import check_rounds, distance, embed, holm
from dm2_wrappers.demonstrations import Demonstrations

Policy = Callable[[Mapping[str, Any]], dict[str, int]]
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
        clone: Makes a joint policy from demonstrations; by default :func:`count_actions`, for finitely many observations.
        episodes: How many episodes the clones play each time; as many as there are demonstrations by default.
        bootstrap: How many demonstrations of the clones are tested; the least p is 1 / (bootstrap + 1), times the
            number of agents. Each plays ``len(demos) + episodes`` episodes.
        seed: Seeds everything random in this test.
        alpha: Level of the verdict.

    Returns:
        The test for each agent, the verdict, and the clones' episodes.

    Raises:
        ValueError: The demonstrations do not fit the environment, have continuous actions, or an option is out of range.
    """
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
    make, number = clone or count_actions, len(demos) if episodes is None else episodes
    rng = np.random.default_rng(seed)

    def play(team: Callable[..., Any], count: int) -> Demonstrations:
        return Demonstrations.record(env, team, count, seed=int(rng.integers(2**31)))

    team = make(demos, rng)
    playback = play(team, number)
    observed = _distances(demos, playback, seed)
    beaten = np.zeros(len(demos.agents))
    for _ in range(bootstrap):
        again = play(team, len(demos))
        beaten += _distances(again, play(make(again, rng), number), seed) >= observed - 1e-12
    p = [float(value) for value in (1 + beaten) / (1 + bootstrap)]
    return PlaybackTest(demos.agents, tuple(map(float, observed)), tuple(p), tuple(holm(p)), playback, alpha)


def count_actions(demos: Demonstrations, rng: np.random.Generator) -> Policy:
    """Clone agents that see finitely many observations, by counting their actions in each.

    Args:
        demos: The demonstrations, with discrete actions.
        rng: Draws the actions.

    Returns:
        A policy ``policy({agent: observation}) -> {agent: action}`` for a ParallelEnv. In an observation that its
        demonstrations do not have, an agent draws one of the actions that it took anywhere.
    """
    tables: dict[str, dict[bytes, NDArray[Any]]] = {}
    known: dict[str, int] = {}
    for k, agent in enumerate(demos.agents):
        rows = np.flatnonzero(demos.alive[: demos.offsets[k, -1], k])
        seen, actions = demos.padded_observations[rows, k, : demos.sizes[k]], demos.actions[rows, k]
        known[agent] = int(actions.max()) + 1
        kinds, which = np.unique(seen, axis=0, return_inverse=True)
        counts = np.zeros((len(kinds), known[agent]))
        np.add.at(counts, (which.ravel(), actions), 1)
        tables[agent] = {kind.tobytes(): np.cumsum(row / row.sum()) for kind, row in zip(kinds, counts, strict=True)}

    def policy(observations: Mapping[str, Any]) -> dict[str, int]:
        chosen = {}
        for agent, observation in observations.items():
            table = tables[agent].get(np.asarray(observation, dtype=np.float32).tobytes())
            drawn = rng.random()
            chosen[agent] = int(drawn * known[agent]) if table is None else int(np.searchsorted(table, drawn, "right"))
        return chosen

    return policy


def _distances(one: Demonstrations, other: Demonstrations, seed: int) -> NDArray[np.float64]:
    """For each agent the distance of what it saw and did in two recordings."""
    found = []
    for k, agent in enumerate(one.agents):
        samples = [_steps(one, agent), _steps(other, agent)]
        number = max(int(actions.max()) for _, actions in samples) + 1
        rows = [np.concatenate([seen, np.eye(number)[actions]], axis=1) for seen, actions in samples]
        # The same random features in every round, so that the distances differ only by what was played.
        sums, counts = embed(rows, np.random.default_rng([seed, k]))
        found.append(distance(sums, counts, np.array([[True, False]]))[0])
    return np.array(found)


def _steps(demos: Demonstrations, agent: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """What an agent saw and did, in its live steps."""
    k = demos.agents.index(agent)
    end = demos.offsets[k, -1]
    return demos.observations(agent), demos.actions[:end, k][demos.alive[:end, k]]
