"""Makes networks independent of PyTorch's process-wide modes, which belong to the user's program, and checks devices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import torch

_P = ParamSpec("_P")
_R = TypeVar("_R")
_AUTOCAST = ("cpu", "cuda")


def standard_modes(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run a function with PyTorch's standard modes, and restore the caller's modes afterwards.

    These are: the default dtype float32, the CPU as default device, no inference mode and no autocast. Tensors made in
    inference mode could not be trained later, and float64 or bfloat16 weights would not fit the observations.
    """

    @functools.wraps(function)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if _are_standard():
            return function(*args, **kwargs)
        dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
        with ExitStack() as modes:
            if dtype != torch.float32:
                modes.callback(torch.set_default_dtype, dtype)
                torch.set_default_dtype(torch.float32)
            if torch.get_default_device().type != "cpu":
                modes.enter_context(torch.device("cpu"))
            if torch.is_inference_mode_enabled():
                modes.enter_context(torch.inference_mode(False))
                modes.enter_context(torch.set_grad_enabled(gradients))  # leaving inference mode turned gradients on
            for device in _AUTOCAST:
                if torch.is_autocast_enabled(device):
                    modes.enter_context(torch.autocast(device, enabled=False))
            return function(*args, **kwargs)

    return run


def usable_device(device: str | torch.device) -> torch.device:
    """The device, if tensors can be made on it.

    Raises:
        ValueError: They cannot.
    """
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device {device!r} cannot be used here: {error}") from error


def _are_standard() -> bool:
    """Whether the caller's modes are the standard ones; asked at every step, and cheaper than to ask for each mode."""
    made_by_default = torch.empty(0)
    return (
        made_by_default.dtype == torch.float32
        and made_by_default.device.type == "cpu"
        and not made_by_default.is_inference()
        and not any(map(torch.is_autocast_enabled, _AUTOCAST))
    )
