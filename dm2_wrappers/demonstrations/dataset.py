"""Demonstrations: an expert team's episodes, sliced per agent (D_0 ... D_K of Algorithm 1).

One layout serves all styles of the paper's ablation (section 6.2). Every array has an agent axis, and agent k's
episode e is rows ``offsets[k, e]`` to ``offsets[k, e + 1]`` of column k. In concurrent demonstrations all agents have
the same offsets; in shuffled or mixed ones each agent has its own, and rows past an agent's last episode are padding.

Recording is in ``recording.py``, the file format in ``npz.py``, and the paper's own recordings in ``pymarl/``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.demonstrations import npz, recording
from dm2_wrappers.demonstrations.pymarl import reader


@dataclass(frozen=True, eq=False, repr=False)
class Demonstrations:
    """Joint, state-only expert episodes. Make them with :meth:`record`, :meth:`load` or from arrays of your own.

    Attributes:
        agents: The K agents' names, in the order of the agent axis.
        sizes: Each agent's own number of features.
        padded_observations: float32 [S, K, D], D the largest of ``sizes``; see :meth:`observations`.
        alive: bool [S, K].
        actions: int64 [S, K] or float32 [S, K, A].
        rewards: float32 [S, K], the team's environment reward.
        offsets: int64 [K, E + 1], where each agent's episodes begin and the last one ends.
        won: int8 [K, E], 1 won, 0 lost, -1 not reported.
        metadata: Where they come from; what JSON can hold. See the module's docstring.

    Raises:
        ValueError: The arrays do not fit together, or an observation is not finite.
    """

    agents: tuple[str, ...]
    sizes: tuple[int, ...]
    padded_observations: NDArray[np.float32]
    alive: NDArray[np.bool_]
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    offsets: NDArray[np.int64]
    won: NDArray[np.int8]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _validate(self)

    def __len__(self) -> int:
        return self.offsets.shape[1] - 1

    def __repr__(self) -> str:
        return (
            f"Demonstrations({self.env_id}, {len(self)} {self.style} episodes, {len(self.agents)} agents, "
            f"win_rate={self.win_rate}, mean_return={self.mean_return:.2f}, mean_length={self.mean_length:.1f})"
        )

    @property
    def env_id(self) -> str | None:
        """The environment and scenario they were recorded on; None if unknown."""
        return self.metadata.get("env_id")

    @property
    def style(self) -> str:
        """One of "concurrent", "shuffled" and "mixed"."""
        return str(self.metadata.get("style", "concurrent"))

    @property
    def win_rate(self) -> float | None:
        """Share of episodes won; None if the environment reports no wins or the agents come from different teams."""
        if self.style == "mixed" or (self.won < 0).any():
            return None
        return float(self.won.mean())

    @property
    def mean_return(self) -> float:
        """Environment return of an episode, undiscounted (mixed demonstrations: averaged over the agents' teams)."""
        return float(self.rewards.sum(dtype=np.float64)) / self.won.size

    @property
    def mean_length(self) -> float:
        """Joint steps of an episode."""
        return float(self.offsets[:, -1].sum()) / self.won.size

    def observations(self, agent: str) -> NDArray[np.float32]:
        """What one agent saw while it was alive, in all its episodes.

        Args:
            agent: One of ``agents``.

        Returns:
            float32 [n, D_agent], a new array.

        Raises:
            ValueError: No such agent.
        """
        if agent not in self.agents:
            raise ValueError(f"these demonstrations have no agent {agent!r}; theirs are {list(self.agents)}")
        k = self.agents.index(agent)
        end = self.offsets[k, -1]
        return self.padded_observations[:end, k, : self.sizes[k]][self.alive[:end, k]]

    def subset(self, n: int) -> Demonstrations:
        """Each agent's first ``n`` episodes.

        Raises:
            ValueError: ``n`` is not between 1 and ``len(self)``.
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"subset(n) takes 1 to {len(self)} episodes of these demonstrations, but n is {n}")
        order = np.arange(n)
        return self._select([(self, k, order) for k in range(len(self.agents))])

    def shuffled(self, seed: int) -> Demonstrations:
        """The same episodes of every agent, but each agent's in an order of its own: no longer concurrent (6.2)."""
        rng = np.random.default_rng(seed)
        sources = [(self, k, rng.permutation(len(self))) for k in range(len(self.agents))]
        style = "mixed" if self.style == "mixed" else "shuffled"
        return self._select(sources, style=style, shuffle_seed=seed)

    @classmethod
    def mix(cls, sources: Mapping[str, Demonstrations]) -> Demonstrations:
        """Take each agent from demonstrations of its own: a team that was not trained together (section 6.2).

        Args:
            sources: For each agent the demonstrations to take it from; the order is the new agent order. Of all, as
                many episodes are taken as the shortest has.

        Raises:
            ValueError: No sources, an agent that its source lacks, different scenarios or kinds of actions.
        """
        if not sources:
            raise ValueError("mix() needs a dict from each agent to its demonstrations, but it is empty")
        for agent, demos in sources.items():
            demos.observations(agent)  # raises the sentence about an unknown agent
        first, *others = sources.values()
        for demos in others:
            if None not in (first.env_id, demos.env_id) and first.env_id != demos.env_id:
                raise ValueError(
                    f"mix() needs demonstrations of one scenario, but got {first.env_id!r} and {demos.env_id!r}"
                )
            if demos.actions.shape[2:] != first.actions.shape[2:]:
                raise ValueError(
                    f"mix() needs actions of one kind, but one source has {first.actions.shape[2:] or 'discrete'} "
                    f"and another {demos.actions.shape[2:] or 'discrete'}"
                )
        order = np.arange(min(len(demos) for demos in sources.values()))
        policies = {agent: demos.metadata.get("policy") for agent, demos in sources.items()}
        columns = [(demos, demos.agents.index(agent), order) for agent, demos in sources.items()]
        return first._select(columns, style="mixed", policy=policies, seed=None)

    def _select(self, columns: Sequence[tuple[Demonstrations, int, NDArray[Any]]], **metadata: Any) -> Demonstrations:
        """New demonstrations: agent j is column k of ``demos``, episodes in ``order``, for (demos, k, order)[j]."""
        lengths = np.stack([np.diff(demos.offsets[k])[order] for demos, k, order in columns])
        offsets = np.pad(np.cumsum(lengths, axis=1), ((0, 0), (1, 0)))
        sizes = tuple(demos.sizes[k] for demos, k, _ in columns)
        shape = (int(offsets[:, -1].max()), len(columns))
        observations = np.zeros((*shape, max(sizes)), np.float32)
        actions = np.zeros((*shape, *self.actions.shape[2:]), self.actions.dtype)
        alive, rewards = np.zeros(shape, bool), np.zeros(shape, np.float32)
        for j, (demos, k, order) in enumerate(columns):
            starts, ends = demos.offsets[k, order], demos.offsets[k, order + 1]
            rows = np.concatenate([np.arange(*span) for span in zip(starts, ends, strict=True)])
            n, size = len(rows), sizes[j]
            observations[:n, j, :size] = demos.padded_observations[rows, k, :size]
            actions[:n, j], alive[:n, j] = demos.actions[rows, k], demos.alive[rows, k]
            rewards[:n, j] = demos.rewards[rows, k]
        return Demonstrations(
            agents=tuple(demos.agents[k] for demos, k, _ in columns),
            sizes=sizes,
            padded_observations=observations,
            alive=alive,
            actions=actions,
            rewards=rewards,
            offsets=offsets,
            won=np.stack([demos.won[k, order] for demos, k, order in columns]),
            metadata={**self.metadata, **metadata},
        )

    @classmethod
    def record(
        cls,
        env: Any,
        policy: Callable[..., Any],
        episodes: int,
        *,
        seed: int | None = None,
        provenance: Mapping[str, Any] | None = None,
        progress_bar: bool = False,
    ) -> Demonstrations:
        """Play whole episodes and keep what each agent saw before each action.

        Under a DM2 wrapper its environment is played, so that no discriminator is trained on these episodes. Rewards are
        the environment's own: where infos hold ``env_reward``, no shaping gets in.
        Episodes that the simulator broke are thrown away and played again. A recurrent policy may have a method
        ``start_episode(mask)``, called with a bool [N] of the copies whose episode begins (N = 1 for a ParallelEnv).

        Args:
            env: A PettingZoo ``ParallelEnv``, or a ``MultiAgentVectorEnv`` (each copy plays equally many episodes:
                the first ones to finish would be the short ones).
            policy: For a ParallelEnv ``policy({agent: observation}) -> {agent: action}``, for a vector environment
                ``policy(observations [N, K, D], infos) -> actions [N, K]``.
            episodes: How many joint episodes to keep.
            seed: Seeds the environment's first reset and, while recording, Python's, NumPy's and torch's global random
                streams, from which policies sample; a generator of the policy's own is the caller's.
            provenance: What to remember of the policy; what JSON can hold.
            progress_bar: Show one (needs tqdm).

        Raises:
            ValueError: ``episodes`` below 1, a provenance that JSON cannot hold, or an action outside an agent's space.
            RuntimeError: More episodes broke than were to be recorded, and more than ten.
        """
        return cls(**recording.record(env, policy, episodes, seed=seed, provenance=provenance, progress_bar=progress_bar))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one compressed ``.npz`` file; an interrupted save leaves any older file as it was.

        Raises:
            ValueError: The metadata hold something that JSON cannot.
        """
        arrays = {name: getattr(self, name) for name in ("alive", "actions", "rewards", "offsets", "won")}
        header = {"env_id": self.env_id, "agents": self.agents, "sizes": self.sizes}
        npz.save(
            path,
            {"observations": self.padded_observations, **arrays},
            {**self.metadata, **header, "style": self.style, "win_rate": self.win_rate},
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Demonstrations:
        """Read a file that :meth:`save` wrote. Nothing in it is ever unpickled.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no demonstrations file, or damaged, or of an unknown version.
        """
        arguments = npz.load(path)
        try:
            return cls(**arguments)
        except ValueError as error:
            raise npz.not_usable(path, error) from None

    @classmethod
    def import_pymarl(
        cls,
        folder: str | os.PathLike[str],
        *,
        agents: Sequence[str] | None = None,
        env_id: str | None = None,
        last_action: int = 0,
        agent_id: bool = False,
        episodes: int | None = None,
        max_bytes: int = 4 * 2**30,
    ) -> Demonstrations:
        """Read what the paper's own implementation recorded: ``agent_<i>.npz`` or ``.npy``, pickled torch tensors.

        The pickles are not unpickled: only arrays and tensors of numbers are built, and anything else in them is refused
        by name. Padding is cut by the rule in ``pymarl/reader.py``. Those files hold no rewards (here 0) and do not say
        who won (here: not reported), and what they hold is what SMAC shows, without what the paper's learners also see:
        its ``last_action`` and ``agent_id`` can be appended, in the order of ``envs.smac``.

        Args:
            folder: Where agent_0, agent_1, ... are, recorded together.
            agents: Their names, such as an environment's ``possible_agents``; by default agent_0, agent_1, ...
            env_id: The environment they fit, such as "smac:5m_vs_6m".
            last_action: Append the last action, one-hot in so many actions; 0 does not.
            agent_id: Append the agent's number, one-hot.
            episodes: Only the first so many (the paper: 1,000).
            max_bytes: Refuse a file whose contents are larger.

        Raises:
            FileNotFoundError: No such folder, or no agent_0 in it.
            ValueError: A file that is damaged, or holds something else, or does not fit the others or the arguments.
        """
        return cls(
            **reader.read(
                folder,
                agents=agents,
                env_id=env_id,
                last_action=last_action,
                agent_id=agent_id,
                episodes=episodes,
                max_bytes=max_bytes,
            )
        )

    def check_compatible(self, agents: Sequence[str], sizes: Sequence[int], env_id: str | None = None) -> None:
        """Check that these demonstrations fit an environment.

        Args:
            agents: The environment's agents, in its order.
            sizes: Each agent's number of observation features.
            env_id: The environment's name; compared where both are known.

        Raises:
            ValueError: Another agent set, order, size or scenario, naming what was expected and what was found.
        """
        if env_id and self.env_id and env_id != self.env_id:
            raise ValueError(f"the environment is {env_id!r}, but the demonstrations were recorded on {self.env_id!r}")
        if set(agents) != set(self.agents):
            raise ValueError(f"the environment's agents are {list(agents)}, the demonstrations' {list(self.agents)}")
        if tuple(agents) != self.agents:
            raise ValueError(
                f"the environment's agents come in the order {list(agents)}, the demonstrations' in the order "
                f"{list(self.agents)}; reorder with Demonstrations.mix({{agent: demos for agent in ...}})"
            )
        for agent, expected, found in zip(agents, sizes, self.sizes, strict=True):
            if expected != found:
                raise ValueError(
                    f"agent {agent!r} has {expected} observation features in the environment, "
                    f"but {found} in the demonstrations"
                )


def _validate(demos: Demonstrations) -> None:
    """Raise one ValueError if the arrays do not fit together."""
    agents, sizes, observations, offsets = demos.agents, demos.sizes, demos.padded_observations, demos.offsets
    if not agents or len(set(agents)) != len(agents) or len(sizes) != len(agents) or min(sizes) < 1:
        raise ValueError(f"demonstrations need unique agents with a size each, but got {list(agents)}, {list(sizes)}")
    if offsets.ndim != 2 or offsets.shape[1] < 2:
        raise ValueError(f"offsets must be [agents, episodes + 1] of at least one episode, but are {offsets.shape}")
    steps, episodes = len(observations), offsets.shape[1] - 1
    shapes = {
        "observations": (observations.shape, (steps, len(agents), max(sizes))),
        "alive": (demos.alive.shape, (steps, len(agents))),
        "actions": (demos.actions.shape[:2], (steps, len(agents))),
        "rewards": (demos.rewards.shape, (steps, len(agents))),
        "offsets": (offsets.shape, (len(agents), episodes + 1)),
        "won": (demos.won.shape, (len(agents), episodes)),
    }
    for name, (found, expected) in shapes.items():
        if found != expected:
            raise ValueError(f"{name} of these demonstrations must have the shape {expected}, but it is {found}")
    kinds = {
        "observations": (observations, "f"),
        "alive": (demos.alive, "b"),
        "actions": (demos.actions, "if"),
        "rewards": (demos.rewards, "f"),
        "offsets": (offsets, "i"),
        "won": (demos.won, "i"),
    }
    for name, (array, kind) in kinds.items():
        if array.dtype.kind not in kind:
            raise ValueError(f"{name} of these demonstrations must be of kind {kind!r}, but it is {array.dtype}")
    if (offsets[:, 0] != 0).any() or (np.diff(offsets) < 1).any() or (offsets[:, -1] > steps).any():
        raise ValueError(f"each agent's offsets must rise from 0 to at most {steps} (the rows), but they do not")
    if not np.isfinite(observations).all() or not np.isfinite(demos.rewards).all():
        raise ValueError("the observations or rewards of these demonstrations hold NaN or infinite values")
