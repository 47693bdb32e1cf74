"""The example games."""

from __future__ import annotations

import itertools

import numpy as np

from dm2_wrappers import tabular
from tests.helpers.tabular_games import EXPECTED, close

TILES = EXPECTED["four tiles"]


def test_four_tiles():
    tiles = tabular.four_tiles("together")
    assert [list(state) for state in tabular.TILE_STATES] == TILES["states"]
    assert tabular.go_to(0, 0).tolist() == TILES["goto_agent0_tile0"] == tiles.expert[0].tolist()
    assert tabular.go_to(1, 3).tolist() == TILES["goto_agent1_tile3"] == tiles.expert[1].tolist()
    close(tabular.largest_eps(tiles.game), TILES["largest_eps"])
    for name in ("together", "both want tile 0"):
        found = tabular.four_tiles(name).marginals
        close([mu.sum(axis=1) for mu in found], TILES[name]["state_marginals"])


def test_tiles_are_never_shared_and_agents_never_pass_through_each_other():
    game = tabular.four_tiles().game
    moves = {0: lambda c, r: (c, r), 1: lambda c, r: (1 - c, r), 2: lambda c, r: (c, 1 - r)}
    for state, (one, two) in enumerate(tabular.TILE_STATES):
        for a, b in itertools.product(range(3), repeat=2):
            ends = []
            for tile, action in ((one, a), (two, b)):
                column, row = moves[action](tile % 2, tile // 2)
                ends.append(2 * row + column)
            expected = tuple(ends)
            if expected[0] == expected[1] or expected == (two, one):
                expected = (one, two)
            assert tabular.TILE_STATES[game.transition[state, a, b].argmax()] == expected
            assert game.transition[state, a, b].max() == 1


def test_random_games_mix_in_their_reset():
    game = tabular.random_game(np.random.default_rng(0), num_states=4, num_actions=(2, 3), reset=0.4, concentration=0.01)
    assert game.transition.min() >= 0.1
    assert game.transition.shape == (4, 2, 3, 4)
