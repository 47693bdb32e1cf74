"""Stopwatches around methods, and the table that a run prints."""

from __future__ import annotations

import contextlib
import re

import _profile
import numpy as np
import pytest
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy

import dm2_wrappers as dm2
from tests.helpers.tiny_envs import HalfWonEnv


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""

    class Clock:
        now = 0.0

        def moves(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr(_profile.time, "perf_counter", lambda: clock.now)
    return clock


class Outer:
    def work(self, clock, inner):
        clock.moves(3)
        inner.work(clock)
        clock.moves(2)
        inner.work(clock)


class Base:
    def work(self, clock):
        clock.moves(7)


class Inner(Base):
    """Inherits what is watched."""


def test_each_second_counts_once_and_the_classes_get_their_methods_back(clock):
    before = Outer.work
    with _profile.Profile() as profile:
        profile.watch("outer", Outer, "work", "missing")
        profile.watch("inner", Inner, "work")
        profile.watch("inner", Inner, "work")  # no second stopwatch
        clock.moves(0.5)
        Outer().work(clock, Inner())
        clock.moves(0.5)
        lines = profile.table().splitlines()
    assert Outer.work is before
    assert "work" not in vars(Inner)
    assert profile.seconds == {"outer": 5, "inner": 14}
    assert [line.split() for line in lines] == [
        ["outer", "25.0", "%", "5.0", "s"],
        ["inner", "70.0", "%", "14.0", "s"],
        ["rest", "5.0", "%", "1.0", "s"],
        ["total", "100.0", "%", "20.0", "s"],
    ]


def test_a_stopwatch_stops_at_an_error(clock):
    class Failing:
        def work(self):
            clock.moves(1)
            raise KeyError

    with _profile.Profile() as profile:
        profile.watch("failing", Failing, "work")
        with contextlib.suppress(KeyError):
            Failing().work()
        clock.moves(5)
        assert "rest" in profile.table()
    assert profile.seconds["failing"] == 1


def team():
    demos = dm2.Demonstrations.record(HalfWonEnv(), lambda observations: dict.fromkeys(observations, 0), 2, seed=0)
    return dm2.sb3.IndependentLearners(
        MaskablePPO,
        dm2.vectorize(HalfWonEnv, 2),
        matcher=dm2.DistributionMatcher(demos, updates=2, batch_size=8, seed=0),
        coefficient=0.3,
        seed=0,
        n_steps=8,
        batch_size=8,
        n_epochs=1,
        device="cpu",
    )


def test_a_profiled_team_learns_the_same_and_every_part_has_time(capsys):
    teams = {wanted: team() for wanted in (False, True)}
    for wanted, each in teams.items():
        with _profile.printed(wanted, each, each.env):
            each.learn(16)
        lines = capsys.readouterr().out.split("\n")
        rows = {line.split()[0]: float(re.search(r"([\d.]+) %", line).group(1)) for line in lines if line}
        assert set(rows) == ({"environment", "policies", "learning", "discriminators", "rest", "total"} if wanted else set())
        assert all(share > 0 for share in rows.values())
    weights = [
        np.concatenate([p.detach().numpy().ravel() for p in each.models["agent_0"].policy.parameters()])
        for each in teams.values()
    ]
    np.testing.assert_array_equal(*weights)
    assert not hasattr(MaskableActorCriticPolicy.forward, "watched_by")
    assert "predict" not in vars(MaskableActorCriticPolicy) or not hasattr(MaskableActorCriticPolicy.predict, "watched_by")
