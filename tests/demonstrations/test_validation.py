"""What the constructor of ``Demonstrations`` converts, and what it refuses."""

from __future__ import annotations

import enum
from dataclasses import replace

import numpy as np
import pytest

from dm2_wrappers import Demonstrations
from tests.helpers.small_demonstrations import make


def test_lists_and_numpy_numbers_become_what_is_documented(tmp_path):
    plain = make()
    given = replace(
        plain,
        agents=list(np.array(plain.agents)),
        sizes=np.array(plain.sizes, np.int32),
        padded_observations=plain.padded_observations.astype(np.float64).tolist(),
        alive=plain.alive.astype(int).tolist(),
        actions=plain.actions.astype(np.uint8),
        rewards=plain.rewards.astype(int),
        offsets=plain.offsets.astype(np.int16).tolist(),
        won=plain.won.astype(bool),
        metadata={"seed": np.int64(3), "policy": {"rates": (np.float32(0.5), np.array([1, 2])), 7: np.bool_(True)}},
    )
    for name in ("padded_observations", "alive", "actions", "rewards", "offsets", "won"):
        found, expected = getattr(given, name), getattr(plain, name)
        assert found.dtype == expected.dtype, name
        np.testing.assert_array_equal(found, expected, err_msg=name)
    assert given.agents == plain.agents
    assert [type(name) for name in given.agents] == [str, str]
    assert given.sizes == (3, 2)
    assert [type(size) for size in given.sizes] == [int, int]
    assert given.metadata == {"seed": 3, "policy": {"rates": [0.5, [1, 2]], "7": True}}
    given.check_compatible(["agent_0", "agent_1"], [3, 2])
    given.save(tmp_path / "demos.npz")
    assert Demonstrations.load(tmp_path / "demos.npz").metadata["policy"] == given.metadata["policy"]


def test_other_byte_orders_and_continuous_actions():
    demos = replace(make(), padded_observations=make().padded_observations.astype(">f8"), actions=np.ones((9, 2, 2)))
    assert demos.padded_observations.dtype == np.dtype("float32")
    assert demos.actions.dtype == np.dtype("float32")


def test_discrete_actions_are_counted_from_0():
    actions = make().actions.copy()
    step, k = np.argwhere(make().alive)[-1]
    actions[step, k] = -1
    with pytest.raises(ValueError, match=rf"counted from 0, but agent 'agent_{k}' took -1 in row {step}; subtract"):
        replace(make(), actions=actions)
    alive = make().alive.copy()
    alive[step, k] = False  # the dead do nothing, whatever stands there
    assert replace(make(), actions=actions, alive=alive).actions[step, k] == -1
    replace(make(), actions=np.full((9, 2, 2), -1.0))  # continuous


def test_the_shape_of_actions_says_whether_they_are_discrete():
    discrete = replace(make(), actions=np.full((9, 2), 2.0))
    assert discrete.actions.dtype == np.dtype("int64")
    assert replace(make(), actions=np.ones((9, 2, 2), int)).actions.dtype == np.dtype("float32")
    for wrong in (0.5, np.nan):
        with pytest.raises(ValueError, match=r"actions of these demonstrations must be .*int64"):
            replace(make(), actions=np.full((9, 2), wrong))


def test_the_callers_metadata_are_copied():
    mine = {"policy": {"steps": 1}}
    demos = replace(make(), metadata=mine)
    mine["policy"]["steps"] = 2
    assert demos.metadata == {"policy": {"steps": 1}}


class Name(enum.StrEnum):
    ONE = "agent_0"


def changed(name, index, value, dtype=None):
    array = np.array(getattr(make(), name), dtype)
    array[index] = value
    return {name: array}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (changed("won", (0, 0), 7), r"won must hold 1 \(won\), 0 \(lost\) or -1 \(not reported\), got 7"),
        (changed("won", (0, 0), np.nan, float), "won .* int8, but float64 values such as nan"),
        (changed("won", (0, 0), 300, int), "won .* int8, but int64 values such as 300"),
        (changed("padded_observations", (0, 0, 0), 1e39, float), "observations .* beyond float32 .*1e\\+39"),
        (changed("padded_observations", (0, 0, 0), np.inf), "observations .* NaN or infinite"),
        (
            changed("padded_observations", (0, 0, 0), 2**24 + 1, int),
            "observations .* float32, but int64 values such as 16777217",
        ),
        (changed("rewards", (0, 0), 2**24 + 1, int), "rewards .* float32, but int64 values such as 16777217"),
        ({"metadata": {"policy": {1: "x", "1": "y"}}}, r"metadata\['policy'\] has a number and a string .* \[1, '1'\]"),
        ({"metadata": {"positions": [0]}}, "positions .* 2 integers of at least 0, got \\[0\\]"),
        ({"metadata": {"positions": [0, -1]}}, "positions .* 2 integers of at least 0"),
        ({"metadata": {"positions": [0, True]}}, "positions .* 2 integers of at least 0"),
        ({"metadata": {"positions": 3}}, "positions .* 2 integers of at least 0"),
        (changed("rewards", (3, 1), -np.inf), "rewards .* NaN or infinite"),
        (changed("rewards", (3, 1), np.nan), "rewards .* NaN or infinite"),
        (changed("rewards", (3, 1), -1e300, float), "rewards .* beyond float32 .*-1e\\+300"),
        ({"actions": np.full((9, 2, 1), np.nan)}, "actions .* NaN or infinite"),
        ({"actions": np.full((9, 2), 2**63, np.uint64)}, "actions .* int64, but uint64 values such as 9223372036854775808"),
        ({"actions": np.full((9, 2), "left")}, "actions .* must hold numbers, but its dtype is <U4"),
        ({"actions": np.full((9, 2), None)}, "actions .* must hold numbers, but its dtype is object"),
        ({"actions": np.ones((9, 2, 1, 1))}, r"actions .* shape \(9, 2, 1\), but it is \(9, 2, 1, 1\)"),
        ({"rewards": [[1.0], [1.0, 2.0]]}, "rewards .* cannot become one array"),
        ({"rewards": np.ones((9, 2), complex)}, "rewards .* must hold numbers"),
        (changed("alive", (0, 0), 2, int), "alive .* bool, but int64 values such as 2"),
        (changed("offsets", (0, 1), 1.5, float), "offsets .* int64, but float64 values such as 1.5"),
        ({"offsets": [[0, 2, 5, 9], [0, 3, 5, 9]]}, "same offsets for all agents.*'shuffled' or 'mixed'"),
        ({"offsets": [[0, 2, 2, 9]] * 2}, "offsets must rise"),  # an episode without steps
        ({"offsets": [[1, 2, 5, 9]] * 2}, "offsets must rise"),
        ({"offsets": [[0, 2, 5, 10]] * 2}, "offsets must rise"),
        ({"offsets": [[0, 2**62, -(2**62), 9]] * 2}, "offsets must rise"),
        ({"offsets": [0, 9]}, r"offsets must be \[agents, episodes \+ 1\]"),
        ({"agents": (0, 1)}, r"names, each a string, got \[0, 1\]; convert ids with str\(id\)"),
        ({"agents": "ab"}, "names, each a string, got 'ab'"),
        ({"agents": ()}, "names, each a string, got"),
        ({"agents": 5}, "names, each a string, got"),
        ({"agents": ("a", "a")}, "unique agents"),
        ({"sizes": (3, 2.5)}, "each size must be an integer of at least 1, got 2.5"),
        ({"sizes": (3, 0)}, "each size must be an integer of at least 1, got 0"),
        ({"sizes": 3}, "sizes must hold one integer"),
        (
            {"metadata": {"style": "other"}},
            "style of demonstrations must be one of 'concurrent', 'shuffled', 'mixed', got 'other'",
        ),
        ({"metadata": {"style": None}}, "style of demonstrations"),
        ({"metadata": {"env_id": 3}}, "env_id of demonstrations must be a string or None, got 3"),
        ({"metadata": ["tiny"]}, "metadata of demonstrations must be a dict, got list"),
        (
            {"metadata": {"policy": {"model": object()}}},
            r"JSON, which cannot hold a value of type object at metadata\['policy'\]\['model'\]",
        ),
        ({"metadata": {"rate": [1.0, float("nan")]}}, r"JSON, which cannot hold nan at metadata\['rate'\]\[1\]"),
        ({"metadata": {("a", 1): 2}}, r"JSON, whose keys are strings, but metadata has \('a', 1\)"),
    ],
)
def test_what_later_layers_would_choke_on_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(make(), **changes)


def test_offsets_say_the_style_where_the_metadata_do_not(tmp_path):
    assert replace(make(), metadata={}).style == "concurrent"
    own = replace(make(), offsets=[[0, 2, 5, 9], [0, 3, 5, 9]], metadata={})
    assert own.style == "shuffled"
    own.save(tmp_path / "own.npz")
    assert Demonstrations.load(tmp_path / "own.npz").style == "shuffled"


def test_metadata_that_hold_themselves():
    endless: dict = {}
    endless["self"] = endless
    with pytest.raises(ValueError, match="nested too deeply"):
        replace(make(), metadata=endless)


def test_a_name_from_an_enumeration_is_its_string():
    demos = replace(make(), agents=(Name.ONE, "agent_1"))
    assert type(demos.agents[0]) is str
    assert demos.agents[0] == "agent_0"


def test_rows_after_the_last_episode_are_0_and_the_callers_arrays_unchanged():
    given = {
        "padded_observations": np.ones((10, 2, 2), np.float32),
        "alive": np.ones((10, 2), bool),
        "actions": np.ones((10, 2), np.int64),
        "rewards": np.ones((10, 2), np.float32),
    }
    demos = Demonstrations(("a", "b"), (2, 2), **given, offsets=[[0, 5], [0, 7]], won=[[1], [1]])
    for name, array in given.items():
        assert array.all()
        found = getattr(demos, name)
        assert found[:5].all()
        assert not found[5:, 0].any()
        assert found[5:7, 1].all()
        assert not found[7:, 1].any()
    assert demos.mean_return == 6.0
    unplayed = Demonstrations(
        ("a", "b"),
        (2, 2),
        **given | {"actions": given["actions"] * (np.arange(10) >= 7)[:, None]},
        offsets=[[0, 5], [0, 7]],
        won=[[1], [1]],
    )
    assert not unplayed.has_actions
    whole = make()
    assert replace(whole).rewards is whole.rewards  # nothing to clear, nothing copied
