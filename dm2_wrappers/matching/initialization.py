"""Each agent's new network: tanh layers of the given widths, or what the user's ``module`` makes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import nn

from dm2_wrappers.rng_state import derive_seed


def initialized(
    agent: str, size: int, hidden: Sequence[int], module: Callable[[str, int], nn.Module] | None, seed: int | None
) -> nn.Module:
    """An agent's network with torch's default initialization, drawn from a stream of its own.

    Raises:
        TypeError: ``module`` is not a function that makes networks.
    """
    with torch.random.fork_rng(devices=[]):  # layers draw from the global stream, which must stay as it was
        torch.default_generator.manual_seed(derive_seed(seed, "discriminator", agent))
        if module is not None:
            return _made_by(module, agent, size)
        layers: list[nn.Module] = []
        for i, o in itertools.pairwise((size, *hidden)):
            layers += [nn.Linear(i, o), nn.Tanh()]
        return nn.Sequential(*layers, nn.Linear(hidden[-1], 1))


def _made_by(module: Callable[[str, int], nn.Module], agent: str, size: int) -> nn.Module:
    expected = "module must be a function of an agent's name and number of features that makes a new torch.nn.Module"
    if isinstance(module, nn.Module) or not callable(module):
        raise TypeError(f"{expected}, got {type(module).__name__}; use module=lambda agent, size: ...")
    network = module(agent, size)
    if not isinstance(network, nn.Module):
        raise TypeError(f"{expected}, but for agent {agent!r} it made {type(network).__name__}")
    return network


def check_separate(agents: Sequence[str], modules: Sequence[nn.Module]) -> None:
    """Refuse networks that share weights with each other, or have none.

    Raises:
        TypeError: The networks of two agents share a parameter, or one has no parameters.
    """
    owners: dict[int, str] = {}
    for agent, module in zip(agents, modules, strict=True):
        parameters = list(module.parameters())
        if not parameters:
            raise TypeError(f"module made a network without parameters for agent {agent!r}; there is nothing to train")
        for parameter in parameters:
            other = owners.setdefault(id(parameter), agent)
            if other != agent:
                raise TypeError(f"agents {other!r} and {agent!r} share weights; module must make a new network at each call")
