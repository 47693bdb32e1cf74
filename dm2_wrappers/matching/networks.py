"""The networks of the K discriminators and the gradient of their loss, which `discriminator` defines.

`StackedMLPs` is the fast one: stacked tensors, and the gradient penalty of a network with two tanh layers in closed form.
`AutogradNetworks` is the general one: any networks, by autograd. Both give the same numbers, which the tests check.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Added under the square root of the gradient's norm: its derivative at a gradient of 0 is then 0 instead of NaN.
_TINY = 1e-12


class Networks(Protocol):
    """The K networks: what `Discriminators` needs to know of them."""

    def parameters(self) -> list[Tensor]:
        """All trained tensors."""

    def tensors(self) -> list[dict[str, Tensor]]:
        """Each agent's own weights by name, as views: writing to them changes the network."""

    def logits(self, observations: Tensor) -> Tensor:
        """[K, M, D] -> [K, M]."""

    def backward(
        self, expert: Tensor, policy: Tensor, alpha: Tensor, active: Sequence[bool], gradient_penalty: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Set ``.grad`` of the active agents' parameters, and ``None`` on the others'.

        Returns:
            Logits of the experts [K, B] and of the policy [K, B], norms of the gradient at the interpolates [K, B].
        """


class StackedMLPs:
    """K networks of two tanh layers as stacked tensors: logit = w3 . tanh(W2 tanh(W1 x + b1) + b2) + b3.

    Weights are stored as [K, in, out], biases as [K, 1, out]; all of an agent's lie in one row of one flat tensor.
    """

    def __init__(self, modules: Sequence[nn.Module], sizes: Sequence[int]) -> None:
        layers = [[layer for layer in module.modules() if isinstance(layer, nn.Linear)] for module in modules]
        widths = (max(sizes), *(layer.out_features for layer in layers[0]))
        device = layers[0][0].weight.device
        self._shapes = [shape for i, o in itertools.pairwise(widths) for shape in ((i, o), (1, o))]
        self._sizes = sizes
        self._weights = torch.zeros(len(sizes), sum(i * o for i, o in self._shapes), device=device)
        self._gradients = torch.zeros_like(self._weights)
        self._work: tuple[Tensor, ...] = (torch.empty(0),)
        self._rows = list(self._weights)  # one tensor an agent: what Adam steps, or leaves alone
        # 1 at an agent's own inputs, 0 at its padding, whose weights stay 0 whatever the padding holds. [K, D, 1]
        self._inputs = (torch.arange(widths[0])[:, None] < torch.tensor(sizes)[:, None, None]).float().to(device)
        for own, linears in zip(self.tensors(), layers, strict=True):
            for number, linear in enumerate(linears, 1):
                own[f"w{number}"].copy_(linear.weight.detach().T)
                own[f"b{number}"].copy_(linear.bias.detach())

    def _split(self, flat: Tensor) -> list[Tensor]:
        """W1, b1, W2, b2, w3, b3 as views of a flat tensor [K, ...]."""
        parts = flat.split([i * o for i, o in self._shapes], dim=1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def parameters(self) -> list[Tensor]:
        """One flat tensor an agent."""
        return self._rows

    def tensors(self) -> list[dict[str, Tensor]]:
        """W1 without the padding's rows, b1, W2, b2, w3, b3 of each agent."""
        w1, *others = self._split(self._weights)
        names = ("w1", "b1", "w2", "b2", "w3", "b3")
        stacks = [(w1[k, :size], *(tensor[k] for tensor in others)) for k, size in enumerate(self._sizes)]
        return [dict(zip(names, stack, strict=True)) for stack in stacks]

    def logits(self, observations: Tensor) -> Tensor:
        """See `Networks`."""
        w1, b1, w2, b2, w3, b3 = self._split(self._weights)
        h1 = _tanh_(torch.baddbmm(b1, observations, w1))
        return torch.baddbmm(b3, _tanh_(torch.baddbmm(b2, h1, w2)), w3).squeeze(2)

    @torch.no_grad()
    def backward(
        self, expert: Tensor, policy: Tensor, alpha: Tensor, active: Sequence[bool], gradient_penalty: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Networks`."""
        w1, b1, w2, b2, w3, b3 = self._split(self._weights)
        g_w1, g_b1, g_w2, g_b2, g_w3, g_b3 = self._split(self._gradients)  # g_y: the loss's gradient w.r.t. y
        x, (h1, d1, g_a1), (h2, d2, g_a2), (s, u, v, g_s, g_u), (p, g_p) = self._workspace(*expert.shape)
        # Rows of h, d, g_a: B experts and B policy ("real", the rows of x), then B interpolates ("between").
        batch = expert.shape[1]
        real, between = slice(0, 2 * batch), slice(2 * batch, 3 * batch)
        alpha = alpha.unsqueeze(2)
        torch.cat((expert, policy), dim=1, out=x)

        # Forward. W1 i + b1 of an interpolate i is the interpolate of two W1 x + b1: it needs no product of its own.
        torch.baddbmm(b1, x, w1, out=h1[:, real])
        torch.lerp(h1[:, batch : 2 * batch], h1[:, :batch], alpha, out=h1[:, between])
        _tanh_(h1)
        _tanh_(torch.baddbmm(b2, h1, w2, out=h2))
        for h, d in ((h1, d1), (h2, d2)):
            torch.mul(h, h, out=d).neg_().add_(1)  # tanh' = 1 - tanh^2
        logits = torch.mul(h2[:, real], w3.mT, out=g_a2[:, real]).sum(2) + b3.squeeze(2)

        # The penalty, forward. p, s and u are the gradients of the logit with respect to W2 h1 + b2, h1 and W1 i + b1.
        # The input's gradient is W1 u, and its squared norm u . v with v = (W1^T W1) u.
        torch.mul(d2[:, between], w3.mT, out=p)
        torch.bmm(p, w2.mT, out=s)
        torch.mul(d1[:, between], s, out=u)
        torch.bmm(u, w1.mT @ w1, out=v)
        norms = torch.mul(u, v, out=g_u).sum(2).clamp_(min=0).add_(_TINY).sqrt_()

        # The penalty, backward: (|W1 u| - 1)^2 has the gradient 2 (1 - 1 / |W1 u|) v with respect to u.
        scale = (1 - 1 / norms).mul_(2 * gradient_penalty / batch).unsqueeze(2)
        torch.mul(scale, v, out=g_u)
        torch.mul(g_u, d1[:, between], out=g_s)
        torch.bmm(g_s, w2, out=g_p)

        # The logits, backward: those of softplus(-logit) / B for the experts and of softplus(logit) / B for the policy.
        g_logits = torch.sigmoid(logits)
        g_logits[:, :batch] -= 1
        g_logits = g_logits.div_(batch).unsqueeze(2)

        # Both together, from the last layer to the first. tanh'' = -2 tanh tanh' takes the penalty to the layers below.
        torch.sum(g_logits, 1, keepdim=True, out=g_b3)
        torch.add((h2[:, real] * g_logits).sum(1), (g_p * d2[:, between]).sum(1), out=g_w3.squeeze(2))
        torch.mul(g_logits, w3.mT, out=g_a2[:, real])
        torch.mul(g_p, w3.mT, out=g_a2[:, between]).mul_(h2[:, between]).mul_(-2)
        g_a2 *= d2
        torch.bmm(h1.mT, g_a2, out=g_w2).baddbmm_(g_s.mT, p)
        torch.sum(g_a2, 1, keepdim=True, out=g_b2)
        torch.bmm(g_a2, w2.mT, out=g_a1)
        g_a1[:, between].addcmul_(g_u.mul_(s), h1[:, between], value=-2)
        g_a1 *= d1
        g_a1[:, :batch].addcmul_(alpha, g_a1[:, between])
        g_a1[:, batch : 2 * batch].addcmul_(1 - alpha, g_a1[:, between])
        torch.bmm(x.mT, g_a1[:, real], out=g_w1).baddbmm_(w1, torch.mul(scale, u, out=g_u).mT @ u).mul_(self._inputs)
        torch.sum(g_a1[:, real], 1, keepdim=True, out=g_b1)
        for row, gradient, trained in zip(self._rows, self._gradients, active, strict=True):
            row.grad = gradient if trained else None
        return logits[:, :batch], logits[:, batch:], norms

    def _workspace(self, agents: int, batch: int, size: int) -> tuple[Tensor, ...]:
        """Where `backward` computes; kept, because page faults of fresh memory cost a third of its time."""
        if self._work[0].shape != (agents, 2 * batch, size):
            new = self._weights.new_empty
            width1, width2 = (o for _, o in self._shapes[0:4:2])
            large = (new(3, agents, 3 * batch, width) for width in (width1, width2))
            small = (new(5, agents, batch, width1), new(2, agents, batch, width2))
            self._work = (new(agents, 2 * batch, size), *large, *small)
        return self._work


class AutogradNetworks:
    """K networks of any architecture, one after the other, with autograd's double backward."""

    def __init__(self, modules: Sequence[nn.Module], sizes: Sequence[int]) -> None:
        self._modules = modules
        self._sizes = sizes

    def parameters(self) -> list[Tensor]:
        """All agents' parameters, in agent order."""
        return [parameter for module in self._modules for parameter in module.parameters()]

    def tensors(self) -> list[dict[str, Tensor]]:
        """The modules' own state dicts."""
        return [dict(module.state_dict()) for module in self._modules]

    def _of_agent(self, k: int, observations: Tensor) -> Tensor:
        """[B, D] -> [B]."""
        return self._modules[k](observations[:, : self._sizes[k]]).reshape(len(observations))

    def logits(self, observations: Tensor) -> Tensor:
        """See `Networks`."""
        return torch.stack([self._of_agent(k, rows) for k, rows in enumerate(observations)])

    @torch.enable_grad()
    def backward(
        self, expert: Tensor, policy: Tensor, alpha: Tensor, active: Sequence[bool], gradient_penalty: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Networks`."""
        expert_logits, policy_logits, norms = torch.zeros(3, *alpha.shape, device=alpha.device)
        for k, module in enumerate(self._modules):
            module.zero_grad(set_to_none=True)
            if not active[k]:
                continue
            logits_e, logits_p = self._of_agent(k, expert[k]), self._of_agent(k, policy[k])
            between = torch.lerp(policy[k], expert[k], alpha[k].unsqueeze(1)).requires_grad_()
            (slope,) = torch.autograd.grad(self._of_agent(k, between).sum(), between, create_graph=True)
            norm = slope.square().sum(1).add(_TINY).sqrt()
            loss = F.softplus(-logits_e) + F.softplus(logits_p) + gradient_penalty * (norm - 1).square()
            loss.mean().backward()
            for out, value in ((expert_logits, logits_e), (policy_logits, logits_p), (norms, norm)):
                out[k] = value.detach()
        return expert_logits, policy_logits, norms


def _tanh_(x: Tensor) -> Tensor:
    """Tanh in place, as 2 sigmoid(2 x) - 1: several times faster than torch.tanh on some CPUs, 2e-7 from it at most."""
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)
