"""Checkpoints of a whole team: one zip file with everything that a run needs to go on.

====================  ==========================================================================================
entry                 what it is
====================  ==========================================================================================
``team.json``         format version, agents, observation sizes, algorithm classes, options, counters
``agents/<i>.zip``    the agent's learner as SB3 saves it (which SB3 unpickles: load only files that you trust)
``state.pt``          tensors and numbers (``weights_only=True``): random streams, discriminators, replay buffers
``demonstrations.npz``  a copy of the demonstrations, if there is a matcher
====================  ==========================================================================================

A checkpoint is written under a temporary name and renamed: killing the process leaves the previous one whole.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import tempfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

from dm2_wrappers.demonstrations import Demonstrations
from dm2_wrappers.matcher import DistributionMatcher
from dm2_wrappers.random_state import RandomState
from dm2_wrappers.sb3.buffers import LiveReplayBuffer
from dm2_wrappers.vector import MultiAgentVectorEnv, vectorize
from dm2_wrappers.wrapper import DM2ParallelEnv, DM2VectorEnv

if TYPE_CHECKING:
    from dm2_wrappers.sb3.learners import IndependentLearners

VERSION = 1
STATE = ("streams", "env_stream", "matcher", "action_streams", "dead_values", "replay_buffers")  # in state.pt
OPTIONS = ("coefficient", "env_coefficient", "mode", "after_death", "update_every", "seed")


def file_of(path: str | os.PathLike[str]) -> Path:
    """The checkpoint's file: ``path`` with ``.zip``."""
    path = Path(path)
    return path if path.suffix == ".zip" else path.with_name(path.name + ".zip")


def save(team: IndependentLearners, path: str | os.PathLike[str]) -> None:
    """Write ``team`` to ``<path>.zip``."""
    file = file_of(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    lockstep, matcher = team._lockstep, team.matcher
    if isinstance(lockstep.env, DM2VectorEnv):
        lockstep.env.flush()  # what was seen since the last update belongs to the matcher's state
    state: dict[str, Any] = {
        "streams": {agent: stream.state_dict() for agent, stream in lockstep.streams.items()},
        "env_stream": lockstep.env_stream.state_dict(),
        "matcher": None if matcher is None else matcher.state_dict(),
        # Off-policy learners explore with their action space's own stream, which SB3 seeds anew when it loads one.
        "action_streams": {
            agent: json.dumps(model.action_space.np_random.bit_generator.state) for agent, model in team.models.items()
        },
        "dead_values": {
            agent: model.rollout_buffer.dead_value
            for agent, model in team.models.items()
            if hasattr(model, "rollout_buffer")
        },
        "replay_buffers": {
            agent: model.replay_buffer.state_dict()
            for agent, model in team.models.items()
            if isinstance(getattr(model, "replay_buffer", None), LiveReplayBuffer)
        },
    }
    assert state.keys() == set(STATE)
    facts = {
        "format": "dm2_wrappers team",
        "version": VERSION,
        "env_id": team.env.env_id,
        "agents": list(team.agents),
        "sizes": list(team.env.observation_sizes),
        "algorithms": [f"{type(m).__module__}:{type(m).__qualname__}" for m in team.models.values()],
        "options": {name: getattr(team, name) for name in OPTIONS},
        "matcher": None if matcher is None else matcher.options,
        "custom_networks": matcher is not None and matcher.custom_networks,
        "num_timesteps": team.num_timesteps,
    }
    handle, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("team.json", json.dumps(facts, indent=1))
            for i, model in enumerate(team.models.values()):
                archive.writestr(f"agents/{i}.zip", _bytes(model.save))
            archive.writestr("state.pt", _bytes(lambda buffer: torch.save(state, buffer)))
            if matcher is not None:
                archive.writestr("demonstrations.npz", _packed(matcher.demonstrations))
            stream.flush()
            archive.close()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load(
    cls: type[IndependentLearners],
    path: str | os.PathLike[str],
    env: Any,
    *,
    device: str = "auto",
    log_dir: str | os.PathLike[str] | None = None,
    matcher: DistributionMatcher | None = None,
) -> IndependentLearners:
    """Read ``<path>.zip``; see ``IndependentLearners.load``."""
    file = file_of(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no checkpoint {str(file)!r}: IndependentLearners.save(path) writes one")
    if isinstance(env, DM2ParallelEnv | DM2VectorEnv):
        env = env.env  # the checkpoint brings its own matcher
    venv = env if isinstance(env, MultiAgentVectorEnv) else vectorize(lambda: env, 1)
    try:
        archive = zipfile.ZipFile(file)
        facts = json.loads(archive.read("team.json"))
        assert facts["format"] == "dm2_wrappers team"
        broken = archive.testzip()
    except (zipfile.BadZipFile, KeyError, ValueError, AssertionError) as error:
        raise ValueError(f"{str(file)!r} is not a checkpoint that IndependentLearners.save wrote, or is damaged") from error
    with archive:
        if broken is not None:
            raise ValueError(f"the checkpoint {str(file)!r} is damaged: its entry {broken!r} fails its checksum")
        if facts["version"] != VERSION:
            raise ValueError(f"{str(file)!r} has format version {facts['version']}, this version reads {VERSION}")
        found = dict(zip(venv.possible_agents, venv.observation_sizes, strict=True))
        expected = dict(zip(facts["agents"], facts["sizes"], strict=True))
        if list(found.items()) != list(expected.items()):
            raise ValueError(
                f"the checkpoint {str(file)!r} is of agents and observation sizes {expected}, the environment has {found}"
            )
        state = torch.load(io.BytesIO(archive.read("state.pt")), weights_only=True, map_location="cpu")
        if missing := [name for name in STATE if name not in state]:
            raise ValueError(f"{str(file)!r} lacks {missing}: it is of an older dm2_wrappers; train again, or load it there")
        if facts["matcher"] is None:
            matcher = None
        elif matcher is None:
            if facts["custom_networks"]:
                raise ValueError(
                    f"the discriminators in {str(file)!r} are networks of your own, whose code is not in the checkpoint: "
                    "pass matcher=, made as it was made then"
                )
            with tempfile.TemporaryDirectory() as folder:
                demos = Demonstrations.load(archive.extract("demonstrations.npz", folder))
            on = "cpu" if device == "auto" else device
            matcher = DistributionMatcher(demos, device=on, **facts["matcher"])
        if matcher is not None:
            matcher.load_state_dict(state["matcher"])
        team = cls.__new__(cls)
        team._prepare(venv, matcher, log_dir=log_dir, **facts["options"])
        for i, agent in enumerate(team.agents):
            algorithm = _algorithm(facts["algorithms"][i])
            with team._lockstep.as_agent(agent):
                model = io.BytesIO(archive.read(f"agents/{i}.zip"))
                team.models[agent] = algorithm.load(model, env=team._views[agent], device=device)
        team._choose_mode()
        for agent, buffer in state["replay_buffers"].items():
            team.models[agent].replay_buffer.load_state_dict(buffer)
        for agent, stream in state["action_streams"].items():
            team.models[agent].action_space.np_random.bit_generator.state = json.loads(stream)
        for agent, value in state["dead_values"].items():
            team.models[agent].rollout_buffer.dead_value = value
        lockstep = team._lockstep
        lockstep.streams = {agent: RandomState.from_state_dict(each) for agent, each in state["streams"].items()}
        team.restart_episodes()
        lockstep.env_stream = RandomState.from_state_dict(state["env_stream"])
    return team


def _bytes(write: Any) -> bytes:
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


@lru_cache(maxsize=1)
def _packed(demos: Demonstrations) -> bytes:
    """The demonstrations' file; compressing it takes seconds, and they never change."""
    with tempfile.TemporaryDirectory() as folder:
        demos.save(file := Path(folder) / "demonstrations.npz")
        return file.read_bytes()


def _algorithm(name: str) -> type[BaseAlgorithm]:
    module, _, qualname = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, BaseAlgorithm)):
        raise ValueError(f"the checkpoint names {name!r} as an algorithm, which is not a Stable-Baselines3 one")
    return found
