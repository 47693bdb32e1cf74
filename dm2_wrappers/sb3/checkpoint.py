"""Checkpoints of a whole team: one zip file with everything that a run needs to continue.

======================  ==========================================================================================
entry                   what it is
======================  ==========================================================================================
``team.json``           format version, agents, observation sizes, algorithm classes, options, counters
``agents/<i>.zip``      the agent's learner as SB3 saves it
``state.pt``            tensors and numbers (``weights_only=True``): random streams, discriminators, replay buffers
``demonstrations.npz``  a copy of the demonstrations, if a matcher has some
======================  ==========================================================================================

A checkpoint is written to a temporary file and renamed, so a killed process does not damage the previous one. Reading one
unpickles nothing; only ``IndependentLearners.load`` lets SB3 unpickle a part of the learners.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from dm2_wrappers import _checks
from dm2_wrappers._files import replacing
from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.sb3.checkpoint_checks import check_facts, check_state
from dm2_wrappers.sb3.learner_state import printable, short

VERSION = 2
FORMAT = "dm2_wrappers team"
# The keys of TeamState.facts but for "format" and "version", and those of TeamState.tensors.
FACTS = (
    "env_id",
    "agents",
    "sizes",
    "algorithms",
    "options",
    "masked_agents",
    "matcher",
    "custom_networks",
    "schedule",
    "num_timesteps",
    "counters",
    "turn",
    "steps_since_update",
    "episodes",
)
TENSORS = ("streams", "env_stream", "matcher", "action_streams", "dead_values", "replay_buffers", "schedule")
# What a checkpoint from before these facts, options and tensors existed means by leaving them out.
_OLDER_FACTS: dict[str, Any] = {"turn": 0, "schedule": None, "steps_since_update": 0, "episodes": {}}
_OLDER_OPTIONS = {"order": "simultaneous", "convergence": None, "relabel": False}
_OLDER_TENSORS = {"schedule": None}
_LARGEST_JSON = 4 * 2**20  # bytes of team.json


@dataclass(frozen=True)
class TeamState:
    """Everything that a team needs to continue. `IndependentLearners` can be converted to it and made from it.

    Attributes:
        facts: What JSON can hold, under the keys `FACTS`.
        tensors: Tensors and numbers, under the keys `TENSORS`.
        models: Each agent's learner, in the bytes of SB3's own file.
        demonstrations: The matcher's; None without a matcher, or with self-imitation alone.
    """

    facts: Mapping[str, Any]
    tensors: Mapping[str, Any]
    models: Sequence[bytes]
    demonstrations: Demonstrations | None


def file_of(path: str | os.PathLike[str]) -> Path:
    """The checkpoint's file: ``path`` with ``.zip``."""
    path = _checks.path("path", path)
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
        # Mostly observations, which have many equal numbers; the quickest compression makes them several times smaller.
        archive.writestr("state.pt", tensors.getvalue(), zipfile.ZIP_DEFLATED, compresslevel=1)
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
    with file.open("rb") as stream:
        try:
            archive = zipfile.ZipFile(stream)
            facts = _facts(archive)
        except Exception as error:  # a damaged file can make zipfile and json raise anything
            raise ValueError(
                f"{str(file)!r} is not a checkpoint that IndependentLearners.save wrote, or is damaged ({short(error)})"
            ) from error
        with naming(path), archive:
            if facts.get("version") != VERSION:
                raise ValueError(
                    f"it has format version {str(facts.get('version'))[:20]}, but this version of dm2_wrappers reads "
                    f"{VERSION}; train again, or load it with the version that wrote it"
                )
            facts = {**_OLDER_FACTS, **facts}
            _check_keys(facts, FACTS)
            if isinstance(facts["options"], dict):
                facts["options"] = {**_OLDER_OPTIONS, **facts["options"]}
            check_facts(facts)
            models = [archive.read(f"agents/{i}.zip") for i in range(len(facts["agents"]))]
            tensors = torch.load(io.BytesIO(archive.read("state.pt")), weights_only=True, map_location="cpu")
            tensors = {**_OLDER_TENSORS, **tensors} if isinstance(tensors, Mapping) else tensors
            _check_keys(tensors, TENSORS)
            check_state(tensors, facts)
            has_demos = facts["matcher"] is not None and not _own_episodes_alone(archive, facts["matcher"])
            demos = _unpacked(archive) if has_demos else None
    return TeamState({name: facts[name] for name in FACTS}, tensors, models, demos)


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Whatever the body raises becomes one ``ValueError`` that names the checkpoint's file."""
    try:
        yield
    except Exception as error:  # a damaged file can make the libraries that read it raise anything
        reason = printable(str(error), 1000) if type(error) is ValueError else short(error)
        raise ValueError(f"the checkpoint {str(file_of(path))!r} cannot be used or is damaged: {reason}") from error


def _facts(archive: zipfile.ZipFile) -> dict[str, Any]:
    entry = archive.getinfo("team.json")
    if entry.file_size > _LARGEST_JSON:
        raise ValueError(f"team.json has {entry.file_size} bytes")
    facts = json.loads(archive.read(entry))
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError("its team.json does not describe a team")
    return facts


def _check_keys(found: Any, expected: Sequence[str]) -> None:
    missing = [name for name in expected if not isinstance(found, Mapping) or name not in found]
    if missing:
        raise ValueError(f"it lacks {', '.join(missing)}; train again")


def _own_episodes_alone(archive: zipfile.ZipFile, matcher: Mapping[str, Any]) -> bool:
    return matcher.get("self_imitation") is not None and "demonstrations.npz" not in archive.namelist()


def _unpacked(archive: zipfile.ZipFile) -> Demonstrations:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "demonstrations.npz"
        file.write_bytes(archive.read("demonstrations.npz"))
        try:
            return Demonstrations.load(file)
        except ValueError as error:
            # Not the temporary file's name: it is gone by the time someone reads this.
            raise ValueError(f"its demonstrations: {str(error).replace(str(file), file.name)}") from error


@lru_cache(maxsize=1)
def _packed(demos: Demonstrations) -> bytes:
    """The demonstrations' file; compressing it takes seconds, and they never change."""
    with tempfile.TemporaryDirectory() as folder:
        demos.save(file := Path(folder) / "demonstrations.npz")
        return file.read_bytes()
