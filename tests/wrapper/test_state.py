"""Saving and loading a wrapper's state."""

import copy

import numpy as np
import pytest

import dm2_wrappers as dm2
from tests.helpers.wrapped import (
    paid_for,
    scheduled,
)


def test_a_wrapper_that_takes_over_a_state_goes_on_as_the_saved_one():
    one = scheduled()
    paid_for(one, 12)
    one.update()
    paid_for(one, 5)  # not handed to the matcher yet
    state = copy.deepcopy(one.state_dict())
    two = scheduled()
    paid_for(two, 3)  # forgotten
    two.load_state_dict(state)
    assert two.current_coefficient == one.current_coefficient != scheduled().current_coefficient
    for env in (one, two):
        env.reset(seed=7)
    assert paid_for(one, 5) == paid_for(two, 5)
    assert one.update() == two.update()
    assert paid_for(one, 10) == paid_for(two, 10)


@pytest.mark.parametrize("state", [None, {}, {"matcher": {}}, "a.pt", [1]])
def test_what_is_no_state_of_a_wrapper_is_refused_and_nothing_is_lost(state):
    one, other = scheduled(), scheduled()
    for env in (one, other):
        paid_for(env, 12)
    with pytest.raises(ValueError, match=r"expected what state_dict\(\) of a DM2 wrapper returned, with the keys"):
        one.load_state_dict(state)
    with pytest.raises(ValueError, match="the saved state of the matcher is damaged: it lacks 'discriminators'"):
        one.load_state_dict({"matcher": {}, "schedule": {}})
    with pytest.raises(ValueError, match=r"expected what state_dict\(\) of a matcher returned, got NoneType"):
        one.matcher.load_state_dict(None)
    assert one.update() == other.update()  # of the same steps


def test_a_state_with_another_schedule_changes_nothing():
    one, two = scheduled(), scheduled(coefficient=dm2.schedules.Constant(0.5))
    paid_for(one, 12)
    one.update()
    before = two.matcher.rewards(np.ones((1, 2, 4), np.float32))
    assert (before != one.matcher.rewards(np.ones((1, 2, 4), np.float32))).any()
    with pytest.raises(ValueError, match="schedule"):
        two.load_state_dict(one.state_dict())
    np.testing.assert_array_equal(two.matcher.rewards(np.ones((1, 2, 4), np.float32)), before)


def test_updates_say_which_c_the_next_steps_are_paid_with():
    one = scheduled()
    paid_for(one, 12)
    metrics = one.update()
    assert {agent: metrics[f"coefficient/{agent}"] for agent in one.possible_agents} == one.current_coefficient
    assert one.current_coefficient != scheduled().current_coefficient
