"""Checks of arguments: flags, dicts and file names."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from dm2_wrappers import _checks


@pytest.mark.parametrize("given", [[True, False], np.array([1, 0]), [1.0, 0.0], (np.True_, np.False_), torch.tensor([1, 0])])
def test_flags_become_a_new_array_of_bool(given):
    flags = _checks.flags("alive", given)
    assert flags.dtype == bool
    assert flags.tolist() == [True, False]
    if isinstance(given, np.ndarray):
        flags[0] = False
        assert given[0] == 1


@pytest.mark.parametrize(
    "given", [[0.5, 1.0], [2, 0], ["yes", "no"], [np.nan, 1.0], [None, True], [1j, 0], [[True], [True, False]], "yes"]
)
def test_what_is_neither_true_nor_false_is_no_flag(given):
    with pytest.raises(ValueError, match="alive must hold True or False, got "):
        _checks.flags("alive", given)


def test_flags_of_another_shape():
    assert _checks.flags("ended", [True], (1,)).shape == (1,)
    with pytest.raises(ValueError, match=r"expected ended of shape \(2,\), got \(1,\); give one flag each"):
        _checks.flags("ended", [True], (2,))
    with pytest.raises(ValueError, match=r"got \(\)"):
        _checks.flags("ended", True, (1,))


def test_mappings():
    given = {"map": 3}
    assert _checks.mapping("options", given) == given
    assert _checks.mapping("options", given) is not given
    assert _checks.mapping("options", None) is None
    with pytest.raises(TypeError, match="options must be a dict or None, got 'map'"):
        _checks.mapping("options", "map")


@pytest.mark.parametrize("given", ["a/b.npz", Path("a/b.npz")])
def test_paths(given):
    assert _checks.path("path", given) == Path("a/b.npz")


@pytest.mark.parametrize("given", [None, 3, b"a", ["a"]])
def test_no_paths(given):
    with pytest.raises(TypeError, match=r"path must be the name of a file, a string or a pathlib\.Path, got "):
        _checks.path("path", given)


def test_long_values_are_cut():
    assert _checks.shown("a\nb") == "'a\\nb'"
    assert len(_checks.shown("a" * 200)) == 80


def test_fixed_attributes():
    class Team:
        order = _checks.Fixed[str]()

    team = Team()
    with pytest.raises(AttributeError, match="'Team' object has no attribute 'order'"):
        _ = team.order
    assert not hasattr(team, "order")
    team.order, other = "turn", Team()
    other.order = "simultaneous"
    with pytest.raises(AttributeError, match="order cannot be changed once Team is made: make a new Team"):
        team.order = "other"
    assert (team.order, other.order, copy.deepcopy(team).order) == ("turn", "simultaneous", "turn")
    assert isinstance(Team.order, _checks.Fixed)
