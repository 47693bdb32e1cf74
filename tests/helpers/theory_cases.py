"""What the paper's statements are tested on: 1,000 random games, and the parts of counterexamples.

``docs/theory.md`` has the statements in words.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from dm2_wrappers import tabular

PI_0 = np.array([[0.1, 0.9], [0.9, 0.1]])


class Case(NamedTuple):
    """A random game with deterministic experts, a random joint policy and the game's largest epsilon."""

    game: tabular.Game
    expert: np.ndarray
    policies: list[np.ndarray]
    eps: float
    reset: float

    @property
    def experts(self):
        return tabular.expert_policies(self.game, self.expert)

    @property
    def match(self):
        return tabular.match_probabilities(self.game, self.policies, self.expert)


def draw_policies(rng, game):
    """Policies from uniform to nearly deterministic."""
    concentration = rng.choice([0.1, 1.0])
    return [rng.dirichlet(np.full(number, concentration), size=game.num_states) for number in game.num_actions]


@cache
def cases():
    """1,000 games: 2 to 4 agents, 2 to 6 states, 2 to 4 actions of each agent, gamma .5 to .97, every state visited."""
    rng, drawn = np.random.default_rng(16), []
    for _ in range(1000):
        states, agents = int(rng.integers(2, 7)), int(rng.integers(2, 5))
        actions = rng.integers(2, 5, size=agents).tolist()
        reset = float(rng.uniform(0.02, 0.3))
        game = tabular.random_game(
            rng,
            num_states=states,
            num_actions=actions,
            gamma=float(rng.uniform(0.5, 0.97)),
            reset=reset,
            concentration=float(rng.choice([0.1, 1.0])),
        )
        expert = np.array([rng.integers(number, size=states) for number in actions])
        drawn.append(Case(game, expert, draw_policies(rng, game), tabular.largest_eps(game), reset))
    return drawn


def indicator(game, expert, agent):
    return tabular.deterministic(expert[agent], game.num_actions[agent])


def one_state(shape, gamma=0.0):
    """One state, so that only the actions matter."""
    return tabular.Game(np.ones((1, *shape, 1)), [1.0], gamma)


def two_fixed_states(start, gamma=0.9):
    """Two states that no action changes: the visitation is ``start``, whatever the agents do."""
    transition = np.zeros((2, 2, 2, 2))
    transition[0, ..., 0] = transition[1, ..., 1] = 1
    return tabular.Game(transition, start, gamma)


def matching(probabilities):
    """A policy of two actions from the probabilities [S] of action 0."""
    p = np.asarray(probabilities, float)
    return np.stack([p, 1 - p], axis=1)


def stay():
    return tabular.deterministic([0, 0], 2)


def toggle_reward(kind):
    game = tabular.toggle()
    own, target = (tabular.marginals(game, [policy, stay()])[0] for policy in (PI_0, stay()))
    options = {"js": {}, "linear": {"gamma": 0.9}, "logit_clip5": {"clip": 5}}[kind]
    return tabular.discriminator_reward(own, target, kind.removesuffix("_clip5"), **options)
