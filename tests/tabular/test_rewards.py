"""Optimal discriminators: their rewards and losses, against literal values and against a search."""

from __future__ import annotations

import numpy as np
import pytest

from dm2_wrappers import tabular
from tests.helpers.tabular_games import BASIC, EXPECTED, basic, close


def basic_marginals():
    game = basic()
    experts = tabular.expert_policies(game, BASIC["expert"])
    return tabular.marginals(game, BASIC["policies"]), tabular.marginals(game, experts)


def test_discriminators_of_the_basic_game():
    expected = EXPECTED["G1 discriminators"]
    for agent, (own, target) in enumerate(zip(*basic_marginals(), strict=True)):
        close(tabular.discriminator_reward(own, target, "logit"), expected["logit_clip10"][agent])
        close(tabular.discriminator_reward(own, target, "js"), expected["minus_log_1_minus_D"][agent])
        close(tabular.discriminator_reward(own, target, "linear", gamma=0.9), expected["linear_lam1"][agent])
        close(tabular.discriminator_reward(own, target, "indicator"), tabular.deterministic(BASIC["expert"][agent], 2))
        close(tabular.discriminator_loss(own, target, "js"), expected["js"][agent])
        close(tabular.discriminator_loss(own, target, "logit"), expected["js"][agent])
        close(tabular.discriminator_loss(own, target, "linear", gamma=0.9), expected["linear_loss"][agent])
        close(tabular.total_variation(own, target), expected["tv"][agent])
    game = basic()
    joint = [tabular.occupancy(game, p) for p in (BASIC["policies"], tabular.expert_policies(game, BASIC["expert"]))]
    close(tabular.total_variation(*joint), expected["joint_tv"])


def test_js_and_logit_are_those_of_the_discriminator_that_minimises_cross_entropy():
    own, target = np.array([[0.1, 0.5], [0.4, 0.0]]), np.array([[0.3, 0.2], [0.3, 0.2]])
    d = np.linspace(1e-6, 1 - 1e-6, 1_000_001)
    loss = 0.0
    for s, a in np.ndindex(own.shape):
        entropy = -target[s, a] * np.log(d) - own[s, a] * np.log(1 - d)
        best = d[entropy.argmin()]
        loss += entropy.min()
        if own[s, a] > 0:
            assert tabular.discriminator_reward(own, target, "js")[s, a] == pytest.approx(-np.log(1 - best), abs=1e-4)
            logit = np.log(best / (1 - best))
            assert tabular.discriminator_reward(own, target, "logit")[s, a] == pytest.approx(logit, abs=1e-4)
    assert tabular.discriminator_loss(own, target) == pytest.approx(np.log(2) - loss / 2, abs=1e-5)


def test_what_is_never_visited():
    own, target = np.array([[0.0, 0.0, 0.5, 0.5]]), np.array([[0.0, 0.5, 0.0, 0.5]])
    close(tabular.discriminator_reward(own, target, "js", clip=3), [[0, np.log1p(np.exp(3)), 0, np.log(2)]])
    close(tabular.discriminator_reward(own, target, "logit", clip=3), [[-3, 3, -3, 0]])
    close(tabular.discriminator_reward(own, target, "linear", gamma=0.5), [[0, 1, -1, 0]])
    close(tabular.discriminator_loss(own, target), np.log(2) / 2)
    rounded = own + np.array([[-1e-18, 0, 0, 0]])  # as a linear solve leaves it
    reached = target + np.array([[0.1, 0, 0, 0]])
    for kind in ("js", "logit"):
        expected = tabular.discriminator_reward(own, reached, kind)
        close(tabular.discriminator_reward(rounded, reached, kind), expected)
    close(tabular.discriminator_loss(own, target, "indicator"), 0.5)
