"""Small tabular games, the numbers that ``data/theory_expected.json`` expects of them, and equality to 1e-9."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dm2_wrappers import tabular

EXPECTED = json.loads((Path(__file__).parents[1] / "data" / "theory_expected.json").read_text())
BASIC = EXPECTED["G1 basic 2x2x2"]
GAME = tabular.Game(np.full((2, 2, 3, 2), 0.5), [0.5, 0.5], 0.9)


def close(found, expected, atol=1e-9):
    np.testing.assert_allclose(np.asarray(found, float), np.asarray(expected, float), rtol=0, atol=atol)


def basic():
    return tabular.Game(BASIC["T"], BASIC["start"], BASIC["gamma"])


def uneven(seed=0, gamma=0.8):
    """Three agents with 2, 3 and 4 actions, and a policy of each."""
    rng = np.random.default_rng(seed)
    game = tabular.random_game(rng, num_states=4, num_actions=(2, 3, 4), gamma=gamma, reset=0.1)
    return game, [rng.dirichlet(np.ones(number), size=4) for number in game.num_actions]


def slow_occupancy(game, policies, horizon=400):
    """rho(s, a) by walking forward in time, one joint action after the other."""
    rho, now = np.zeros(game.transition.shape[:-1]), game.start.copy()
    for t in range(horizon):
        after = np.zeros(game.num_states)
        for index in np.ndindex(rho.shape):
            state, *actions = index
            chance = now[state]
            for policy, action in zip(policies, actions, strict=True):
                chance *= policy[state, action]
            rho[index] += (1 - game.gamma) * game.gamma**t * chance
            after += chance * game.transition[index]
        now = after
    return rho


def tile_starts(seed, number=100):
    rng = np.random.default_rng(seed)
    return [rng.dirichlet(np.ones(3), size=(number, 12)) for _ in range(2)]
