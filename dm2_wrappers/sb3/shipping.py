"""Learners and callbacks on their way to worker processes and back, as pickles.

Objects that stay where they are, such as the joint environment and its loggers, are replaced by their names. In the other
process the names stand for that process's own objects.
"""

from __future__ import annotations

import inspect
import io
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import cloudpickle
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger

from dm2_wrappers.sb3.learner_state import getter
from dm2_wrappers.sb3.vec_env import AgentVecEnv

_LOGGED = ("name_to_value", "name_to_count", "name_to_excluded")  # what a logger has recorded and not written yet

# In these a callback has all variables of SB3's training loop, which sets them again before it calls the callback.
_OF_LOOP = ("locals", "globals")


def pack(value: Any, stays: Mapping[str, Any], *, refused: Sequence[Any] = ()) -> bytes:
    """Pickle ``value``.

    Args:
        value: Any object; classes and functions of the user's program are pickled by value.
        stays: Objects that are replaced by their names.
        refused: Objects that must not travel.

    Raises:
        PicklingError: ``value`` contains one of the refused objects.
        Exception: Whatever an object raises that does not pickle.
    """
    stream = io.BytesIO()
    _Pickler(stream, stays, refused).dump(value)
    return stream.getvalue()


def unpack(data: bytes, here: Mapping[str, Any]) -> Any:
    """What `pack` pickled, with the objects of ``here`` for the names."""
    return _Unpickler(io.BytesIO(data), here).load()


class _Pickler(cloudpickle.Pickler):
    def __init__(self, stream: io.BytesIO, stays: Mapping[str, Any], refused: Sequence[Any]) -> None:
        super().__init__(stream)
        self._names = {id(each): name for name, each in stays.items()}
        self._refused = {id(each) for each in refused}

    def persistent_id(self, value: Any) -> str | None:
        if id(value) in self._refused:
            raise pickle.PicklingError("the team and its environment stay in the process that made them")
        return self._names.get(id(value))

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, BaseCallback):
            return object.__new__, (type(value),), {**vars(value), **{name: {} for name in _OF_LOOP}}
        return super().reducer_override(value)


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: io.BytesIO, here: Mapping[str, Any]) -> None:
        super().__init__(stream)
        self._here = here

    def persistent_load(self, name: str) -> Any:
        return self._here[name]


def parts(model: BaseAlgorithm) -> dict[str, Any]:
    """The objects of a learner that keep their identity when its state comes back from a worker."""
    networks = {name.partition(".")[0] for name in model._get_torch_save_params()[0]}
    spaces = {name: getattr(model, name) for name in ("observation_space", "action_space")}
    buffer = model.rollout_buffer  # type: ignore[attr-defined]
    own = {"model": model, "env": model.env, "buffer": buffer, "logger": model.logger, **spaces}
    return {**own, **{name: getter(model, name) for name in networks}}


def returning(model: BaseAlgorithm) -> bytes:
    """Everything that training may have changed in a learner and its environment's view, but for its random streams."""
    stays = parts(model)
    env: Any = model.env
    content = {
        "model": {name: value for name, value in vars(model).items() if not _is_code(value)},
        "buffer": vars(stays["buffer"]),
        "env": {name: value for name, value in vars(env).items() if name != "view"},
        "parameters": model.get_parameters(),
        "logged": logged(model.logger),
    }
    return pack(content, stays)


def take_back(data: bytes, model: BaseAlgorithm) -> None:
    """Give a learner the state that `returning` packed in a worker."""
    here = parts(model)
    content = unpack(data, here)
    for name in ("model", "buffer", "env"):
        vars(here[name]).update(content[name])
    model.set_parameters(content["parameters"], exact_match=True, device=model.device)
    set_logged(model.logger, content["logged"])


def returning_callbacks(callbacks: Sequence[BaseCallback], model: BaseAlgorithm) -> bytes | None:
    """The state of a learner's callbacks; None where it does not pickle."""
    own = {f"callback/{i}": each for i, each in enumerate(callbacks)}
    states = [{name: value for name, value in vars(each).items() if name not in _OF_LOOP} for each in callbacks]
    try:
        return pack(states, {**parts(model), **own})
    except Exception:  # whatever the user's objects raise
        return None


def take_back_callbacks(data: bytes, model: BaseAlgorithm, callbacks: Sequence[BaseCallback]) -> None:
    """Give callbacks the state that `returning_callbacks` packed in a worker."""
    own = {f"callback/{i}": each for i, each in enumerate(callbacks)}
    for callback, state in zip(callbacks, unpack(data, {**parts(model), **own}), strict=True):
        vars(callback).update(state)


def logged(logger: Logger) -> dict[str, Any]:
    """What was recorded in a logger and not written yet."""
    return {name: dict(getattr(logger, name)) for name in _LOGGED}


def set_logged(logger: Logger, values: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace what was recorded in a logger and not written yet."""
    for name, content in values.items():
        kept = getattr(logger, name)
        kept.clear()
        kept.update(content)


def view_of(model: BaseAlgorithm) -> AgentVecEnv:
    """The learner's environment."""
    env = model.env
    assert isinstance(env, AgentVecEnv)
    return env


def _is_code(value: Any) -> bool:
    """Functions and classes: training does not change them."""
    return inspect.isroutine(value) or inspect.isclass(value)
