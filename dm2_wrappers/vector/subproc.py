"""Any ParallelEnv as a vector environment whose copies are spread over worker processes.

Each worker runs a :class:`SyncVectorEnv` over its share of the copies, and the arrays are joined here, so the numbers
are those of one process. A worker lives as long as its pipe: when the parent closes it, or dies, the worker closes
its environments and ends.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from dm2_wrappers.vector.base import Infos, MultiAgentVectorEnv, StepResult
from dm2_wrappers.vector.sync import SyncVectorEnv, sub_env_seeds

_GRACE_SECONDS = 10.0  # for a worker to close its environments; StarCraft takes a few
_TERM_SECONDS = 5.0  # and once more, for one that was told to stop whatever it was doing


class SubprocVectorEnv(MultiAgentVectorEnv):
    """``num_envs`` copies of a ParallelEnv in ``workers`` processes; see :func:`dm2_wrappers.vectorize`."""

    def __init__(self, make_env: Callable[[], Any], num_envs: int, workers: int, *, state: bool = False) -> None:
        self.num_envs = num_envs
        self._shares = [share for share in np.array_split(np.arange(num_envs), workers) if len(share)]
        self._connections: list[Connection] = []
        self._processes: list[Any] = []
        # "spawn": a forked process inherits locks held by other threads (torch's, JAX's) and may hang.
        context = multiprocessing.get_context("spawn")
        factory = cloudpickle.dumps(make_env)
        try:
            for share in self._shares:
                ours, theirs = context.Pipe()
                process = context.Process(
                    target=_work, args=(theirs, factory, len(share), int(share[0]), state), daemon=True, name="dm2-vectorize"
                )
                self._connections.append(ours)
                process.start()
                self._processes.append(process)
                theirs.close()
        except BaseException:
            self.close()
            raise
        self.layout, *others = self._ask("open")
        try:
            for share, layout in zip(self._shares[1:], others, strict=True):
                self.layout.check_same(layout, int(share[0]))
        except ValueError:
            self.close()
            raise
        self.possible_agents = self.layout.agents
        self.observation_spaces = self.layout.observation_spaces
        self.action_spaces = self.layout.action_spaces
        self.env_id = self.layout.env_id
        self._started = False

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], Infos]:
        """Start a new episode in every copy; without a seed each continues its own random stream."""
        seeds = sub_env_seeds(seed, self.num_envs)
        parts = [{"seed": None if seed is None else [seeds[i] for i in share], "options": options} for share in self._shares]
        observations, infos = zip(*self._ask("reset", parts), strict=True)
        self._started = True
        return np.concatenate(observations), self._join(infos)

    def step(self, actions: NDArray[Any]) -> StepResult:
        """Take one joint step in every copy; a copy whose episode ends starts its next one."""
        if not self._started:
            raise RuntimeError("step() needs an open vector environment and a first reset()")
        actions = self.layout.check_actions(actions, self.num_envs)
        replies = self._ask("step", [{"actions": actions[share]} for share in self._shares])
        *arrays, infos = zip(*replies, strict=True)
        observations, rewards, terminations, truncations = map(np.concatenate, arrays)
        return observations, rewards, terminations, truncations, self._join(infos)

    def render(self) -> Any:
        """What copy 0's ``render()`` returns."""
        return self._ask("render", [{}])[0]

    def close(self) -> None:
        """Close every copy and end every worker; safe to call twice."""
        connections, self._connections = self._connections, []
        processes, self._processes = self._processes, []
        for connection in connections:
            connection.close()
        for process in processes:
            process.join(_GRACE_SECONDS)
            if process.is_alive():
                process.terminate()
                process.join(_TERM_SECONDS)
            if process.is_alive():
                _kill(process)
                process.join()
            process.close()

    def _join(self, parts: Sequence[Infos]) -> Infos:
        """The workers' infos as one; a worker none of whose copies reported a win counts as not won."""
        names = dict.fromkeys(name for part in parts for name in part)
        return {
            name: np.concatenate(
                [part.get(name, np.zeros(len(share), bool)) for part, share in zip(parts, self._shares, strict=True)]
            )
            for name in names
        }

    def _ask(self, command: str, parts: Sequence[Mapping[str, Any]] | None = None) -> list[Any]:
        """Send each worker (or the first few) its part and collect the answers; on any failure end all workers."""
        if not self._connections:
            raise RuntimeError("this vector environment is closed; make a new one")
        parts = [{}] * len(self._connections) if parts is None else parts
        try:
            for worker, part in enumerate(parts):
                try:
                    self._connections[worker].send((command, part))
                except OSError:
                    raise self._death(worker) from None
            return [self._answer(worker) for worker in self._watch(command, range(len(parts)))]
        except BaseException:  # Ctrl-C too: an answer left in a pipe would be taken for the next one's
            self.close()
            raise

    def _watch(self, command: str, workers: Iterable[int]) -> Iterable[int]:
        """For subclasses that show how the answers come in."""
        return workers

    def _answer(self, worker: int) -> Any:
        try:
            succeeded, reply = self._connections[worker].recv()
        except (EOFError, OSError):
            raise self._death(worker) from None
        if not succeeded:
            raise RuntimeError(f"{self._name(worker)} failed and all workers were ended; its error was:\n\n{reply}")
        return reply

    def _death(self, worker: int) -> RuntimeError:
        _kill(self._processes[worker])  # it may have left programs behind
        self._processes[worker].join(1.0)
        return RuntimeError(
            f"{self._name(worker)} ended without an answer, exit code {self._processes[worker].exitcode}; look above "
            f'for its output, and start your program under `if __name__ == "__main__":`, which new processes need'
        )

    def _name(self, worker: int) -> str:
        return f"worker {worker} (copies {self._shares[worker][0]} to {self._shares[worker][-1]})"


def _kill(process: Any) -> None:
    """Kill a worker together with the programs that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, ProcessLookupError, PermissionError):  # Windows; a worker that has only just begun
        process.kill()


def _stop(*_: object) -> NoReturn:
    raise SystemExit


def _work(connection: Connection, factory: bytes, count: int, first_copy: int, state: bool) -> None:
    """A worker's life: answer commands with (True, reply) or (False, traceback) until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then closes the pipe
    signal.signal(signal.SIGTERM, _stop)  # with all that is to be closed
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # a group of its own, for the parent to find its programs even if it was killed itself
    venv: Any = None
    try:
        while True:
            command, arguments = connection.recv()
            try:
                if command == "open":
                    venv = SyncVectorEnv(cloudpickle.loads(factory), count, state=state, first_copy=first_copy)
                    answer = (True, venv.layout)
                else:
                    answer = (True, getattr(venv, command)(**arguments))
            except BaseException:
                answer = (False, traceback.format_exc())
            connection.send(answer)
    except (EOFError, OSError):  # the parent closed the pipe or died
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if venv is not None:
            venv.close()
