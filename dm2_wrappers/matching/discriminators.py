"""One discriminator per agent (line 9 of Algorithm 1): K separate networks that are trained together but share nothing.

The sign of the logit: D(o) = sigmoid(logit(o)) is the estimated probability that observation o comes from the experts.
It is trained with expert = 1 and policy = 0. Since log D = -softplus(-logit) and log(1 - D) = -softplus(logit) =
log D - logit, the reward of the paper's implementation is ``log D - log(1 - D) = logit``. It is positive where the
discriminator takes the observation for an expert's. The logit is returned directly, not computed from the logarithm of a
sigmoid, which is infinite in float32 for logits above 17.

The loss of one agent, for a minibatch of B expert observations e and B policy observations p, with the interpolates
i = alpha * e + (1 - alpha) * p, is::

    mean[softplus(-logit(e))] + mean[softplus(logit(p))] + gradient_penalty * mean[(|d logit(i) / d i| - 1)^2]
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from dm2_wrappers import _checks
from dm2_wrappers.matching.autograd_networks import AutogradNetworks
from dm2_wrappers.matching.initialization import check_separate, initialized
from dm2_wrappers.matching.networks import Networks
from dm2_wrappers.matching.stacked_mlps import StackedMLPs
from dm2_wrappers.matching.standardization import Standardization
from dm2_wrappers.matching.torch_modes import standard_modes, usable_device
from dm2_wrappers.rng_state import derive_seed

# Rows per block in `logits`: hidden layers of this many rows stay in the cache, and memory is bounded.
_ROWS = 2048
# Adam squares gradients, and the square of more than this overflows float32: the weights could never be trained again.
_LARGEST_GRADIENT = 1e18
# Adam moves each weight by about the learning rate in each minibatch.
_LARGEST_LEARNING_RATE = 1.0
_LARGEST_PENALTY = 1e6


class Discriminators:
    """K discriminators, one per agent, on observations padded to the widest agent's D features.

    With two hidden layers (the default) the K networks are stacked tensors, trained in one batched pass with the
    gradient penalty in closed form. Any other ``hidden``, or ``module``, is trained agent by agent with autograd. The
    results do not depend on PyTorch's default dtype and device, inference mode or autocast.

    Args:
        sizes: Each agent's own number of features.
        hidden: Widths of the tanh layers.
        learning_rate: Of Adam (its other settings are torch's defaults), at most 1.
        gradient_penalty: Weight of the gradient penalty, at most 1e6.
        module: Instead of ``hidden``: ``module(agent, size)`` makes an agent's network, [B, size] -> [B, 1] or [B]. Rewards
            are computed in evaluation mode. Training uses the mode in which the network was made. Random
            layers such as dropout draw from the agent's own stream.
        agents: Names; by default "agent_0", "agent_1", ...
        seed: An agent's initial weights and dropout depend only on the seed and on its name, not on the other agents.
        device: Where to compute.

    Attributes:
        standardization: Turns observations into what the networks see; interpolates and the gradient penalty are then
            those of the standardized observations. None, the default: the raw ones.

    Raises:
        ValueError: An option is out of range.
        TypeError: ``module`` is not a function, or does not make a new network for each agent.
    """

    @standard_modes
    def __init__(
        self,
        sizes: Sequence[int],
        *,
        hidden: Sequence[int] = (64, 64),
        learning_rate: float = 1e-3,
        gradient_penalty: float = 10.0,
        module: Callable[[str, int], nn.Module] | None = None,
        agents: Sequence[str] | None = None,
        seed: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if not sizes:
            raise ValueError(f"sizes must hold one integer of at least 1 for each agent, got {sizes!r}")
        self.sizes = tuple(_checks.integer("each of sizes", size, least=1) for size in sizes)
        hidden = _checks.widths("hidden", hidden)
        learning_rate = checked_learning_rate(learning_rate)
        self.gradient_penalty = checked_gradient_penalty(gradient_penalty)
        self.agents = tuple(agents) if agents is not None else tuple(f"agent_{k}" for k in range(len(sizes)))
        if len(self.agents) != len(sizes) or len(set(self.agents)) != len(sizes):
            raise ValueError(f"agents must be {len(sizes)} different names, one for each of sizes, got {self.agents}")
        self.device = usable_device(device)
        self.standardization: Standardization | None = None
        modules = [
            initialized(agent, size, hidden, module, seed).to(self.device, torch.float32)
            for agent, size in zip(self.agents, self.sizes, strict=True)
        ]
        self._networks: Networks
        if module is None and len(hidden) == 2:
            self._networks = StackedMLPs(modules, self.sizes)
        else:
            check_separate(self.agents, modules)
            seeds = [derive_seed(seed, "dropout", agent) for agent in self.agents]
            self._networks = AutogradNetworks(modules, self.sizes, self.agents, seeds)
        self._adam = torch.optim.Adam(self._networks.parameters(), lr=learning_rate, fused=True)

    @standard_modes
    @torch.no_grad()
    def logits(self, observations: Tensor) -> Tensor:
        """Compute the logits log D - log(1 - D) of each agent's observations: [..., K, D] -> [..., K], without gradient.

        Raises:
            ValueError: The observations have another shape.
        """
        expected = (len(self.sizes), max(self.sizes))
        if observations.shape[-2:] != expected:
            raise ValueError(f"expected observations [..., {expected[0]}, {expected[1]}], got {tuple(observations.shape)}")
        rows = observations.to(self.device, torch.float32).reshape(-1, len(self.sizes), max(self.sizes))
        if len(rows) <= _ROWS:
            logits = self._logits(rows).T.contiguous()
        else:
            logits = rows.new_empty(rows.shape[:2])
            for some, out in zip(rows.split(_ROWS), logits.split(_ROWS), strict=True):
                out.copy_(self._logits(some).T)
        return logits.view(observations.shape[:-1])

    @property
    def replaces_logits(self) -> bool:
        """Whether `logits` is not this class's, but a subclass's or one that was assigned."""
        return type(self).logits is not Discriminators.logits or "logits" in vars(self)

    def logits_of_step(self, observations: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The same for one joint observation [K, D] -> [K], with a tenth of the work around the networks.

        Returns:
            The logits, equal to those of `logits` up to float32 rounding; None if the networks have no such short way.
        """
        if self.standardization is not None or not isinstance(self._networks, StackedMLPs):
            return None
        return self._networks.logits_of_step(observations)

    def _logits(self, rows: Tensor) -> Tensor:
        """[M, K, D] -> [K, M]."""
        inputs = rows.transpose(0, 1)
        return self._networks.logits(inputs if self.standardization is None else self.standardization(inputs))

    @standard_modes
    def update(
        self, expert: Tensor, policy: Tensor, alpha: Tensor, active: Sequence[bool] | Tensor | None = None
    ) -> dict[str, Tensor]:
        """Take one step of Adam on one minibatch (line 9). Only layers of ``module`` such as dropout are random.

        Args:
            expert: Observations from the demonstrations, [K, B, D].
            policy: Observations of the agents, [K, B, D].
            alpha: Weight of the expert observation in each interpolate, in [0, 1], [K, B].
            active: Agents to train, bool [K]; by default all. The weights and Adam's state of the others do not change.

        Returns:
            Per agent [K], before the step: "loss" and the penalty in it, "gradient_penalty"; the share of observations
            classified correctly, "expert_accuracy" and "policy_accuracy"; the means "expert_logit" and "policy_logit".
            Ignore the values of agents that are not active.

        Raises:
            ValueError: The shapes do not fit, or an agent's gradient is not a number or too large for Adam. Then no weight
                changes.
        """
        shape = (len(self.sizes), expert.shape[1] if expert.ndim == 3 else 0, max(self.sizes))
        if not expert.shape == policy.shape == shape or alpha.shape != shape[:2]:
            raise ValueError(
                f"expected expert and policy of shape [{shape[0]}, B, {shape[2]}] and alpha of shape [{shape[0]}, B], got "
                f"{tuple(expert.shape)}, {tuple(policy.shape)} and {tuple(alpha.shape)}"
            )
        trained = [True] * len(self.sizes) if active is None else [bool(flag) for flag in active]
        expert, policy, alpha = (_trainable(tensor, self.device) for tensor in (expert, policy, alpha))
        if self.standardization is not None:
            expert, policy = self.standardization(expert), self.standardization(policy)
        expert_logits, policy_logits, norms = self._networks.backward(expert, policy, alpha, trained, self.gradient_penalty)
        for agent, norm in zip(self.agents, self._networks.gradient_norms().tolist(), strict=True):
            if not norm <= _LARGEST_GRADIENT:
                raise ValueError(
                    f"the discriminator of agent {agent!r} cannot be trained on these observations: its gradient's norm "
                    f"is {norm:g}. Its weights have not changed. Scale the observations to about [-1, 1], or lower "
                    "gradient_penalty or learning_rate"
                )
        self._adam.step()
        penalty = self.gradient_penalty * (norms - 1).square().mean(1)
        return {
            "loss": F.softplus(-expert_logits).mean(1) + F.softplus(policy_logits).mean(1) + penalty,
            "gradient_penalty": penalty,
            "expert_accuracy": (expert_logits > 0).float().mean(1),
            "policy_accuracy": (policy_logits < 0).float().mean(1),
            "expert_logit": expert_logits.mean(1),
            "policy_logit": policy_logits.mean(1),
        }

    @standard_modes
    def state_dict(self) -> dict[str, Any]:
        """A copy of weights, Adam's state and random streams, in types that ``torch.load(weights_only=True)`` accepts."""
        state = {
            "agents": list(self.agents),
            "sizes": list(self.sizes),
            "weights": [_clones(network) for network in self._networks.tensors()],
            "adam": {number: _clones(state) for number, state in self._adam.state_dict()["state"].items()},
            "streams": copy.deepcopy(self._networks.streams()),
        }
        if self.standardization is not None:
            state["standardization"] = self.standardization.state_dict()
        return state

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if ``state`` has other agents, sizes or networks, or contains NaN or infinity."""
        for what, expected in (("agents", list(self.agents)), ("sizes", list(self.sizes))):
            if state.get(what) != expected:
                raise ValueError(f"the saved discriminators have {what} {state.get(what)}, these have {expected}")
        standardization = state.get("standardization")
        if self.standardization is not None:
            self.standardization.check_state(standardization)
        elif standardization is not None:
            raise ValueError("the saved discriminators see standardized observations, these raw ones: use standardize=True")
        saved, own = ([_shapes(network) for network in one] for one in (state["weights"], self._networks.tensors()))
        if saved != own:
            raise ValueError(f"the saved discriminators' networks (hidden, module) are {saved[0]}, these are {own[0]}")
        for agent, weights in zip(self.agents, state["weights"], strict=True):
            if not all(tensor.isfinite().all() for tensor in weights.values()):
                raise ValueError(f"the saved discriminator of agent {agent!r} has weights that are not finite")
        shapes = [parameter.shape for parameter in self._networks.parameters()]
        for number, adam in state["adam"].items():
            for name in ("exp_avg", "exp_avg_sq"):
                if adam[name].shape != shapes[number] or not adam[name].isfinite().all():
                    raise ValueError(f"the saved state of the discriminators' Adam is damaged: {name} of parameter {number}")

    @standard_modes
    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned. Training then continues with the same numbers, bit for bit.

        Raises:
            ValueError: The state has other agents, sizes or networks, or is damaged. Then nothing changes.
        """
        try:
            self.check_state(state)
            # States saved before networks had streams lack them.
            self._networks.load_streams(copy.deepcopy(state.get("streams", self._networks.streams())))
            groups = self._adam.state_dict()["param_groups"]  # the learning rate is an option, not state
            self._adam.load_state_dict({"state": copy.deepcopy(state["adam"]), "param_groups": groups})
        except (AttributeError, IndexError, KeyError, TypeError, RuntimeError) as error:
            raise ValueError(f"the saved state of the discriminators is damaged: {type(error).__name__}: {error}") from error
        if self.standardization is not None:
            self.standardization.load_state_dict(state["standardization"])
        for saved, own in zip(state["weights"], self._networks.tensors(), strict=True):
            for name, tensor in own.items():
                tensor.copy_(saved[name])


def checked_learning_rate(value: Any) -> float:
    """A learning rate that cannot destroy the weights in one step."""
    return _at_most(_LARGEST_LEARNING_RATE, "learning_rate", _checks.number("learning_rate", value, above=0))


def checked_gradient_penalty(value: Any) -> float:
    """A weight of the gradient penalty whose gradients fit float32."""
    return _at_most(_LARGEST_PENALTY, "gradient_penalty", _checks.number("gradient_penalty", value, least=0))


def _at_most(largest: float, name: str, value: float) -> float:
    if value > largest:
        raise ValueError(f"{name} must be at most {largest:g}, got {value!r}")
    return value


def _trainable(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor in float32 on the device; autograd accepts no tensors made in inference mode, so these are copied."""
    tensor = tensor.to(device, torch.float32)
    return tensor.clone() if tensor.is_inference() else tensor


def _clones(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
