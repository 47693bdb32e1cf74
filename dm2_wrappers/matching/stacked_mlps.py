"""K networks of two tanh layers, stacked, with the gradient of the discriminators' loss in closed form."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dm2_wrappers.matching.networks import TINY


class StackedMLPs:
    """K networks of two tanh layers as stacked tensors: logit = w3 . tanh(W2 tanh(W1 x + b1) + b2) + b3.

    Weights are stored as [K, in, out], biases as [K, 1, out]; all weights of an agent are one row of one flat tensor.
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
        self._rows = list(self._weights)  # one tensor per agent, so that Adam can skip inactive agents
        # 1 at an agent's own inputs, 0 at its padding, whose weights stay 0 regardless of the padding's values. [K, D, 1]
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
        """One flat tensor per agent."""
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

        # Forward. W1 i + b1 of an interpolate i is the interpolate of two W1 x + b1: it needs no product.
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
        norms = torch.mul(u, v, out=g_u).sum(2).clamp_(min=0).add_(TINY).sqrt_()

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

    def gradient_norms(self) -> Tensor:
        """See `Networks`."""
        active = torch.tensor([row.grad is not None for row in self._rows], device=self._weights.device)
        return torch.where(active, torch.linalg.vector_norm(self._gradients, dim=1), 0.0)

    def streams(self) -> list[Any]:
        """See `Networks`."""
        return []

    def load_streams(self, streams: Sequence[Any]) -> None:
        """See `Networks`."""

    def _workspace(self, agents: int, batch: int, size: int) -> tuple[Tensor, ...]:
        """Memory for `backward`, kept because page faults of fresh memory would cost a third of its time."""
        if self._work[0].shape != (agents, 2 * batch, size):
            new = self._weights.new_empty
            width1, width2 = (o for _, o in self._shapes[0:4:2])
            large = (new(3, agents, 3 * batch, width) for width in (width1, width2))
            small = (new(5, agents, batch, width1), new(2, agents, batch, width2))
            self._work = (new(agents, 2 * batch, size), *large, *small)
        return self._work


def _tanh_(x: Tensor) -> Tensor:
    """Tanh in place, as 2 sigmoid(2 x) - 1: several times faster than torch.tanh on some CPUs, 2e-7 from it at most."""
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)
