"""The paper's objectives, against literal values and against their sums."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from dm2_wrappers import tabular
from tests.helpers.tabular_games import BASIC, basic, close, slow_occupancy, uneven


def test_basic_game_has_the_literal_numbers():
    game, policies, expert = basic(), BASIC["policies"], BASIC["expert"]
    close(tabular.visitation(game, policies), BASIC["rho_s"])
    close(tabular.occupancy(game, policies), BASIC["rho_joint"])
    close(np.array(tabular.marginals(game, policies)), BASIC["rho_marginals"])
    close(tabular.largest_eps(game), BASIC["largest_eps"])
    found = tabular.objectives(game, policies, expert, BASIC["eps"])
    close(found, [BASIC["J"], BASIC["L"], BASIC["L_eps"]])
    close(found, [float(Fraction(BASIC["exact"][name])) for name in ("J", "L", "L_eps")])
    close(tabular.visitation(game, policies), [float(Fraction(x)) for x in BASIC["exact"]["d"]])
    experts = tabular.expert_policies(game, expert)
    close(tabular.visitation(game, experts), BASIC["expert_rho_s"])
    found = tabular.objectives(game, experts, expert, BASIC["eps"])
    close(found, [BASIC["expert_J"], BASIC["expert_L"], BASIC["expert_L_eps"]])
    close(found, [float(Fraction(BASIC["expert_exact"][name])) for name in ("J", "L", "L_eps")])
    for who, exact in ((policies, BASIC["exact"]), (experts, BASIC["expert_exact"])):
        values = [tabular.value(game, who, i, tabular.deterministic(expert[i], 2)) for i in range(2)]
        close(np.array(values) * (1 - game.gamma), [float(Fraction(x)) for x in exact["V"]])
    close([float(Fraction(x)) for x in BASIC["exact"]["V"]], BASIC["V_indicator_normalised"])
    close([float(Fraction(x)) for x in BASIC["expert_exact"]["d"]], BASIC["expert_rho_s"])


def test_objectives_are_the_sums_of_the_paper():
    game, policies = uneven()
    expert = np.array([[0, 1, 1, 0], [2, 0, 1, 2], [3, 3, 0, 1]])
    rho = slow_occupancy(game, policies)
    j = low = low_eps = 0.0
    for state, *actions in np.ndindex(rho.shape):
        matches = [action == expert[i, state] for i, action in enumerate(actions)]
        j += rho[(state, *actions)] * (2 + all(matches))
        low += rho[(state, *actions)] * sum(matches)
    low_eps = 0.01 * sum(policies[i][s, expert[i, s]] for i in range(3) for s in range(4))
    close(tabular.objectives(game, policies, expert, 0.01), [j, low, low_eps])
