"""SMAX scenarios by name, and what is said where JaxMARL or pygame is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import dm2_wrappers as dm2
from dm2_wrappers.envs import smax


def test_an_unknown_scenario_lists_the_nearest():
    with pytest.raises(ValueError, match=r"'5m_vs_5m'; the nearest are .*5m_vs_6m"):
        smax.parallel_env("5m_vs_5m")
    with pytest.raises(ValueError, match=r"'5m_vs_7m'.*5m_vs_6m"):
        dm2.envs.vector_env("smax:5m_vs_7m", 2)
    with pytest.raises(ValueError, match="env_id must be a name, such as 'smax:5m_vs_6m', got 3"):
        dm2.envs.parallel_env(3)
    with pytest.raises(ValueError, match="unknown backend 'smaxx'"):
        dm2.envs.parallel_env("smaxx:3m")


@pytest.mark.parametrize("scenario", smax.scenarios())
def test_every_scenario_can_be_made(scenario):
    env = smax.parallel_env(scenario)
    assert env.env_id == env.metadata["name"] == f"smax:{scenario}"
    assert len(env.possible_agents) == env._vector.smax.num_allies


@pytest.mark.parametrize(
    ("scenario", "agents", "actions", "types"),
    [
        ("3s_vs_4z", 3, 9, [2] * 3 + [3] * 4),
        ("8m_vs_9m", 8, 14, [0] * 17),
        ("2s3z", 5, 10, [2, 2, 3, 3, 3] * 2),
        ("smacv2_5_units", 5, 10, None),
    ],
)
def test_reset_of_other_scenarios(scenario, agents, actions, types):
    venv = dm2.envs.vector_env(scenario, 1)
    observations, infos = venv.reset(seed=0)
    assert observations.shape == (1, agents, *venv.observation_space("ally_0").shape)
    assert observations.dtype == np.float32
    assert infos["action_mask"].shape == (1, agents, actions)
    assert infos["alive"].all()
    assert np.isfinite(observations).all()
    if types is not None:
        assert_array_equal(venv._state.state.unit_types[0], types)


def draw():
    env = smax.parallel_env("3m", render_mode="rgb_array")
    env.reset(seed=0)
    env.render()


@pytest.mark.parametrize(
    ("missing", "use"),
    [
        ("jaxmarl.environments.smax.smax_env", smax.scenarios),
        ("jaxmarl.environments.smax.smax_env", lambda: smax.parallel_env("10m_vs_12m")),
        ("pygame", draw),
    ],
    ids=["scenarios", "parallel_env", "render"],
)
def test_a_missing_extra_names_the_command(monkeypatch, missing, use):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=r"pip install 'dm2-wrappers\[smax\]'"):
        use()
