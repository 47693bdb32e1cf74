"""Batched multi-agent environments: the base class, a base for wrappers, and `vectorize` for any ParallelEnv."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dm2_wrappers import _checks
from dm2_wrappers.vector.base import Infos, MultiAgentVectorEnv, MultiAgentVectorWrapper, StepResult
from dm2_wrappers.vector.layout import check_parallel_env
from dm2_wrappers.vector.subproc import SubprocVectorEnv
from dm2_wrappers.vector.sync import SyncVectorEnv

__all__ = [
    "Infos",
    "MultiAgentVectorEnv",
    "MultiAgentVectorWrapper",
    "StepResult",
    "SubprocVectorEnv",
    "SyncVectorEnv",
    "as_vector_env",
    "vectorize",
]


def as_vector_env(env: Any, what: str) -> MultiAgentVectorEnv:
    """A vector environment as it is, or a ParallelEnv as one with one sub-environment.

    Args:
        env: What the user gave.
        what: How to name it in the error, such as "evaluate() plays".

    Raises:
        TypeError: It is something else.
        ValueError: It cannot be batched.
    """
    if isinstance(env, MultiAgentVectorEnv):
        return env
    check_parallel_env(env, what)
    return SyncVectorEnv(lambda: env, 1)


def vectorize(
    make_env: Callable[[], Any],
    num_envs: int,
    *,
    workers: int = 0,
    state: bool = False,
    timeout: float | None = None,
) -> MultiAgentVectorEnv:
    """Batch any PettingZoo ``ParallelEnv``.

    Observations are flattened (``Box``, ``Discrete``, ...). The action mask of PettingZoo's
    ``{"observation", "action_mask"}`` goes to ``infos["action_mask"]``; all other keys are features. ``Discrete`` actions
    count from 0. Actions of absent agents are ignored. Sub-environment i behaves exactly like a single environment with
    the same seed, in one process or in several.

    Args:
        make_env: Makes one sub-environment; called ``num_envs`` times.
        num_envs: N.
        workers: Number of worker processes. With 0 all sub-environments run in this process. With workers, ``make_env`` is
            pickled with cloudpickle, and your program must start under ``if __name__ == "__main__":``.
        state: Call ``env.state()`` at every step, for ``infos["state"]``.
        timeout: Seconds that the workers may take to reset or step. If they take longer, all workers are ended. None waits
            forever. Needs ``workers``, because a step in this process cannot be interrupted.

    Raises:
        TypeError: ``make_env`` is not a function, or does not make a ParallelEnv.
        ValueError: An option is out of range, or the environment cannot be batched (the message says why).
        RuntimeError: A worker failed (the message has its traceback), or exceeded ``timeout`` (the message names it).
    """
    if not callable(make_env):
        raise TypeError(
            f"vectorize() makes the sub-environments itself: pass a function that makes one, e.g. lambda: make(), "
            f"got {type(make_env).__name__}"
        )
    num_envs = _checks.integer("num_envs", num_envs, least=1)
    workers = _checks.integer("workers", workers, least=0)
    if workers:
        return SubprocVectorEnv(make_env, num_envs, workers, state=state, timeout=timeout)
    if timeout is not None:
        raise ValueError(f"timeout={timeout!r} needs workers=1 or more: a step in this process cannot be interrupted")
    return SyncVectorEnv(make_env, num_envs, state=state)
