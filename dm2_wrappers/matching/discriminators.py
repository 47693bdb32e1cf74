"""One discriminator per agent (line 9 of Algorithm 1): K separate networks, trained together, sharing nothing.

The sign of the logit, once and for all: D(o) = sigmoid(logit(o)) is the estimated probability that observation o comes
from the experts, trained with expert = 1 and policy = 0. Since log D = -softplus(-logit) and log(1 - D) =
-softplus(logit) = log D - logit, the reward of the paper's implementation is ``log D - log(1 - D) = logit``: positive
where the discriminator sees an expert. It is returned as it is, never through the logarithm of a sigmoid, which is
infinite from a logit of 17 on in float32.

The loss of one agent, for a minibatch of B expert observations e and B policy observations p, with the interpolates
i = alpha * e + (1 - alpha) * p, is::

    mean[softplus(-logit(e))] + mean[softplus(logit(p))] + gradient_penalty * mean[(|d logit(i) / d i| - 1)^2]
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dm2_wrappers import _checks
from dm2_wrappers.matching.networks import AutogradNetworks, Networks, StackedMLPs
from dm2_wrappers.rng_state import derive_seed

# Rows a time in `logits`: hidden layers of this many rows stay in cache, and memory bounded, whatever is asked for.
_ROWS = 2048


class Discriminators:
    """K discriminators, one an agent, on observations padded to the widest agent's D features.

    With two hidden layers (the default) the K networks are stacked tensors, trained in one batched pass with the
    gradient penalty in closed form. Any other ``hidden``, or ``module``, is trained agent by agent with autograd.

    Args:
        sizes: Each agent's own number of features.
        hidden: Widths of the tanh layers.
        learning_rate: Of Adam (its other settings are torch's defaults).
        gradient_penalty: Weight of the gradient penalty.
        module: Instead of ``hidden``: ``module(agent, size)`` makes an agent's network, [B, size] -> [B, 1] or [B].
        agents: Names; by default "agent_0", "agent_1", ...
        seed: An agent's initial weights depend on the seed and its name only, not on who else is there.
        device: Where to compute.

    Raises:
        ValueError: An option that cannot work.
    """

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
        learning_rate = _checks.number("learning_rate", learning_rate, above=0)
        self.gradient_penalty = _checks.number("gradient_penalty", gradient_penalty, least=0)
        self.agents = tuple(agents) if agents is not None else tuple(f"agent_{k}" for k in range(len(sizes)))
        if len(self.agents) != len(sizes) or len(set(self.agents)) != len(sizes):
            raise ValueError(f"agents must be {len(sizes)} different names, one for each of sizes, got {self.agents}")
        self.device = _usable(device)
        modules = [
            _initialised(agent, size, hidden, module, seed).to(self.device)
            for agent, size in zip(self.agents, self.sizes, strict=True)
        ]
        stacked = module is None and len(hidden) == 2
        self._networks: Networks = StackedMLPs(modules, self.sizes) if stacked else AutogradNetworks(modules, self.sizes)
        self._adam = torch.optim.Adam(self._networks.parameters(), lr=learning_rate, fused=True)

    @torch.no_grad()
    def logits(self, observations: Tensor) -> Tensor:
        """The logits log D - log(1 - D) of each agent's observations: [..., K, D] -> [..., K], without gradient."""
        rows = observations.reshape(-1, len(self.sizes), max(self.sizes))
        logits = rows.new_empty(rows.shape[:2])
        for some, out in zip(rows.split(_ROWS), logits.split(_ROWS), strict=True):
            out.copy_(self._networks.logits(some.transpose(0, 1)).T)
        return logits.view(observations.shape[:-1])

    def update(
        self, expert: Tensor, policy: Tensor, alpha: Tensor, active: Sequence[bool] | Tensor | None = None
    ) -> dict[str, Tensor]:
        """One step of Adam on one minibatch (line 9). There is no randomness in here.

        Args:
            expert: Observations from the demonstrations, [K, B, D].
            policy: Observations of the agents now, [K, B, D].
            alpha: Where between the two each interpolate lies, in [0, 1], [K, B].
            active: Agents to train, bool [K]; weights and Adam's state of the others stay as they are. All by default.

        Returns:
            Per agent [K], before the step: "loss" and the penalty's share of it, "gradient_penalty"; the share of
            observations told rightly, "expert_accuracy" and "policy_accuracy"; the means "expert_logit" and
            "policy_logit". Meaningless for agents that are not active.
        """
        trained = [True] * len(self.sizes) if active is None else [bool(flag) for flag in active]
        expert_logits, policy_logits, norms = self._networks.backward(expert, policy, alpha, trained, self.gradient_penalty)
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

    def state_dict(self) -> dict[str, Any]:
        """A copy of weights and Adam's state, of what ``torch.load(weights_only=True)`` takes."""
        state = {
            "agents": list(self.agents),
            "sizes": list(self.sizes),
            "weights": self._networks.tensors(),
            "adam": self._adam.state_dict()["state"],
        }
        return copy.deepcopy(state)

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Raise ``ValueError`` if `state` is not of the same agents, sizes and networks."""
        for what, expected in (("agents", list(self.agents)), ("sizes", list(self.sizes))):
            if state.get(what) != expected:
                raise ValueError(f"the saved discriminators have {what} {state.get(what)}, these have {expected}")
        saved, own = ([_shapes(network) for network in one] for one in (state["weights"], self._networks.tensors()))
        if saved != own:
            raise ValueError(f"the saved discriminators' networks (hidden, module) are {saved[0]}, these are {own[0]}")

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned; training goes on bit for bit.

        Raises:
            ValueError: It is not of the same agents, sizes and networks. Nothing has changed then.
        """
        self.check_state(state)
        for saved, own in zip(state["weights"], self._networks.tensors(), strict=True):
            for name, tensor in own.items():
                tensor.copy_(saved[name])
        groups = self._adam.state_dict()["param_groups"]  # the learning rate is an option, not state
        self._adam.load_state_dict({"state": copy.deepcopy(state["adam"]), "param_groups": groups})


def _initialised(
    agent: str, size: int, hidden: Sequence[int], module: Callable[[str, int], nn.Module] | None, seed: int | None
) -> nn.Module:
    """An agent's network with torch's default initialisation, drawn from a stream of its own."""
    with torch.random.fork_rng(devices=[]):  # layers draw from the global stream: leave it as it was found
        torch.default_generator.manual_seed(derive_seed(seed, "discriminator", agent))
        if module is not None:
            return module(agent, size)
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise((size, *hidden)):
            layers += [nn.Linear(i, o), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _usable(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(f"device {device!r} cannot be used here: {error}") from error
