"""Recordings of the paper's own implementation: a folder of pickled ``agent_<i>.npz`` (or ``.npy``) files.

Each file is an object array of dicts, one for each episode: ``obs`` [1, limit + 1, D] and ``actions`` [1, limit + 1, 1],
torch tensors padded with zeros. ``array_pickles.py`` reads the pickles and runs nothing of what they say.

**Where an episode ends.** For an episode of T steps PyMARL stores T + 1 observations, the last one after the last step, and
zeros after that. A dead agent observes zeros, too. A living agent always observes something, at least its own health. So an
agent is alive in a row if any of its features is not 0. A row in which every agent observes zeros is padding, or comes after
the last agent's death. The last row in which an agent is alive is one of two things:

- If the team won or ran out of time, it is the observation *after* the last step. It is not a sample, and is dropped.
- If the last agent died in this step, it is the observation *before* the last step, and is kept.

The files do not say which. The row is kept if an agent attacks in it (an action from 6 on), because attacking needs an enemy
that is still there. Otherwise it is dropped, and so is the last row of all. The observation after the last step is therefore
never taken for a sample, except on maps with medivacs, which may still heal. The price: a lost battle loses its last step if
no living agent attacked in it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dm2_wrappers import _checks
from dm2_wrappers.demonstrations import archive
from dm2_wrappers.demonstrations.archive import UnusableFileError, array_header, check_readable, one_sentence
from dm2_wrappers.demonstrations.pymarl import array_pickles
from dm2_wrappers.demonstrations.validation import agent_names

_LEAST_EPISODE = 200  # bytes of a pickle that an episode takes besides its numbers, at the very least
ATTACK = 6  # SMAC's actions: no-op, stop, four moves, then one for each target

Episode = tuple[NDArray[np.float32], NDArray[np.int64]]  # one agent's: observations [R, D], actions [R]


def read(
    folder: str | os.PathLike[str],
    *,
    agents: Sequence[str] | None = None,
    env_id: str | None = None,
    last_action: int = 0,
    agent_id: bool = False,
    episodes: int | None = None,
    max_bytes: int = 4 * 2**30,
) -> dict[str, Any]:
    """The arguments of ``Demonstrations`` from a folder of recordings; see :meth:`Demonstrations.import_pymarl`."""
    last_action = _checks.integer("last_action", last_action, least=0)
    episodes = _checks.integer("episodes", episodes, least=1, none=True)
    max_bytes, agent_id = _checks.integer("max_bytes", max_bytes, least=1), _checks.flag("agent_id", agent_id)
    paths = _agent_files(_checks.path("folder", folder))
    names = agent_names(agents) if agents is not None else tuple(f"agent_{k}" for k in range(len(paths)))
    if len(names) != len(paths):
        raise ValueError(f"{folder} has files of {len(paths)} agents, but {len(names)} names were given: {list(names)}")
    columns, left = [], max_bytes
    for path in paths:
        check_readable(path, "recording")
        try:
            data = _contents(path, left, max_bytes)
            columns.append(_read_agent(data)[:episodes])
        except archive.DAMAGE as error:
            reason = error if isinstance(error, ValueError) else archive.damaged(error)
            raise ValueError(f"{path} is not a usable recording of PyMARL's: {one_sentence(reason)}") from None
        left -= len(data)
    counts = [len(column) for column in columns]
    if len(set(counts)) != 1 or (episodes or counts[0]) > counts[0]:
        raise ValueError(f"expected {episodes or 'equally many'} episodes of every agent, but {folder} has {counts}")
    joint = [_cut(e, episode) for e, episode in enumerate(zip(*columns, strict=True))]
    widest = max(observations.shape[1] for observations, _, _ in joint[0]) + last_action + agent_id * len(names)
    size = 4 * widest * len(names) * sum(len(episode[0][1]) for episode in joint)
    if size > max_bytes:
        raise ValueError(
            f"the observations of {folder} would take {size:,} bytes, over max_bytes={max_bytes:,}; "
            "pass a larger max_bytes, or fewer episodes"
        )
    return _assemble(joint, names, env_id, last_action, agent_id)


def _agent_files(folder: Path) -> list[Path]:
    """The files of agents 0, 1, 2, ...; an ``.npz`` before an ``.npy``, as PyMARL's reader has it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; expected one with agent_0.npz, agent_1.npz, ...")
    found = {path.stem: path for suffix in ("npy", "npz") for path in folder.glob(f"agent_*.{suffix}") if path.is_file()}
    if "agent_0" not in found:
        raise FileNotFoundError(f"{folder} has no agent_0.npz or agent_0.npy, with which PyMARL's recordings begin")
    paths = [found.pop(f"agent_{k}") for k in range(len(found)) if f"agent_{k}" in found]
    if found:
        raise ValueError(
            f"{folder} has {', '.join(sorted(found))}, but lacks agent_{len(paths)}: copy the missing file there"
        )
    return paths


def _read_agent(data: bytes) -> list[Episode]:
    """One agent's episodes, from an array in NumPy's format."""
    stream = io.BytesIO(data)
    _, shape, descr, _ = array_header(stream, "arr_0")
    if descr != "|O":
        raise UnusableFileError(f"it holds an array of {descr}, but an object array of episodes was expected")
    array = array_pickles.load(stream.read())
    items = array.value if isinstance(array, array_pickles.Array) else None
    if type(items) is not list or shape != (len(items),) or not items:
        raise ValueError("it does not hold an array of one or more episodes")
    result: list[Episode] = []
    left = len(data)
    for e, item in enumerate(items):
        observations, actions = _episode(e, item)
        # In a real file each episode has its own numbers; a small hostile one may point at the same again and again.
        left -= observations.nbytes + _LEAST_EPISODE
        if left < 0:
            raise ValueError("its episodes together are larger than its contents")
        if result and observations.shape[1] != result[0][0].shape[1]:
            sizes = f"{result[0][0].shape[1]} and {observations.shape[1]}"
            raise ValueError(f"its episodes 0 and {e} have different numbers of features: {sizes}")
        if not np.isfinite(observations).all():
            raise ValueError(f"the obs of episode {e} hold NaN or infinite values")
        if not 0 <= actions.min() <= actions.max() < 2**31:
            raise ValueError(f"the actions of episode {e} are not numbers of actions: {actions.min()} to {actions.max()}")
        result.append((observations.astype(np.float32), actions.astype(np.int64)))
    return result


def _contents(path: Path, left: int, max_bytes: int) -> bytes:
    """The one array of an ``.npz``, or the ``.npy`` itself, in NumPy's format; at most ``left`` bytes."""
    if path.suffix == ".npy":
        _check_size(path.stat().st_size, left, max_bytes)
        return path.read_bytes()
    with archive.opened(path) as file:
        if (names := file.namelist()) != ["arr_0.npy"]:
            raise UnusableFileError(f"expected one array arr_0 in it, found {', '.join(names) or 'none'}")
        info = archive.entry(file, "arr_0.npy")
        _check_size(info.file_size, left, max_bytes)
        return archive.read(file, info)


def _check_size(size: int, left: int, max_bytes: int) -> None:
    if size > left:
        before = f" after {max_bytes - left:,} of the agents before it" if left < max_bytes else ""
        raise UnusableFileError(
            f"its contents claim {size:,} bytes{before}, over max_bytes={max_bytes}: pass a larger max_bytes if you trust it"
        )


def _episode(e: int, item: Any) -> tuple[NDArray[Any], NDArray[Any]]:
    """Views of one episode's observations [R, D] and actions [R]."""
    if type(item) is not dict or not {"obs", "actions"} <= item.keys():
        raise ValueError(f"episode {e} is not a dict with obs and actions")
    obs, actions = (x.value if isinstance(x, array_pickles.Array) else x for x in (item["obs"], item["actions"]))
    if not isinstance(obs, np.ndarray) or not isinstance(actions, np.ndarray):
        raise ValueError(f"the obs or actions of episode {e} are no array or tensor")
    if obs.ndim != 3 or actions.ndim != 3 or (1, obs.shape[1], 1) != actions.shape or obs.shape[0] != 1:
        raise ValueError(
            f"episode {e} has obs {obs.shape} and actions {actions.shape}, but (1, limit + 1, features) and "
            "(1, limit + 1, 1) were expected"
        )
    if obs.shape[1] < 2 or obs.shape[2] < 1:
        raise ValueError(f"episode {e} has obs {obs.shape}: no step")
    if obs.dtype.kind != "f" or actions.dtype.kind not in "iu":
        raise ValueError(
            f"episode {e} has obs of {obs.dtype} and actions of {actions.dtype}, but floats and integers were expected"
        )
    return obs[0], actions[0, :, 0]


def _cut(e: int, episode: tuple[Episode, ...]) -> list[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.bool_]]]:
    """Each agent's observations [T, D], actions [T] and alive [T], without padding: the rule is the module's docstring."""
    rows = {len(observations) for observations, _ in episode}
    if len(rows) != 1:
        raise ValueError(f"the agents' recordings of episode {e} have different numbers of rows: {sorted(rows)}")
    alive = np.stack([observations.any(axis=1) for observations, _ in episode])
    living = np.flatnonzero(alive.any(axis=0))
    if not len(living):
        raise ValueError(f"episode {e} holds nothing but zeros")
    last = int(living[-1])
    attacked = any(actions[last] >= ATTACK for _, actions in episode)
    steps = last + 1 if attacked and last + 1 < rows.pop() else max(last, 1)
    return [(observations[:steps], actions[:steps], alive[k, :steps]) for k, (observations, actions) in enumerate(episode)]


def _assemble(
    joint: list[Any], names: tuple[str, ...], env_id: str | None, last_action: int, agent_id: bool
) -> dict[str, Any]:
    """The arguments of ``Demonstrations`` from the joint episodes, with what the learners see appended if wanted."""
    lengths = [len(episode[0][1]) for episode in joint]
    columns = []
    for k in range(len(names)):
        observations = np.concatenate([episode[k][0] for episode in joint])
        actions = np.concatenate([episode[k][1] for episode in joint])
        alive = np.concatenate([episode[k][2] for episode in joint])
        parts = [observations]
        if last_action:
            if not 0 <= actions.min() <= actions.max() < last_action:
                raise ValueError(f"agent {names[k]!r} has actions up to {actions.max()}, but last_action={last_action}")
            previous = np.eye(last_action, dtype=np.float32)[np.roll(actions, 1)]
            previous[np.cumsum([0, *lengths[:-1]])] = 0  # an episode begins with none
            parts.append(previous)
        if agent_id:
            parts.append(np.tile(np.eye(len(names), dtype=np.float32)[k], (len(actions), 1)))
        columns.append((np.concatenate(parts, axis=1) * alive[:, None], actions, alive))
    sizes = tuple(observations.shape[1] for observations, _, _ in columns)
    padded = np.zeros((sum(lengths), len(names), max(sizes)), np.float32)
    for k, (observations, _, _) in enumerate(columns):
        padded[:, k, : sizes[k]] = observations
    shape = (len(padded), len(names))
    return {
        "agents": names,
        "sizes": sizes,
        "padded_observations": padded,
        "alive": np.stack([alive for _, _, alive in columns], axis=1),
        "actions": np.stack([actions for _, actions, _ in columns], axis=1),
        "rewards": np.zeros(shape, np.float32),
        "offsets": np.tile(np.cumsum([0, *lengths], dtype=np.int64), (len(names), 1)),
        "won": np.full((len(names), len(joint)), -1, np.int8),
        "metadata": {
            "env_id": env_id,
            "style": "concurrent",
            "policy": {"recorded_by": "PyMARL", "rewards": "not recorded"},
        },
    }
