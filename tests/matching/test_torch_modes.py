"""The process-wide modes of the user's program: same numbers under each, and the modes are given back."""

from __future__ import annotations

import contextlib
import functools
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from dm2_wrappers.matching.discriminators import Discriminators
from dm2_wrappers.matching.torch_modes import standard_modes
from tests.helpers.tiny_matchers import make, rollout, same


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


MODES = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "another default device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "strict NumPy": lambda: np.errstate(all="raise"),
}


def mlp_with_constants(agent, size):
    """Its forward pass makes tensors of the default dtype on the default device."""

    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))

        def forward(self, x):
            return self.layers(x) + torch.ones(1).sum()

    return Shifted()


OPTIONS = {"stacked": {}, "deep": {"hidden": (8, 8, 8)}, "module": {"module": mlp_with_constants}}


def life(options, around):
    """Make a matcher, train it, save it, load it into another one and pay, each step within ``around(step)``."""
    observations, alive = rollout()
    observations[0, 0, 0, 0] = 1e-42  # float32 cannot hold it exactly: an underflow where NumPy is strict
    with around(0):
        matcher = make(**options)
    for step in (1, 2, 3):
        with around(step):
            matcher.record(observations.astype(np.float64) * step, alive)
        with around(step):
            matcher.update()
    with around(4):
        state = matcher.state_dict()
        other = make(**{**options, "seed": 5})
        other.load_state_dict(state)
        other.record(torch.tensor(observations, device="cpu"), alive)
    other.update()
    with around(5):
        paid = other.rewards(torch.tensor(observations, device="cpu"), torch.tensor(alive, device="cpu"))
        by_name = other.rewards({"a": np.zeros(3)})
    return other.state_dict(), paid, by_name


@functools.cache
def plain_life(options):
    return life(OPTIONS[options], lambda step: contextlib.nullcontext())


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("steps", [(0, 2, 4), (1, 3, 5)], ids=["made in it", "used in it"])
def test_training_and_paying_are_the_same_bit_for_bit(mode, options, steps):
    state, paid, by_name = plain_life(options)
    other_state, other_paid, other_by_name = life(
        OPTIONS[options], lambda step: mode() if step in steps else contextlib.nullcontext()
    )
    assert same(other_state, state)
    np.testing.assert_array_equal(other_paid, paid)
    assert other_by_name == by_name


def test_discriminators_of_ones_own_take_tensors_made_in_inference_mode():
    with torch.inference_mode():
        sides = torch.rand(1, 4, 3), torch.rand(1, 4, 3), torch.rand(1, 4)
    discriminators = Discriminators((3,), hidden=(8,), seed=0)
    metrics = discriminators.update(*sides)
    assert torch.isfinite(metrics["loss"]).all()
    doubles = [side.double() for side in sides]  # float64 is converted
    assert torch.isfinite(discriminators.update(*doubles)["loss"]).all()
    assert discriminators.logits(doubles[0][:, :1]).dtype == torch.float32


@pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
@pytest.mark.parametrize("grad", [True, False])
def test_the_callers_modes_come_back_also_after_an_error(mode, grad):
    def modes():
        return (
            torch.get_default_dtype(),
            torch.get_default_device(),
            torch.is_inference_mode_enabled(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
        )

    @standard_modes
    def inside():
        seen.append(modes())
        raise KeyError

    seen = []
    with mode(), torch.set_grad_enabled(grad):
        before = modes()
        with pytest.raises(KeyError):
            inside()
        assert modes() == before
    assert seen[0][:3] == (torch.float32, torch.device("cpu"), False)
    assert seen[0][3:] == (before[3], False)


def test_no_warning_under_any_mode():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        life({}, lambda step: torch.inference_mode())
