"""Demonstrations: an expert team's episodes, with the steps of each agent (D_0 ... D_K of Algorithm 1).

All styles of the paper's ablation (section 6.2) have the same layout. Every array has an agent axis, and agent k's
episode e is rows ``offsets[k, e]`` to ``offsets[k, e + 1]`` of column k. In concurrent demonstrations all agents have
the same offsets. In shuffled or mixed ones each agent has its own, and rows after an agent's last episode are padding.

``validation.py`` checks the constructor's arguments, ``recording.py`` plays episodes, ``from_episodes.py`` takes your own
arrays, ``selection.py`` chooses episodes, ``npz.py`` is the file format, ``minari.py`` writes and reads Minari data sets,
and ``pymarl/`` reads the paper's recordings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers.demonstrations import minari, npz, recording, selection, validation
from dm2_wrappers.demonstrations.from_episodes import from_episodes
from dm2_wrappers.demonstrations.pymarl import reader


@dataclass(frozen=True, eq=False, repr=False)
class Demonstrations:
    """Complete joint episodes of an expert team.

    Make them with :meth:`record`, :meth:`load` or :meth:`from_episodes`. The constructor takes the arrays below. It also
    accepts lists, NumPy's numbers, and other numeric dtypes that can be converted without loss
    (floating-point numbers are rounded to float32), and converts them to the types documented here.

    Attributes:
        agents: The K agents' names, in the order of the agent axis.
        sizes: Each agent's own number of features.
        padded_observations: float32 [S, K, D], D the largest of ``sizes``; see :meth:`observations`.
        alive: bool [S, K].
        actions: int64 [S, K] or float32 [S, K, A].
        rewards: float32 [S, K], the team's environment reward.
        offsets: int64 [K, E + 1], where each agent's episodes begin and the last one ends.
        won: int8 [K, E], 1 won, 0 lost, -1 not reported.
        metadata: Where the episodes come from, in types that JSON can store: ``env_id``, ``style`` ("concurrent",
            "shuffled" or "mixed"), ``policy`` (provenance), ``seed``, ``selected`` (how episodes were chosen), and
            ``positions`` (see :attr:`positions`).

    Raises:
        ValueError: The arrays do not fit together, a number is NaN or infinite or cannot be converted to the documented
            dtype without loss, a name is not a string, or the metadata cannot be stored as JSON.
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
        given = {each.name: getattr(self, each.name) for each in fields(self)}
        for name, value in validation.normalized(given).items():
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return self.offsets.shape[1] - 1

    def __repr__(self) -> str:
        return (
            f"Demonstrations({self.env_id}, {len(self)} {self.style} episodes, {len(self.agents)} agents, "
            f"win_rate={self.win_rate}, mean_return={self.mean_return:.2f}, mean_length={self.mean_length:.1f})"
        )

    @property
    def env_id(self) -> str | None:
        """The environment and scenario that the episodes were recorded in; None if unknown."""
        return self.metadata.get("env_id")

    @property
    def style(self) -> str:
        """One of "concurrent", "shuffled" and "mixed", from the metadata or, without them, from the offsets."""
        same = bool((self.offsets == self.offsets[0]).all())
        return str(self.metadata.get("style", "concurrent" if same else "shuffled"))

    @property
    def positions(self) -> tuple[int, ...]:
        """Each agent's place among the environment's agents: 0, 1, ..., unless some were left out or reordered.

        :meth:`mix` and :meth:`from_minari` keep the places. Of a Minari data set of others, the order given is taken.
        """
        return tuple(self.metadata.get("positions", range(len(self.agents))))

    @property
    def win_rate(self) -> float | None:
        """Share of episodes won, of those whose outcome is known, as in ``dm2_wrappers.evaluate``.

        None if no outcome is known or the agents come from different teams.
        """
        reported = self.won >= 0
        if self.style == "mixed" or not reported.any():
            return None
        return float(self.won.mean(where=reported))

    @property
    def has_actions(self) -> bool:
        """Whether the experts' actions were recorded, which ``inputs="state-action"`` and behavior cloning need.

        :meth:`from_episodes` fills in 0 where none are given and says so in the metadata, and so does :meth:`mix` if one
        agent has none.
        """
        if "has_actions" in self.metadata:
            return bool(self.metadata["has_actions"])
        # Recorded episodes (whose metadata have a seed) may well consist of action 0.
        return bool("seed" in self.metadata or self.actions.any())

    @property
    def mean_return(self) -> float:
        """Mean undiscounted environment return of an episode (for mixed demonstrations averaged over the agents' teams)."""
        return float(self.rewards.sum(dtype=np.float64)) / self.won.size

    @property
    def recorded_return(self) -> float:
        """Mean return of all episodes that the experts played, also of those that a choice of episodes left out.

        It is the `mean_return` before the first `filter`, `best` or `subset`.

        Raises:
            ValueError: The metadata do not say what that was, as in files whose episodes were chosen before version 0.2.
        """
        selected = self.metadata.get("selected")
        before = selection.recorded_return(selected) if selected else self.mean_return
        if before is None:
            raise ValueError(
                "these demonstrations do not say what all recorded episodes returned, only those that were chosen: use the "
                "number of the recording itself"
            )
        return before

    @property
    def mean_length(self) -> float:
        """Mean number of joint steps of an episode."""
        return float(self.offsets[:, -1].sum()) / self.won.size

    def observations(self, agent: str) -> NDArray[np.float32]:
        """The observations of one agent in all its episodes, while it was alive.

        Args:
            agent: One of ``agents``.

        Returns:
            float32 [n, D_agent], a new array.

        Raises:
            ValueError: There is no such agent.
        """
        if agent not in self.agents:
            raise ValueError(f"these demonstrations have no agent {agent!r}; theirs are {list(self.agents)}")
        k = self.agents.index(agent)
        end = self.offsets[k, -1]
        return self.padded_observations[:end, k, : self.sizes[k]][self.alive[:end, k]]

    def subset(self, n: int) -> Demonstrations:
        """Keep each agent's first ``n`` episodes.

        Raises:
            ValueError: ``n`` is not between 1 and ``len(self)``.
        """
        if not isinstance(n, int | np.integer) or isinstance(n, bool) or not 1 <= n <= len(self):
            raise ValueError(f"subset(n) takes 1 to {len(self)} episodes of these demonstrations, but n is {n!r}")
        return Demonstrations(**selection.first(self, int(n)))

    def filter(self, *, won: bool) -> Demonstrations:
        """Keep only the episodes that were won, or only those that were lost.

        Concurrent demonstrations stay concurrent: joint episodes are kept or dropped. In shuffled and mixed ones each
        agent's own episodes are chosen. If the agents then have different numbers of episodes, each keeps its first n,
        where n is the smallest of these numbers.

        Args:
            won: True keeps the episodes that were won, False those that were lost. Episodes whose outcome the environment
                did not report are dropped in both cases.

        Raises:
            ValueError: No outcomes are reported, or no episode is left.
        """
        return Demonstrations(**selection.by_outcome(self, won))

    def best(self, share: float) -> Demonstrations:
        """Keep the episodes with the highest environment return, in the order in which they were recorded.

        Concurrent demonstrations stay concurrent: joint episodes are ranked by their mean return over agents. In shuffled
        and mixed ones each agent's own episodes are ranked. Of episodes with equal return the earlier one is kept.

        Args:
            share: The share of the episodes to keep, above 0 and at most 1. The number of episodes is rounded up.

        Raises:
            ValueError: ``share`` is out of range, or all rewards are 0, as in recordings without rewards.
        """
        return Demonstrations(**selection.by_return(self, share))

    def shuffled(self, seed: int) -> Demonstrations:
        """Shuffle each agent's episodes in another random order, so that they are no longer concurrent (section 6.2).

        Raises:
            ValueError: ``seed`` is not an integer of at least 0.
        """
        rng = np.random.default_rng(seed := _checks.integer("seed", seed, least=0))
        orders = [rng.permutation(len(self)) for _ in self.agents]
        return self._reordered(orders, style="mixed" if self.style == "mixed" else "shuffled", shuffle_seed=seed)

    def _reordered(self, orders: Sequence[NDArray[Any]], **metadata: Any) -> Demonstrations:
        return self._select([(self, k, order) for k, order in enumerate(orders)], **metadata)

    def _select(self, columns: Sequence[selection.Column], **metadata: Any) -> Demonstrations:
        return Demonstrations(**selection.select(columns, {**self.metadata, **metadata}))

    @classmethod
    def mix(cls, sources: Mapping[str, Demonstrations]) -> Demonstrations:
        """Combine agents from different demonstrations, such as a team that was not trained together (section 6.2).

        Args:
            sources: The demonstrations to take each agent from, in the new order of agents. Each agent keeps as many
                episodes as the smallest source has.

        Raises:
            ValueError: There are no sources, a source lacks its agent, or the sources differ in scenario or kind of action.
        """
        return cls(**selection.mixed(sources))

    @classmethod
    def from_episodes(
        cls,
        episodes: Sequence[Mapping[str, Any]],
        *,
        env_id: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> Demonstrations:
        """Make demonstrations from your own arrays, such as recordings of another program.

        Example:
            >>> import numpy as np
            >>> import dm2_wrappers as dm2
            >>> rng = np.random.default_rng(0)
            >>> episodes = [{"left": rng.random((20, 4)), "right": rng.random((20, 3))} for _ in range(5)]
            >>> demos = dm2.Demonstrations.from_episodes(episodes)
            >>> len(demos), demos.agents, demos.sizes
            (5, ('left', 'right'), (4, 3))
            >>> steps = {"observations": episodes[0], "rewards": np.ones(20), "won": True}
            >>> dm2.Demonstrations.from_episodes([steps]).mean_return
            20.0

        Args:
            episodes: Joint episodes. Each is a dict from every agent's name to its observations [T, D_agent] (further axes
                are flattened). Row t is the observation before the action of step t. Leave out the observation after the
                last step. Or an episode is a dict that has such a dict under ``"observations"``, and any of

                - ``"actions"``: {agent: [T] integers, counted from 0, or [T, A] floats}; 0 by default,
                - ``"rewards"``: the team's [T], or {agent: [T]}; 0 by default,
                - ``"alive"``: {agent: [T]}, whether the agent was alive at this observation; True by default,
                - ``"won"``: True, False, or None (not reported).
            env_id: The environment that the episodes fit. If None, it is not checked.
            provenance: Notes about the experts, in types that JSON can store.

        Raises:
            ValueError: An episode does not have these shapes, or has other agents or sizes than the first.
        """
        return cls(**from_episodes(episodes, env_id=env_id, provenance=provenance))

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
        """Play complete episodes and record each agent's observations before its actions.

        A DM2 wrapper around the environment is removed first, so that its discriminators are not trained on these
        episodes. If ``infos`` has ``env_reward``, it is recorded instead of the shaped reward. Episodes in which the
        simulator failed are discarded and played again. If the policy has a method ``start_episode(mask)``, it is called
        with a bool [N] that marks the sub-environments in which an episode begins (N = 1 for a ParallelEnv).

        Args:
            env: A PettingZoo ``ParallelEnv`` or a ``MultiAgentVectorEnv``. All sub-environments play the same number of
                episodes. Otherwise short episodes, which finish first, would be over-represented.
            policy: For a ParallelEnv ``policy({agent: observation}) -> {agent: action}``, for a vector environment
                ``policy(observations [N, K, D], infos) -> actions [N, K]``.
            episodes: How many joint episodes to record.
            seed: Seeds the environment's first reset and, while recording, Python's, NumPy's and torch's global random
                streams, from which policies sample. If the policy has its own generator, seed it yourself.
            provenance: Notes about the policy, in types that JSON can store.
            progress_bar: Show a progress bar (needs tqdm).

        Raises:
            ValueError: ``episodes`` is below 1, JSON cannot store the provenance, or an action is not in an agent's space.
            RuntimeError: The simulator failed in more than ten episodes, and in more than ``episodes``.
        """
        return cls(**recording.record(env, policy, episodes, seed=seed, provenance=provenance, progress_bar=progress_bar))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one compressed ``.npz`` file. If saving fails or is interrupted, an older file is not changed.

        Raises:
            ValueError: The metadata have more than a million characters as JSON.
            OSError: The file cannot be written, for example because the disk is full.
        """
        arrays = {name: getattr(self, name) for name in ("alive", "actions", "rewards", "offsets", "won")}
        header = {"env_id": self.env_id, "agents": self.agents, "sizes": self.sizes}
        npz.save(
            path,
            {"observations": self.padded_observations, **arrays},
            {**self.metadata, **header, "style": self.style, "win_rate": self.win_rate},
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, max_bytes: int | None = None) -> Demonstrations:
        """Read a file that :meth:`save` wrote. Nothing is unpickled, so files from others are safe to read.

        Args:
            path: The file.
            max_bytes: Refuse a file whose arrays take more memory than this. (A compressed file of a few megabytes can
                hold gigabytes of zeros.) None: 1 GiB, or 32 times the file's size if that is more.

        Raises:
            FileNotFoundError: There is no such file.
            PermissionError: It may not be read.
            IsADirectoryError: It is a folder.
            ValueError: It is not a demonstrations file, or it is damaged, too large, or of an unknown version.
        """
        arguments = npz.load(path, max_bytes)
        try:
            return cls(**arguments)
        except ValueError as error:
            raise npz.not_usable(path, error) from None

    def to_minari(self, dataset_id: str, *, env: Any = None, **options: Any) -> Any:
        """Write a data set of Minari, the Farama Foundation's offline format (needs the extra ``minari``).

        Each joint episode is one Minari episode, with dicts of agents as observations and actions. Minari wants what was
        observed after the last step, and how the episode ended, and demonstrations hold neither: the last observation is
        repeated, and the last step is marked as a termination, so that learners do not use the repeated observation.
        ``rewards`` is the mean over agents. Each agent's own, ``alive`` and ``won`` are in the infos, and the provenance in
        the data set's metadata. :meth:`from_minari` reads all of it back exactly.

        Args:
            dataset_id: The name of the new data set, such as "team/experts-v0". Minari keeps it in ``~/.minari/datasets``,
                or in the folder that the environment variable ``MINARI_DATASETS_PATH`` names (an absolute path).
            env: The ``ParallelEnv`` of the episodes, whose action spaces are written. Without it, an agent's number of
                actions is the highest that was recorded plus 1, and continuous actions have no bounds.
            options: More arguments of ``minari.create_dataset_from_buffers``, such as ``author``, ``algorithm_name`` and
                ``description``.

        Returns:
            The ``minari.MinariDataset``.

        Raises:
            ImportError: Minari is not installed.
            ValueError: The demonstrations are not concurrent, the name is malformed or taken, HDF5 cannot have an agent's
                name, or the environment has other agents, sizes or kinds of actions.
        """
        return minari.write(self, dataset_id, env, options)

    @classmethod
    def from_minari(cls, dataset: Any, *, agents: Sequence[str] | None = None, env_id: str | None = None) -> Demonstrations:
        """Read a data set of Minari (needs the extra ``minari``).

        If :meth:`to_minari` wrote it, all comes back exactly. Other data sets can be read if

        - their observation and action spaces are dicts with the same keys, the agents; or
        - they have a single agent: any other spaces, of which observations flatten to a vector of fixed length. Then K = 1.

        In both cases observations are flattened as the library flattens those of an environment, the one after an episode's
        last step is left out, every agent gets the episode's rewards and counts as alive, and no outcome is reported.

        Args:
            dataset: A ``minari.MinariDataset`` or the name of one on this machine.
            agents: The agents' order, which Minari does not keep: by default as written, or alphabetical. Or the name of a
                single agent, by default "agent_0".
            env_id: The environment that the episodes fit. If None: as written, or not checked.

        Raises:
            ImportError: Minari is not installed.
            FileNotFoundError: There is no such data set on this machine.
            TypeError: ``dataset`` is neither a data set nor a name.
            ValueError: The data set has other spaces or other agents, or it is empty.
        """
        return cls(**minari.read(dataset, agents=agents, env_id=env_id))

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
        """Read recordings of the paper's own implementation: ``agent_<i>.npz`` or ``.npy``, pickled torch tensors.

        The files are pickles, but they are not unpickled: the reader builds only arrays and tensors of numbers, and the
        error names anything else. ``pymarl/reader.py`` explains how padding is removed. The files have neither rewards
        (here 0) nor wins (here not reported). Their observations are SMAC's, without the last action and the agent's
        number that the paper's learners also see. ``last_action`` and ``agent_id`` append these two as ``envs.smac`` does.

        Args:
            folder: The folder with the files of agents 0, 1, ..., which were recorded together.
            agents: The agents' names, such as an environment's ``possible_agents``; by default agent_0, agent_1, ...
            env_id: The environment that the recordings fit, such as "smac:5m_vs_6m".
            last_action: The number of actions: append the last action, one-hot. 0 does not append it.
            agent_id: Append the agent's number, one-hot.
            episodes: Keep only the first episodes, as many as given here (the paper: 1,000).
            max_bytes: Refuse files whose contents, together or as arrays, are larger.

        Raises:
            FileNotFoundError: There is no such folder, or it has no file of agent_0.
            PermissionError: A file may not be read.
            ValueError: A file is damaged, has other contents, or does not fit the other files or the arguments.
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
            env_id: The environment's name. It is compared if both are known.

        Raises:
            ValueError: The agents, their order, their sizes or the scenario differ. The message says what was expected and
                what was found.
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
