"""What the training examples share: environments by name, a run's folder and its files, and how a run ends.

Everything in a run's folder is written whole or not at all, and read whole or refused. A file that is damaged, a full
disk, a second run in the same folder and Ctrl-C each end the program with one sentence instead of a traceback.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import dm2_wrappers as dm2
from dm2_wrappers._files import replacing
from dm2_wrappers.vector import MultiAgentVectorEnv

try:
    import fcntl
except ImportError:  # Windows: there, two runs in one folder are not noticed
    fcntl = None

COLUMNS = ["step", "win_rate", "win_rate_se", "return", "return_se", "length", "length_se", "episodes"]
NUM_ENVS = 8  # sub-environments of a user's environment, unless --num-envs is given

_NOT_WRITABLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
}


# --- environments -------------------------------------------------------------------------------------------------


def vector_env(env: str, num_envs: int, **options: Any) -> MultiAgentVectorEnv:
    """``num_envs`` sub-environments of "backend:scenario", or of the ParallelEnv that "module:function" makes.

    Args:
        env: What the user gave as ``--env``.
        num_envs: How many are played at once.
        **options: For a backend's environments only.
    """
    if make := _users(env):
        return dm2.vectorize(make, num_envs)
    with one_sentence(ValueError, ImportError):
        return dm2.envs.vector_env(env, num_envs, **options)


def parallel_env(env: str, *, render_mode: str | None = None, **options: Any) -> Any:
    """One ParallelEnv by the same names; a user's function is called with ``render_mode``, too."""
    if make := _users(env):
        return make() if render_mode is None else make(render_mode=render_mode)
    with one_sentence(ValueError, ImportError):
        return dm2.envs.parallel_env(env, render_mode=render_mode, **options)


def default_num_envs(env: str) -> int:
    """How many sub-environments to play at once by default."""
    return NUM_ENVS if _users(env) else dm2.envs.default_num_envs(env)


def file_name(env: str) -> str:
    """The environment's name as a part of a file's name."""
    return env.replace(":", "_").replace(".", "_")


def function(name: str) -> Callable[..., Any]:
    """The function that "module:function" names. Modules in the current folder are found, too."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and something that it imports is not
        backends = ", ".join(dm2.envs.BACKENDS)
        raise SystemExit(
            f"There is no module {error.name!r} for {name!r}: give a module that Python finds from here and a function in "
            f"it, as in mpe2.simple_spread_v3:parallel_env. For environments by name, the backends are {backends}."
        ) from None
    except AttributeError:
        raise SystemExit(f"The module {module!r} has no {attribute!r}: give the name of a function in it.") from None
    if not callable(found):
        raise SystemExit(f"{name} is a {type(found).__name__}, not a function.")
    return found


def _users(env: str) -> Callable[..., Any] | None:
    """The function that makes a user's environment; None for a backend's."""
    backend, colon, _ = env.partition(":")
    return function(env) if colon and backend not in dm2.envs.BACKENDS else None


def demonstrations(path: Path | None, env: str, levels: str = "0.3") -> dm2.Demonstrations:
    """Load demonstrations, or end the program with the command that records some.

    Args:
        path: The file; None is demos_data/<env>_win30.npz.
        env: The environment that they should be of.
        levels: For the command: the win rates to record at.
    """
    file = path or Path("demos_data") / f"{file_name(env)}_win30.npz"
    if not file.is_file():
        raise SystemExit(
            f"There are no demonstrations at {file}: choose another file with --demos, or record some with "
            f"python examples/record_demos.py --env {env} --levels {levels}"
        )
    with one_sentence(ValueError, OSError):
        return dm2.Demonstrations.load(file)


@contextlib.contextmanager
def one_sentence(*errors: type[Exception]) -> Iterator[None]:
    """End the program with an error's own sentence: for calls whose errors tell users what to do."""
    try:
        yield
    except errors as error:
        raise SystemExit(str(error)) from None


# --- a run's folder -----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(run: Path) -> Iterator[None]:
    """Work in a run's folder, alone. Ctrl-C, a full disk or a folder without permission ends the program in one sentence.

    Raises:
        SystemExit: With the sentence; after Ctrl-C, with the exit code 130 that shells expect.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        with (run / ".running").open("w") as lock:
            if not _locked(lock):
                raise SystemExit(f"Another program is working in {run}: wait for it, or choose another folder with --run.")
            yield
    except KeyboardInterrupt as stop:
        if any(run.rglob("checkpoint.*")):
            what = "Run the same command again to continue from the last checkpoint."
        else:
            what = "There was no checkpoint yet: the same command starts from the beginning."
        print(f"\nStopped. {what} {stop}".rstrip(), file=sys.stderr)
        raise SystemExit(130) from None
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise SystemExit(
            f"Cannot write to {error.filename or run} ({os.strerror(error.errno)}): mend that and run the same command "
            "again. Everything up to the last checkpoint is saved."
        ) from None


def _locked(lock: Any) -> bool:
    """Whether this process now holds the lock; the system releases it when the process ends, however it ends."""
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


class Stop:
    """Whether the user pressed Ctrl-C."""

    requested = False


@contextlib.contextmanager
def ctrl_c_waits() -> Iterator[Stop]:
    """Within this block, the first Ctrl-C only sets ``stop.requested``; the second one interrupts at once."""
    stop, before = Stop(), signal.getsignal(signal.SIGINT)
    if before in (signal.SIG_IGN, None) or threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: Any) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True

    signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def begin(run: Path, args: Any, free: tuple[str, ...] = ("steps", "run", "bar_position"), why: str = "") -> None:
    """Write down the run's options in its folder. A run that began with other options is refused.

    Args:
        run: The folder.
        args: A dataclass of options.
        free: Options that may change when a run is continued.
        why: A sentence for the refusal about an option that one might expect to be free.
    """
    path, options = run / "config.json", json.loads(json.dumps(asdict(args), default=str))
    if any(run.glob("checkpoint.*")):
        saved = read_json(path, dict)
        # A run from before an option existed has that option's default.
        default = _flat(json.loads(json.dumps(asdict(type(args)()), default=str)))
        before, now = default | _flat(saved), _flat(options)
        changed = [key for key in now if key not in free and before[key] != now[key]]
        if changed:
            was, wanted = ({key: each[key] for key in changed} for each in (before, now))
            reason = f" ({why})" if why else ""
            raise SystemExit(
                f"{run} holds a run with {was}, not {wanted}{reason}: choose another folder with --run, or remove it."
            )
    write_json(path, options)


def check_counts(**options: int | None) -> None:
    """End the program with a sentence unless all of these are at least 1, or None."""
    for name, value in options.items():
        if value is not None and value < 1:
            raise SystemExit(f"--{name.replace('_', '-')} must be at least 1, got {value}")


def _flat(options: dict) -> dict:
    """``{"learner": {"gamma": 0.99}}`` as ``{"learner.gamma": 0.99}``."""
    flat = {}
    for key, value in options.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{name}": each for name, each in _flat(value).items()}
        else:
            flat[key] = value
    return flat


# --- its files ----------------------------------------------------------------------------------------------------


def write_json(path: Path, facts: dict | list) -> None:
    """Write a JSON file, whole or not at all."""
    with replacing(path, "w") as file:
        file.write(json.dumps(facts, indent=1) + "\n")


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file that holds a ``dict`` or a ``list``, or end the program if it is missing or damaged."""
    try:
        facts = json.loads(path.read_text())
        if not isinstance(facts, kind):
            raise ValueError(f"it holds a {type(facts).__name__}, not a {kind.__name__}")
    except FileNotFoundError:
        raise SystemExit(f"{path} is missing: restore it, or remove {path.parent} to begin that run again.") from None
    except (ValueError, RecursionError) as error:
        raise SystemExit(_damaged(path, str(error)[:200])) from None
    return facts


def write_curve(path: Path, rows: list[dict[str, float]]) -> None:
    """Write the evaluations as CSV, one line each; a reader sees the old file or the new one, never a part."""
    with replacing(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def read_curve(path: Path, up_to: int) -> list[dict[str, float]]:
    """Read the evaluations up to step ``up_to``, the last one of which must be at that step.

    A file that is damaged, or cut off, ends the program: read as far as it goes, it would be a wrong curve.
    """
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise SystemExit(f"{path} is missing: restore it, or remove {path.parent} to begin that run again.") from None
    except UnicodeDecodeError:
        raise SystemExit(_damaged(path, "it is not text")) from None
    rows: list[dict[str, float]] = []
    lines = list(csv.reader(text.splitlines()))
    if not lines or lines[0] != COLUMNS or not text.endswith("\n"):
        raise SystemExit(_damaged(path, f"it must begin with {','.join(COLUMNS)} and end with a whole line"))
    for number, line in enumerate(lines[1:], start=2):
        try:
            values = dict(zip(COLUMNS, line, strict=True))
            row = {"step": int(values.pop("step")), **{key: float(value) for key, value in values.items() if value}}
        except ValueError as error:
            raise SystemExit(_damaged(path, f"line {number}: {error}")) from None
        if "return" not in row or (rows and row["step"] <= rows[-1]["step"]):
            raise SystemExit(_damaged(path, f"line {number} has no return, or does not come after the line before"))
        rows.append(row)
    rows = [row for row in rows if row["step"] <= up_to]
    if not rows or rows[-1]["step"] != up_to:
        raise SystemExit(_damaged(path, f"it has no line for step {up_to}, where the last checkpoint is"))
    return rows


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is damaged ({reason}): restore it, or remove {path.parent} to begin that run again."
