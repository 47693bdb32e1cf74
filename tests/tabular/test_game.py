"""Games cannot be changed, and wrong arguments of any function are one clear sentence."""

from __future__ import annotations

import numpy as np
import pytest

from dm2_wrappers import tabular
from tests.helpers.tabular_games import GAME

T = np.full((2, 2, 3, 2), 0.5)
UNIFORM = [np.full((2, 2), 0.5), np.full((2, 3), 1 / 3)]
MU = [np.full((2, 2), 0.25), np.full((2, 3), 1 / 6)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tabular.Game(T[..., :1], [0.5, 0.5], 0.9), r"transition must have the shape \[S, A_1, ..., A_K, S\]"),
        (lambda: tabular.Game(T, [1.0], 0.9), r"start must have the shape \[2\]"),
        (lambda: tabular.Game(T, [0.5, 0.5], 1.0), "gamma must be at least 0 and less than 1, but it is 1"),
        (lambda: tabular.Game(T * 2, [0.5, 0.5], 0.9), "transition must hold probabilities.*one sum is 2"),
        (lambda: tabular.Game(T, [1.5, -0.5], 0.9), "start must hold probabilities.*least entry is -0.5"),
        (lambda: tabular.Game(T, [np.nan, 1], 0.9), "start must hold probabilities"),
        (lambda: tabular.visitation(GAME, UNIFORM[:1]), "expected 2 policies.*but got 1"),
        (lambda: tabular.visitation(GAME, UNIFORM[::-1]), r"policies\[0\] must have the shape \[2, 2\].*\[2, 3\]"),
        (lambda: tabular.occupancy(GAME, [UNIFORM[0], UNIFORM[1] * 2]), r"policies\[1\] must hold probabilities"),
        (lambda: tabular.marginals(GAME, [UNIFORM[0][None], UNIFORM[1]]), "the same leading axes"),
        (lambda: tabular.objectives(GAME, UNIFORM, [[0, 0]], 0.1), r"expert must hold integers of shape \[2, 2\]"),
        (lambda: tabular.objectives(GAME, UNIFORM, [[0.0, 0], [0, 0]], 0.1), "expert must hold integers.*float64"),
        (lambda: tabular.objectives(GAME, UNIFORM, [[0, 2], [0, 2]], 0.1), r"agent 0 has the actions 0 to 1.*\[0, 2\]"),
        (lambda: tabular.objectives(GAME, UNIFORM, [[0, 0], [0, 0]], 2), "eps must be between 0 and 1, but it is 2"),
        (lambda: tabular.discriminator_reward(MU[0], MU[1]), "same states and actions"),
        (lambda: tabular.discriminator_reward(MU[0], MU[0], "wgan"), "kind must be one of 'js', 'logit'.*'wgan'"),
        (lambda: tabular.discriminator_reward(MU[0], MU[0], "linear"), "needs the game's gamma"),
        (lambda: tabular.discriminator_reward(MU[0], MU[0], clip=0), "clip must be above 0"),
        (lambda: tabular.value(GAME, UNIFORM, 2, MU[0]), "agents 0 to 1, but agent is 2"),
        (lambda: tabular.best_response(GAME, UNIFORM, 0, MU[1]), r"reward of agent 0 must have the shape \[2, 2\]"),
        (lambda: tabular.nash_gap(GAME, UNIFORM, MU[:1]), "expected 2 rewards.*but got 1"),
        (lambda: tabular.reward_of_own_action(GAME, UNIFORM, 0, MU[0]), r"joint action must have the shape \[2, 2, 3\]"),
        (lambda: tabular.trpo_step(GAME, UNIFORM, 0, MU[0], delta=0), "delta.*above 0"),
        (lambda: tabular.trpo_step(GAME, UNIFORM, 0, MU[0], floor=0.5), "floor.*between 0 and 0.001"),
        (lambda: tabular.algorithm2(GAME, MU[:1], UNIFORM), "expected 2 expert_marginals.*but got 1"),
        (lambda: tabular.algorithm2(GAME, [MU[0], MU[1] * 2], UNIFORM), r"expert_marginals\[1\] must hold probab"),
        (lambda: tabular.algorithm2(GAME, [MU[0][None], MU[1]], UNIFORM), r"expert_marginals\[0\] must have two axes"),
        (lambda: tabular.algorithm2(GAME, MU, UNIFORM, reward="x"), "reward must be one of"),
        (lambda: tabular.algorithm2(GAME, MU, UNIFORM, order="x"), "order must be one of 'turn', 'simultaneous'"),
        (lambda: tabular.algorithm2(GAME, MU, UNIFORM, inputs="x"), "inputs must be one of"),
        (lambda: tabular.algorithm2(GAME, MU, UNIFORM, sweeps=-1), "sweeps must be at least 0"),
        (lambda: tabular.four_tiles("apart"), "demonstrations must be one of 'together'"),
        (lambda: tabular.TabularParallelEnv(GAME, np.zeros((2, 2))), r"reward must have the shape \[2, 2, 3\]"),
        (lambda: tabular.TabularParallelEnv(GAME, max_steps=0), "max_steps must be at least 1"),
    ],
)
def test_bad_input_is_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_games_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        GAME.transition[0] = 0
