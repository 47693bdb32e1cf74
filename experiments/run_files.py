"""The files in a run's folder: read with checks, so that a damaged file is reported and never used in part.

The program writes ``config.json`` (its settings), ``evaluations.csv`` (one row per evaluation) and, at the end,
``final.json`` (a larger evaluation). The runner writes ``run.json`` (command, versions, commit, time).
"""

from __future__ import annotations

import csv
import errno
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dm2_wrappers._files import replacing
from experiments.plan import Run


class RunFolderError(ValueError):
    """The files of a run's folder cannot be used; the message is one sentence that names the file and what to do."""


def is_done(run: Run) -> bool:
    """Whether the run has ended and was made with these options.

    Raises:
        RunFolderError: ``run.json`` is damaged.
    """
    return (run.folder / "final.json").is_file() and read_run_json(run.folder).get("options") == as_text(run.options)


def steps_done(run: Run) -> int:
    """The environment steps at the newest evaluation; 0 before the first.

    Raises:
        RunFolderError: ``evaluations.csv`` is damaged.
    """
    rows = read_evaluations(run.folder)
    return int(rows[-1]["step"]) if rows else 0


def as_text(options: dict[str, Any]) -> dict[str, str]:
    """Options as ``run.json`` holds them."""
    return {key: str(value) for key, value in options.items()}


def checksum(demonstrations: dict[str, Any] | None) -> str | None:
    """The SHA-256 of a run's demonstrations; None if it has none."""
    return None if demonstrations is None else demonstrations["sha256"]


def write_json(path: Path, content: Any) -> None:
    """Write the whole file or leave the old one."""
    with replacing(path, "w") as file:
        file.write(json.dumps(content, indent=1) + "\n")


def read_run_json(folder: Path) -> dict[str, Any]:
    """The content of ``run.json``; empty before the runner's first attempt.

    Raises:
        RunFolderError: The file is damaged.
    """
    path = folder / "run.json"
    if not path.is_file():
        return {}
    content = _read_object(path)
    for name, (is_valid, expected) in _RUN_JSON.items():
        if name not in content or not is_valid(content[name]):
            raise _damaged(path, f"{name!r} must be {expected}, got {_short(content.get(name))}")
    return content


def read_config(folder: Path) -> dict[str, Any]:
    """The settings in ``config.json``, nested as the program wrote them.

    Raises:
        RunFolderError: The file is missing or damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise RunFolderError(f"{path} is missing: expected the folder of a run, such as examples/ippo_sb3.py writes")
    return _read_object(path)


def read_final(folder: Path) -> dict[str, float] | None:
    """The evaluation after training in ``final.json``; None before the end.

    Raises:
        RunFolderError: The file is damaged.
    """
    path = folder / "final.json"
    if not path.is_file():
        return None
    content = _read_object(path)
    if "step" not in content:
        raise _damaged(path, "'step' is missing")
    for name, value in content.items():
        if not _is_number(value) or not _in_range(name, value):
            raise _damaged(path, f"{name!r} is {_short(value)}")
    return content


def read_evaluations(folder: Path) -> list[dict[str, float]]:
    """The rows of ``evaluations.csv``; empty before the first evaluation. Empty cells are left out.

    Raises:
        RunFolderError: The file is damaged. A file that was cut off counts as damaged.
    """
    path = folder / "evaluations.csv"
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            text = file.read()
        lines = list(csv.reader(io.StringIO(text), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _damaged(path, f"it is no CSV text ({error})") from None
    if not lines or "step" not in lines[0] or len(set(lines[0])) < len(lines[0]):
        raise _damaged(path, f"its first line must name the columns, among them 'step', got {_short(lines[:1])}")
    if not text.endswith("\n"):
        raise _damaged(path, "its last line is cut off")
    head = lines[0]
    rows: list[dict[str, float]] = []
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(head):
            raise _damaged(path, f"line {number} has {len(cells)} values for {len(head)} columns")
        row: dict[str, float] = {}
        for name, cell in zip(head, cells, strict=True):
            if cell:
                value = _number(cell)
                if value is None or not _in_range(name, value):
                    raise _damaged(path, f"line {number} has {_short(cell)} in column {name!r}")
                row[name] = value
        if "step" not in row or (rows and row["step"] <= rows[-1]["step"]):
            raise _damaged(path, f"line {number} must have a larger step than the line before it")
        rows.append({**row, "step": int(row["step"])})
    return rows


def require_all_evaluations(folder: Path, rows: list[dict[str, float]], final: dict[str, float]) -> None:
    """Check that no evaluation is missing at the end: the last row is from the step of the final evaluation.

    Raises:
        RunFolderError: The last row has another step.
    """
    last = rows[-1]["step"] if rows else "none"
    if last != final["step"]:
        raise _damaged(
            folder / "evaluations.csv",
            f"its last step is {last}, but the one of final.json is {final['step']}",
        )


def one_sentence(error: Exception, folder: Path | None = None) -> str:
    """An error for the user: a full disk and a run folder's faults in words, anything else with its type."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = error.filename or folder
        return (
            f"the disk is full{f' (writing to {where})' if where else ''}: free some space and give the same command again"
        )
    return str(error) if isinstance(error, RunFolderError) else f"{type(error).__name__}: {error}"


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # JSON and Unicode errors are ValueErrors
        raise _damaged(path, f"it is no JSON ({_short(error)})") from None
    if not isinstance(content, dict):
        raise _damaged(path, f"it must hold a JSON object, got {_short(content)}")
    return content


def _damaged(path: Path, what: str) -> RunFolderError:
    return RunFolderError(
        f"{path} is damaged: {what}; restore the file from a backup, or move {path.parent} away and repeat the run"
    )


def _short(value: object) -> str:
    text = str(value) if isinstance(value, Exception) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:
        return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_range(name: str, value: float) -> bool:
    """Standard errors of a single episode are NaN; other values are finite, and win rates are shares."""
    if name == "step":
        return value >= 0 and float(value).is_integer()
    if name.endswith("win_rate"):
        return 0 <= value <= 1
    return math.isfinite(value) or (name.endswith("_se") and math.isnan(value))


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_options(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def _is_demonstrations(value: object) -> bool:
    return value is None or (isinstance(value, dict) and isinstance(value.get("sha256"), str))


def _is_duration(value: object) -> bool:
    return _is_number(value) and math.isfinite(value) and value >= 0  # type: ignore[arg-type,operator]


_RUN_JSON: dict[str, tuple[Callable[[object], bool], str]] = {
    "options": (_is_options, "an object of texts"),
    "demonstrations": (_is_demonstrations, "null or an object with a text 'sha256'"),
    "seconds": (_is_duration, "a number of at least 0"),
    "attempts": (_is_count, "a whole number of at least 0"),
    "commit": (lambda value: isinstance(value, str), "a text"),
}
