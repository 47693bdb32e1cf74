"""Many runs, a few at a time: on this machine or on a Ray cluster, with one progress bar for all."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from typing import Any

from tqdm import tqdm

from dm2_wrappers._extras import require
from experiments.locks import LocksMissingError
from experiments.plan import Run
from experiments.run import Outcome, execute
from experiments.run_files import RunFolderError, is_done, one_sentence, steps_done

_BAR_SECONDS = 2.0
_CANCEL_SECONDS = 10.0


def run_all(runs: Sequence[Run], *, jobs: int = 2, ray: bool = False) -> list[Outcome]:
    """Do all runs. A failed run is reported and does not stop the others.

    Args:
        runs: The runs, in the order to start them.
        jobs: How many run at the same time on this machine.
        ray: Make each run a task of the Ray cluster that ``ray.init()`` finds. Its machines must share the folders.

    Returns:
        The outcomes, in the order of ``runs``.
    """
    done_before = {run.folder for run in runs if _is_done(run)}
    pending = [run for run in runs if run.folder not in done_before]
    outcomes = {run.folder: Outcome(run, "done") for run in runs if run.folder in done_before}
    if outcomes:
        tqdm.write(f"{len(outcomes)} of {len(runs)} runs were done before")
    with _progress_bar(pending), closing(_on_ray(pending) if ray else _on_this_machine(pending, jobs)) as finished:
        for outcome in finished:
            outcomes[outcome.run.folder] = outcome
            left = len(runs) - len(outcomes)
            tqdm.write(f"{outcome.run.folder}: {outcome.state}, {left} left {outcome.message}".rstrip())
    return [outcomes[run.folder] for run in runs]


def _is_done(run: Run) -> bool:
    """A run with a damaged file is not done: `execute` reports it."""
    try:
        return is_done(run)
    except RunFolderError:
        return False


@contextmanager
def _progress_bar(runs: Sequence[Run]) -> Iterator[None]:
    """A bar over the steps of all runs, which are read from their folders."""
    total = sum(run.panel.steps for run in runs)
    over = threading.Event()

    def done() -> int:
        return sum(min(_steps_done(run), run.panel.steps) for run in runs)

    with tqdm(total=total, initial=done(), unit="step", unit_scale=True, smoothing=0.05, desc="all runs") as bar:

        def update() -> None:
            while not over.wait(_BAR_SECONDS):
                bar.update(done() - bar.n)

        thread = threading.Thread(target=update, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            bar.update(done() - bar.n)


def _steps_done(run: Run) -> int:
    try:
        return steps_done(run)
    except RunFolderError:
        return 0


def _on_this_machine(runs: Sequence[Run], jobs: int) -> Generator[Outcome]:
    stop = threading.Event()
    pool = ThreadPoolExecutor(max_workers=jobs)
    busy = []
    try:
        for outcome in _as_they_finish([pool.submit(_outcome, run, stop=stop, wait=False) for run in runs]):
            if outcome.state == "busy":
                busy.append(outcome.run)
            else:
                yield outcome
        # Runs that another runner works on come last, so two runners share a grid. The other runner may not finish them.
        yield from _as_they_finish([pool.submit(_outcome, run, stop=stop) for run in busy])
    finally:  # after Ctrl-C the next attempt continues from the checkpoints
        stop.set()
        pool.shutdown(cancel_futures=True)


def _as_they_finish(futures: Iterable[Future]) -> Iterator[Outcome]:
    waiting = set(futures)
    while waiting:
        finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()


def _outcome(run: Run, **options: Any) -> Outcome:
    """Execute a run; any error is this run's failure only."""
    try:
        return execute(run, **options)
    except LocksMissingError:  # no run can start
        raise
    except Exception as error:
        return Outcome(run, "failed", one_sentence(error, run.folder))


def _on_ray(runs: Sequence[Run]) -> Generator[Outcome]:
    ray = require("ray", "ray")
    ray.init(ignore_reinit_error=True)
    task = ray.remote(num_cpus=1)(_outcome)
    waiting = {task.remote(run): run for run in runs}
    try:
        while waiting:
            (reference,), _ = ray.wait(list(waiting))
            run = waiting.pop(reference)
            try:
                outcome = ray.get(reference)
            except ray.exceptions.RayError as error:  # for example, its machine was lost
                outcome = Outcome(run, "failed", str(error))
            yield outcome
    finally:  # a cancelled task ends its run
        for reference in waiting:
            ray.cancel(reference)
        if waiting:
            ray.wait(list(waiting), num_returns=len(waiting), timeout=_CANCEL_SECONDS)
