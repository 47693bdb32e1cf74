"""Self-imitation: the team's own best episodes as demonstrations, alone or added to experts'."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.vector import MultiAgentVectorEnv
from dm2_wrappers.vector.layout import Layout, check_parallel_env

_ARRAYS = ("observations", "alive", "actions", "rewards")
_OPTIONS = ("episodes", "above_mean", "prefer_newest", "max_steps")


@dataclass
class OwnEpisode:
    """One whole joint episode of L steps that the team has played.

    Attributes:
        observations: float32 [L, K, D], before each action; 0 where the agent was not alive.
        alive: bool [L, K].
        actions: [L, K] or [L, K, A].
        rewards: float64 [L], the team's environment reward.
    """

    observations: NDArray[np.float32]
    alive: NDArray[np.bool_]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]

    @property
    def team_return(self) -> float:
        """The undiscounted sum of the team's rewards."""
        return float(self.rewards.sum())


# The return to rank by, what decides between equal ones (the number or minus the number), the episode.
_Entry: TypeAlias = tuple[float, int, OwnEpisode]


class SelfImitation:
    """Where a matcher takes demonstrations: the team's own best episodes, by the environment's return.

    A bounded priority buffer, as in the paper's implementation: it holds the ``episodes`` joint episodes with the highest
    return so far (of equal ones the earlier, by default), so all agents keep concurrent episodes. A finished episode counts
    from the next update on; episodes that the simulator broke never do. By default an episode has to be better than the
    team's mean so far: a team that has not yet succeeded would otherwise imitate its failures and stop exploring.

    Give experts' demonstrations to imitate both, all live steps with equal weight. Otherwise the agents are rewarded with 0
    as long as no episode is kept.

    The matcher's ``state_dict`` holds the buffer and the episodes of the last update; episodes that are under way are not in
    it.

    Args:
        experts: Demonstrations that are imitated as well.
        env: Without experts: a ``ParallelEnv`` or `MultiAgentVectorEnv` with the agents to imitate.
        episodes: How many joint episodes to keep.
        above_mean: Keep only episodes that return more than all finished episodes before them on average.
        prefer_newest: Of episodes with the same return to four digits, such as those that were won, keep the newest instead
            of the earliest, so that the team imitates how it succeeds now.
        max_steps: Longer episodes count for the mean, but are not kept. This bounds the memory: at most ``episodes`` kept
            episodes and, while episodes are under way, the newest ``max_steps`` steps of all sub-environments.

    Attributes:
        agents: The agents' names.
        sizes: Each agent's number of observation features.
        env_id: The environment's name; None if unknown.

    Raises:
        TypeError: ``experts`` are no `Demonstrations`, or ``env`` is no multi-agent environment.
        ValueError: Neither experts nor an environment, or both; a number that is too small.

    Example:
        >>> matcher = dm2.DistributionMatcher(dm2.SelfImitation(env=venv, episodes=50), seed=0)
        >>> both = dm2.DistributionMatcher(dm2.SelfImitation(demos, episodes=50), seed=0)
    """

    def __init__(
        self,
        experts: Demonstrations | None = None,
        *,
        env: Any = None,
        episodes: int = 100,
        above_mean: bool = True,
        prefer_newest: bool = False,
        max_steps: int = 1_000,
    ) -> None:
        if (experts is None) == (env is None):
            raise ValueError("SelfImitation needs experts=demonstrations, or env=environment, one of the two")
        self.episodes = _checks.integer("episodes", episodes, least=1)
        self.above_mean = _checks.flag("above_mean", above_mean)
        self.prefer_newest = _checks.flag("prefer_newest", prefer_newest)
        self.max_steps = _checks.integer("max_steps", max_steps, least=1)
        if experts is not None and not isinstance(experts, Demonstrations):
            raise TypeError(f"experts must be Demonstrations, got {type(experts).__name__}; pass an environment as env=")
        self.experts = experts
        agents, sizes, self.env_id = _described(experts if env is None else env)
        self.agents, self.sizes = tuple(agents), tuple(sizes)
        # A heap: the first entry is the worst one.
        self._best: list[_Entry] = []
        self._taken: list[_Entry] = []  # those that the discriminators learn from now
        self._offered, self._sum = 0, 0.0  # finished episodes so far, and the sum of their returns

    def __len__(self) -> int:
        return len(self._best)

    def __repr__(self) -> str:
        added = "" if self.experts is None else f" added to {len(self.experts)} of experts"
        return f"<SelfImitation: {len(self)} of at most {self.episodes} own episodes{added}>"

    @property
    def returns(self) -> list[float]:
        """The returns of the episodes that are kept, the best episode first."""
        return [kept[2].team_return for kept in self._ranked()]

    def offer(self, episode: OwnEpisode) -> bool:
        """Keep a finished episode if it is among the best.

        Returns:
            Whether it was kept.

        Raises:
            ValueError: It has other agents or observation sizes, or its arrays do not fit together.
        """
        self._check(episode)
        mean = self._sum / self._offered if self._offered else np.inf
        entry = self._entry(self._offered, episode)
        self.count(episode.team_return)
        if self.above_mean and episode.team_return <= mean:
            return False
        if len(episode.rewards) > self.max_steps or not episode.alive.any(axis=0).all():
            return False  # an agent without a live step has nothing to imitate
        if len(self._best) < self.episodes:
            heapq.heappush(self._best, entry)
        elif entry[:2] > self._best[0][:2]:
            heapq.heapreplace(self._best, entry)
        else:
            return False
        return True

    def count(self, team_return: float) -> None:
        """An episode finished. It counts for the mean, even if it is too long to be offered."""
        self._offered, self._sum = self._offered + 1, self._sum + team_return

    def _check(self, episode: OwnEpisode) -> None:
        shape = (len(self.agents), max(self.sizes))
        if episode.observations.shape[1:] != shape:
            raise ValueError(f"expected observations [L, {shape[0]}, {shape[1]}], got {episode.observations.shape}")
        joint = (len(episode.observations), shape[0])
        for name, found, expected in (
            ("alive", episode.alive.shape, joint),
            ("actions", episode.actions.shape[:2], joint),
            ("rewards", episode.rewards.shape, joint[:1]),
        ):
            if found != expected:
                raise ValueError(f"expected {name} of {list(expected)} steps and agents, got {list(found)}")
        if self._best and (other := self._best[0][2].actions.shape[2:]) != episode.actions.shape[2:]:
            raise ValueError(
                f"expected actions of the shape {list(other)} of each agent, as in the other episodes, got "
                f"{list(episode.actions.shape[2:])}"
            )

    def take(self) -> None:
        """Let the episodes that are kept now be those to learn from."""
        self._taken = self._ranked()

    @property
    def taken_numbers(self) -> list[int]:
        """Which episodes these are."""
        return [abs(entry[1]) for entry in self._taken]

    @property
    def taken_episodes(self) -> dict[int, OwnEpisode]:
        """These episodes by their numbers, the best first."""
        return {abs(entry[1]): entry[2] for entry in self._taken}

    def taken(self, numbers: Sequence[int] | None = None) -> Demonstrations | None:
        """The episodes at the last `take`, or those with these numbers, the best first; None if there were none."""
        wanted = set(self.taken_numbers if numbers is None else numbers)
        return self._as_demonstrations([entry for entry in self._taken if abs(entry[1]) in wanted])

    def demonstrations(self) -> Demonstrations | None:
        """The kept episodes, the best first; None while there are none."""
        return self._as_demonstrations(self._ranked())

    def _as_demonstrations(self, ranked: Sequence[_Entry]) -> Demonstrations | None:
        best = [episode for _, _, episode in ranked]
        if not best:
            return None
        offsets = np.cumsum([0, *(len(episode.rewards) for episode in best)])
        k = len(self.agents)
        rewards = np.concatenate([episode.rewards for episode in best]).astype(np.float32)
        return Demonstrations(
            agents=self.agents,
            sizes=self.sizes,
            padded_observations=np.concatenate([episode.observations for episode in best]),
            alive=np.concatenate([episode.alive for episode in best]),
            actions=np.concatenate([episode.actions for episode in best]),
            rewards=np.repeat(rewards[:, None], k, axis=1),
            offsets=np.tile(offsets, (k, 1)),
            won=np.full((k, len(best)), -1, np.int8),
            metadata={"env_id": self.env_id, "style": "concurrent", "policy": {"self_imitation": True}, "has_actions": True},
        )

    def check_compatible(self, agents: Sequence[str], sizes: Sequence[int], env_id: str | None = None) -> None:
        """Check that an environment has these agents, as `Demonstrations.check_compatible` does.

        Raises:
            ValueError: It has other agents, sizes or another name.
        """
        if env_id and self.env_id and env_id != self.env_id:
            raise ValueError(f"the environment is {env_id!r}, but SelfImitation was made for {self.env_id!r}")
        if tuple(agents) != self.agents or tuple(sizes) != self.sizes:
            raise ValueError(
                f"the environment has agents {list(agents)} with {list(sizes)} features, but SelfImitation was made for "
                f"{list(self.agents)} with {list(self.sizes)}"
            )

    @property
    def options(self) -> dict[str, Any]:
        """What `from_options` needs besides the experts; JSON can store it. Without ``prefer_newest`` if that is False."""
        given = {name: getattr(self, name) for name in _OPTIONS if name != "prefer_newest" or self.prefer_newest}
        return {**given, "agents": list(self.agents), "sizes": list(self.sizes), "env_id": self.env_id}

    @classmethod
    def from_options(cls, options: Mapping[str, Any], experts: Demonstrations | None) -> SelfImitation:
        """An empty buffer like the one that had these `options`."""
        like = _Like(options["agents"], options["sizes"], options["env_id"]) if experts is None else None
        given = {name: options[name] for name in _OPTIONS if name in options}
        return cls(experts, env=like, **given)

    def state_dict(self) -> dict[str, Any]:
        """The episodes, kept or learned from, in types that ``torch.load(weights_only=True)`` accepts."""
        kept, taken = ({abs(entry[1]): entry for entry in entries} for entries in (self._ranked(), self._taken))
        episodes = [
            {"number": number, **{name: torch.from_numpy(np.array(getattr(episode, name))) for name in _ARRAYS}}
            for number, (_, _, episode) in (kept | taken).items()
        ]
        numbers = {"kept": list(kept), "taken": list(taken)}
        return {"offered": self._offered, "sum": self._sum, "episodes": episodes, **numbers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: It is of other agents or sizes, or holds more episodes. Nothing has changed then.
        """
        entries: dict[int, _Entry] = {}
        shape = (len(self.agents), max(self.sizes))
        for saved in state["episodes"]:
            episode = OwnEpisode(**{name: saved[name].numpy().copy() for name in _ARRAYS})
            length = len(episode.rewards)
            fits = bool(episode.observations.shape == (length, *shape) and episode.alive.shape == (length, shape[0]))
            fits &= episode.actions.shape[:2] == (length, shape[0]) and bool(np.isfinite(episode.rewards).all())
            if not fits or not 0 < length <= self.max_steps:
                raise ValueError("the saved episodes of SelfImitation are of other agents, sizes or max_steps, or damaged")
            number = int(saved["number"])
            entries[number] = self._entry(number, episode)
        # A state from before these were told apart holds only episodes that are both.
        best, taken = ([entries[number] for number in state.get(name, entries)] for name in ("kept", "taken"))
        if max(len(best), len(taken)) > self.episodes:
            most = max(len(best), len(taken))
            raise ValueError(f"{most} episodes of SelfImitation were saved, but episodes is {self.episodes}")
        heapq.heapify(best)
        self._best, self._taken = best, taken
        self._offered, self._sum = int(state["offered"]), float(state["sum"])

    def _entry(self, number: int, episode: OwnEpisode) -> _Entry:
        if self.prefer_newest:
            return float(f"{episode.team_return:.4g}"), number, episode
        return episode.team_return, -number, episode

    def _ranked(self) -> list[_Entry]:
        return sorted(self._best, key=lambda kept: kept[:2], reverse=True)


@dataclass(frozen=True)
class _Like:
    """The agents of an environment that is not at hand."""

    agents: Sequence[str]
    sizes: Sequence[int]
    env_id: str | None


def _described(source: Any) -> tuple[Sequence[str], Sequence[int], str | None]:
    if isinstance(source, Demonstrations | _Like):
        return source.agents, source.sizes, source.env_id
    if isinstance(source, MultiAgentVectorEnv):
        return source.possible_agents, source.observation_sizes, source.env_id
    check_parallel_env(source, "SelfImitation(env=) takes")
    layout = Layout(source, flatten_actions=True)
    return layout.agents, layout.sizes, layout.env_id
