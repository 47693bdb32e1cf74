"""Demonstrations from arrays of one's own."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from dm2_wrappers import Demonstrations

LEFT, RIGHT = np.arange(8.0).reshape(2, 4), 100 + np.arange(2.0).reshape(2, 1)


def test_observations_alone():
    demos = Demonstrations.from_episodes(
        [{"left": LEFT, "right": RIGHT}, {"right": RIGHT[:1] + 5, "left": LEFT[:1].tolist()}], env_id="toy"
    )
    assert (demos.agents, demos.sizes, demos.env_id, demos.style) == (("left", "right"), (4, 1), "toy", "concurrent")
    np.testing.assert_array_equal(demos.offsets, [[0, 2, 3]] * 2)
    np.testing.assert_array_equal(demos.observations("left"), [*LEFT, LEFT[0]])
    np.testing.assert_array_equal(demos.observations("right"), [[100], [101], [105]])
    assert demos.padded_observations.dtype == np.float32
    assert not demos.padded_observations[:, 1, 1:].any()
    assert demos.win_rate is None
    assert demos.mean_return == 0
    assert (demos.actions.dtype, demos.actions.shape) == (np.int64, (3, 2))


def test_everything_that_can_be_given(tmp_path):
    episode = {
        "observations": {"left": LEFT, "right": [[7], [np.nan]]},
        "actions": {"left": [3, 4], "right": [5, 0]},
        "rewards": [1, 2],
        "alive": {"left": [1, 1], "right": [True, False]},
        "won": True,
    }
    other = {**episode, "rewards": {"left": [0.5, 0.5], "right": [1.5, 1.5]}, "won": np.False_}
    demos = Demonstrations.from_episodes([episode, other, {**episode, "won": 0}], provenance={"by": np.int64(3)})
    assert demos.actions[:2].tolist() == [[3, 5], [4, 0]]
    assert demos.alive[:2].tolist() == [[True, True], [True, False]]
    assert demos.rewards[:4].tolist() == [[1, 1], [2, 2], [0.5, 1.5], [0.5, 1.5]]
    assert demos.won.tolist() == [[1, 0, 0]] * 2
    assert demos.padded_observations[1, 1].tolist() == [0] * 4  # whatever a dead agent's row holds
    assert demos.metadata["policy"] == {"by": 3}
    demos.save(tmp_path / "own.npz")
    assert Demonstrations.load(tmp_path / "own.npz").win_rate == pytest.approx(1 / 3)


def test_continuous_actions_are_padded_and_images_flattened():
    episode = {
        "observations": {"a": np.ones((3, 2, 5)), "b": np.ones((3, 1))},
        "actions": {"a": np.full((3, 2), 0.5), "b": np.ones((3, 1))},
    }
    demos = Demonstrations.from_episodes([episode])
    assert demos.sizes == (10, 1)
    assert demos.actions[0].tolist() == [[0.5, 0.5], [1, 0]]


@pytest.mark.parametrize(
    ("episodes", "message"),
    [
        ([], "list of one or more episodes"),
        ({"a": LEFT}, "list of one or more episodes, got dict"),
        ([LEFT], r"episode 0 must be a dict \{agent: observations \[T, D\]\}, got ndarray"),
        ([{"a": [1.0, 2.0]}], r"episode 0 needs observations \[T, D\] of agent 'a', a row a step, got the shape \(2,\)"),
        ([{"a": LEFT, "b": RIGHT[:1]}], "episode 0 has 2 steps .* 1 observations of 'b'; leave out"),
        (
            [{"a": np.ones((5, 1)), "b": np.ones((2, 1))}],
            "2 observations of 'b'; for an agent that died early add rows of 0",
        ),
        (
            [{"observations": {"a": LEFT}, "actions": {"a": [1]}}],
            r"2 steps .* 1 actions of 'a'; leave out the observation after",
        ),
        ([{"observations": {"a": LEFT}, "actions": {"b": [1, 2]}}], r"observations of \['a'\], but actions of \['b'\]"),
        (
            [{"observations": {"a": LEFT}, "reward": [1, 2]}],
            "unknown key 'reward'; expected some of observations, actions, rewards",
        ),
        (
            [{"observations": {"a": LEFT}, "rewards": [[1], [2]]}],
            r"needs rewards \[T\] of agent 'a', got the shape \(2, 1\)",
        ),
        ([{"observations": {"a": LEFT}, "won": "yes"}], "won of episode 0 must be True, False or None"),
        ([{"observations": {"a": LEFT}, "won": 7}], "won of episode 0 must be True, False or None"),
        ([{"observations": {"a": LEFT}, "alive": [1, 7]}], "alive .* bool"),
        ([{"observations": {}}], "observations of no agent"),
        ([{"a": np.ones((0, 3))}], "episode 0 has no step"),
        ([{"a": LEFT}, {"b": LEFT}], r"every episode needs all agents: episode 0 has \['a'\], episode 1 \['b'\]"),
        ([{"a": LEFT}, {"a": RIGHT}], "'a' has 4 observation features in episode 0, but 1 in episode 1"),
        ([{0: LEFT}], "names, each a string"),
        ([{"a": [["x"]]}], "observations of agent 'a' in episode 0 must be numbers"),
        ([{"a": [[1], [1, 2]]}], "observations of agent 'a' in episode 0 are not an array"),
        ([{"a": np.array([[np.nan]])}], "NaN"),
        (
            [
                {"observations": {"a": LEFT}, "actions": {"a": [1, 2]}},
                {"observations": {"a": LEFT}, "actions": {"a": np.ones((2, 3))}},
            ],
            r"actions of agent 'a' must have one shape in all episodes, got \[T, 3\] and \[T\]",
        ),
        (
            [{"observations": {"a": LEFT, "b": LEFT}, "actions": {"a": [1, 2], "b": np.ones((2, 3))}}],
            "actions must be all discrete",
        ),
    ],
)
def test_episodes_that_do_not_fit_are_one_sentence(episodes, message):
    with pytest.raises(ValueError, match=message):
        Demonstrations.from_episodes(episodes)


def test_the_example_in_the_docstring():
    example = doctest.DocTestFinder().find(Demonstrations.from_episodes, "example", globs={})
    assert doctest.DocTestRunner().run(example[0]).failed == 0


def test_actions_are_known_if_every_episode_has_them():
    with_actions = {"observations": {"a": LEFT}, "actions": {"a": [1, 2]}}
    assert Demonstrations.from_episodes([with_actions, with_actions]).has_actions
    assert not Demonstrations.from_episodes([with_actions, {"observations": {"a": LEFT}}]).has_actions
