"""K networks of any architecture, with the gradient of the discriminators' loss from autograd's double backward."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dm2_wrappers.matching.networks import TINY
from dm2_wrappers.rng_state import GlobalRNGState


class AutogradNetworks:
    """K networks of any architecture, one after the other, with autograd's double backward.

    Networks are paid from in evaluation mode and trained in the mode in which they were made. Layers that draw random
    numbers (dropout) draw them from their agent's own streams, so the program's global streams stay as they are.

    Args:
        modules: Each agent's network, [B, D_k] -> [B, 1] or [B].
        sizes: Each agent's own number of features, D_k.
        agents: Names, for errors.
        seeds: Of each agent's random streams.

    Raises:
        ValueError: A network does not make a logit of each of two observations of 0.
    """

    def __init__(
        self, modules: Sequence[nn.Module], sizes: Sequence[int], agents: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self._modules = modules
        self._sizes = sizes
        self._agents = agents
        self._streams = [GlobalRNGState.seeded(seed) for seed in seeds]
        self._frozen_stream = GlobalRNGState.seeded(0)  # paying always starts from here: it is a pure function
        self._try_out()

    def parameters(self) -> list[Tensor]:
        """All agents' parameters, in agent order."""
        return [parameter for module in self._modules for parameter in module.parameters()]

    def tensors(self) -> list[dict[str, Tensor]]:
        """The modules' own state dicts."""
        return [dict(module.state_dict()) for module in self._modules]

    def logits(self, observations: Tensor) -> Tensor:
        """See `Networks`."""
        with _global_streams(self._frozen_stream), torch.no_grad(), _evaluation_mode(self._modules):
            return torch.stack([self._of_agent(k, rows) for k, rows in enumerate(observations)])

    def backward(
        self, expert: Tensor, policy: Tensor, alpha: Tensor, active: Sequence[bool], gradient_penalty: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See `Networks`."""
        expert_logits, policy_logits, norms = torch.zeros(3, *alpha.shape, device=alpha.device)
        for k, module in enumerate(self._modules):
            module.zero_grad(set_to_none=True)
            if not active[k]:
                continue
            with _global_streams(self._streams[k]) as drawn, torch.enable_grad():
                logits_e, logits_p = self._of_agent(k, expert[k]), self._of_agent(k, policy[k])
                between = torch.lerp(policy[k], expert[k], alpha[k].unsqueeze(1)).requires_grad_()
                (slope,) = torch.autograd.grad(self._of_agent(k, between).sum(), between, create_graph=True)
                norm = slope.square().sum(1).add(TINY).sqrt()
                loss = F.softplus(-logits_e) + F.softplus(logits_p) + gradient_penalty * (norm - 1).square()
                loss.mean().backward()
            self._streams[k] = drawn[0]
            for out, value in ((expert_logits, logits_e), (policy_logits, logits_p), (norms, norm)):
                out[k] = value.detach()
        return expert_logits, policy_logits, norms

    def gradient_norms(self) -> Tensor:
        """See `Networks`."""
        norms = torch.zeros(len(self._modules))
        for k, module in enumerate(self._modules):
            of_tensors = [parameter.grad.norm() for parameter in module.parameters() if parameter.grad is not None]
            if of_tensors:
                norms[k] = torch.stack(of_tensors).norm()
        return norms

    def streams(self) -> list[Any]:
        """See `Networks`."""
        return [stream.state_dict() for stream in self._streams]

    def load_streams(self, streams: Sequence[Any]) -> None:
        """See `Networks`."""
        self._streams = [GlobalRNGState.from_state_dict(stream) for stream in streams]

    def _try_out(self) -> None:
        """Find out at once what would otherwise fail in the middle of training."""
        for k, size in enumerate(self._sizes):
            parameter = next(self._modules[k].parameters())
            with _global_streams(self._frozen_stream), torch.no_grad(), _evaluation_mode(self._modules):
                try:
                    self._of_agent(k, parameter.new_zeros(2, size))
                except (RuntimeError, TypeError, LookupError) as error:  # what layers of another width raise
                    raise ValueError(
                        f"{self._expected(k)} failed on 2 observations: {error}; change what module= returns"
                    ) from error

    def _expected(self, k: int) -> str:
        shapes = f"observations [B, {self._sizes[k]}] into logits [B, 1] or [B]"
        return f"the network of agent {self._agents[k]!r} must turn {shapes}, but"

    def _of_agent(self, k: int, observations: Tensor) -> Tensor:
        """[B, D] -> [B]."""
        logits = self._modules[k](observations[:, : self._sizes[k]])
        rows = len(observations)
        if not isinstance(logits, Tensor) or logits.shape not in ((rows, 1), (rows,)):
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(f"{self._expected(k)} turned {rows} observations into {got}; change what module= returns")
        return logits.reshape(rows)


@contextmanager
def _global_streams(state: GlobalRNGState) -> Iterator[list[GlobalRNGState]]:
    """Let the block draw from these streams; the list that it gets holds the streams' states after it."""
    outer, after = GlobalRNGState.capture(), list[GlobalRNGState]()
    try:
        state.restore()
        yield after
        after.append(GlobalRNGState.capture())
    finally:
        outer.restore()


@contextmanager
def _evaluation_mode(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Every layer in evaluation mode: no dropout, and batch normalization changes none of its statistics."""
    layers = [(layer, layer.training) for module in modules for layer in module.modules()]
    try:
        for layer, _ in layers:
            layer.training = False
        yield
    finally:
        for layer, training in layers:
            layer.training = training
