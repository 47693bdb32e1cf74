"""One SB3 learner as bytes, tensors and numbers, for checkpoints."""

from __future__ import annotations

import importlib
import io
import json
import sys
import zipfile
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm

_TRUSTED = ("stable_baselines3", "sb3_contrib")
# What SB3's learners count, as far as a learner has it.
_COUNTERS = (
    "num_timesteps",
    "_total_timesteps",
    "_num_timesteps_at_start",
    "_episode_num",
    "_n_updates",
    "_n_calls",
    "_current_progress_remaining",
    "exploration_rate",
)


def saved(model: BaseAlgorithm) -> bytes:
    """The learner in SB3's own file format."""
    buffer = io.BytesIO()
    model.save(buffer)
    return buffer.getvalue()


def class_name(model: BaseAlgorithm) -> str:
    """The learner's class, as "module:class"."""
    return f"{type(model).__module__}:{type(model).__qualname__}"


def class_of(name: str) -> type[BaseAlgorithm]:
    """The algorithm class of a "module:class".

    Only modules of Stable-Baselines3 and sb3-contrib are imported; others must have been imported by the program.

    Raises:
        ValueError: The module is not imported, or the name is not an SB3 algorithm.
    """
    module, _, qualname = name.partition(":")
    if module not in sys.modules and module.partition(".")[0] not in _TRUSTED:
        raise ValueError(
            f"the checkpoint names the algorithm {name!r}, whose module is not imported; import it before loading"
        )
    try:
        found: Any = sys.modules[module] if module in sys.modules else importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        found = None
    if not (isinstance(found, type) and issubclass(found, BaseAlgorithm)):
        raise ValueError(f"the checkpoint names the algorithm {name!r}, which is not a Stable-Baselines3 algorithm")
    return found


def counters(model: BaseAlgorithm) -> dict[str, float]:
    """The learner's counters, as JSON can hold them."""
    return {name: getattr(model, name) for name in _COUNTERS if hasattr(model, name)}


def action_stream(model: BaseAlgorithm) -> str:
    """The random stream of the action space, with which off-policy learners explore; SB3 does not save it."""
    return json.dumps(model.action_space.np_random.bit_generator.state)  # type: ignore[union-attr]


def set_action_stream(model: BaseAlgorithm, stream: str) -> None:
    """The inverse of `action_stream`."""
    model.action_space.np_random.bit_generator.state = json.loads(stream)  # type: ignore[union-attr]


def restore(model: BaseAlgorithm, data: bytes, counted: dict[str, float]) -> None:
    """Give a learner the weights, optimizers and counters of a saved one; nothing is unpickled.

    Args:
        model: A learner of the same algorithm with networks of the same sizes.
        data: What `saved` returned.
        counted: What `counters` returned.

    Raises:
        ValueError: The saved learner has other networks.
    """
    parameters: dict[str, Any] = {}
    variables: dict[str, Any] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.namelist():
            if entry.endswith(".pth"):
                tensors = torch.load(io.BytesIO(archive.read(entry)), map_location=model.device, weights_only=True)
                if entry == "pytorch_variables.pth":
                    variables = tensors or {}
                else:
                    parameters[entry.removesuffix(".pth")] = tensors
    try:
        model.set_parameters(parameters, exact_match=True, device=model.device)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the checkpoint's {type(model).__name__} has other networks than this one: {reason}") from None
    for name, tensor in variables.items():
        own = getattr(model, name, None)
        if isinstance(own, torch.Tensor):
            own.data.copy_(tensor)
    for name, value in counted.items():
        if name in _COUNTERS and hasattr(model, name):
            setattr(model, name, value)
