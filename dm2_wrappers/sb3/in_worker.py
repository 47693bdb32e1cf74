"""Some agents' learners in a worker process: what `dm2_wrappers.sb3.spread` starts there."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.logger import KVWriter, Logger

from dm2_wrappers._extras import require
from dm2_wrappers.lockstep import LoopStopped
from dm2_wrappers.lockstep.in_worker import LockstepInWorker, Outline
from dm2_wrappers.lockstep.shared_memory import BlackboardReader, Note
from dm2_wrappers.rng_state import GlobalRNGState
from dm2_wrappers.sb3 import shipping
from dm2_wrappers.sb3.algorithm1 import MixRewards
from dm2_wrappers.sb3.callbacks import agent_callbacks
from dm2_wrappers.sb3.training import run_loops

REQUESTS, PAYMENT, DONE = "requests", "payment", "done"  # the kinds of `Message`


@dataclass(frozen=True)
class Job:
    """What a worker needs for one call of ``learn``.

    Attributes:
        outline: The joint environment.
        paid: Whether the learners are paid r_gail at the end of each rollout.
        total_timesteps: Passed to every ``model.learn``.
        learn_kwargs: Passed to every ``model.learn``.
        learners: The agents' learners with their views, packed by `shipping.pack` as a dict by agent.
        callbacks: Each agent's own callbacks, packed one agent at a time.
        folders: Each agent's ``logger.dir``.
        logged: What each agent's logger has recorded and not written yet.
        streams: Each agent's random streams.
        state: Where the joint environment is; see `state_of`.
    """

    outline: Outline
    paid: bool
    total_timesteps: int
    learn_kwargs: Mapping[str, Any]
    learners: bytes
    callbacks: Mapping[str, bytes]
    folders: Mapping[str, str | None]
    logged: Mapping[str, Any]
    streams: Mapping[str, GlobalRNGState]
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Payment:
    """What a complete rollout pays.

    Attributes:
        gail_rewards: r_gail, float32 [T, N, K].
        coefficients: The agents' c, [K].
        metrics: What the discriminators' update returned.
    """

    gail_rewards: NDArray[np.float32]
    coefficients: NDArray[Any]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """What a learner's logger writes at once: the arguments of SB3's ``KVWriter.write``."""

    agent: str
    values: Mapping[str, Any]
    excluded: Mapping[str, Any]
    step: int


@dataclass(frozen=True)
class Result:
    """What became of the learners.

    Attributes:
        ended: Whether all loops came to their own ends.
        error: What one of the loops raised.
        learners: Each learner's state; see `shipping.returning`.
        callbacks: Each agent's callbacks; None where they do not pickle any more.
        streams: Each agent's random streams.
    """

    ended: bool
    error: Exception | None
    learners: Mapping[str, bytes]
    callbacks: Mapping[str, bytes | None]
    streams: Mapping[str, GlobalRNGState]


@dataclass(frozen=True)
class Message:
    """What a worker says whenever it waits: its agents' requests, that it waits for a payment, or its result."""

    kind: str
    content: Any = None
    rows: Sequence[Row] = ()


@dataclass
class _Rows(KVWriter):
    """Keeps what one learner logs, for the process that writes the files."""

    agent: str
    rows: list[Row] = field(repr=False)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        self.rows.append(Row(self.agent, dict(key_values), dict(key_excluded), step))

    def close(self) -> None:
        """Nothing to close."""


class PaidElsewhere:
    """Stands for the `JointRollout` of the other process, which has the discriminators."""

    def __init__(self, worker: LearnersInWorker) -> None:
        self._worker = worker
        self._payment: Payment | None = None

    def gail_rewards(self) -> NDArray[np.float32]:
        """r_gail of the complete rollout, [T, N, K]."""
        return self._of_rollout().gail_rewards

    @property
    def metrics(self) -> Mapping[str, float]:
        """What the discriminators' update returned."""
        return self._of_rollout().metrics

    def coefficient(self, index: int) -> float:
        """One agent's c."""
        return float(self._of_rollout().coefficients[index])

    def forget(self) -> None:
        """The environment has stepped: a new rollout."""
        self._payment = None

    def _of_rollout(self) -> Payment:
        if self._payment is None:
            self._payment = self._worker.ask(PAYMENT)
        assert self._payment is not None
        return self._payment


class LearnersInWorker:
    """Runs the loops of some agents' learners. Whenever they wait, so does the process, for `turn`.

    The loops run in a greenlet of their own, so that they can ask from within SB3's training loop.
    """

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._greenlet = require("greenlet", "sb3")
        self._reader = BlackboardReader()
        self._rows: list[Row] = []

    def begin(self, job: bytes) -> Message:
        """Begin to train; returns the loops' first requests."""
        self._main = self._greenlet.getcurrent()
        self._waiting = self._greenlet.greenlet(self._run)
        return self._said(self._waiting.switch(pickle.loads(job)))

    def turn(self, note: Note | None) -> Message:
        """Go on with what the other process has written, until the loops wait again.

        Args:
            note: Where the answer is; None: all loops must stop.
        """
        return self._said(self._waiting.switch(None if note is None else self._reader.read(note)))

    def close(self) -> None:
        """Forget the shared memory."""
        self._reader.close()

    def ask(self, kind: str, content: Any = None) -> Any:
        """Called by the loops: say something and wait for the answer.

        Raises:
            LoopStopped: All loops must stop.
        """
        self._waiting = self._greenlet.getcurrent()
        answer = self._main.switch(Message(kind, content))
        if answer is None:
            raise LoopStopped
        return answer

    def _said(self, message: Message) -> Message:
        rows, self._rows[:] = list(self._rows), []
        return Message(message.kind, message.content, rows)

    def _run(self, job: Job) -> Message:
        """Train; the last message of this call of ``learn``."""
        agents = list(job.streams)
        rollout = PaidElsewhere(self)

        def exchange(requests: Mapping[str, Any]) -> Any:
            state = self.ask(REQUESTS, dict(requests))
            rollout.forget()
            return state

        lockstep = LockstepInWorker(job.outline, agents, exchange)
        lockstep.streams = dict(job.streams)
        lockstep.follow(job.state)
        loggers = {agent: Logger(job.folders[agent], [_Rows(agent, self._rows)]) for agent in agents}
        for agent, logger in loggers.items():
            shipping.set_logged(logger, job.logged[agent])
        here = {"lockstep": lockstep, **{f"logger/{agent}": logger for agent, logger in loggers.items()}}
        models = shipping.unpack(job.learners, here)
        callbacks = {agent: shipping.unpack(data, models) for agent, data in job.callbacks.items()}
        all_callbacks = {}
        for agent, model in models.items():
            k = job.outline.possible_agents.index(agent)
            mixes: Any = MixRewards  # it takes any rollout that pays
            pays = mixes(rollout, k, agent, partial(rollout.coefficient, k)) if job.paid else None
            all_callbacks[agent] = agent_callbacks(pays, shipping.view_of(model), callbacks[agent])
        ended, error = False, None
        try:
            ended = run_loops(lockstep, models, all_callbacks, job.total_timesteps, **job.learn_kwargs)
        except LoopStopped:
            pass
        except Exception as raised:
            error = _picklable(raised)
        learners = {agent: shipping.returning(model) for agent, model in models.items()}
        back = {agent: shipping.returning_callbacks(callbacks[agent], model) for agent, model in models.items()}
        return Message(DONE, Result(ended, error, learners, back, lockstep.streams))


def _picklable(error: Exception) -> Exception:
    """The error, or one with its text where it does not pickle, with the worker's traceback as a note."""
    text = traceback.format_exc()
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        notes = getattr(error, "__notes__", ())
        error = RuntimeError(f"{type(error).__name__}: {error}")
        for note in notes:
            error.add_note(note)
    error.add_note(f"in its worker process:\n{text}")
    return error
