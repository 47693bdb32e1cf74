"""Damage checkpoints at random and see that each is refused in one sentence that names the file.

    python -m tests.attack.checkpoints 500

A small team's checkpoint is damaged in its bytes, its JSON, its tensors or its entries. `IndependentLearners.load` and
`restore` must then either work or raise a ``ValueError`` that names the file and no temporary folder, and a failed
`restore` must leave the team as it was.
"""

from __future__ import annotations

import collections
import copy
import io
import json
import random
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from stable_baselines3 import DQN, PPO

from dm2_wrappers.sb3 import IndependentLearners
from tests.helpers.sb3_teams import SMALL, matcher, venv, weights

VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 2, 10**30, 1e308, float("nan"), float("inf"), "", "x", "os:system", "a" * 5000, [], [1], {},
    {"a": []}, [[[]]], 1.5, -0.5, "\x00\n",
)  # fmt: skip
TENSORS: tuple[Any, ...] = (
    torch.zeros(0), torch.zeros(1).expand(10**12), torch.zeros(3, dtype=torch.int64), torch.full((2,), float("nan")),
    torch.zeros(2, 2).to_sparse(), torch.zeros(3, device="meta"), torch.zeros((), dtype=torch.bool),
)  # fmt: skip


def team_of(algorithm: type, *, with_matcher: bool = True) -> IndependentLearners:
    """A small team; a matcher makes PPO's exact and DQN's online."""
    options: dict[str, Any] = {"n_steps": 6, "batch_size": 6}
    if algorithm is DQN:
        options = {"learning_starts": 5, "buffer_size": 50, "batch_size": 4, "update_every": 18}
    if with_matcher:
        options |= {"matcher": matcher(), "coefficient": 0.5}
    return IndependentLearners(algorithm, venv(), seed=0, **options, **SMALL)


def entries(file: Path) -> dict[str, bytes]:
    """The archive's entries."""
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(file: Path, parts: dict[str, bytes]) -> None:
    """The inverse of `entries`."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def changed(tree: Any, rng: random.Random, replacements: tuple[Any, ...]) -> Any:
    """A copy of nested containers with one random part replaced or removed."""
    tree = copy.deepcopy(tree)
    places = list(_places(tree))
    container, key = rng.choice(places)
    if rng.random() < 0.25:
        del container[key]
    else:
        container[key] = rng.choice(replacements)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(tree, dict | list) and not (isinstance(tree, list) and len(tree) > 100):
        for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
            yield tree, key
            yield from _places(tree[key])


def _flip(data: bytes, rng: random.Random) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.randint(1, 5)):
        spoilt[rng.randrange(len(spoilt))] = rng.randrange(256)
    return bytes(spoilt)


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _json(parts: dict[str, bytes], rng: random.Random) -> None:
    if rng.random() < 0.05:
        parts["team.json"] = b"[" * 100_000
    else:
        parts["team.json"] = json.dumps(changed(json.loads(parts["team.json"]), rng, VALUES)).encode()


def _tensors(parts: dict[str, bytes], rng: random.Random) -> None:
    state = torch.load(io.BytesIO(parts["state.pt"]), weights_only=True)
    torch.save(changed(state, rng, VALUES + TENSORS), data := io.BytesIO())
    parts["state.pt"] = data.getvalue()


def _learner(parts: dict[str, bytes], rng: random.Random) -> None:
    """Weights or optimizers of one agent; SB3's pickle stays as it is, since `load` runs it."""
    file = io.BytesIO(parts["agents/1.zip"])
    with zipfile.ZipFile(file) as archive:
        inner = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice([name for name in inner if name.endswith(".pth") and "variables" not in name])
    state = torch.load(io.BytesIO(inner[name]), weights_only=True)
    torch.save(changed(dict(state), rng, VALUES + TENSORS), data := io.BytesIO())
    inner[name] = data.getvalue()
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        for each, content in inner.items():
            archive.writestr(each, content)
    parts["agents/1.zip"] = file.getvalue()


def _entry(parts: dict[str, bytes], rng: random.Random) -> None:
    name = rng.choice(list(parts))
    how = rng.choice(["remove", "swap", "flip", "cut", "empty"])
    if how == "remove":
        del parts[name]
    elif how == "swap":
        parts[name] = parts[rng.choice(list(parts))]
    else:
        parts[name] = {"flip": _flip, "cut": _cut}.get(how, lambda *_: b"")(parts[name], rng)
    # Never a changed pickle for load: SB3 would run it.
    if name.startswith("agents/") and how in ("flip", "swap", "cut"):
        parts[name] = b"PK"


INSIDE: tuple[Callable[[dict[str, bytes], random.Random], None], ...] = (_json, _tensors, _learner, _entry)


def damage(whole: Path, target: Path, rng: random.Random) -> str:
    """Write a damaged copy; the name of what was done."""
    kind = rng.choice(["flip", "cut", "json", "json", "tensors", "tensors", "learner", "entry"])
    if kind in ("flip", "cut"):
        target.write_bytes((_flip if kind == "flip" else _cut)(whole.read_bytes(), rng))
    else:
        parts = entries(whole)
        dict(zip(("json", "tensors", "learner", "entry"), INSIDE, strict=True))[kind](parts, rng)
        write(target, parts)
    return kind


def fault_of(action: Callable[[], Any], file: Path) -> str | None:
    """What is wrong with how a damaged file was refused; None where it was refused well, or could be used."""
    try:
        action()
    except ValueError as error:
        text = str(error)
        if type(error) is not ValueError or file.name not in text:
            return f"{type(error).__name__} without the file's name: {text[:150]}"
        if "/tmp/tmp" in text.replace(str(file), "") or len(text) > 2000 or not text.isprintable():
            return f"an unreadable sentence: {text[:150]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:150]}"
    return None


def attack(number: int, seed: int = 0) -> tuple[list[str], collections.Counter[str]]:
    """Damage ``number`` checkpoints; the faults, and how many were refused or could be used."""
    rng = random.Random(seed)
    faults: list[str] = []
    counts: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="attack") as name:
        folder = Path(name)
        for algorithm in (PPO, DQN):
            whole = folder / f"{algorithm.__name__}.zip"
            team = team_of(algorithm)
            team.learn(36).save(whole)
            for i in range(number // 2):
                file = folder / f"damaged_{algorithm.__name__}_{i}.zip"
                kind = damage(whole, file, rng)
                before, restore = weights(team), partial(team.restore, file)
                refused = _refused(restore)
                for action in (restore, partial(IndependentLearners.load, file, venv())):
                    if fault := fault_of(action, file):
                        faults.append(f"{algorithm.__name__} {i} {kind}: {fault}")
                counts["refused" if refused else "used"] += 1
                if refused and not _equal(before, weights(team)):
                    faults.append(f"{algorithm.__name__} {i} {kind}: restore was refused, but the team has changed")
                if not refused:
                    team.restore(whole)
                file.unlink()
    return faults, counts


def _refused(action: Callable[[], Any]) -> bool:
    try:
        action()
    except Exception:
        return True
    return False


def _equal(first: dict[str, Any], second: dict[str, Any]) -> bool:
    return all(torch.equal(first[agent][name], second[agent][name]) for agent in first for name in first[agent])


def main(number: int, seed: int) -> None:
    """Print the faults and their number."""
    faults, counts = attack(number, seed)
    print("\n".join(faults))
    print(f"{number} damaged checkpoints: {counts['refused']} refused, {counts['used']} could be used, {len(faults)} faults")
    if faults:
        sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
