"""Networks of one's own: paying is a pure function, and training draws from each agent's own streams."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from dm2_wrappers.matching.discriminators import Discriminators
from tests.helpers.tiny_matchers import make, rollout, same


class Noisy(nn.Module):
    """Draws in evaluation mode, too, and from all global streams."""

    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, 1)

    def forward(self, x):
        return self.layer(x) + 0.1 * torch.randn(len(x), 1) + random.random() + np.random.random()


def dropout(agent, size):
    return nn.Sequential(nn.Linear(size, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))


def batch_norm(agent, size):
    return nn.Sequential(nn.Linear(size, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


NETWORKS = {"dropout": dropout, "batch norm": batch_norm, "noisy": lambda agent, size: Noisy(size)}


def global_streams():
    return [torch.get_rng_state().tolist(), random.getstate(), [part.tolist() for part in np.random.get_state()[1:2]]]


@pytest.mark.parametrize("module", NETWORKS.values(), ids=NETWORKS)
def test_paying_is_a_pure_function(module):
    matcher = make(module=module)
    observations, alive = rollout()
    matcher.record(observations, alive)
    matcher.update()
    before, streams = matcher.state_dict(), global_streams()
    paid = matcher.rewards(100 + observations)
    torch.manual_seed(1)
    np.testing.assert_array_equal(matcher.rewards(100 + observations), paid)
    torch.set_rng_state(torch.tensor(streams[0], dtype=torch.uint8))
    assert global_streams() == streams
    assert same(matcher.state_dict(), before)
    one = matcher.rewards({"b": observations[0, 0, 1, :2]})  # a batch of one
    assert np.isfinite(one["b"])


def test_what_is_paid_is_the_network_in_evaluation_mode():
    networks = {}

    def module(agent, size):
        networks[agent] = nn.Sequential(nn.Linear(size, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 1))
        return networks[agent]

    matcher = make(module=module, center=False)
    observations, alive = rollout()
    matcher.record(observations, alive)
    matcher.update()
    paid = matcher.rewards(observations)
    assert all(layer.training for network in networks.values() for layer in network.modules())  # for the next update
    for k, (network, size) in enumerate(zip(networks.values(), matcher.sizes, strict=True)):
        network.eval()
        expected = network(torch.tensor(observations[..., k, :size]).reshape(-1, size))
        np.testing.assert_allclose(paid[..., k].ravel(), expected.detach().numpy()[:, 0], atol=1e-6)


def test_training_is_in_training_mode_but_for_what_its_owner_froze():
    seen = []

    class Spy(nn.Module):
        def __init__(self, size):
            super().__init__()
            self.layer, self.frozen = nn.Linear(size, 1), nn.BatchNorm1d(size).eval()

        def forward(self, x):
            seen.append((self.training, self.frozen.training))
            return self.layer(self.frozen(x))

    discriminators = Discriminators((2,), module=lambda agent, size: Spy(size), seed=0)
    seen.clear()  # the trial at the start is in evaluation mode
    sides = torch.rand(1, 4, 2), torch.rand(1, 4, 2), torch.rand(1, 4)
    discriminators.update(*sides)
    assert set(seen) == {(True, False)}
    seen.clear()
    discriminators.logits(sides[0].transpose(0, 1))
    assert set(seen) == {(False, False)}
    seen.clear()
    discriminators.update(*sides)
    assert set(seen) == {(True, False)}


@pytest.mark.parametrize("module", NETWORKS.values(), ids=NETWORKS)
def test_training_draws_from_the_agents_own_streams(module):
    def trained(global_seed, seed=0):
        torch.manual_seed(global_seed)
        np.random.seed(global_seed)
        random.seed(global_seed)
        before = global_streams()
        matcher = make(module=module, seed=seed)
        matcher.record(*rollout())
        matcher.update()
        assert global_streams() == before
        return matcher.state_dict()

    assert same(trained(1), trained(2))
    weights = [trained(1, seed)["discriminators"]["weights"] for seed in (0, 1)]
    assert not same(*weights)


def test_an_agents_dropout_does_not_depend_on_the_others():
    sides = torch.rand(2, 8, 3), torch.rand(2, 8, 3), torch.rand(2, 8)
    team = Discriminators((3, 3), agents=("a", "b"), module=dropout, seed=4)
    alone = Discriminators((3,), agents=("b",), module=dropout, seed=4)
    for _ in range(3):
        team.update(*sides)
        alone.update(*(side[1:] for side in sides))
    assert same(team.state_dict()["weights"][1], alone.state_dict()["weights"][0])
    other = Discriminators((3,), agents=("c",), module=dropout, seed=4)
    other.load_state_dict({**alone.state_dict(), "agents": ["c"], "streams": other.state_dict()["streams"]})
    alone.update(*(side[1:] for side in sides))
    other.update(*(side[1:] for side in sides))
    assert not same(other.state_dict()["weights"], alone.state_dict()["weights"])  # b and c draw differently


def test_dropout_goes_on_after_loading_as_if_nothing_had_happened():
    one, other = make(module=dropout), make(module=dropout, seed=3)
    one.record(*rollout())
    one.update()
    other.load_state_dict(one.state_dict())
    for matcher in (one, other):
        matcher.record(*rollout(seed=1))
        matcher.update()
    assert same(one.state_dict(), other.state_dict())


def test_a_float64_network_is_trained_in_float32():
    matcher = make(module=lambda agent, size: nn.Linear(size, 1).double())
    matcher.record(*rollout())
    matcher.update()
    assert matcher.state_dict()["discriminators"]["weights"][0]["weight"].dtype == torch.float32


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (nn.Linear(3, 1), r"module must be a function.*lambda agent, size"),
        ("mlp", "module must be a function"),
        (lambda agent, size: None, "agent 'a' it made NoneType"),
        (lambda agent, size: nn.Tanh(), "agent 'a'; there is nothing to train"),
    ],
)
def test_modules_that_cannot_work_are_refused(module, match):
    with pytest.raises((TypeError, ValueError), match=match):
        make(module=module)


def test_shared_weights_are_refused():
    shared = nn.Linear(4, 1)
    with pytest.raises(TypeError, match="agents 'a' and 'b' share weights"):
        Discriminators((4, 4), agents=("a", "b"), module=lambda agent, size: shared)


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (
            lambda size: nn.Linear(size, 2),
            r"\[B, 3\] into logits \[B, 1\] or \[B\], but turned 2 observations into \(2, 2\)",
        ),
        (lambda size: nn.Linear(size + 1, 1), "but failed on 2 observations: mat1 and mat2 .*; change what module= returns"),
        (lambda size: nn.LSTM(size, 1), "but turned 2 observations into tuple"),
        (lambda size: nn.Sequential(nn.Linear(size, 1), nn.Flatten(0), nn.Unflatten(0, (1, 2))), r"into \(1, 2\)"),
    ],
)
def test_a_network_of_another_width_is_refused_at_once(module, match):
    with pytest.raises(ValueError, match=f"the network of agent 'a' must turn observations .*{match}"):
        make(module=lambda agent, size: module(size))


def test_the_trial_leaves_the_network_as_it_was():
    made = {}

    def module(agent, size):
        made[agent] = nn.Sequential(nn.BatchNorm1d(size), nn.Linear(size, 1), nn.Flatten(0))
        made[agent][0].eval()
        return made[agent]

    make(module=module)
    for network in made.values():
        assert [part.training for part in network.modules()] == [True, False, True, True]
        assert network[0].num_batches_tracked == 0


class Widening(nn.Module):
    """Right for two inputs, wrong for more."""

    def __init__(self, size):
        super().__init__()
        self.layer = nn.Linear(size, 2)

    def forward(self, x):
        return self.layer(x)[:, : 1 if len(x) == 2 else 2]


def test_an_output_of_another_shape_names_the_agent():
    matcher = make(module=lambda agent, size: Widening(size))
    with pytest.raises(ValueError, match=r"network of agent 'a' must turn.*\[B, 3\].*into \(20, 2\)"):
        matcher.rewards(rollout()[0])
