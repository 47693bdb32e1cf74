"""Checkpoints of a whole team: one zip file with everything that a run needs to go on.

======================  ==========================================================================================
entry                   what it is
======================  ==========================================================================================
``team.json``           format version, agents, observation sizes, algorithm classes, options, counters
``agents/<i>.zip``      the agent's learner as SB3 saves it (SB3 unpickles a part of it: load only files you trust)
``state.pt``            tensors and numbers (``weights_only=True``): random streams, discriminators, replay buffers
``demonstrations.npz``  a copy of the demonstrations, if there is a matcher
======================  ==========================================================================================

A checkpoint is written under a temporary name and renamed, so killing the process leaves the previous one whole.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from dm2_wrappers._files import replacing
from dm2_wrappers.demonstrations import Demonstrations

VERSION = 2
FORMAT = "dm2_wrappers team"
# The keys of TeamState.facts but for "format" and "version", and those of TeamState.tensors.
FACTS = ("env_id", "agents", "sizes", "algorithms", "options", "matcher", "custom_networks", "num_timesteps", "counters")
TENSORS = ("streams", "env_stream", "matcher", "action_streams", "dead_values", "replay_buffers")


@dataclass(frozen=True)
class TeamState:
    """Everything that a team needs to go on. `IndependentLearners` makes one and is made from one.

    Attributes:
        facts: What JSON can hold, under the keys `FACTS`.
        tensors: Tensors and numbers, under the keys `TENSORS`.
        models: Each agent's learner, in the bytes of SB3's own file.
        demonstrations: The matcher's; None without a matcher.
    """

    facts: Mapping[str, Any]
    tensors: Mapping[str, Any]
    models: Sequence[bytes]
    demonstrations: Demonstrations | None


def file_of(path: str | os.PathLike[str]) -> Path:
    """The checkpoint's file: ``path`` with ``.zip``."""
    path = Path(path)
    return path if path.suffix == ".zip" else path.with_name(path.name + ".zip")


def write(state: TeamState, path: str | os.PathLike[str]) -> None:
    """Write ``<path>.zip``, whole or not at all."""
    assert set(state.facts) == set(FACTS)
    assert set(state.tensors) == set(TENSORS)
    with replacing(file_of(path)) as stream, zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("team.json", json.dumps({"format": FORMAT, "version": VERSION, **state.facts}, indent=1))
        for i, model in enumerate(state.models):
            archive.writestr(f"agents/{i}.zip", model)
        tensors = io.BytesIO()
        torch.save(dict(state.tensors), tensors)
        archive.writestr("state.pt", tensors.getvalue())
        if state.demonstrations is not None:
            archive.writestr("demonstrations.npz", _packed(state.demonstrations))


def read(path: str | os.PathLike[str]) -> TeamState:
    """Read ``<path>.zip``. Nothing is unpickled here; the bytes of the models are for SB3.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: Not a checkpoint, or a damaged one, or one of another version.
    """
    file = file_of(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no checkpoint {str(file)!r}; IndependentLearners.save(path) writes one")
    try:
        archive = zipfile.ZipFile(file)
        facts = json.loads(archive.read("team.json"))
        if facts["format"] != FORMAT:
            raise ValueError(facts["format"])
        broken = archive.testzip()
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(file)!r} is not a checkpoint that IndependentLearners.save wrote, or is damaged") from error
    with archive:
        if broken is not None:
            raise ValueError(f"the checkpoint {str(file)!r} is damaged: its entry {broken!r} fails its checksum")
        if facts["version"] != VERSION:
            raise ValueError(
                f"{str(file)!r} has format version {facts['version']}, but this version of dm2_wrappers reads {VERSION}; "
                "train again, or load it with the version that wrote it"
            )
        tensors = torch.load(io.BytesIO(archive.read("state.pt")), weights_only=True, map_location="cpu")
        missing = [name for name in FACTS if name not in facts] + [name for name in TENSORS if name not in tensors]
        if missing:
            raise ValueError(f"the checkpoint {str(file)!r} lacks {', '.join(missing)}; train again")
        demos = None
        if facts["matcher"] is not None:
            with tempfile.TemporaryDirectory() as folder:
                demos = Demonstrations.load(archive.extract("demonstrations.npz", folder))
        models = [archive.read(f"agents/{i}.zip") for i in range(len(facts["agents"]))]
    return TeamState({name: facts[name] for name in FACTS}, tensors, models, demos)


@lru_cache(maxsize=1)
def _packed(demos: Demonstrations) -> bytes:
    """The demonstrations' file; compressing it takes seconds, and they never change."""
    with tempfile.TemporaryDirectory() as folder:
        demos.save(file := Path(folder) / "demonstrations.npz")
        return file.read_bytes()
