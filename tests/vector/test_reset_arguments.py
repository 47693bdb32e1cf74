"""Seeds and options of ``reset`` are checked before an environment sees them."""

import numpy as np
import pytest

import dm2_wrappers as dm2
from dm2_wrappers.vector.reset_arguments import sub_env_seeds
from tests.helpers.small_demonstrations import make
from tests.helpers.tiny_envs import TinyEnv


def wide():
    return TinyEnv((5, 5))


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (None, [None, None]),
        (-1, [-1, 0]),  # which not every environment takes
        (3, [3, 4]),
        (np.int64(3), [3, 4]),
        ([7, 1], [7, 1]),
        (np.array([7, 1]), [7, 1]),
        ([7, None], [7, None]),
    ],
)
def test_one_seed_for_each_sub_environment(seed, expected):
    seeds = sub_env_seeds(seed, 2)
    assert seeds == expected
    assert all(one is None or type(one) is int for one in seeds)


@pytest.mark.parametrize(
    ("seed", "match"),
    [
        (True, "seed must be an integer, got True"),
        (1.0, "one for each of 2 sub-environments, got 1.0"),
        ("12", "one for each of 2 sub-environments, got '12'"),
        ([1], "one for each of 2 sub-environments, got 1"),
        ([1, 2.5], "the seed of sub-environment 1 must be None or an integer, got 2.5"),
        ([1, "x"], "the seed of sub-environment 1 must be None"),
        ([True, 1], "the seed of sub-environment 0 must be None"),
    ],
)
def test_other_seeds_are_refused(seed, match):
    with pytest.raises(ValueError, match=match):
        dm2.vectorize(wide, 2).reset(seed=seed)


def test_a_sub_environment_without_a_seed_goes_on_with_its_own_stream():
    venv, whole = dm2.vectorize(wide, 2), dm2.vectorize(wide, 2)
    first, _ = venv.reset(seed=[1, 2])
    whole.reset(seed=[1, 2])
    mixed, _ = venv.reset(seed=[1, None])
    np.testing.assert_array_equal(mixed[0], first[0])
    np.testing.assert_array_equal(mixed[1], whole.reset()[0][1])


@pytest.mark.parametrize("workers", [0, 1])
def test_options_must_be_a_dict(workers):
    venv = dm2.vectorize(wide, 2, workers=workers)
    with pytest.raises(TypeError, match=r"the options of reset\(\) must be a dict or None, got 'easy'"):
        venv.reset(options="easy")
    venv.reset(seed=0, options={"level": 1})  # and the environment, and its worker, live on
    venv.close()


def test_the_wrapper_checks_seed_and_options():
    env = dm2.DM2ParallelEnv(TinyEnv(), make(), coefficient=1.0)
    with pytest.raises(TypeError, match=r"the options of reset\(\) must be a dict or None, got 3"):
        env.reset(options=3)
    with pytest.raises(ValueError, match="seed must be None or an integer, got 'x'"):
        env.reset(seed="x")


def test_a_closed_environment_is_not_drawn():
    venv = dm2.vectorize(wide, 2)
    venv.close()
    with pytest.raises(RuntimeError, match="this vector environment is closed; make a new one"):
        venv.render()
