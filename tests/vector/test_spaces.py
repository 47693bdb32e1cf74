"""Observation spaces of any form as flat vectors, without the action mask."""

import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo import ParallelEnv

import dm2_wrappers as dm2
from dm2_wrappers.vector.spaces import flat_space, flatten

BOX, MASK = spaces.Box(-9, 9, (2,), np.float32), spaces.MultiBinary(3)
PLACE, AVAILABLE = np.array([4, 5], np.float32), np.array([1, 0, 1], np.int8)
PARTS = spaces.Dict({"place": BOX, "cell": spaces.Discrete(3)})  # Dict sorts its keys
SEEN = {"place": PLACE, "cell": 1}


@pytest.mark.parametrize(
    ("space", "observation", "features"),
    [
        (BOX, PLACE, [4, 5]),
        (PARTS, SEEN, [0, 1, 0, 4, 5]),
        (spaces.Dict({"inner": PARTS, "action_mask": MASK}), {"inner": SEEN}, [0, 1, 0, 4, 5]),
        (spaces.Dict({"observation": PARTS, "action_mask": MASK}), {"observation": SEEN}, [0, 1, 0, 4, 5]),
        (
            spaces.Dict({"observation": spaces.Dict({"a": PARTS, "b": BOX}), "action_mask": MASK}),
            {"observation": {"a": SEEN, "b": PLACE}},
            [0, 1, 0, 4, 5, 4, 5],
        ),
        (
            spaces.Dict({"observation": spaces.Tuple((BOX, PARTS)), "action_mask": MASK}),
            {"observation": (PLACE, SEEN)},
            [4, 5, 0, 1, 0, 4, 5],
        ),
        (spaces.Dict({"observation": spaces.Discrete(2), "action_mask": MASK}), {"observation": 1}, [0, 1]),
        (
            spaces.Dict({"observation": spaces.Dict({"observation": BOX}), "action_mask": MASK}),
            {"observation": {"observation": PLACE}},
            [4, 5],
        ),
        (  # only the outer mask is one; the inner is a feature
            spaces.Dict({"observation": spaces.Dict({"observation": BOX, "action_mask": MASK}), "action_mask": MASK}),
            {"observation": {"observation": PLACE, "action_mask": AVAILABLE}},
            [1, 0, 1, 4, 5],
        ),
        (spaces.Dict({"action_mask": MASK}), {}, [1, 0, 1]),  # there are no other features
    ],
)
def test_what_is_in_a_space_has_its_flat_form(space, observation, features):
    if isinstance(space, spaces.Dict) and "action_mask" in space.spaces:
        observation = {**observation, "action_mask": AVAILABLE}
    assert space.contains(observation)
    assert flat_space(space).shape == (len(features),)
    assert flatten(space, observation).tolist() == features


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        ({"place": PLACE, "cell": 1}, r"keys 'observation' and 'action_mask', got \['cell', 'place'\]"),
        ({"observation": {"place": PLACE}}, r"keys \['cell', 'place'\], got \['place'\]"),
        ({"observation": PLACE}, r"keys \['cell', 'place'\], got ndarray"),
        ({"observation": {"place": PLACE, "cell": 3}}, r"an element of Discrete\(3\), got 3"),
    ],
)
def test_what_is_not_in_a_nested_space_is_told(observation, expected):
    space = spaces.Dict({"observation": PARTS, "action_mask": MASK})
    with pytest.raises(ValueError, match=expected):
        flatten(space, {**observation, "action_mask": AVAILABLE})


class Nested(ParallelEnv):
    """One agent for three steps, with parts and a mask."""

    metadata = {"name": "nested"}
    render_mode = None
    possible_agents = ["ann"]
    space = spaces.Dict({"observation": PARTS, "action_mask": MASK})
    actions = spaces.Discrete(3)

    def observation_space(self, agent):
        return self.space

    def action_space(self, agent):
        return self.actions

    def reset(self, seed=None, options=None):
        self.agents, self.time = ["ann"], 0
        return self.seen(), {"ann": {}}

    def step(self, actions):
        self.time += 1
        self.agents = ["ann"] if self.time < 3 else []
        return self.seen(), {"ann": 1.0}, {"ann": not self.agents}, {"ann": False}, {"ann": {}}

    def seen(self):
        place = np.array([self.time, 5], np.float32)
        return {"ann": {"observation": {"place": place, "cell": self.time % 3}, "action_mask": AVAILABLE}}


def test_a_nested_observation_with_a_mask_is_played_recorded_and_rewarded():
    rows = [[1, 0, 0, 0, 5], [0, 1, 0, 1, 5], [0, 0, 1, 2, 5]]
    venv = dm2.vectorize(Nested, 2)
    observations, infos = venv.reset(seed=0)
    assert observations.tolist() == [[rows[0]]] * 2
    assert infos["action_mask"].tolist() == [[[True, False, True]]] * 2
    assert venv.step(np.zeros((2, 1), int))[0].tolist() == [[rows[1]]] * 2
    demos = dm2.Demonstrations.record(Nested(), lambda seen: dict.fromkeys(seen, 0), 2)
    assert demos.observations("ann").tolist() == rows * 2
    matcher = dm2.DistributionMatcher(demos, updates=1, batch_size=4, seed=0)
    env = dm2.DM2ParallelEnv(Nested(), matcher, coefficient=1.0)
    env.reset(seed=0)
    paid = [env.step({"ann": 0})[1]["ann"] for _ in range(3)]
    assert paid == pytest.approx((1 + matcher.rewards(np.array(rows, np.float32)[:, None])[:, 0]).tolist())
    dm2.testing.check_dm2_env(env)
