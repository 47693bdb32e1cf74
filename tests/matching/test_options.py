"""The checks of a matcher's options, and what a checkpoint keeps of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dm2_wrappers.matching.matcher import DistributionMatcher
from tests.helpers.tiny_matchers import make


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"updates": 0}, "updates"),
        ({"updates": 1.5}, "updates"),
        ({"updates": True}, "updates"),
        ({"batch_size": 0}, "batch_size"),
        ({"buffer_size": -1}, "buffer_size"),
        ({"reward": "log(D)"}, r"-log\(1-D\)"),
        ({"learning_rate": -1e-3}, "learning_rate"),
        ({"gradient_penalty": -1}, "gradient_penalty"),
        ({"hidden": ()}, "hidden"),
        ({"device": "abacus"}, "device"),
    ],
)
def test_options_that_cannot_work_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        make(**options)


def test_options_become_plain_numbers_and_strings():
    options = make(updates=np.int64(4), learning_rate=np.float32(0.5), hidden=(np.int32(8), 9), seed=np.int64(3)).options
    assert json.loads(json.dumps(options)) == options
    assert (options["updates"], options["learning_rate"], options["hidden"], options["seed"]) == (4, 0.5, [8, 9], 3)
    assert not {"action_spaces", "max_steps", "self_imitation"} & set(options)
    assert make(ends="absorbing", max_steps=np.int64(7)).options["max_steps"] == 7


def test_the_gradient_penalty_depends_on_the_scale_unless_it_is_given():
    assert make().options["gradient_penalty"] == 10
    assert make(standardize=True).options["gradient_penalty"] == 1
    assert make(standardize=True, gradient_penalty=3).options["gradient_penalty"] == 3


def test_a_path_is_not_taken_for_demonstrations():
    with pytest.raises(TypeError, match=r"needs Demonstrations, got str; read a file with Demonstrations\.load"):
        DistributionMatcher("experts.npz")
