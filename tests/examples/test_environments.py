"""The example on environments of other packages runs and prints its table."""

from __future__ import annotations

from dataclasses import replace

import environments
import numpy as np
import pytest
from _environments import ENVIRONMENTS

import dm2_wrappers as dm2


def test_row_of_the_table(monkeypatch, capsys):
    name = "spread-continuous"
    short = replace(ENVIRONMENTS[name], demonstrations=4, evaluation_episodes=4, num_envs=4)
    monkeypatch.setitem(ENVIRONMENTS, name, short)
    monkeypatch.setattr(environments, "ENVIRONMENTS", {name: short})
    environments.main(environments.Args(env="all", steps=64))
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["environment", "K", "x", "D", "random", "experts", "DM2", "steps", "CPU", "way"]
    cells = row.split()
    assert cells[0] == name
    random, experts = float(cells[4]), float(cells[5])
    assert experts > random
    assert np.isfinite(float(cells[6]))


def test_unknown_environment():
    with pytest.raises(SystemExit, match=r"--env must be all or one of spread, .*, got nowhere"):
        environments.main(environments.Args(env="nowhere"))


@pytest.mark.parametrize("name", ["spread", "spread-continuous"])
def test_random_team_uses_the_whole_action_space(name):
    venv = dm2.vectorize(ENVIRONMENTS[name].make, 2)
    policy = environments.random_team(venv, seed=0)
    observations, infos = venv.reset(seed=0)
    actions = np.stack([policy(observations, infos) for _ in range(100)])
    if venv.discrete:
        assert set(actions.ravel()) == set(range(5))
    else:
        assert actions.shape == (100, 2, 3, 5)
        assert actions.min() >= 0
        assert actions.max() <= 1
        assert actions.std(axis=(0, 1)).min() > 0.2
    venv.step(actions[0])
