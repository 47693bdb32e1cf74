"""Minari data sets: the offline data format of the Farama Foundation, on disk and in its command line.

A joint episode of T steps is one episode of Minari's. Its observations and actions are dicts of agents:

- ``observations[agent]`` float32 [T + 1, D_agent]. Minari wants the observation after the last step, which demonstrations
  do not hold. The last one is repeated, and the data set's metadata say ``"last_observation": "repeated"``.
- ``actions[agent]`` int64 [T] or float32 [T, A].
- ``rewards`` float64 [T]: the mean over agents of the team's reward.
- ``terminations``: True at the last step, False before. ``truncations``: False. Demonstrations do not hold which of them
  ended an episode. No learner uses the observation after a termination, so the repeated one does no harm.
- ``infos["dm2_wrappers"]``: ``alive`` bool, ``won`` int8 (1 won, 0 lost, -1 not reported) and ``rewards`` float32, each
  [T + 1, K], with a column for each key of the spaces, in their order, and the last row repeated.

The data set's metadata have all else under ``"dm2_wrappers"``: the agents in their own order, and the provenance.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dm2_wrappers._extras import require
from dm2_wrappers.demonstrations.from_episodes import from_episodes
from dm2_wrappers.demonstrations.selection import place_metadata
from dm2_wrappers.demonstrations.validation import agent_names, plain_metadata
from dm2_wrappers.vector.layout import Layout, check_parallel_env, environment_id
from dm2_wrappers.vector.spaces import flat_space, flatten

if TYPE_CHECKING:
    from dm2_wrappers.demonstrations.dataset import Demonstrations

FORMAT_VERSION = 1
_KEY = "dm2_wrappers"  # in the data set's metadata and in the infos
_ONLY_AGENT = "agent_0"  # of a data set that does not name its agent


def write(demos: Demonstrations, dataset_id: str, env: Any, options: Mapping[str, Any]) -> Any:
    """A new Minari data set; see :meth:`Demonstrations.to_minari`."""
    minari = require("minari", "minari")
    _check_id(dataset_id)
    _check_writable(demos)
    extra = {
        "format_version": FORMAT_VERSION,
        "last_observation": "repeated",
        "agents": list(demos.agents),
        "metadata": plain_metadata(demos.metadata),
    }
    sizes, action_spaces = zip(demos.agents, demos.sizes, strict=True), _action_spaces(demos, env)
    options = {
        "observation_space": spaces.Dict({agent: spaces.Box(-np.inf, np.inf, (d,), np.float32) for agent, d in sizes}),
        "action_space": spaces.Dict(action_spaces),
        "description": f"{len(demos)} episodes of {len(demos.agents)} agents on {demos.env_id or 'an unknown environment'}",
        **options,
    }
    buffers = list(_buffers(demos, action_spaces))
    with warnings.catch_warnings(), _whole_or_not_at_all(dataset_id):
        # About Gymnasium environments, which these are not.
        warnings.filterwarnings("ignore", message="`eval_env` is set to None|env_spec is None")
        dataset = minari.create_dataset_from_buffers(dataset_id, buffers, **options)
        dataset.storage.update_metadata({_KEY: extra})
    return dataset


@contextmanager
def _whole_or_not_at_all(dataset_id: str) -> Iterator[None]:
    """If the block fails or is interrupted, remove what it wrote of a new data set, whose name would be taken otherwise."""
    folder = Path(require("minari.storage", "minari").get_dataset_path(dataset_id))
    there = folder.exists()
    try:
        yield
    except BaseException:
        if not there:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def read(dataset: Any, *, agents: Sequence[str] | None, env_id: str | None) -> dict[str, Any]:
    """The arguments of ``Demonstrations``; see :meth:`Demonstrations.from_minari`."""
    dataset = _loaded(dataset)
    metadata = dataset.storage.metadata
    own = metadata.get(_KEY)
    if own is not None and own.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"the Minari data set {dataset.id!r} is of format version {own.get('format_version')}, but this version of "
            f"dm2_wrappers reads {FORMAT_VERSION}; upgrade dm2_wrappers"
        )
    source = _Source(dataset, own["agents"] if agents is None and own is not None else agents)
    if not len(dataset):
        raise ValueError(f"the Minari data set {dataset.id!r} has no episode")
    episodes, alive, won = zip(*source.episodes(), strict=True)
    provenance = {"minari": dataset.id, "algorithm": metadata.get("algorithm_name")}
    arguments = from_episodes(episodes, env_id=env_id, provenance=provenance)
    # Not by from_episodes, which takes one outcome for all agents and empties the observations of the dead.
    arguments.update(alive=np.concatenate(alive), won=np.concatenate(won, axis=1))
    if own is not None:
        arguments["metadata"] = {**own["metadata"], **({} if env_id is None else {"env_id": env_id})}
        if agents is not None:
            written = dict(zip(own["agents"], own["metadata"].get("positions", range(len(own["agents"]))), strict=True))
            arguments["metadata"].pop("positions", None)
            arguments["metadata"] |= place_metadata([written[agent] for agent in source.agents])
    return arguments


def _check_id(dataset_id: Any) -> None:
    """Before anything is written: Minari makes the folder of a malformed name first."""
    try:
        require("minari.dataset.minari_dataset", "minari").parse_dataset_id(dataset_id)
    except (ValueError, TypeError):
        raise ValueError(
            "dataset_id must be a name with a version, such as 'team/experts-v0', of letters, digits, - and _, and what "
            f"comes before a / must have two or more of them, got {dataset_id!r}"
        ) from None


def _check_writable(demos: Demonstrations) -> None:
    if demos.style != "concurrent":
        raise ValueError(
            f"a step of a Minari episode holds all agents at one time, but these demonstrations are {demos.style}; write "
            "the concurrent ones that they were made from, and shuffle or mix after reading, or save() them as .npz"
        )
    if odd := [agent for agent in demos.agents if not _is_key(agent)]:
        raise ValueError(f"Minari stores agents under their names in HDF5, which cannot be {odd[0]!r}; rename this agent")


def _is_key(name: str) -> bool:
    """Whether HDF5 can hold something under this name; half a character of UTF-16 cannot be written."""
    return name not in ("", ".") and not any(character in "/\0" or "\ud800" <= character <= "\udfff" for character in name)


def _action_spaces(demos: Demonstrations, env: Any) -> dict[str, spaces.Space[Any]]:
    """The environment's, counted from 0 or flat; without an environment, spaces that hold the recorded actions."""
    if env is not None:
        check_parallel_env(env, "to_minari() takes")
        layout = Layout(env, flatten_actions=True)
        demos.check_compatible(layout.agents, layout.sizes, environment_id(env))
        if layout.discrete != (demos.actions.ndim == 2):
            kinds = ("discrete", "continuous") if layout.discrete else ("continuous", "discrete")
            raise ValueError(
                f"the environment's actions are {kinds[0]}, but the recorded ones are {kinds[1]}: leave out env"
            )
        return dict(layout.action_spaces)
    if demos.actions.ndim == 3:
        return dict.fromkeys(demos.agents, spaces.Box(-np.inf, np.inf, demos.actions.shape[2:], np.float32))
    highest = np.maximum(demos.actions.max(axis=0), 0).tolist()
    return {agent: spaces.Discrete(high + 1) for agent, high in zip(demos.agents, highest, strict=True)}


def _buffers(demos: Demonstrations, action_spaces: Mapping[str, spaces.Space[Any]]) -> Iterator[Any]:
    """Each episode as Minari's buffer."""
    buffer = require("minari.data_collector", "minari").EpisodeBuffer
    columns = [demos.agents.index(agent) for agent in sorted(demos.agents)]
    for e, (start, end) in enumerate(pairwise(demos.offsets[0].tolist())):
        rows, and_last = np.arange(start, end), np.append(np.arange(start, end), end - 1)
        yield buffer(
            observations={
                agent: demos.padded_observations[and_last, k, :size]
                for k, (agent, size) in enumerate(zip(demos.agents, demos.sizes, strict=True))
            },
            actions={
                agent: _own_action(demos.actions[rows, k], action_spaces[agent]) for k, agent in enumerate(demos.agents)
            },
            rewards=demos.rewards[rows].mean(axis=1, dtype=np.float64),
            terminations=rows == end - 1,
            truncations=np.zeros(len(rows), bool),
            infos={
                _KEY: {
                    "alive": demos.alive[and_last][:, columns],
                    "won": np.tile(demos.won[columns, e], (len(and_last), 1)),
                    "rewards": demos.rewards[and_last][:, columns],
                }
            },
        )


def _own_action(actions: NDArray[Any], space: spaces.Space[Any]) -> NDArray[Any]:
    """An agent's actions without the padding to the widest agent's."""
    return actions[:, : space.shape[0]] if space.shape else actions


def _loaded(dataset: Any) -> Any:
    """A data set as it is, or by its name."""
    minari = require("minari", "minari")
    if isinstance(dataset, minari.MinariDataset):
        return dataset
    if not isinstance(dataset, str):
        raise TypeError(f"expected a Minari data set or its name, such as 'team/experts-v0', got {type(dataset).__name__}")
    _check_id(dataset)
    try:
        return minari.load_dataset(dataset)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"there is no Minari data set {dataset!r} on this machine: minari list local shows those that are, and "
            f"minari download {dataset} fetches it if it is published"
        ) from None


class _Source:
    """A Minari data set's agents, and its episodes as arrays."""

    def __init__(self, dataset: Any, agents: Sequence[str] | None) -> None:
        self.dataset = dataset
        seen, done = dataset.observation_space, dataset.action_space
        self.joint = isinstance(done, spaces.Dict)
        if self.joint and (not isinstance(seen, spaces.Dict) or set(seen.spaces) != set(done.spaces)):
            raise ValueError(
                f"the Minari data set {dataset.id!r} has an action for each of {list(done.spaces)}, so its observations "
                f"must be a dict of the same agents, but their space is {seen}"
            )
        there = list(done.spaces) if self.joint else [_ONLY_AGENT]
        self.agents = agent_names(there if agents is None else agents)
        if len(self.agents) != len(there) or (self.joint and set(self.agents) != set(there)):
            raise ValueError(
                f"the Minari data set {dataset.id!r} has the agents {there}, not {list(self.agents)}"
                if self.joint
                else f"the Minari data set {dataset.id!r} has one agent, but agents are {list(self.agents)}"
            )
        self._columns = [sorted(self.agents).index(agent) for agent in self.agents]  # in the infos
        self.observation_spaces = {agent: seen[agent] if self.joint else seen for agent in self.agents}
        self.action_spaces = {agent: done[agent] if self.joint else done for agent in self.agents}
        self.discrete = all(isinstance(space, spaces.Discrete) for space in self.action_spaces.values())
        for agent in self.agents:
            flat_space(self.observation_spaces[agent])  # raises the sentence about spaces that are no vector
            if not self.action_spaces[agent].is_np_flattenable:
                raise ValueError(f"actions must flatten to a vector of fixed length, but those of {agent!r} are {done}")

    def episodes(self) -> Iterator[tuple[dict[str, Any], NDArray[Any], NDArray[Any]]]:
        """Each joint episode: what `from_episodes` takes, who was alive [T, K], and the outcome [K, 1]."""
        for episode in self.dataset.iterate_episodes():
            if not (steps := len(episode.rewards)):
                raise ValueError(f"episode {episode.id} of the Minari data set {self.dataset.id!r} has no step")
            seen, done = self._by_agent(episode.observations), self._by_agent(episode.actions)
            own = (episode.infos or {}).get(_KEY)  # what `write` put there
            infos = {} if own is None else {name: np.asarray(each)[:steps, self._columns] for name, each in own.items()}
            rewards = infos["rewards"].T if infos else [episode.rewards] * len(self.agents)
            joint = {
                "observations": {agent: self._observations(agent, seen[agent], steps) for agent in self.agents},
                "actions": {agent: self._actions(agent, done[agent], steps) for agent in self.agents},
                "rewards": dict(zip(self.agents, rewards, strict=True)),
            }
            alive = infos["alive"] if infos else np.ones((steps, len(self.agents)), bool)
            yield joint, alive, infos["won"][:1].T if infos else np.full((len(self.agents), 1), -1)

    def _observations(self, agent: str, values: Any, steps: int) -> NDArray[Any]:
        space = self.observation_spaces[agent]
        return _rows(space, values, steps, flatten)

    def _actions(self, agent: str, values: Any, steps: int) -> NDArray[Any]:
        space: Any = self.action_spaces[agent]
        return np.asarray(values) - space.start if self.discrete else _rows(space, values, steps, spaces.flatten)

    def _by_agent(self, values: Any) -> Mapping[str, Any]:
        return values if self.joint else {self.agents[0]: values}


def _rows(space: spaces.Space[Any], values: Any, steps: int, flat: Callable[[Any, Any], Any]) -> NDArray[Any]:
    """The first T values of a space as rows [T, D]; what follows the last step is left out."""
    if isinstance(space, spaces.Box):
        return np.asarray(values)[:steps].reshape(steps, -1)
    return np.stack([flat(space, _row(values, t)) for t in range(steps)])


def _row(values: Any, t: int) -> Any:
    """The value at time t of a space's arrays, which are nested as the space is."""
    if isinstance(values, Mapping):
        return {key: _row(part, t) for key, part in values.items()}
    if isinstance(values, tuple):
        return tuple(_row(part, t) for part in values)
    return values[t]
