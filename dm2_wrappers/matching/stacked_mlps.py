"""K networks of two tanh layers, stacked, with the gradient of the discriminators' loss in closed form."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dm2_wrappers.matching.networks import TINY

# Rows per side in a tile: bounds the memory of its temporaries. Smaller tiles were not faster.
_TILE = 2048


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
        self._prepared: tuple[Tensor, ...] | None = None  # the weights as `logits` needs them, until they change
        self._arrays: tuple[NDArray[np.float32], ...] | None = None  # the weights as `logits_of_step` needs them
        self._work: dict[tuple[int, int], list[Tensor]] = {}
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
        self._prepared = None  # the caller may write to them
        w1, *others = self._split(self._weights)
        names = ("w1", "b1", "w2", "b2", "w3", "b3")
        stacks = [(w1[k, :size], *(tensor[k] for tensor in others)) for k, size in enumerate(self._sizes)]
        return [dict(zip(names, stack, strict=True)) for stack in stacks]

    def logits(self, observations: Tensor) -> Tensor:
        """See `Networks`."""
        if self._prepared is None:
            self._prepared = _sigmoids(*self._split(self._weights))
        w1, b1, w2, b2, w3, b3 = self._prepared
        s1 = torch.baddbmm(b1, observations, w1).sigmoid_()
        return torch.baddbmm(b3, torch.baddbmm(b2, s1, w2).sigmoid_(), w3).squeeze(2)

    def logits_of_step(self, observations: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of one joint observation with NumPy, whose calls take less time than PyTorch's: [K, D] -> [K]."""
        if self._arrays is None:
            w1, b1, w2, b2, w3, b3 = (tensor.numpy() for tensor in self._split(self._weights))
            self._arrays = w1, b1[:, 0], w2, b2[:, 0], w3[..., 0], b3[:, 0, 0]  # views, which follow the training
        w1, b1, w2, b2, w3, b3 = self._arrays
        hidden = np.matmul(observations[:, None], w1)[:, 0]
        hidden += b1
        np.tanh(hidden, out=hidden)
        hidden = np.matmul(hidden[:, None], w2)[:, 0]
        hidden += b2
        np.tanh(hidden, out=hidden)
        hidden *= w3
        logits: NDArray[np.float32] = hidden.sum(1)
        logits += b3
        return logits

    @torch.no_grad()
    def backward(
        self, expert: Tensor, policy: Tensor, alpha: Tensor, active: Sequence[bool], gradient_penalty: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Networks`.

        Walks the minibatch in tiles: as many agents as fit into one, or a part of one agent's rows.
        """
        agents, batch, _ = expert.shape
        self._prepared = None  # the optimizer changes the weights next
        self._gradients.zero_()
        out = expert.new_empty(3, agents, batch)  # logits of the experts and of the policy, norms
        for some in torch.arange(agents).split(max(1, _TILE // batch)):
            block = slice(int(some[0]), int(some[-1]) + 1)
            tile = _Tile(self._split(self._weights[block]), self._split(self._gradients[block]), batch, gradient_penalty)
            for first in range(0, batch, _TILE):
                rows = slice(first, min(first + _TILE, batch))
                work = self._workspace(len(some), rows.stop - rows.start)
                tile.add(expert[block, rows], policy[block, rows], alpha[block, rows], work, out[:, block, rows])
            tile.finish(self._inputs[block])
        for row, gradient, trained in zip(self._rows, self._gradients, active, strict=True):
            row.grad = gradient if trained else None
        return out[0], out[1], out[2]

    def gradient_norms(self) -> Tensor:
        """See `Networks`."""
        active = torch.tensor([row.grad is not None for row in self._rows], device=self._weights.device)
        return torch.where(active, torch.linalg.vector_norm(self._gradients, dim=1), 0.0)

    def streams(self) -> list[Any]:
        """See `Networks`."""
        return []

    def load_streams(self, streams: Sequence[Any]) -> None:
        """See `Networks`."""

    def _workspace(self, agents: int, rows: int) -> list[Tensor]:
        """Memory for a tile, kept because page faults of fresh memory would cost a third of its time."""
        if (agents, rows) not in self._work:
            width1, width2 = (o for _, o in self._shapes[0:4:2])
            shapes = [(3 * rows, width) for width in (width1, width1, width1, width2, width2, width2)]
            shapes += [(rows, width) for width in (width1, width1, width1, width1, width2, width2)]
            self._work[agents, rows] = [self._weights.new_empty(agents, *shape) for shape in shapes]
        return self._work[agents, rows]


def _sigmoids(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor, b3: Tensor) -> tuple[Tensor, ...]:
    """The weights of the same network with sigmoid layers, since tanh x = 2 sigmoid(2 x) - 1.

    Torch computes a sigmoid several times faster than a tanh on some CPUs; the logits differ by rounding only.
    """
    return 2 * w1, 2 * b1, 4 * w2, 2 * (b2 - w2.sum(1, keepdim=True)), 2 * w3, b3 - w3.sum(1, keepdim=True)


class _Tile:
    """Adds up the gradient of the loss for some agents, a tile of their rows at a time.

    Below, h = 2 s - 1 is the tanh of a layer, s the sigmoid that it is computed with, and e = s (1 - s), so that tanh' =
    1 - h^2 = 4 e and tanh'' = -2 h tanh'. The constant factors are in the (small) weights, so that fewer operations go
    over all rows. ``g_y`` is the loss's gradient with respect to y.

    Args:
        weights: W1, b1, W2, b2, w3, b3.
        gradients: Of the same; zeros at first.
        batch: B, rows per side in the whole minibatch.
        gradient_penalty: Its weight.
    """

    def __init__(self, weights: list[Tensor], gradients: list[Tensor], batch: int, gradient_penalty: float) -> None:
        self.weights, self.gradients, self.batch, self.penalty = weights, gradients, batch, gradient_penalty
        self.sigmoids = _sigmoids(*weights)
        self.gram = weights[0].mT @ weights[0]
        self.outer = torch.zeros_like(self.gram)  # sum of scale * u u^T, see `add`
        self.w2t4, self.w3t4 = 4 * weights[2].mT, 4 * weights[4].mT

    def add(self, expert: Tensor, policy: Tensor, alpha: Tensor, work: list[Tensor], out: Tensor) -> None:
        """Add these rows' share, [agents, rows, D] per side; ``out`` gets both logits and the norms."""
        w1, b1, w2, b2, w3, b3 = self.sigmoids
        g_w1, g_b1, g_w2, g_b2, g_w3, g_b3 = self.gradients
        s1, e1, g_a1, s2, e2, g_a2, s, u, v, g_s, p, g_p = work
        # Rows of the first six: experts and policy ("real"), then interpolates ("between").
        rows = expert.shape[1]
        real, between = slice(0, 2 * rows), slice(2 * rows, 3 * rows)
        alpha = alpha.unsqueeze(2)

        # Forward. W1 i + b1 of an interpolate i is the interpolate of two W1 x + b1: it needs no product.
        torch.baddbmm(b1, expert, w1, out=s1[:, :rows])
        torch.baddbmm(b1, policy, w1, out=s1[:, rows : 2 * rows])
        torch.lerp(s1[:, rows : 2 * rows], s1[:, :rows], alpha, out=s1[:, between])
        s1.sigmoid_()
        torch.baddbmm(b2, s1, w2, out=s2).sigmoid_()
        torch.addcmul(s1, s1, s1, value=-1, out=e1)
        torch.addcmul(s2, s2, s2, value=-1, out=e2)
        logits = torch.baddbmm(b3, s2[:, real], w3)
        out[:2] = logits.view(len(logits), 2, rows).transpose(0, 1)

        # The penalty, forward. p, s and u are the gradients of the logit with respect to W2 h1 + b2, h1 and W1 i + b1.
        # The input's gradient is W1 u, and its squared norm u . v with v = (W1^T W1) u.
        torch.mul(e2[:, between], self.w3t4, out=p)
        torch.bmm(p, self.w2t4, out=s)  # 4 s
        torch.mul(e1[:, between], s, out=u)
        torch.bmm(u, self.gram, out=v)
        norms = torch.mul(u, v, out=g_s).sum(2).clamp_(min=0).add_(TINY).sqrt_()
        out[2] = norms

        # The penalty, backward: (|W1 u| - 1)^2 has the gradient 2 (1 - 1 / |W1 u|) v with respect to u. v becomes 2 g_u.
        scale = (1 - 1 / norms).mul_(4 * self.penalty / self.batch).unsqueeze(2)
        v *= scale
        torch.mul(v, e1[:, between], out=g_s)  # g_s / 2
        torch.bmm(g_s, w2, out=g_p)  # 2 g_p

        # The logits, backward: those of softplus(-logit) / B for the experts and of softplus(logit) / B for the policy.
        g_logits = logits.sigmoid_()
        g_logits[:, :rows] -= 1
        g_logits /= self.batch

        # Both together, from the last layer to the first.
        total = g_logits.sum(1, keepdim=True)
        g_b3 += total
        g_w3.baddbmm_(s2[:, real].mT, g_logits, alpha=2).sub_(total)
        g_w3 += e2[:, between].mul_(g_p).sum(1).mul_(2).unsqueeze(2)
        torch.mul(e2[:, real], g_logits, out=g_a2[:, real]).mul_(self.w3t4)
        g_p *= p  # now 2 g_p p, and tanh'' of it is -2 h2 times that
        torch.addcmul(g_p, g_p, s2[:, between], value=-2, out=g_a2[:, between])
        total = g_a2.sum(1, keepdim=True)
        g_b2 += total
        g_w2.baddbmm_(s1.mT, g_a2, alpha=2).baddbmm_(g_s.mT, p, alpha=2).sub_(total)
        torch.bmm(g_a2, self.w2t4, out=g_a1).mul_(e1)
        v *= u
        g_a1[:, between].add_(v).addcmul_(v, s1[:, between], value=-2)
        g_a1[:, :rows].addcmul_(alpha, g_a1[:, between])
        g_a1[:, rows : 2 * rows].addcmul_(1 - alpha, g_a1[:, between])
        g_w1.baddbmm_(expert.mT, g_a1[:, :rows]).baddbmm_(policy.mT, g_a1[:, rows : 2 * rows])
        g_b1 += g_a1[:, real].sum(1, keepdim=True)
        self.outer.baddbmm_(torch.mul(scale, u, out=g_s).mT, u, alpha=0.5)

    def finish(self, inputs: Tensor) -> None:
        """Add the share of the penalty that has W1 as a factor; the padding's weights get no gradient."""
        self.gradients[0].baddbmm_(self.weights[0], self.outer).mul_(inputs)
