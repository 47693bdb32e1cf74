"""Choosing episodes and agents of demonstrations: subsets, shuffles, mixes, won episodes, the best by return."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks

if TYPE_CHECKING:
    from dm2_wrappers.demonstrations.dataset import Demonstrations

# One agent of the new demonstrations: where it comes from, its column there, and its episodes in their new order.
Column = tuple["Demonstrations", int, NDArray[Any]]


def select(columns: Sequence[Column], metadata: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``Demonstrations`` in which agent j is column k of ``demos`` with the episodes in ``order``.

    Args:
        columns: (demos, k, order) for each agent j.
        metadata: The new demonstrations'.
    """
    lengths = np.stack([np.diff(demos.offsets[k])[order] for demos, k, order in columns])
    offsets = np.pad(np.cumsum(lengths, axis=1), ((0, 0), (1, 0)))
    sizes = tuple(demos.sizes[k] for demos, k, _ in columns)
    shape, actions_like = (int(offsets[:, -1].max()), len(columns)), columns[0][0].actions
    observations = np.zeros((*shape, max(sizes)), np.float32)
    actions = np.zeros((*shape, *actions_like.shape[2:]), actions_like.dtype)
    alive, rewards = np.zeros(shape, bool), np.zeros(shape, np.float32)
    for j, (demos, k, order) in enumerate(columns):
        starts, ends = demos.offsets[k, order], demos.offsets[k, order + 1]
        rows = np.concatenate([np.arange(*span) for span in zip(starts, ends, strict=True)])
        n, size = len(rows), sizes[j]
        observations[:n, j, :size] = demos.padded_observations[rows, k, :size]
        actions[:n, j], alive[:n, j] = demos.actions[rows, k], demos.alive[rows, k]
        rewards[:n, j] = demos.rewards[rows, k]
    return {
        "agents": tuple(demos.agents[k] for demos, k, _ in columns),
        "sizes": sizes,
        "padded_observations": observations,
        "alive": alive,
        "actions": actions,
        "rewards": rewards,
        "offsets": offsets,
        "won": np.stack([demos.won[k, order] for demos, k, order in columns]),
        # A file's metadata also say the win rate; that of the new demonstrations is another one.
        "metadata": {name: value for name, value in metadata.items() if name != "win_rate"},
    }


def mixed(sources: Mapping[str, Demonstrations]) -> dict[str, Any]:
    """The arguments of ``Demonstrations`` with each agent from another team; see :meth:`Demonstrations.mix`."""
    if not isinstance(sources, Mapping):
        raise TypeError(f"mix() needs a dict from each agent to its demonstrations, got {_checks.shown(sources)}")
    for agent, demos in sources.items():
        if not callable(getattr(demos, "observations", None)):
            raise TypeError(f"mix() needs Demonstrations for each agent, got {_checks.shown(demos)} for {agent!r}")
    if not sources:
        raise ValueError("mix() needs a dict from each agent to its demonstrations, but it is empty")
    for agent, demos in sources.items():
        demos.observations(agent)  # raises the sentence about an unknown agent
    first, *others = sources.values()
    scenarios = list(dict.fromkeys(demos.env_id for demos in sources.values() if demos.env_id is not None))
    if len(scenarios) > 1:
        raise ValueError(f"mix() needs demonstrations of one scenario, but got {scenarios[0]!r} and {scenarios[1]!r}")
    for demos in others:
        if demos.actions.shape[2:] != first.actions.shape[2:]:
            raise ValueError(
                f"mix() needs actions of one kind, but one source has {first.actions.shape[2:] or 'discrete'} "
                f"and another {demos.actions.shape[2:] or 'discrete'}"
            )
    order = np.arange(min(len(demos) for demos in sources.values()))
    columns = [(demos, demos.agents.index(agent), order) for agent, demos in sources.items()]
    metadata: dict[str, Any] = {**first.metadata, "style": "mixed", "seed": None}
    metadata["env_id"] = scenarios[0] if scenarios else None
    metadata.pop("positions", None)
    metadata |= place_metadata([demos.positions[k] for demos, k, _ in columns])
    metadata["has_actions"] = all(demos.has_actions for demos in sources.values())
    for name in ("policy", "selected"):  # each agent's own, where its source has one
        if name == "policy" or any(name in demos.metadata for demos in sources.values()):
            metadata[name] = {agent: demos.metadata.get(name) for agent, demos in sources.items()}
    return select(columns, metadata)


def place_metadata(positions: list[int]) -> dict[str, list[int]]:
    """What the metadata say of the agents' places among the environment's: nothing if they are 0, 1, ..."""
    return {} if positions == list(range(len(positions))) else {"positions": positions}


def by_outcome(demos: Demonstrations, won: bool) -> dict[str, Any]:
    """The arguments of ``Demonstrations`` with the episodes that were won, or lost; see :meth:`Demonstrations.filter`."""
    won = _checks.flag("won", won)
    if unknown := [agent for agent, column in zip(demos.agents, demos.won, strict=True) if (column < 0).all()]:
        whose = "These demonstrations do" if len(unknown) == len(demos.agents) else f"The episodes of {unknown} do"
        raise ValueError(f"{whose} not say which episodes were won, so none can be chosen by it; best(share) goes by return")
    chosen = demos.won == int(won)
    if demos.style == "concurrent":
        chosen[:] = chosen.all(axis=0)
    counts = chosen.sum(axis=1)
    if not (count := int(counts.min())):
        k = int(counts.argmin())
        outcomes = [
            f"{(demos.won[k] == value).sum()} {name}" for value, name in ((1, "won"), (0, "lost"), (-1, "not reported"))
        ]
        raise ValueError(
            f"filter(won={won}) leaves nothing: of the {len(demos)} episodes of agent {demos.agents[k]!r} "
            f"{', '.join(outcomes)}; best(share) goes by return instead"
        )
    return _chosen(demos, [np.flatnonzero(row)[:count] for row in chosen], {"filter": {"won": won}})


def first(demos: Demonstrations, n: int) -> dict[str, Any]:
    """The arguments of ``Demonstrations`` with each agent's first ``n`` episodes; see :meth:`Demonstrations.subset`."""
    return _chosen(demos, [np.arange(n)] * len(demos.agents), {"subset": n})


def by_return(demos: Demonstrations, share: float) -> dict[str, Any]:
    """The arguments of ``Demonstrations`` with the episodes of highest return; see :meth:`Demonstrations.best`."""
    share = _checks.number("share", share, above=0)
    if share > 1:
        raise ValueError(
            f"share must be a number above 0 and at most 1, got {share:g}; best(0.3) keeps 30 % of the episodes"
        )
    if not demos.rewards.any():
        raise ValueError(
            "best(share) goes by return, but these demonstrations hold no rewards: all of them are 0 (a recorded reward is "
            "the mean over the agents, so those of a zero-sum game cancel)"
        )
    # float64, because a long episode's float32 rewards lose digits when they are summed.
    sums = [np.add.reduceat(demos.rewards[: o[-1], k].astype(np.float64), o[:-1]) for k, o in enumerate(demos.offsets)]
    returns = np.stack(sums)
    if demos.style == "concurrent":
        returns[:] = returns.mean(axis=0)
    count = max(1, math.ceil(share * len(demos) - 1e-9))  # 0.07 * 100 is a little more than 7
    orders = [np.sort(np.argsort(-row, kind="stable")[:count]) for row in returns]
    return _chosen(demos, orders, {"best": share})


def recorded_return(selected: Any) -> float | None:
    """The mean return before the first choice, as the metadata's "selected" say it; None if they do not."""
    if isinstance(selected, Mapping):  # of each agent, after `mixed`
        returns = [recorded_return(each) for each in selected.values()]
        known = [each for each in returns if each is not None]
        return sum(known) / len(known) if known and len(known) == len(returns) else None
    first = selected[0] if isinstance(selected, list) and selected else None
    if not isinstance(first, Mapping):
        return None
    found = first.get("mean_return") if "kept" in first else recorded_return(first)
    return found if isinstance(found, float) and math.isfinite(found) else None


def _chosen(demos: Demonstrations, orders: list[NDArray[Any]], how: dict[str, Any]) -> dict[str, Any]:
    """Each agent's episodes in ``orders``; the metadata remember how they were chosen, after earlier choices."""
    before = demos.metadata.get("selected") or []
    step = {**how, "kept": len(orders[0]), "of": len(demos), "mean_return": demos.mean_return}
    history = [*(before if isinstance(before, list) else [before]), step]
    columns = [(demos, k, order) for k, order in enumerate(orders)]
    return select(columns, {**demos.metadata, "selected": history})
