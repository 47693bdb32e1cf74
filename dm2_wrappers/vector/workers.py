"""Worker processes that answer commands, and that end when their program ends, however it ends.

A worker is not daemonic, because environments may start processes themselves. It leads a process group, so that what it
has started can be ended with it. It watches its parent from a thread: if the parent was killed, the worker is told to
stop whatever it is doing, closes what it serves, and is killed if that takes too long.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import connection as pipes
from multiprocessing.util import Finalize
from typing import Any, NoReturn

import cloudpickle

GRACE_SECONDS = 10.0  # for all workers together to close their environments; StarCraft takes a few
TERM_SECONDS = 5.0  # and once more, for those that had to be told to stop
WATCH_SECONDS = 0.5  # how often to look whether a process is still there

ANSWER, ERROR, UNPICKLABLE = range(3)


class Workers:
    """Processes that each serve one object: they call its methods and send back what those return.

    Args:
        makers: For each worker a function that makes its object. It is called in the worker, at the first command.
        names: For each worker its name in error messages.
        preload: Modules that all workers need and that start no threads. One process imports them, and the workers are
            forked from that one where the system allows it, so they start at once and share the modules' memory.

    Attributes:
        processes: The running processes.

    Raises:
        TypeError: A maker that does not pickle.
    """

    def __init__(
        self, makers: Sequence[Callable[[], Any]], names: Sequence[str], *, preload: Sequence[str] | None = None
    ) -> None:
        self.processes: list[Any] = []
        self._names = list(names)
        self._pipes: list[pipes.Connection] = []
        self._busy: set[int] = set()  # workers that have not answered yet
        self._lock = threading.RLock()
        self._closing = threading.Event()
        try:
            jobs = [cloudpickle.dumps(maker) for maker in makers]
        except Exception as error:  # whatever the user's objects raise
            raise TypeError(
                f"make_env must pickle to reach a worker process, but does not: {_line(error)}; make what does not pickle "
                "inside make_env, or use workers=0"
            ) from error
        # Never forked from this process: they would inherit locks held by other threads (torch's, JAX's) and might hang.
        context: Any = multiprocessing.get_context("spawn")
        if preload is not None and "forkserver" in multiprocessing.get_all_start_methods():
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(list(preload))  # without the program's main module, which may start threads
        self._woken, self._wake = context.Pipe(duplex=False)
        # multiprocessing waits for its processes when the interpreter exits. This ends them before that, or as soon as
        # nobody uses this object any more.
        self._finalizer = Finalize(self, _end, (self._pipes, self.processes, self._busy), exitpriority=10)
        try:
            for job in jobs:
                ours, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, job), daemon=False, name="dm2-vectorize")
                self._pipes.append(ours)
                process.start()
                self.processes.append(process)
                theirs.close()
        except BaseException:
            self.close()
            raise

    def ask(
        self,
        command: str,
        arguments: Sequence[Mapping[str, Any]],
        *,
        timeout: float | None = None,
        watch: Callable[[Iterable[int]], Iterable[int]] = lambda workers: workers,
    ) -> list[Any]:
        """Call a method of each worker's object (or read an attribute); on any failure all workers end.

        Args:
            command: The method's name.
            arguments: Keyword arguments for each worker, or for the first few.
            timeout: Seconds that the answers may take; None waits for as long as it takes.
            watch: Wraps the iteration over answers, for a progress bar.

        Raises:
            RuntimeError: The workers were closed, one failed, or one took too long.
        """
        messages = [_packed((command, dict(each))) for each in arguments]
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            self._check_open()
            try:
                for worker, message in enumerate(messages):
                    self._send(worker, message)
                return [self._answer(worker, command, deadline, timeout) for worker in watch(range(len(messages)))]
            except BaseException:  # Ctrl-C too: an answer left in a pipe would be taken for the next one's
                self._finalizer()
                raise

    def send(self, worker: int, command: str, arguments: Mapping[str, Any]) -> None:
        """Have one worker call a method, without waiting; `answer` gets what it returns. On any failure all workers end.

        Raises:
            RuntimeError: The workers were closed, or this one has ended.
        """
        message = _packed((command, dict(arguments)))
        with self._lock:
            self._check_open()
            try:
                self._send(worker, message)
            except BaseException:
                self._finalizer()
                raise

    def wait(self, worker: int, command: str) -> None:
        """Wait until one worker has answered what it was asked with `send`; `answer` then returns at once.

        Ctrl-C leaves the workers as they are. On any failure all workers end.

        Raises:
            RuntimeError: The workers were closed, or this one has ended.
        """
        with self._lock:
            self._check_open()
            try:
                self._wait(worker, command, None, None)
            except Exception:
                self._finalizer()
                raise

    def answer(self, worker: int, command: str) -> Any:
        """Get what one worker was asked with `send`. On any failure, Ctrl-C too, all workers end.

        Raises:
            RuntimeError: The workers were closed, or this one failed.
        """
        with self._lock:
            self._check_open()
            try:
                return self._answer(worker, command, None, None)
            except BaseException:  # part of the answer may be left in the pipe
                self._finalizer()
                raise

    def _check_open(self) -> None:
        if not self._pipes:
            raise RuntimeError("this vector environment is closed; make a new one")

    def _send(self, worker: int, message: bytes) -> None:
        self._busy.add(worker)
        try:
            self._pipes[worker].send_bytes(message)
        except OSError:
            raise self._death(worker) from None

    def close(self) -> None:
        """End all workers; safe to call twice, and while another thread waits for an answer."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._wake.send_bytes(b"")
        waited = self._lock.acquire(timeout=GRACE_SECONDS)
        try:
            self._finalizer()
        finally:
            if waited:
                self._lock.release()

    def _answer(self, worker: int, command: str, deadline: float | None, timeout: float | None) -> Any:
        self._wait(worker, command, deadline, timeout)
        return self._received(worker, command)

    def _received(self, worker: int, command: str) -> Any:
        try:
            kind, reply = pickle.loads(self._pipes[worker].recv_bytes())
        except (EOFError, OSError):
            raise self._death(worker) from None
        self._busy.discard(worker)
        if kind == ERROR:
            raise RuntimeError(f"{self._names[worker]} failed and all workers were ended; its error was:\n\n{reply}")
        if kind == UNPICKLABLE:
            raise RuntimeError(
                f"{self._names[worker]} could not send its answer to {command!r}, because it does not pickle: {reply}; "
                "spaces, metadata, states and rendered frames must pickle, or use workers=0. All workers were ended"
            )
        return reply

    def _wait(self, worker: int, command: str, deadline: float | None, timeout: float | None) -> None:
        """Wait until a worker has answered.

        A dead worker does not always close its pipe, because programs that it started may have inherited it.
        """
        pipe = self._pipes[worker]
        while True:
            dead = self.processes[worker].exitcode is not None
            left = WATCH_SECONDS if deadline is None else min(WATCH_SECONDS, max(0.0, deadline - time.monotonic()))
            ready = pipes.wait([pipe, self._woken], 0.0 if dead else left)
            if self._closing.is_set():
                raise RuntimeError(f"this vector environment was closed while {command}() waited for its workers")
            if pipe in ready:
                return
            if dead:
                raise self._death(worker)
            if deadline is not None and time.monotonic() >= deadline:
                raise RuntimeError(
                    f"{self._names[worker]} did not answer {command}() within timeout={timeout:g} s, and all workers were "
                    "ended; find out what hangs in that environment, or allow more time"
                )

    def _death(self, worker: int) -> RuntimeError:
        process = self.processes[worker]
        process.join(1.0)
        code = process.exitcode
        _kill(process)  # it may have left programs behind
        return RuntimeError(
            f"{self._names[worker]} ended without an answer, exit code {code}; look above for its output, and start your "
            f'program under `if __name__ == "__main__":`, which new processes need'
        )


def _end(connections: list[pipes.Connection], processes: list[Any], busy: set[int]) -> None:
    """End all workers by one common deadline: idle ones see their pipe close, the others are told to stop."""
    for connection in connections:
        connection.close()
    for worker in busy:
        if worker < len(processes):
            processes[worker].terminate()
    _wait_for(processes, GRACE_SECONDS)
    late = [process for process in processes if process.exitcode is None]
    for process in late:
        process.terminate()
    _wait_for(late, TERM_SECONDS)
    for process in late:
        if process.exitcode is None:
            _kill(process)
    _wait_for(late, TERM_SECONDS)
    for process in processes:
        with contextlib.suppress(ValueError):  # a process that not even a kill has ended
            process.close()
    connections.clear()
    processes.clear()
    busy.clear()


def _wait_for(processes: Sequence[Any], seconds: float) -> None:
    deadline, pause = time.monotonic() + seconds, 0.001
    # Not by joining: a process's sentinel is held open by programs that it started.
    while any(process.exitcode is None for process in processes) and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _kill(process: Any) -> None:
    """Kill a worker together with the programs that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, ProcessLookupError, PermissionError):  # Windows; a worker that has only just begun
        process.kill()


def _packed(message: Any) -> bytes:
    try:
        return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    except Exception:  # slower, but it also takes classes that the user's program defines
        return cloudpickle.dumps(message)


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


# --- in the worker ----------------------------------------------------------------------------------------------------


def _serve(connection: pipes.Connection, job: bytes) -> None:
    """Answer commands until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes the pipe
    signal.signal(signal.SIGTERM, _stop)  # so that the environments are closed
    if hasattr(os, "setpgrp"):
        os.setpgrp()
    threading.Thread(target=_end_with_parent, daemon=True, name="dm2-parent-watch").start()
    served: Any = None
    try:
        while True:
            message = connection.recv_bytes()
            try:
                command, arguments = pickle.loads(message)
                served = cloudpickle.loads(job)() if served is None else served
                value = getattr(served, command)
                answer = (ANSWER, value(**arguments) if callable(value) else value)
            except _StoppedError:
                raise
            except BaseException:
                answer = (ERROR, traceback.format_exc())
            try:
                packed = _packed(answer)
            except Exception as error:
                packed = _packed((UNPICKLABLE, _line(error)))
            connection.send_bytes(packed)
    except (EOFError, OSError):  # the parent closed the pipe or died
        pass
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if served is not None:
            served.close()


class _StoppedError(SystemExit):
    """The parent has told this process to stop."""


def _stop(*_: object) -> NoReturn:
    raise _StoppedError


def _end_with_parent() -> None:
    """Wait for the parent's end, then end this process, too, even if an environment hangs."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    # The process number tells more than the pipe to the parent, which processes that the parent forked keep open. It may
    # be that of the process from which this one was forked, which ends with the parent.
    started_by = os.getppid()
    while parent.is_alive() and os.getppid() == started_by != 1:
        parent.join(WATCH_SECONDS)
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)  # type: ignore[arg-type]
    time.sleep(GRACE_SECONDS)
    if hasattr(os, "killpg"):
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)
