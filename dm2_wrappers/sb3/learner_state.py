"""One SB3 learner as bytes, tensors and numbers, for checkpoints."""

from __future__ import annotations

import copy
import importlib
import io
import json
import sys
import zipfile
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import VectorizedActionNoise

from dm2_wrappers.sb3.vec_env import AgentVecEnv

_TRUSTED = ("stable_baselines3", "sb3_contrib")
# What SB3's learners count; no algorithm has all of these.
COUNTERS = (
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
        raise ValueError(f"it names the algorithm {name[:200]!r}, whose module is not imported; import it before loading")
    try:
        found: Any = sys.modules[module] if module in sys.modules else importlib.import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        found = None
    if not (isinstance(found, type) and issubclass(found, BaseAlgorithm)):
        raise ValueError(f"it names the algorithm {name[:200]!r}, which is not a Stable-Baselines3 algorithm")
    return found


def counters(model: BaseAlgorithm) -> dict[str, float]:
    """The learner's counters, as JSON can hold them."""
    return {name: getattr(model, name) for name in COUNTERS if hasattr(model, name)}


def newest_episodes(model: BaseAlgorithm) -> dict[str, list[Any]]:
    """The newest finished episodes, of which SB3 logs the means: return, length and time, and successes."""
    infos, successes = model.ep_info_buffer or (), model.ep_success_buffer or ()
    kept = [[float(info["r"]), int(info["l"]), float(info["t"])] for info in infos]
    return {"episodes": kept, "successes": [float(success) for success in successes]}


def set_newest_episodes(model: BaseAlgorithm, episodes: Mapping[str, list[Any]] | None) -> None:
    """The inverse of `newest_episodes`; None forgets those that there are."""
    found = episodes or {"episodes": [], "successes": []}
    kept = ({"r": r, "l": length, "t": t} for r, length, t in found["episodes"])
    model.ep_info_buffer = deque(kept, maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(found["successes"], maxlen=model._stats_window_size)


def action_stream(model: BaseAlgorithm) -> str:
    """The random stream of the action space, with which off-policy learners explore; SB3 does not save it."""
    return json.dumps(model.action_space.np_random.bit_generator.state)  # type: ignore[union-attr]


def check_action_stream(model: BaseAlgorithm, stream: str) -> None:
    """Check that `set_action_stream` can take this, which is the state of some generator.

    Raises:
        ValueError: It is the state of another kind of generator.
    """
    own = type(model.action_space.np_random.bit_generator).__name__  # type: ignore[union-attr]
    if (kind := json.loads(stream)["bit_generator"]) != own:
        raise ValueError(f"its action stream is of the generator {kind!r}, but this one's is {own!r}")


def set_action_stream(model: BaseAlgorithm, stream: str) -> None:
    """The inverse of `action_stream`."""
    model.action_space.np_random.bit_generator.state = json.loads(stream)  # type: ignore[union-attr]


def loaded(data: bytes, name: str, env: AgentVecEnv, device: str) -> BaseAlgorithm:
    """The learner that `saved` wrote, unpickled by SB3.

    Args:
        data: What `saved` returned.
        name: What `class_name` returned.
        env: The learner's environment.
        device: Where its networks go.

    Raises:
        ValueError: The name is not of an SB3 algorithm, or SB3 cannot read the data.
    """
    algorithm = class_of(name)
    try:
        model = algorithm.load(io.BytesIO(data), env=env, device=device)
    except Exception as error:  # unpickling raises whatever the pickle leads to
        raise ValueError(f"SB3 cannot read its {algorithm.__name__} ({short(error)})") from error
    noise = getattr(model, "action_noise", None)
    if isinstance(noise, VectorizedActionNoise) and noise.n_envs != env.num_envs:
        model.action_noise = VectorizedActionNoise(noise.base_noise, env.num_envs)  # type: ignore[attr-defined]
    return model


def parameters_of(data: bytes, model: BaseAlgorithm) -> dict[str, Any]:
    """The weights and optimizer states of a saved learner, checked against a built one; nothing is unpickled.

    Args:
        data: What `saved` returned.
        model: A learner of the same algorithm with networks of the same sizes.

    Returns:
        State dicts, of which `restore` takes over those of networks and optimizers and copies single tensors.

    Raises:
        ValueError: The saved learner has other networks.
    """
    own: dict[str, Any] = {**model.get_parameters(), **_variables(model)}
    saved_states: dict[str, Any] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.namelist():
            if not entry.endswith(".pth"):
                continue
            tensors = torch.load(io.BytesIO(archive.read(entry)), map_location="cpu", weights_only=True)
            check_tensors(tensors)
            if entry == "pytorch_variables.pth":
                saved_states.update(tensors or {})
            else:
                saved_states[entry.removesuffix(".pth")] = tensors
    if set(saved_states) != set(own):
        raise ValueError(f"its {type(model).__name__} has the parts {sorted(saved_states)}, this one has {sorted(own)}")
    for name, state in own.items():
        if isinstance(state, Mapping) and "param_groups" in state:
            saved_states[name] = _checked_optimizer(name, saved_states[name], getter(model, name))
        else:
            expected, found = _shapes(state), _shapes(saved_states[name])
            if expected != found:
                differing = sorted(key for key in {*expected, *found} if expected.get(key) != found.get(key))
                shapes = f"{found.get(differing[0])} and not {expected.get(differing[0])}"
                raise ValueError(
                    f"its {type(model).__name__} has other networks than this one: {name} {differing[0]} has shape {shapes}"
                )
    return saved_states


def restore(model: BaseAlgorithm, parameters: Mapping[str, Any], counted: Mapping[str, float]) -> None:
    """Give a learner the weights, optimizers and counters of a saved one.

    Args:
        model: The learner.
        parameters: What `parameters_of` returned for it.
        counted: What `counters` returned.
    """
    variables = _variables(model)
    states = {name: state for name, state in parameters.items() if name not in variables}
    model.set_parameters(states, exact_match=True, device=model.device)
    with torch.no_grad():
        for name, tensor in variables.items():
            tensor.copy_(parameters[name])
    for name, value in counted.items():
        if name in COUNTERS and hasattr(model, name):
            setattr(model, name, value)


def check_tensors(tree: Any) -> None:
    """Check that every tensor in nested containers is a plain one that occupies the memory it claims.

    Raises:
        ValueError: One is sparse, quantized, on another device, or a large view of a small storage.
    """
    if isinstance(tree, Mapping):
        for value in tree.values():
            check_tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            check_tensors(value)
    elif isinstance(tree, torch.Tensor):
        plain = tree.layout is torch.strided and tree.device.type == "cpu" and not tree.is_quantized
        if not plain or tree.numel() * tree.element_size() > tree.untyped_storage().nbytes():
            raise ValueError("it holds a tensor of an unusual kind")


def short(error: BaseException) -> str:
    """An error of another library as a short text in one line."""
    text = printable(str(error), 200)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def printable(text: str, most: int) -> str:
    """A text in one line, of at most so many characters and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:most]


def getter(model: BaseAlgorithm, name: str) -> Any:
    """The part of a learner with a dotted name, such as "policy.optimizer"."""
    part: Any = model
    for attribute in name.split("."):
        part = getattr(part, attribute)
    return part


def _variables(model: BaseAlgorithm) -> dict[str, torch.Tensor]:
    """Tensors that a learner trains outside its networks, such as SAC's entropy coefficient."""
    _, names = model._get_torch_save_params()
    return {name: tensor for name in names if isinstance(tensor := getter(model, name), torch.Tensor)}


def _shapes(state: Any) -> dict[str, Any]:
    if isinstance(state, torch.Tensor):
        return {"itself": (tuple(state.shape), state.dtype)}
    if not isinstance(state, Mapping):
        return {"itself": type(state).__name__}
    return {
        str(name): (tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else type(value).__name__
        for name, value in state.items()
    }


def _checked_optimizer(name: str, saved_state: Any, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """An optimizer's state with the built one's options, which the saved ones equal but for the learning rate.

    A parameter that was never trained has no moments. With TRPO these are the actor's, which Adam does not step.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    groups = optimizer.state_dict()["param_groups"]
    wrong = ValueError(f"its {name} does not have the form of this one's {type(optimizer).__name__}")
    if not isinstance(saved_state, Mapping) or set(saved_state) != {"state", "param_groups"}:
        raise wrong
    saved_groups, moments = saved_state["param_groups"], saved_state["state"]
    if not isinstance(saved_groups, list) or len(saved_groups) != len(groups) or not isinstance(moments, Mapping):
        raise wrong
    for group, saved_group in zip(groups, saved_groups, strict=True):
        if not isinstance(saved_group, Mapping) or not _places(saved_group.get("params"), group["params"]):
            raise wrong
        rate = saved_group.get("lr")
        if not isinstance(rate, float | int) or isinstance(rate, bool) or not 0 <= rate < float("inf"):
            raise wrong
        group["lr"] = rate  # SB3 sets it again before it trains
    kept = _kept_by(optimizer) if moments else set()
    for i, values in moments.items():
        if type(i) is not int or not 0 <= i < len(parameters) or not isinstance(values, Mapping) or set(values) != kept:
            raise wrong
        for key, value in values.items():
            shape = () if key == "step" else parameters[i].shape
            scalar = isinstance(value, int | float) and not isinstance(value, bool)
            if not (key == "step" and scalar) and not (isinstance(value, torch.Tensor) and value.shape == shape):
                raise wrong
    return {"state": dict(moments), "param_groups": groups}


def _places(saved: Any, own: list[int]) -> bool:
    """Whether a saved group has the built one's parameters."""
    return isinstance(saved, list) and all(type(place) is int for place in saved) and saved == own


def _kept_by(optimizer: torch.optim.Optimizer) -> set[str]:
    """The names of what an optimizer keeps of each parameter that it has stepped, such as Adam's "exp_avg"."""
    if optimizer.state:
        return set(next(iter(optimizer.state.values())))
    # It has not stepped yet: let a copy of it step a parameter of one number.
    group = optimizer.param_groups[0]
    one = torch.zeros_like(group["params"][0].detach().flatten()[:1], requires_grad=True)
    one.grad = torch.zeros_like(one)
    probe = copy.copy(optimizer)
    probe.state, probe.param_groups = defaultdict(dict), [{**group, "params": [one]}]
    probe.step()
    return set(probe.state[one])
