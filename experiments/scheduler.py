"""Many runs, a few at a time: on this machine or on a Ray cluster, with one bar over all of them."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from typing import Any

from tqdm import tqdm

from dm2_wrappers._extras import require
from experiments.plan import Run
from experiments.run import Outcome, execute, is_done, steps_done

_LOOK_SECONDS = 2.0
_CANCEL_SECONDS = 10.0


def run_all(runs: Sequence[Run], *, jobs: int = 2, ray: bool = False) -> list[Outcome]:
    """Do all runs; a failed one is told and does not stop the rest.

    Args:
        runs: What to do, in this order.
        jobs: How many at a time on this machine.
        ray: Make each run a task of the Ray cluster that ``ray.init()`` finds; its machines must share the folders.

    Returns:
        The outcomes, in the order of ``runs``.
    """
    pending = [run for run in runs if not is_done(run)]
    outcomes = {run.folder: Outcome(run, "done") for run in runs if is_done(run)}
    if outcomes:
        tqdm.write(f"{len(outcomes)} of {len(runs)} runs were done before")
    with _bar(pending), closing(_on_ray(pending) if ray else _on_this_machine(pending, jobs)) as finished:
        for outcome in finished:
            outcomes[outcome.run.folder] = outcome
            left = len(runs) - len(outcomes)
            tqdm.write(f"{outcome.run.folder}: {outcome.state}, {left} to go {outcome.message}".rstrip())
    return [outcomes[run.folder] for run in runs]


@contextmanager
def _bar(runs: Sequence[Run]) -> Iterator[None]:
    """A bar over the steps of all runs, which it reads from their folders."""
    total = sum(run.panel.steps for run in runs)
    over = threading.Event()

    def done() -> int:
        return sum(min(steps_done(run), run.panel.steps) for run in runs)

    with tqdm(total=total, initial=done(), unit="step", unit_scale=True, smoothing=0.05, desc="all runs") as bar:

        def look() -> None:
            while not over.wait(_LOOK_SECONDS):
                bar.update(done() - bar.n)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            bar.update(done() - bar.n)


def _on_this_machine(runs: Sequence[Run], jobs: int) -> Generator[Outcome]:
    stop = threading.Event()
    pool = ThreadPoolExecutor(max_workers=jobs)
    busy = []
    try:
        for outcome in _as_they_finish([pool.submit(_safely, run, stop=stop, wait=False) for run in runs]):
            if outcome.state == "busy":
                busy.append(outcome.run)
            else:
                yield outcome
        # What another runner is at, and may leave unfinished: last, so that two runners share a grid.
        yield from _as_they_finish([pool.submit(_safely, run, stop=stop) for run in busy])
    finally:  # Ctrl-C: the runs go on from their checkpoints next time
        stop.set()
        pool.shutdown(cancel_futures=True)


def _as_they_finish(futures: Iterable[Future]) -> Iterator[Outcome]:
    waiting = set(futures)
    while waiting:
        finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()


def _safely(run: Run, **options: Any) -> Outcome:
    """One run's failure is its own, whatever it is."""
    try:
        return execute(run, **options)
    except Exception as error:
        return Outcome(run, "failed", f"{type(error).__name__}: {error}")


def _on_ray(runs: Sequence[Run]) -> Generator[Outcome]:
    ray = require("ray", "ray")
    ray.init(ignore_reinit_error=True)
    task = ray.remote(num_cpus=1)(_safely)
    waiting = {task.remote(run): run for run in runs}
    try:
        while waiting:
            (reference,), _ = ray.wait(list(waiting))
            run = waiting.pop(reference)
            try:
                outcome = ray.get(reference)
            except ray.exceptions.RayError as error:  # its machine was lost, say
                outcome = Outcome(run, "failed", str(error))
            yield outcome
    finally:  # a cancelled task ends its run
        for reference in waiting:
            ray.cancel(reference)
        if waiting:
            ray.wait(list(waiting), num_returns=len(waiting), timeout=_CANCEL_SECONDS)
