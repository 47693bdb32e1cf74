"""Optimal discriminators: the reward of each kind and its loss (equation 1)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from dm2_wrappers.tabular.game import Array, check_choice

RewardKind = Literal["js", "logit", "linear", "indicator"]
KINDS: tuple[RewardKind, ...] = ("js", "logit", "linear", "indicator")


def discriminator_reward(
    mu: ArrayLike, mu_expert: ArrayLike, kind: RewardKind = "js", *, gamma: float | None = None, clip: float = 10.0
) -> Array:
    """Compute the reward r(s, a) of a converged discriminator (r_opt in the paper).

    GAIL's discriminator D at its optimum is mu_expert / (mu_expert + mu), so its logit is log(mu_expert / mu).

    * "js": -log(1 - D) = log(1 + mu_expert / mu), never negative.
    * "logit": log D - log(1 - D) = log(mu_expert / mu), what `DistributionMatcher` pays.
    * "linear": (mu_expert - mu) / (1 - gamma), which solves equation 1 with r free and psi(r) = |r|^2 / 2.
    * "indicator": Assumption 1: 1 for the actions that the expert takes in each state, else 0.

    Args:
        mu: [..., S, A], the agent's state-action visitation distribution (see :func:`marginals`).
        mu_expert: [..., S, A], its expert's.
        kind: One of the four above.
        gamma: Discount factor; only "linear" needs it.
        clip: "logit" lies within [-clip, clip]; "js" uses the logit clipped from above. Where both distributions are 0,
            "js" is 0 and "logit" is -clip.

    Returns:
        float64 [..., S, A].

    Raises:
        ValueError: Unknown kind, shapes that do not fit, no gamma for "linear", or clip not above 0.
    """
    check_choice("kind", kind, KINDS)
    own, expert = np.asarray(mu, dtype=np.float64), np.asarray(mu_expert, dtype=np.float64)
    if own.shape[-2:] != expert.shape[-2:] or own.ndim < 2:
        raise ValueError(
            f"mu and mu_expert must both be [..., S, A] of the same states and actions, but they are {list(own.shape)} "
            f"and {list(expert.shape)}"
        )
    if clip <= 0:
        raise ValueError(f"clip must be above 0, but it is {clip}")
    if kind == "linear":
        if gamma is None or not 0 <= gamma < 1:
            raise ValueError(f"the linear reward needs the game's gamma, 0 <= gamma < 1, but gamma is {gamma}")
        return (expert - own) / (1 - gamma)
    if kind == "indicator":
        return np.broadcast_to((expert > 0).astype(np.float64), np.broadcast_shapes(own.shape, expert.shape)).copy()
    # Visitations that are 0 come out of a linear solve as tiny numbers of either sign.
    own, expert = np.maximum(own, 0.0), np.maximum(expert, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(expert > 0, np.minimum(expert / own, np.exp(clip)), 0.0)
        return np.log1p(ratio) if kind == "js" else np.maximum(np.log(ratio), -clip)


def discriminator_loss(mu: ArrayLike, mu_expert: ArrayLike, kind: RewardKind = "js", *, gamma: float | None = None) -> Array:
    """Compute the loss of the converged discriminator, 0 if the agent matches its expert (equation 1, max over phi).

    * "js" and "logit" have the same discriminator: the Jensen-Shannon divergence of ``mu`` and ``mu_expert``, in nats.
    * "linear": |mu_expert - mu|^2 / (2 (1 - gamma)^2).
    * "indicator": the probability of not taking the expert's action, 1 - sum_s,a mu(s, a) r(s, a).

    Args:
        mu: [..., S, A], the agent's state-action visitation distribution.
        mu_expert: [..., S, A], its expert's.
        kind: As for :func:`discriminator_reward`.
        gamma: Discount factor; only "linear" needs it.

    Returns:
        float64 [...].

    Raises:
        ValueError: As for :func:`discriminator_reward`.
    """
    own, expert = np.asarray(mu, dtype=np.float64), np.asarray(mu_expert, dtype=np.float64)
    reward = discriminator_reward(own, expert, kind, gamma=gamma)  # checks the arguments
    if kind == "linear":
        return (0.5 * (reward**2).sum(axis=(-2, -1)))[()]
    if kind == "indicator":
        return (1 - (own * reward).sum(axis=(-2, -1)))[()]
    own, expert = np.maximum(own, 0.0), np.maximum(expert, 0.0)
    middle = (own + expert) / 2

    def divergence(one: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(one > 0, one * np.log(one / middle), 0.0).sum(axis=(-2, -1))

    return (0.5 * (divergence(own) + divergence(expert)))[()]
