"""Learners spread over processes: some agents' learn in this process, the others' in workers, in lockstep.

This process has the joint environment and the discriminators. For each call of ``learn`` the workers get their agents'
learners as they are here, and give them back afterwards, so everything else finds them here. At each joint step a worker
sends its agents' actions, and reads the joint step from shared memory. At the end of a rollout it waits for what the
discriminators pay. All numbers are the same as in one process: each agent has its own random streams, wherever it learns.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback

from dm2_wrappers import _interrupts
from dm2_wrappers.lockstep import Lockstep
from dm2_wrappers.lockstep.in_worker import Outline, state_of
from dm2_wrappers.lockstep.scheduler import Act, Reset
from dm2_wrappers.lockstep.shared_memory import Blackboard, Note
from dm2_wrappers.sb3 import shipping
from dm2_wrappers.sb3.in_worker import DONE, PAYMENT, Job, LearnersInWorker, Message, Payment, Result
from dm2_wrappers.sb3.training import run_loops
from dm2_wrappers.vector.workers import Workers

# torch imports the second one when it first trains, which takes two seconds.
_PRELOAD = (LearnersInWorker.__module__, "torch._dynamo")


def shares(agents: Sequence[str], workers: int) -> list[list[str]]:
    """The agents of this process, which gets the fewest, and those of each worker; none is left without agents."""
    parts = np.array_split(np.arange(len(agents)), min(workers + 1, len(agents)))
    ends = np.cumsum([len(part) for part in reversed(parts)])
    return [list(agents[end - len(part) : end]) for end, part in zip(ends, reversed(parts), strict=True)]


class PayWorkers(BaseCallback):
    """For the first agent: pays the workers as soon as this process knows what the rollout pays."""

    def __init__(self, pay: Callable[[], None]) -> None:
        super().__init__()
        self._pay = pay

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self._pay()


def _with_payment(callbacks: Sequence[BaseCallback], pay: Callable[[], None]) -> list[BaseCallback]:
    """The first agent's callbacks, the first of which mixes its rewards, with `PayWorkers` after that."""
    mixes, *others = callbacks
    return [mixes, PayWorkers(pay), *others]


@dataclass
class _Worker:
    agents: list[str]
    training: bool = False
    message: Message | None = None  # what it has said and nobody has answered


class SpreadLearners:
    """The worker processes of a team, which start at the first call of ``learn``.

    Args:
        agents: All agents.
        workers: How many processes to start, at most.

    Attributes:
        agents: The agents that learn in the workers.
        own: Those that learn in this process.
    """

    def __init__(self, agents: Sequence[str], workers: int) -> None:
        self.own, *others = shares(agents, workers)
        self.agents: Collection[str] = [agent for share in others for agent in share]
        self._workers = [_Worker(share) for share in others]
        self._processes: Workers | None = None
        self._blackboard = Blackboard()
        self._models: Mapping[str, BaseAlgorithm] = {}
        self._payment: Callable[[], tuple[Any, Any, Any]] | None = None
        self._resets = 0  # of the environment, when the workers last heard of it

    def learn(
        self,
        lockstep: Lockstep,
        models: Mapping[str, BaseAlgorithm],
        callbacks: Mapping[str, Sequence[BaseCallback]],
        of_user: Mapping[str, Sequence[BaseCallback]],
        payment: Callable[[], tuple[Any, Any, Any]] | None,
        total_timesteps: int,
        **learn_kwargs: Any,
    ) -> bool:
        """Train all agents until the first loop ends, as `run_loops` does.

        Args:
            lockstep: The joint environment.
            models: The learners.
            callbacks: The callbacks of this process's agents.
            of_user: The user's callbacks of the workers' agents.
            payment: Returns what the complete rollout pays, as a `Payment` holds it; None: the environment's rewards alone.
            total_timesteps: Passed to every ``model.learn``.
            **learn_kwargs: Passed to every ``model.learn``.

        Returns:
            Whether all loops came to their own ends.

        Raises:
            ValueError: A callback of a worker's agent does not pickle.
            RuntimeError: A worker has ended.
            Exception: Whatever one agent's loop raised, with a note that names the agent.
        """
        self._models, self._payment = models, payment
        if payment is not None:
            callbacks = {**callbacks, self.own[0]: _with_payment(callbacks[self.own[0]], self.pay)}
        jobs = [
            self._job(worker, lockstep, of_user, total_timesteps=total_timesteps, learn_kwargs=learn_kwargs)
            for worker in self._workers
        ]
        failed, results = True, list[Result]()
        try:
            try:
                self._begin(jobs, lockstep)
                ended = run_loops(lockstep, self._of_own(models), callbacks, total_timesteps, elsewhere=self, **learn_kwargs)
                failed = False
            finally:
                results = self._finish(failed)
                self._take_back(lockstep, results, of_user)
        except BaseException as error:
            if any(worker.training for worker in self._workers):  # they have been ended
                self._abandon()
                error.add_note(
                    f"the learners of {', '.join(self.agents)} are as they were before this learn(), the others are not: "
                    "restore() the last checkpoint before you go on"
                )
            raise
        for result in results:
            if result.error is not None:
                raise result.error
        return ended and all(result.ended for result in results)

    def close(self) -> None:
        """End the workers; safe to call twice. The next ``learn`` starts new ones."""
        if self._processes is not None:
            self._processes.close()
        self._processes = None
        self._blackboard.close()
        self._blackboard = Blackboard()

    def requests(self) -> dict[str, Reset | Act] | None:
        """Wait until each of the workers' loops asks for something; None if one of them has ended."""
        requests: dict[str, Reset | Act] = {}
        ended = False
        for worker in self._workers:
            if self._said(worker).kind == PAYMENT:  # no agent of this process has asked for it
                self.pay()
            message = self._said(worker)
            if message.kind == DONE:
                ended = True
            else:
                requests.update(message.content)
        return None if ended else requests

    def answer(self, lockstep: Lockstep) -> None:
        """Let the workers' loops continue after a reset or a joint step."""
        note = self._blackboard.write(state_of(lockstep, stepped=lockstep.resets == self._resets))
        self._resets = lockstep.resets
        for worker in self._workers:
            self._reply(worker, note)

    def pay(self) -> None:
        """Give the workers that wait for it what the rollout pays."""
        assert self._payment is not None
        waiting = [worker for worker in self._training() if self._said(worker).kind == PAYMENT]
        if waiting:
            note = self._blackboard.write(Payment(*self._payment()))
            for worker in waiting:
                self._reply(worker, note)

    def _of_own(self, models: Mapping[str, BaseAlgorithm]) -> dict[str, BaseAlgorithm]:
        return {agent: models[agent] for agent in self.own}

    def _packed_callbacks(self, agent: str, callbacks: Sequence[BaseCallback], lockstep: Lockstep) -> bytes:
        try:
            # A callback has its learner from an earlier learn(); in the worker it gets the one that is there.
            return shipping.pack(list(callbacks), self._models, refused=(lockstep, lockstep.env))
        except Exception as error:  # whatever the user's objects raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"agent {agent!r} learns in a worker process, so its callbacks must pickle, but do not ({reason}): give "
                f"them to {' or '.join(map(repr, self.own))}, which learns in this process, or use workers=0"
            ) from error

    def _job(
        self, worker: _Worker, lockstep: Lockstep, of_user: Mapping[str, Sequence[BaseCallback]], **learning: Any
    ) -> Job:
        models = {agent: self._models[agent] for agent in worker.agents}
        callbacks = {agent: self._packed_callbacks(agent, of_user[agent], lockstep) for agent in models}
        loggers = {agent: model.logger for agent, model in models.items()}
        stays = {"lockstep": lockstep, **{f"logger/{agent}": logger for agent, logger in loggers.items()}}
        try:
            learners = shipping.pack(models, stays, refused=(lockstep.env,))
        except Exception as error:  # whatever the user's objects raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"the learners of {', '.join(models)} must pickle to reach their worker process, but do not ({reason}): "
                "use workers=0"
            ) from error
        return Job(
            outline=Outline.of(lockstep.env),
            paid=self._payment is not None,
            learners=learners,
            callbacks=callbacks,
            folders={agent: logger.dir for agent, logger in loggers.items()},
            logged={agent: shipping.logged(logger) for agent, logger in loggers.items()},
            streams={agent: lockstep.streams[agent] for agent in models},
            state=state_of(lockstep, stepped=False),
            **learning,
        )

    def _begin(self, jobs: Sequence[Job], lockstep: Lockstep) -> None:
        if self._processes is None:
            names = [f"worker {w} (agents {', '.join(worker.agents)})" for w, worker in enumerate(self._workers)]
            self._processes = Workers([LearnersInWorker] * len(names), names, preload=_PRELOAD)
        self._resets = lockstep.resets
        for w, (worker, job) in enumerate(zip(self._workers, jobs, strict=True)):
            data = pickle.dumps(job)
            with _interrupts.deferred():
                for agent in worker.agents:
                    logger = self._models[agent].logger
                    shipping.set_logged(logger, {name: {} for name in job.logged[agent]})  # the worker has it now
                worker.training, worker.message = True, None
                self._processes.send(w, "begin", {"job": data})

    def _finish(self, failed: bool) -> list[Result]:
        """Stop the workers' loops after this turn, and return what became of the learners.

        Args:
            failed: Whether there was an error or Ctrl-C. Then no rollout is paid any more.
        """
        results: list[Result] = []
        while any(worker.training for worker in self._workers):
            if self._processes is None or not self._processes.processes:
                break
            for worker in list(self._training()):
                message = self._said(worker)
                if message.kind == DONE:
                    worker.training = False
                    results.append(message.content)
                elif message.kind == PAYMENT and not failed:
                    self.pay()
                else:
                    self._reply(worker, None)
        return results

    def _take_back(
        self, lockstep: Lockstep, results: Sequence[Result], of_user: Mapping[str, Sequence[BaseCallback]]
    ) -> None:
        for result in results:
            lockstep.streams.update(result.streams)
            for agent, data in result.learners.items():
                shipping.take_back(data, self._models[agent])
                if (state := result.callbacks[agent]) is not None:
                    shipping.take_back_callbacks(state, self._models[agent], of_user[agent])

    def _abandon(self) -> None:
        for worker in self._workers:
            worker.training, worker.message = False, None
        self.close()

    def _training(self) -> Iterator[_Worker]:
        return (worker for worker in self._workers if worker.training)

    def _said(self, worker: _Worker) -> Message:
        """What a worker has said; waits for it. Ctrl-C leaves everything such that it can be asked for again."""
        if worker.message is None:
            assert self._processes is not None
            index = self._workers.index(worker)
            self._processes.wait(index, "learn")
            with _interrupts.deferred():
                message: Message = self._processes.answer(index, "learn")
                worker.message = message
                for row in message.rows:
                    logger = self._models[row.agent].logger
                    for name, value in row.values.items():
                        logger.record(name, value, exclude=row.excluded.get(name))
                    logger.dump(row.step)
        return worker.message

    def _reply(self, worker: _Worker, note: Note | None) -> None:
        assert self._processes is not None
        with _interrupts.deferred():
            worker.message = None
            self._processes.send(self._workers.index(worker), "turn", {"note": note})
