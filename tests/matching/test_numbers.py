"""Numbers that would destroy discriminators are refused, or stop the update while all weights are still as before."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from dm2_wrappers.matching.coefficient import checked
from dm2_wrappers.matching.discriminators import Discriminators
from dm2_wrappers.matching.matcher import DistributionMatcher
from tests.helpers.tiny_matchers import Experts, make, rollout, same


@pytest.mark.parametrize("value", [3e38, -3e38, 2e18, np.float64(1e300), np.nan, np.inf, -np.inf])
def test_observations_that_overflow_are_refused_wherever_they_enter(value):
    matcher = make()
    matcher.record(*rollout())
    before = matcher.state_dict()
    observations = rollout(seed=1)[0].astype(np.float64)
    observations[3, 1, 1, 1] = value
    everybody = np.ones(observations.shape[:3], bool)
    sentence = "feature 1 of an observation of agent 'b' is .*correct what the environment returns"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # NumPy's own warning of an overflow in a cast
        for enter in (
            lambda: matcher.record(observations, everybody),
            lambda: matcher.record(torch.tensor(observations), everybody),
            lambda: matcher.rewards(observations),
            lambda: matcher.rewards({"b": observations[3, 1, 1, :2]}),
            lambda: matcher.algorithm1([("a", np.zeros((2, 3))), ("b", observations[:, 1, 1, :2])]),
        ):
            with pytest.raises(ValueError, match=sentence):
                enter()
    assert same(matcher.state_dict(), before)
    experts = Experts()
    experts._observations["b"] = np.full((3, 2), value, np.float64)
    with pytest.raises(ValueError, match=r"feature 0 of an observation of agent 'b' is .*correct the demonstrations"):
        DistributionMatcher(experts)


def test_the_largest_observation_is_taken_and_paid_finitely():
    matcher = make()
    observations, alive = rollout(dead=0)
    observations[..., 0] = 1e18
    assert np.isfinite(matcher.rewards(observations, alive)).all()


def test_what_is_no_array_of_numbers_is_one_sentence():
    with pytest.raises(ValueError, match="expected observations as an array of real numbers, got list"):
        make().rewards([["a", "b"]])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"learning_rate": 1e20}, "learning_rate must be at most 1, got 1e[+]20"),
        ({"learning_rate": np.float64(2)}, "learning_rate must be at most 1"),
        ({"gradient_penalty": 1e30}, r"gradient_penalty must be at most 1e\+06, got 1e\+30"),
        ({"learning_rate": float("nan")}, "learning_rate"),
    ],
)
def test_options_that_would_destroy_the_weights_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        make(**options)
    with pytest.raises(ValueError, match=match):
        Discriminators((3,), **options)


def test_the_largest_options_keep_weights_and_adam_finite():
    matcher = make(learning_rate=1.0, gradient_penalty=1e6, updates=30)
    for seed in range(3):
        matcher.record(*rollout(seed=seed))
        assert all(np.isfinite(value) for value in matcher.update().values())
    make().load_state_dict(matcher.state_dict())  # which refuses what is not finite


def test_numpys_numbers_are_options_like_pythons():
    numpys = make(updates=np.int64(2), batch_size=np.uint8(8), learning_rate=np.float32(0.5), seed=np.int64(3),
                  hidden=np.array([8, 4]), center=np.bool_(True), gradient_penalty=np.int32(2))  # fmt: skip
    pythons = make(updates=2, batch_size=8, learning_rate=0.5, seed=3, hidden=[8, 4], center=True, gradient_penalty=2)
    assert numpys.options == pythons.options
    assert {type(value) for value in numpys.options.values()} <= {int, float, bool, str, list}
    for matcher in (numpys, pythons):
        matcher.record(*rollout())
        matcher.update()
    assert same(numpys.state_dict(), pythons.state_dict())


@pytest.mark.parametrize("coefficient", [1e39, {"a": 0.1, "b": 1e39}, float("inf"), -0.1])
def test_coefficients_beyond_float32_are_refused(coefficient):
    with pytest.raises(ValueError, match="coefficient"):
        checked(coefficient, ("a", "b"))


def steep(agent, size):
    """A network whose slope is far too large for agent b only."""
    network = nn.Linear(size, 1)
    if agent == "b":
        nn.init.constant_(network.weight, 1e18)
    return network


@pytest.mark.parametrize("options", [{}, {"module": steep}], ids=["stacked", "autograd"])
def test_an_update_that_overflows_stops_with_the_agents_name_and_changes_nothing(options):
    matcher = make(**options)
    matcher.record(*rollout())
    if not options:
        matcher.update()
        matcher.record(*rollout(seed=1))
    state = matcher.state_dict()
    if not options:
        state["discriminators"]["weights"][1]["w3"].mul_(1e20)
    matcher.load_state_dict(state)
    before = matcher.state_dict()
    with pytest.raises(ValueError, match=r"agent 'b' cannot be trained.*weights have not changed.*Scale"):
        matcher.update()
    assert same(matcher.state_dict(), before)


def test_an_overflow_in_a_later_minibatch_takes_the_earlier_ones_back():
    class Later(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.layer, self.calls = nn.Linear(size, 1), 0

        def forward(self, x):
            self.calls += self.training
            return self.layer(x) * (1e19 if self.calls > 6 else 1)  # from the third minibatch on

    matcher = make(module=lambda agent, size: Later(size))
    matcher.record(*rollout())
    before = matcher.state_dict()
    with pytest.raises(ValueError, match="agent 'a' cannot be trained"):
        matcher.update()
    assert same(matcher.state_dict(), before)


class Brittle(nn.Module):
    """Breaks at its n-th call in training mode."""

    def __init__(self, size, calls):
        super().__init__()
        self.layer, self.calls = nn.Linear(size, 1), calls

    def forward(self, x):
        self.calls -= self.training
        if not self.calls:
            raise KeyboardInterrupt
        return self.layer(x)


def test_an_interrupt_in_the_middle_of_an_update_changes_nothing():
    calls = {"a": 5, "b": -1}  # agent a: in the second minibatch, at three calls each
    matcher = make(module=lambda agent, size: Brittle(size, calls=calls[agent]))
    matcher.record(*rollout())
    before = matcher.state_dict()
    with pytest.raises(KeyboardInterrupt):
        matcher.update()
    assert same(matcher.state_dict(), before)
    assert matcher.metrics == {}
    assert matcher.update()["trained"] == 1  # as if nothing had happened
    undisturbed = make(module=lambda agent, size: Brittle(size, calls=-1))
    undisturbed.record(*rollout())
    undisturbed.update()
    assert same(matcher.state_dict(), undisturbed.state_dict())


class Logarithm(nn.Module):
    """Pays -inf at observations of 0."""

    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, 1)

    def forward(self, x):
        return self.layer(x) + x.abs().sum(1, keepdim=True).log()


def test_rewards_that_are_not_finite_name_the_agent():
    matcher = make(module=lambda agent, size: Logarithm(size) if agent == "b" else nn.Linear(size, 1))
    with pytest.raises(ValueError, match="discriminator of agent 'b' pays a reward that is not finite"):
        matcher.rewards({"a": np.zeros(3), "b": np.zeros(2)})
    assert matcher.rewards({"a": np.zeros(3)})  # the dead are paid 0, whatever their network says
    observations, alive = rollout(dead=0, steps=1, copies=1)
    observations[...] = 0
    matcher.record(observations, alive)
    with pytest.raises(ValueError, match="agent 'b'"):
        matcher.update()


def large_experts(features):
    """Experts of whom agent b has the given sizes in its features."""
    experts = Experts(sizes=(3, len(features)))
    experts._observations["b"] = np.tile(np.array(features, np.float32), (4, 1))
    return experts


def test_large_features_of_the_experts_are_one_warning_with_agent_and_feature():
    with pytest.warns(UserWarning, match="because their layers saturate") as said:
        DistributionMatcher(large_experts([0, -1e6, 9999, 1e4]))
    assert len(said) == 1
    assert "agent 'b' feature 1 (up to 1e+06), agent 'b' feature 3 (up to 10000). Scale" in str(said[0].message)
    assert said[0].filename == __file__
    with pytest.warns(UserWarning, match=r"feature 4 \(up to 1e\+06\) and 3 more"):
        DistributionMatcher(large_experts([1e6] * 8))


def test_features_of_usual_sizes_are_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DistributionMatcher(large_experts([0, -9999, 1]))


def test_the_first_observation_beyond_the_limits_is_named():
    observations = np.zeros((3, 1, 2, 3), np.float32)
    observations[1, 0, 1, 0], observations[2, 0, 0, 0] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"agent 'b'.*nan"):
        make().record(observations, np.ones((3, 1, 2), bool))


@pytest.mark.parametrize("shape", [(2, 3), (5, 2, 3)])
def test_the_agent_whose_reward_is_not_finite_is_named(shape):
    def module(agent, size):
        network = nn.Linear(size, 1)
        nn.init.constant_(network.bias, float("inf") if agent == "b" else 0.0)
        return network

    observations = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match="the discriminator of agent 'b' pays a reward that is not finite"):
        make(module=module).rewards(observations)


@pytest.mark.parametrize(
    ("alive", "message"),
    [(np.array([[2, 0]]), "alive must hold True or False"), (np.ones((1, 1), bool), r"expected alive of shape \(1, 2\)")],
)
def test_flags_of_a_single_step_are_checked_too(alive, message):
    with pytest.raises(ValueError, match=message):
        make().rewards(np.zeros((1, 2, 3), np.float32), alive)
