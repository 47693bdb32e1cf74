"""The discriminators against independent slow versions: plain modules, autograd's double backward, torch's Adam."""

from __future__ import annotations

import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dm2_wrappers.matching.autograd_networks import AutogradNetworks
from dm2_wrappers.matching.discriminators import Discriminators
from dm2_wrappers.matching.stacked_mlps import StackedMLPs

AGENTS = ("ally_0", "ally_1", "medic")


def mlp(size, hidden=(64, 64)):
    layers = []
    for i, o in zip((size, *hidden), hidden, strict=False):
        layers += [nn.Linear(i, o), nn.Tanh()]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


def batch(sizes, rows=16, seed=0):
    """Expert and policy observations with zero padding, and alphas."""
    generator = torch.Generator().manual_seed(seed)
    real = (torch.arange(max(sizes)) < torch.tensor(sizes)[:, None]).float()[:, None]
    expert = torch.randn(len(sizes), rows, max(sizes), generator=generator) * real
    policy = (torch.randn(len(sizes), rows, max(sizes), generator=generator) + 0.5) * real
    return expert, policy, torch.rand(len(sizes), rows, generator=generator)


def slow_loss(network, expert, policy, alpha, weight):
    """The loss as the papers write it (binary cross-entropy and gradient penalty), for one agent."""
    logits_e, logits_p = network(expert), network(policy)
    between = (alpha[:, None] * expert + (1 - alpha[:, None]) * policy).requires_grad_()
    (slope,) = torch.autograd.grad(network(between).sum(), between, create_graph=True)
    penalty = weight * ((slope.norm(dim=1) - 1) ** 2).mean()
    cross_entropy = F.binary_cross_entropy_with_logits
    loss = cross_entropy(logits_e, torch.ones_like(logits_e)) + cross_entropy(logits_p, torch.zeros_like(logits_p))
    return loss + penalty, penalty, logits_e, logits_p


def plain_copies(discriminators, hidden=(64, 64)):
    """Each agent's weights in a plain nn.Sequential, through the state dict."""
    copies = []
    for size, weights in zip(discriminators.sizes, discriminators.state_dict()["weights"], strict=True):
        network = mlp(size, hidden)
        linears = [layer for layer in network if isinstance(layer, nn.Linear)]
        for number, linear in enumerate(linears, 1):
            linear.weight.data = weights[f"w{number}"].T.clone()
            linear.bias.data = weights[f"b{number}"][0].clone()
        copies.append(network)
    return copies


@pytest.mark.parametrize("rows", [1, 16, 1000, 2500])  # the last two: not all agents, or not all rows, in one tile
@pytest.mark.parametrize("hidden", [(64, 64), (5, 9), (9, 5)])
def test_gradients_are_autograds(hidden, rows):
    sizes = (7, 4, 7)
    networks = StackedMLPs([mlp(size, hidden) for size in sizes], sizes)
    networks._weights.mul_(2)  # away from the initialisation: gradients that are not small
    expert, policy, alpha = batch(sizes, rows=rows)
    networks.backward(policy, expert, alpha, [True] * 3, 1.0)  # what an earlier minibatch leaves behind does not matter
    logits_e, logits_p, norms = networks.backward(expert, policy, alpha, [True] * 3, 10.0)
    for k, size in enumerate(sizes):
        network = mlp(size, hidden)
        for linear, number in zip(network[::2], (1, 2, 3), strict=True):
            linear.weight.data = networks.tensors()[k][f"w{number}"].T.clone()
            linear.bias.data = networks.tensors()[k][f"b{number}"][0].clone()
        loss, penalty, slow_e, slow_p = slow_loss(network, expert[k, :, :size], policy[k, :, :size], alpha[k], 10.0)
        loss.backward()
        torch.testing.assert_close(10 * (norms[k] - 1).square().mean(), penalty, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(logits_e[k], slow_e[:, 0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(logits_p[k], slow_p[:, 0], atol=1e-5, rtol=1e-5)
        gradients = [gradient[k] for gradient in networks._split(networks._gradients)]
        for number, linear in enumerate(network[::2]):
            weight = gradients[2 * number][: linear.in_features].T
            torch.testing.assert_close(weight, linear.weight.grad, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(gradients[2 * number + 1][0], linear.bias.grad, atol=1e-5, rtol=1e-5)


def test_training_is_that_of_separate_plain_networks():
    sizes = (6, 3, 5)
    fast = Discriminators(sizes, agents=AGENTS, seed=3)
    slow = plain_copies(fast)
    adams = [torch.optim.Adam(network.parameters(), lr=1e-3) for network in slow]
    for step in range(20):
        expert, policy, alpha = batch(sizes, rows=32, seed=step)
        metrics = fast.update(expert, policy, alpha)
        for k, (network, adam) in enumerate(zip(slow, adams, strict=True)):
            one = (expert[k, :, : sizes[k]], policy[k, :, : sizes[k]], alpha[k])
            loss, penalty, logits_e, logits_p = slow_loss(network, *one, 10.0)
            adam.zero_grad()
            loss.backward()
            adam.step()
            expected = {
                "loss": loss,
                "gradient_penalty": penalty,
                "expert_accuracy": (logits_e > 0).float().mean(),
                "policy_accuracy": (logits_p < 0).float().mean(),
                "expert_logit": logits_e.mean(),
                "policy_logit": logits_p.mean(),
            }
            assert metrics.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(metrics[name][k], value.detach(), atol=1e-4, rtol=1e-4)
    observations = torch.randn(5, 2, 3, 6)
    expected = [network(observations[..., k, : sizes[k]])[..., 0] for k, network in enumerate(slow)]
    torch.testing.assert_close(fast.logits(observations), torch.stack(expected, -1).detach(), atol=1e-4, rtol=1e-4)


def test_module_path_trains_like_the_stacked_one():
    sizes = (6, 3)
    stacked = Discriminators(sizes, seed=0)
    modules = Discriminators(sizes, seed=0, module=lambda agent, size: mlp(size))
    assert isinstance(stacked._networks, StackedMLPs)
    assert isinstance(modules._networks, AutogradNetworks)
    for step in range(5):
        one, other = stacked.update(*batch(sizes, seed=step)), modules.update(*batch(sizes, seed=step))
        for name, value in one.items():
            torch.testing.assert_close(value, other[name], atol=1e-5, rtol=1e-4)
    observations = torch.randn(9, 2, 6)
    torch.testing.assert_close(stacked.logits(observations), modules.logits(observations), atol=1e-5, rtol=1e-4)


def test_other_depths_take_the_autograd_path():
    discriminators = Discriminators((3,), hidden=(8, 8, 8), seed=0)
    weights = discriminators.state_dict()["weights"][0]
    assert [tuple(tensor.shape) for tensor in weights.values()] == [
        (8, 3),
        (8,),
        (8, 8),
        (8,),
        (8, 8),
        (8,),
        (1, 8),
        (1,),
    ]
    with torch.no_grad():  # a caller's gradient mode must not matter
        assert torch.isfinite(discriminators.update(*batch((3,)))["loss"]).all()


@pytest.mark.parametrize("hidden", [(64, 64), (16,)])
def test_an_agent_is_the_same_alone_or_among_others(hidden):
    sizes = (6, 3, 5)
    team = Discriminators(sizes, agents=AGENTS, seed=7, hidden=hidden)
    alone = Discriminators(sizes[1:2], agents=AGENTS[1:2], seed=7, hidden=hidden)
    for name, tensor in alone.state_dict()["weights"][0].items():
        assert torch.equal(tensor, team.state_dict()["weights"][1][name])
    for step in range(10):
        expert, policy, alpha = batch(sizes, seed=step)
        team.update(expert, policy, alpha)
        alone.update(expert[1:2, :, :3].contiguous(), policy[1:2, :, :3].contiguous(), alpha[1:2])
    for name, tensor in alone.state_dict()["weights"][0].items():
        torch.testing.assert_close(tensor, team.state_dict()["weights"][1][name], atol=1e-5, rtol=1e-4)


def test_agents_of_equal_size_start_unlike_because_of_their_names():
    same_size = Discriminators((4, 4), agents=("a", "b"), seed=0)
    one, other = same_size.state_dict()["weights"]
    assert not any(torch.equal(one[name], other[name]) for name in one)
    swapped = Discriminators((4, 4), agents=("b", "a"), seed=0).state_dict()["weights"]
    assert all(torch.equal(one[name], swapped[1][name]) for name in one)


def test_agents_start_unlike_and_within_their_own_bounds():
    discriminators = Discriminators((100, 4), agents=("a", "b"), seed=0)
    wide, narrow = discriminators.state_dict()["weights"]
    assert 0.09 < wide["w1"].abs().max() <= 0.1  # nn.Linear's default: uniform within 1 / sqrt(inputs)
    assert 0.45 < narrow["w1"].abs().max() <= 0.5
    assert not torch.equal(wide["w2"], narrow["w2"])


def test_initialisation_leaves_the_global_stream_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Discriminators((4,), seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_same_seed_same_training_and_another_seed_another():
    def weights(seed):
        discriminators = Discriminators((4, 6), seed=seed)
        for step in range(3):
            discriminators.update(*batch((4, 6), seed=step))
        return discriminators.state_dict()["weights"][1]["w2"]

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
    assert not torch.equal(weights(None), weights(None))


def test_padding_never_matters():
    sizes = (6, 3)
    clean, dirty = Discriminators(sizes, seed=0), Discriminators(sizes, seed=0)
    for step in range(5):
        expert, policy, alpha = batch(sizes, seed=step)
        clean.update(expert, policy, alpha)
        expert[1, :, 3:], policy[1, :, 3:] = 5.0, -5.0
        dirty.update(expert, policy, alpha)
    observations = torch.randn(4, 2, 6)
    zeroed = observations.clone()
    zeroed[:, 1, 3:] = 0
    torch.testing.assert_close(dirty.logits(observations), clean.logits(zeroed))


@pytest.mark.parametrize("hidden", [(64, 64), (16,)])
def test_inactive_agents_keep_weights_and_adam_bit_for_bit(hidden):
    sizes = (4, 4, 4)
    discriminators = Discriminators(sizes, seed=0, hidden=hidden)
    discriminators.update(*batch(sizes))
    before = discriminators.state_dict()
    expert, policy, alpha = batch(sizes, seed=1)
    discriminators.update(expert, policy, alpha, torch.tensor([True, False, True]))
    after = discriminators.state_dict()
    changed = [
        any(not torch.equal(was[name], now[name]) for name in was)
        for was, now in zip(before["weights"], after["weights"], strict=True)
    ]
    assert changed == [True, False, True]
    per_agent = len(after["adam"]) // 3
    steps = [int(after["adam"][k * per_agent]["step"]) for k in range(3)]
    assert steps == [2, 1, 2]
    for name in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(before["adam"][per_agent][name], after["adam"][per_agent][name])
    everybody = Discriminators(sizes, seed=0, hidden=hidden)
    everybody.update(*batch(sizes))
    everybody.update(expert, policy, alpha)
    for name, tensor in everybody.state_dict()["weights"][0].items():
        assert torch.equal(tensor, after["weights"][0][name])


@pytest.mark.parametrize("hidden", [(64, 64), (16,)])
def test_a_gradient_of_zero_gives_no_nan(hidden):
    discriminators = Discriminators((4,), seed=0, hidden=hidden)
    state = discriminators.state_dict()
    for tensor in state["weights"][0].values():
        tensor.zero_()
    discriminators.load_state_dict(state)
    metrics = discriminators.update(*batch((4,)))
    assert metrics["gradient_penalty"].item() == pytest.approx(10, abs=1e-4)
    assert metrics["loss"].item() == pytest.approx(10 + 2 * math.log(2), abs=1e-4)
    assert all(torch.isfinite(tensor).all() for tensor in discriminators.state_dict()["weights"][0].values())


@pytest.mark.parametrize("seed", range(8))
def test_a_squared_norm_rounded_below_zero_gives_no_nan(seed):
    # At x = 0 without biases u is W2 w3: make it orthogonal to the only row of W1, and |W1 u|^2 is rounding alone.
    discriminators = Discriminators((1,), seed=seed)
    state = discriminators.state_dict()
    weights = state["weights"][0]
    for name in ("b1", "b2", "b3"):
        weights[name].zero_()
    weights["w2"].copy_(torch.eye(64))
    w1 = weights["w1"].copy_(10 * torch.randn(1, 64, generator=torch.Generator().manual_seed(seed)))
    weights["w3"] -= w1.T @ (w1 @ weights["w3"]) / w1.square().sum()
    weights["w3"] *= 100
    discriminators.load_state_dict(state)
    metrics = discriminators.update(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), torch.zeros(1, 2))
    assert torch.isfinite(metrics["gradient_penalty"]).all()
    assert all(torch.isfinite(tensor).all() for tensor in discriminators.state_dict()["weights"][0].values())


def test_large_logits_stay_finite():
    discriminators = Discriminators((2,), seed=0)
    state = discriminators.state_dict()
    state["weights"][0]["b3"].fill_(1e4)
    discriminators.load_state_dict(state)
    assert discriminators.logits(torch.zeros(1, 1, 2)).item() == pytest.approx(1e4, rel=1e-3)
    metrics = discriminators.update(*batch((2,)))
    assert metrics["loss"].item() > 9e3
    assert all(torch.isfinite(value).all() for value in metrics.values())
    assert all(torch.isfinite(tensor).all() for tensor in discriminators.state_dict()["weights"][0].values())


def test_logits_of_many_rows_are_those_of_each_row():
    discriminators = Discriminators((3, 2), seed=0)
    observations = torch.randn(5000, 2, 3)  # more than are computed at a time
    logits = discriminators.logits(observations)
    some = [0, 2047, 2048, 4999]
    for row in some:
        torch.testing.assert_close(logits[row], discriminators.logits(observations[row]), atol=1e-6, rtol=1e-5)
    assert discriminators.logits(observations[:0]).shape == (0, 2)


def test_it_learns_to_tell_the_sides_apart():
    discriminators = Discriminators((2, 2), seed=0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        expert = 0.3 * torch.randn(2, 64, 2, generator=generator) + torch.tensor([[[1.0, 0]], [[-1, 0]]])
        policy = 0.3 * torch.randn(2, 64, 2, generator=generator) - torch.tensor([[[1.0, 0]], [[-1, 0]]])
        metrics = discriminators.update(expert, policy, torch.rand(2, 64, generator=generator))
    assert (metrics["expert_accuracy"] > 0.95).all()
    assert (metrics["policy_accuracy"] > 0.95).all()
    assert (metrics["gradient_penalty"] < 1).all()  # it holds the slope near 1
    logits = discriminators.logits(torch.tensor([[[1.0, 0], [1, 0]]]))[0]
    assert logits[0] > 0.5  # agent 0's experts are on the right,
    assert logits[1] < -0.5  # agent 1's on the left: nothing is shared


@pytest.mark.parametrize("hidden", [(64, 64), (8, 8, 8)])
def test_state_goes_through_a_file_and_training_goes_on_bit_for_bit(hidden):
    sizes = (4, 3)
    one = Discriminators(sizes, seed=0, hidden=hidden)
    one.update(*batch(sizes, seed=0))
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other = Discriminators(sizes, seed=1, hidden=hidden)
    state = torch.load(file, weights_only=True)
    other.load_state_dict(state)
    for step in range(3):
        one.update(*batch(sizes, seed=step))
    kept = [tensor.clone() for tensor in state["weights"][0].values()]
    for step in range(3):
        other.update(*batch(sizes, seed=step))
    for mine, theirs in zip(one.state_dict()["weights"], other.state_dict()["weights"], strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    assert all(torch.equal(a, b) for a, b in zip(kept, state["weights"][0].values(), strict=True))  # no aliases
    assert state["adam"][0]["step"] == 1


def test_loading_keeps_the_learning_rate_asked_for():
    one, other = Discriminators((2,), learning_rate=1e-3), Discriminators((2,), learning_rate=0.5)
    one.update(*batch((2,)))
    other.load_state_dict(one.state_dict())
    before = other.state_dict()["weights"][0]["w2"]
    other.update(*batch((2,)))
    assert (other.state_dict()["weights"][0]["w2"] - before).abs().max() > 0.1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"agents": ("x", "y")}, "agents"),
        ({"sizes": (4, 4)}, "sizes"),
        ({"hidden": (64, 32)}, "hidden"),
        ({"hidden": (64,)}, "hidden"),
    ],
)
def test_a_state_of_other_networks_is_refused_and_changes_nothing(options, match):
    state = Discriminators(**{"sizes": (4, 3), "agents": ("a", "b"), "seed": 0, **options}).state_dict()
    own = Discriminators((4, 3), agents=("a", "b"), seed=1)
    before = own.state_dict()["weights"]
    with pytest.raises(ValueError, match=match):
        own.load_state_dict(state)
    for was, now in zip(before, own.state_dict()["weights"], strict=True):
        assert all(torch.equal(was[name], now[name]) for name in was)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sizes": ()}, "sizes"),
        ({"sizes": (3, 0)}, "sizes"),
        ({"hidden": ()}, "hidden"),
        ({"hidden": (64, 0)}, "hidden"),
        ({"hidden": (64, True)}, "hidden"),
        ({"hidden": (64, 8.5)}, "hidden"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"gradient_penalty": -1}, "gradient_penalty"),
        ({"gradient_penalty": float("inf")}, "gradient_penalty"),
        ({"agents": ("a",)}, "agents"),
        ({"agents": ("a", "a")}, "agents"),
        ({"device": "abacus"}, "device"),
    ],
)
def test_options_that_cannot_work_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        Discriminators(**{"sizes": (3, 2), **options})


@pytest.mark.parametrize("hidden", [(64, 64), (8,)])
def test_shapes_that_do_not_fit_are_refused(hidden):
    discriminators = Discriminators((3, 2), hidden=hidden)
    expert, policy, alpha = batch((3, 2))
    for sides in (
        (expert[:, :4], policy, alpha),
        (expert, policy[..., :2], alpha),
        (expert[:1], policy[:1], alpha[:1]),
        (expert, policy, alpha[0]),
        (expert[0], policy[0], alpha),
    ):
        with pytest.raises(ValueError, match=r"policy of shape \[2, B, 3\] and alpha of shape \[2, B\], got"):
            discriminators.update(*sides)
    with pytest.raises(ValueError, match=r"expected observations \[..., 2, 3\], got \(16, 3\)"):
        discriminators.logits(expert[0])


def test_a_norm_of_the_gradient_that_is_no_number_names_the_first_such_agent():
    discriminators = Discriminators((2, 2), agents=("a", "b"), seed=0)
    before = discriminators.state_dict()["weights"]
    expert, policy, alpha = batch((2, 2))
    expert[1, 0, 0] = math.nan
    with pytest.raises(ValueError, match="agent 'b' cannot be trained"):
        discriminators.update(expert, policy, alpha)
    for was, now in zip(before, discriminators.state_dict()["weights"], strict=True):
        assert all(torch.equal(was[name], now[name]) for name in was)
    discriminators.update(expert, policy, alpha, [True, False])  # the one that cannot is left out


def test_logits_follow_every_change_of_the_weights():
    discriminators = Discriminators((6, 3), seed=0)
    rows = torch.randn(5, 2, 6, generator=torch.Generator().manual_seed(1))
    rows[:, 1, 3:] = 0
    seen = [discriminators.logits(rows)]
    saved = discriminators.state_dict()
    for step in range(2):
        discriminators.update(*batch((6, 3), seed=step))
        seen.append(discriminators.logits(rows))
    networks = plain_copies(discriminators)
    by_hand = torch.stack([network(rows[:, k, : network[0].in_features])[:, 0] for k, network in enumerate(networks)], 1)
    torch.testing.assert_close(seen[2], by_hand, atol=1e-5, rtol=1e-5)
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])
    discriminators.load_state_dict(saved)
    assert torch.equal(discriminators.logits(rows), seen[0])
