"""Learners that follow Algorithm 1 pass, each in its own way."""

from __future__ import annotations

import pytest

from dm2_wrappers.testing import check_dm2_learner
from dm2_wrappers.testing.__main__ import load
from tests.testing.table_team import Exact, Online, Workers, trains

STEPS = 3_200


@pytest.mark.parametrize(("kind", "exact"), [(Exact, True), (Online, False), (Workers, True)])
def test_an_honest_learner_passes(kind, exact):
    report = check_dm2_learner(trains(kind), steps=STEPS)
    assert report.exact is exact
    assert report.heard == 1.0
    assert 0.5 < report.moved <= 1.0
    assert report.trainings == 8
    assert report.steps == 2 * 3200 + 1600


def test_ippo_with_stable_baselines3_passes():
    pytest.importorskip("stable_baselines3")
    report = check_dm2_learner(load("examples/ippo_sb3.py", "train"), steps=3_840, exact=True)
    assert (report.exact, report.heard, report.trainings) == (True, 1.0, 8)
    assert report.moved > 0.5
