"""Loggers: one for each agent, and one for the team, which gets the mean over the agents of every number."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import HumanOutputFormat, KVWriter, Logger, make_output_format
from stable_baselines3.common.utils import configure_logger

TEAM = "team"  # the folder of the team's log, beside the agents' folders
_NOT_IN_NAMES = frozenset('%/\\:*?"<>|')  # in a file's name on some system, and "%" so that no two agents share a folder


def folder_of(agent: str) -> str:
    """The name of an agent's folder: its own name, but for characters that are not safe there.

    They are percent-encoded, as in web addresses (``a/b`` is ``a%2Fb``, ``..`` is ``%2E%2E``), so that each agent has a
    folder of its own below the logs' folder. An agent called "team" has ``%74eam``, because ``team`` is the team's.
    """
    last = len(agent) - 1
    unsafe = [c in _NOT_IN_NAMES or not c.isprintable() or (c in ". " and i in (0, last)) for i, c in enumerate(agent)]
    if agent.casefold() == TEAM:
        unsafe[0] = True
    encoded = (_percent_encoded(c) if each else c for c, each in zip(agent, unsafe, strict=True))
    return "".join(encoded) or "%"


def _percent_encoded(character: str) -> str:
    """``%`` and two hexadecimal digits for each byte."""
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


class TeamLogs:
    """Gives each learner its logger at the start of ``learn``.

    With ``log_dir`` an agent logs to ``<log_dir>/<agent>/`` as CSV and for TensorBoard, and the team's means go to
    ``<log_dir>/team/``. With SB3's ``tensorboard_log`` they go to SB3's own run folders in
    ``<tensorboard_log>/<agent>/`` and ``<tensorboard_log>/team/``. `folder_of` says how an agent's folder is called if its
    name is no plain file name. ``verbose=1`` prints SB3's tables, which begin with the agent's name. A learner that was
    given a logger with ``set_logger`` keeps it.

    Args:
        log_dir: See above; None for no such log.
    """

    def __init__(self, log_dir: str | os.PathLike[str] | None) -> None:
        self.log_dir = log_dir
        self._ours: dict[str, Logger] = {}

    def attach(
        self, models: Mapping[str, BaseAlgorithm], *, tb_log_name: str | None = None, reset_num_timesteps: bool = True
    ) -> None:
        """Set the loggers of all learners that have no logger of the user's.

        Args:
            models: The learners.
            tb_log_name: Name of SB3's run folders in ``tensorboard_log``; the algorithm's name by default.
            reset_num_timesteps: Whether counting begins anew; SB3 then begins a new run folder.
        """
        if self.log_dir is not None and self._ours:
            return  # these files are still open
        # Those without a logger of the user's: only from them does the team's log get numbers.
        logged = {a: m for a, m in models.items() if not m._custom_logger or m._logger is self._ours.get(a)}
        means = None
        if self.log_dir is not None:
            steps = max(model.num_timesteps for model in models.values())
            means = _Means(_file_logger(os.path.join(self.log_dir, TEAM), steps), len(logged))
        elif (folder := _tensorboard_log(models)) is not None:
            team = _run_logger(os.path.join(folder, TEAM), tb_log_name or "mean", reset_num_timesteps)
            means = _Means(team, len(logged))
        for agent, model in logged.items():
            if self.log_dir is not None:
                logger = _file_logger(os.path.join(self.log_dir, folder_of(agent)), model.num_timesteps)
            else:
                name = tb_log_name or type(model).__name__
                logger = _run_logger(model.tensorboard_log, name, reset_num_timesteps)
                if model.verbose:
                    logger.output_formats.append(_NamedTable(agent))
            if means is not None:
                logger.output_formats.append(_Collector(agent, means))
            self._ours[agent] = logger
            model.set_logger(logger)


def _file_logger(folder: str, steps: int) -> Logger:
    """CSV and TensorBoard in one folder. A loaded team begins a new file, because SB3 would overwrite the old one."""
    suffix = f"_from_{steps}" if steps else ""
    return Logger(folder, [make_output_format(kind, folder, suffix) for kind in ("csv", "tensorboard")])


def _tensorboard_log(models: Mapping[str, BaseAlgorithm]) -> str | None:
    """The folder that holds every agent's ``tensorboard_log``."""
    folders = {agent: model.tensorboard_log for agent, model in models.items()}
    parents = {None if folder is None else os.path.dirname(folder) for folder in folders.values()}
    return parents.pop() if len(parents) == 1 else None


def _run_logger(tensorboard_log: str | None, name: str, reset_num_timesteps: bool) -> Logger:
    """SB3's logger for TensorBoard; without a folder one that writes nothing, where SB3 would make a temporary folder."""
    if tensorboard_log is None:
        return Logger(None, [])
    return configure_logger(0, tensorboard_log, name, reset_num_timesteps)


class _NamedTable(HumanOutputFormat):
    """SB3's table of numbers, with the agent's name as its first row."""

    def __init__(self, agent: str) -> None:
        super().__init__(sys.stdout)
        self._agent = agent

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        super().write({"agent": self._agent, **key_values}, {"agent": ("",), **key_excluded}, step)


class _Collector(KVWriter):
    """Hands one agent's numbers over to the team's means."""

    def __init__(self, agent: str, means: _Means) -> None:
        self._agent, self._means = agent, means

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self._means.add(self._agent, key_values, key_excluded, step)

    def close(self) -> None:
        """Nothing to close."""


class _Means:
    """Writes a row of means once each of the agents has logged again since the row before."""

    def __init__(self, logger: Logger, num_agents: int) -> None:
        self._logger, self._num_agents = logger, num_agents
        self._newest: dict[str, dict[str, float]] = {}
        self._excluded: dict[str, Any] = {}

    def add(self, agent: str, key_values: Mapping[str, Any], key_excluded: Mapping[str, Any], step: int) -> None:
        numbers = {name: float(value) for name, value in key_values.items() if isinstance(value, int | float | np.number)}
        self._newest[agent] = numbers
        self._excluded.update(key_excluded)
        if len(self._newest) < self._num_agents:
            return
        for name in dict.fromkeys(name for each in self._newest.values() for name in each):
            mean = float(np.mean([each[name] for each in self._newest.values() if name in each]))
            self._logger.record(name, mean, exclude=self._excluded.get(name))
        self._logger.dump(step)
        self._newest.clear()
